//! Lists the images that the engine holds, and pulls images ahead of time for queued cells.
//!
//! The agent reports the held images to the coordinator, which prefers agents that already hold a cell's images. A
//! failed pull here is not an error: the cell that needs the image pulls it again and reports the reason if that fails.

use crate::link::actor::{Handle, Prefetcher};
use crate::runtime::docker::DockerRuntime;
use phalanx_proto::limit::IMAGES;
use std::sync::{Arc, OnceLock};
use tokio_util::task::TaskTracker;

/// Maximum number of image names that an agent reports. Cells find out about other images when they need them.
const TOLD: usize = if IMAGES < 4096 { IMAGES } else { 4096 };
/// Name prefix of images that Phalanx built. Specs never refer to them by that name.
const BUILT: &str = "phalanx-build:";

/// The images held by one engine.
pub struct Images {
    engine: Arc<DockerRuntime>,
    /// Receives changes; set once the link runs.
    link: OnceLock<Handle>,
    pulls: TaskTracker,
}

impl Images {
    /// Creates the view of an engine's images.
    pub fn of(engine: Arc<DockerRuntime>) -> Arc<Images> {
        Arc::new(Images {
            engine,
            link: OnceLock::new(),
            pulls: TaskTracker::new(),
        })
    }

    /// Reports changes to this link from now on.
    pub fn tell(&self, link: Handle) {
        // Ignores a second link, which would belong to a second agent.
        let _ = self.link.set(link);
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

    async fn pull(self: Arc<Self>, image: String) {
        if let Err(error) = self.engine.prefetch(&image).await {
            tracing::info!(image, %error, "not pulled ahead; the cell that needs it tries again");
            return;
        }
        if let Some(link) = self.link.get() {
            link.holds_images(self.held().await).await;
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

/// Pulls each requested image in a task of its own.
pub struct Ahead(pub Arc<Images>);

impl Prefetcher for Ahead {
    fn prefetch(&self, images: Vec<String>) {
        for image in images {
            self.0.pulls.spawn(Arc::clone(&self.0).pull(image));
        }
    }
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
