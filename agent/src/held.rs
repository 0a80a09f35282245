//! Which images of an earlier run this machine's engine has, or gets by their digest, for `phalanx repro`.

use crate::gc;
use crate::runtime::contract::RuntimeError;
use crate::runtime::docker::{DockerRuntime, DockerSettings, Unusable};
use futures::future::BoxFuture;
use phalanx_shared::language::service::image::is_id;
use std::collections::BTreeMap;

/// Whether an engine has an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// It has it.
    Here,
    /// It lacks it. A registry may still have the digest.
    Away,
    /// It lacks it and can't get it, for this reason.
    Gone(String),
}

/// Looks for images: references with digests, or an engine's ids. With `pull`, those that a registry may have are
/// pulled.
///
/// # Errors
/// No engine answers.
pub fn look<'a>(
    docker: &'a DockerSettings,
    images: &'a [String],
    pull: bool,
) -> BoxFuture<'a, Result<BTreeMap<String, Held>, Unusable>> {
    Box::pin(async move {
        let engine = gc::connect(docker).await?;
        let mut found = BTreeMap::new();
        for image in images {
            let held = one(&engine, image, pull).await;
            let held = held.unwrap_or_else(|error| Held::Gone(error.reason));
            found.insert(image.clone(), held);
        }
        Ok(found)
    })
}

async fn one(engine: &DockerRuntime, image: &str, pull: bool) -> Result<Held, RuntimeError> {
    if engine.has(image).await? {
        return Ok(Held::Here);
    }
    if is_id(image) {
        let why = "this engine doesn't have it, and no registry knows an engine's id";
        return Ok(Held::Gone(why.to_owned()));
    }
    if pull {
        engine.prefetch(image).await?;
        return Ok(Held::Here);
    }
    Ok(Held::Away)
}
