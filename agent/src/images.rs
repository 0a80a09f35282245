//! Lists the images that the engine holds, which the agent reports to the coordinator.

use crate::runtime::docker::DockerRuntime;
use phalanx_proto::limit::IMAGES;
use std::sync::Arc;

/// Maximum number of image names that an agent reports. Cells find out about other images when they need them.
const TOLD: usize = if IMAGES < 4096 { IMAGES } else { 4096 };
/// Name prefix of images that Phalanx built. Specs never refer to them by that name.
const BUILT: &str = "phalanx-build:";

/// The images held by one engine.
pub struct Images {
    engine: Arc<DockerRuntime>,
}

impl Images {
    /// Creates the view of an engine's images.
    pub fn of(engine: Arc<DockerRuntime>) -> Arc<Images> {
        Arc::new(Images { engine })
    }

    /// Returns the names of the images that the engine holds, or an empty list if the engine fails to answer.
    pub async fn held(&self) -> Vec<String> {
        match self.engine.images_present().await {
            Ok(names) => told(names),
            Err(error) => {
                tracing::debug!(%error, "which images the engine holds isn't known");
                Vec::new()
            }
        }
    }
}

/// Adds the names by which a spec may refer to an image: `x:latest` is also `x`. Drops Phalanx's own builds.
fn told(names: Vec<String>) -> Vec<String> {
    let names = names.into_iter().filter(|name| !name.starts_with(BUILT));
    let both = names.flat_map(|name| {
        let short = name.strip_suffix(":latest").map(str::to_owned);
        std::iter::once(name).chain(short)
    });
    both.take(TOLD).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latest_goes_without_saying_and_what_was_built_here_is_not_told() {
        let held = ["a:1", "b:latest", "phalanx-build:0123"].map(str::to_owned);
        assert_eq!(told(held.to_vec()), ["a:1", "b:latest", "b"]);
    }
}
