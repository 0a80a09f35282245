//! Pulls an image with the user's credentials. Retries with growing pauses if the network or the registry fails, within
//! a deadline.

use super::trace::Layers;
use super::{Doing, Ready};
use super::{auth, reference};
use crate::clock::Stopwatch;
use crate::runtime::contract::{Fault, Prepared, RuntimeError};
use crate::runtime::docker::client::Engine;
use crate::runtime::docker::error::{Said, judge, runtime, said, status};
use crate::runtime::docker::lock::lock;
use crate::runtime::docker::settings::DockerSettings;
use bollard::auth::DockerCredentials;
use bollard::errors::Error;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::StreamExt;
use std::sync::Mutex;
use std::time::Duration;

/// Returns whether the engine has the image (for that platform, if one is given).
pub(super) async fn present(
    engine: &Engine,
    image: &str,
    platform: Option<&str>,
) -> Result<bool, RuntimeError> {
    match engine.ask(|| engine.docker.inspect_image(image)).await {
        Ok(found) => Ok(platform.is_none_or(|wanted| {
            let os = found.os.unwrap_or_default();
            let arch = found.architecture.unwrap_or_default();
            let is = format!("{os}/{arch}");
            wanted == is || wanted.starts_with(&format!("{is}/")) || wanted == os
        })),
        Err(error) if status(&error) == Some(404) => Ok(false),
        Err(error) => Err(runtime(&format!("looking for image {image}"), &error)),
    }
}

/// Pulls an image.
pub(super) async fn pull(
    engine: Engine,
    settings: DockerSettings,
    image: String,
    platform: Option<String>,
    doing: Doing,
) -> Result<Ready, RuntimeError> {
    let limit = Duration::from_secs(settings.pull_timeout_s);
    let progress = Progress {
        layers: Mutex::default(),
        doing,
    };
    let began = Stopwatch::start();
    let pulling = tries(&engine, &settings, &image, platform.as_deref(), &progress);
    match tokio::time::timeout(limit, pulling).await {
        Ok(Ok(())) => {
            let detail = format!("{image}, pulled in {:.1}s", began.elapsed().as_secs_f64());
            Ok((image.clone(), Some(Prepared::Pulled { image, detail })))
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(RuntimeError::new(
            Fault::Image,
            format!(
                "pulling {image}: not done within {} s ({}); raise `pull_timeout_s` or pull it beforehand",
                limit.as_secs(),
                progress.summary()
            ),
        )),
    }
}

async fn tries(
    engine: &Engine,
    settings: &DockerSettings,
    image: &str,
    platform: Option<&str>,
    progress: &Progress,
) -> Result<(), RuntimeError> {
    let what = format!("pulling {image}");
    let credentials = auth::credentials(
        settings.docker_config().as_deref(),
        reference::registry(image),
    )
    .await
    .map_err(|why| RuntimeError::new(Fault::Image, format!("{what}: {why}")))?;
    let mut pause = Duration::from_millis(500);
    let mut tried = 0;
    loop {
        tried += 1;
        let failed = match once(engine, image, platform, credentials.clone(), progress).await {
            Ok(()) => return Ok(()),
            Err(failed) => failed,
        };
        let said = failed.to_string();
        if failed.is_final() || tried >= settings.pull_tries.max(1) {
            let tries = if tried > 1 {
                format!(" ({tried} tries)")
            } else {
                String::new()
            };
            // Whatever stopped a pull, the system under test hasn't been judged.
            let reason = judge(&format!("{what}{tries}"), &said).reason;
            return Err(RuntimeError::new(Fault::Image, reason));
        }
        tracing::warn!(image, tried, said, "pull failed; trying again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(30));
    }
}

/// How one try to pull an image failed.
#[derive(Debug, thiserror::Error)]
enum PullFailed {
    /// The engine refused, or the connection broke.
    #[error("{}", said(.0))]
    Broken(Error),
    /// The pull ended, and the engine doesn't have the image.
    #[error("it is not there after the pull: {}", said(.0))]
    NotThere(Error),
}

impl PullFailed {
    /// Returns whether another try won't help.
    fn is_final(&self) -> bool {
        let (PullFailed::Broken(error) | PullFailed::NotThere(error)) = self;
        Said::PullIsHopeless.is_in(error)
    }
}

async fn once(
    engine: &Engine,
    image: &str,
    platform: Option<&str>,
    credentials: Option<DockerCredentials>,
    progress: &Progress,
) -> Result<(), PullFailed> {
    let full = reference::tagged(image);
    let options = CreateImageOptionsBuilder::default()
        .from_image(&full)
        .platform(platform.unwrap_or_default())
        .build();
    let stream = engine.docker.create_image(Some(options), None, credentials);
    let mut stream = std::pin::pin!(stream);
    while let Some(line) = stream.next().await {
        progress.note(image, line.map_err(PullFailed::Broken)?);
    }
    // The stream also ends without an error if the connection breaks in the middle.
    let there = engine.ask(|| engine.docker.inspect_image(image)).await;
    there.map(drop).map_err(PullFailed::NotThere)
}

/// Progress of a pull.
struct Progress {
    layers: Mutex<Layers>,
    doing: Doing,
}

impl Progress {
    fn note(&self, image: &str, line: CreateImageInfo) {
        let (Some(layer), Some(status)) = (line.id, line.status) else {
            return;
        };
        tracing::trace!(image, layer, status, "pull");
        let bytes = line.progress_detail;
        let bytes = bytes.and_then(|detail| Some((detail.current?, detail.total?)));
        let mut layers = lock(&self.layers);
        layers.note(&layer, &status, bytes);
        let summary = layers.summary();
        self.doing.set(summary.clone(), summary);
    }

    fn summary(&self) -> String {
        lock(&self.layers).summary()
    }
}
