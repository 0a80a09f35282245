//! Which images the engine holds, and pulling those that queued cells will need.
//!
//! What is held is told to the coordinator, which prefers agents that hold a cell's images. A pull that fails here is no error:
//! the cell that needs the image asks for it again, and tells why it can't be had.

use crate::link::actor::{Handle, Prefetcher};
use crate::runtime::docker::DockerRuntime;
use phalanx_proto::limit::IMAGES;
use std::sync::{Arc, OnceLock};
use tokio_util::task::TaskTracker;

/// Names that an agent tells at most; the rest is found out when it is needed.
const TOLD: usize = if IMAGES < 4096 { IMAGES } else { 4096 };
/// How images that this program built are named: no spec asks for them by that.
const BUILT: &str = "phalanx-build:";

/// The images of one engine.
pub struct Images {
    engine: Arc<DockerRuntime>,
    /// Whom to tell of changes; known once the link runs.
    link: OnceLock<Handle>,
    pulls: TaskTracker,
}

impl Images {
    /// Of an engine.
    pub fn of(engine: Arc<DockerRuntime>) -> Arc<Images> {
        Arc::new(Images {
            engine,
            link: OnceLock::new(),
            pulls: TaskTracker::new(),
        })
    }

    /// From now on changes are told to the link.
    pub fn tell(&self, link: Handle) {
        // A second link would be a second agent.
        let _ = self.link.set(link);
    }

    /// The names of what the engine holds; none if it doesn't say.
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

/// What a spec may call the images: `x:latest` is also `x`.
fn told(names: Vec<String>) -> Vec<String> {
    let names = names.into_iter().filter(|name| !name.starts_with(BUILT));
    let both = names.flat_map(|name| {
        let short = name.strip_suffix(":latest").map(str::to_owned);
        std::iter::once(name).chain(short)
    });
    both.take(TOLD).collect()
}

/// Gives each wanted image to a task of its own.
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
