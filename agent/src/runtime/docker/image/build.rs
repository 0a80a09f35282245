//! Builds an image with the engine's classic builder.
//!
//! The image's tag is derived from its inputs (context, Dockerfile, arguments, base images). So an image is not built
//! twice, and two cells that build different images with the same name can't get each other's. A name given in the spec
//! is set in addition. The builder removes its intermediate containers even if the agent dies: the build ends with the
//! connection.

use super::Ready;
use super::{auth, context, dockerfile, reference};
use crate::beneath::Place;
use crate::clock::Stopwatch;
use crate::runtime::contract::{AttemptScope, Fault, Prepared, RuntimeError};
use crate::runtime::docker::client::Engine;
use crate::runtime::docker::error::{runtime, said};
use crate::runtime::docker::mounts;
use crate::runtime::docker::settings::DockerSettings;
use bollard::models::BuildInfo;
use bollard::query_parameters::{BuildImageOptions, TagImageOptionsBuilder};
use futures::StreamExt;
use phalanx_shared::language::service::{Build, PullPolicy, ServiceConfig};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio_util::io::ReaderStream;

/// Path in the context of a Dockerfile that is written in the spec.
const INLINE: &str = ".phalanx.Dockerfile";
/// Maximum size of a Dockerfile, in bytes.
const MAX_DOCKERFILE: u64 = 1024 * 1024;
/// Number of output lines shown when a build fails.
const LAST_LINES: usize = 25;
/// Maximum characters kept of one output line.
const LONGEST_LINE: usize = 16_384;

/// Describes a build.
pub(super) struct Order {
    build: Build,
    place: Context,
    /// Image name given in the spec.
    name: Option<String>,
    platform: Option<String>,
    /// Whether to build even if an image with the same inputs exists.
    anew: bool,
}

/// Location of the context.
enum Context {
    Directory(Place),
    /// URL that the engine fetches.
    Remote(String),
}

/// Why an image can't be built from the context that the service names.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidBuild {
    #[error("a context behind a URL can't take `dockerfile_inline`; the engine fetches it")]
    InlineForUrl,
    #[error("{0}")]
    Scratch(io::Error),
    #[error("context {0}: {1}")]
    Misplaced(String, mounts::Misplaced),
    #[error("context {0} is not a directory: {1}")]
    NoDirectory(String, io::Error),
}

impl Order {
    pub fn new(config: &ServiceConfig, scope: &AttemptScope) -> Result<Order, InvalidBuild> {
        let build = config.build.clone().unwrap_or_default();
        let place = match is_remote(&build.context) {
            true if build.dockerfile_inline.is_some() => {
                return Err(InvalidBuild::InlineForUrl);
            }
            true => Context::Remote(build.context.clone()),
            false => {
                let written = match build.context.as_str() {
                    "" => ".",
                    other => other,
                };
                // A Dockerfile in the spec may need no context at all.
                let place = match (&scope.workspace, &build.dockerfile_inline) {
                    (None, Some(_)) if written == "." => {
                        let empty = scope.scratch.join("empty-context");
                        std::fs::create_dir_all(&empty).map_err(InvalidBuild::Scratch)?;
                        Place::new(empty, "")
                    }
                    (workspace, _) => {
                        mounts::in_workspace(written, workspace.as_deref())
                            .map_err(|why| InvalidBuild::Misplaced(written.to_owned(), why))?;
                        let root = workspace.as_deref().unwrap_or(Path::new("/"));
                        Place::new(root, "").join(written)
                    }
                };
                if let Err(error) = place.open() {
                    return Err(InvalidBuild::NoDirectory(written.to_owned(), error));
                }
                Context::Directory(place)
            }
        };
        Ok(Order {
            anew: config.pull_policy == PullPolicy::Build || build.no_cache || build.pull,
            build,
            place,
            name: config.image.clone(),
            platform: config.platform.clone(),
        })
    }

    /// Returns a digest that distinguishes the builds of one run.
    pub fn identity(&self) -> String {
        let place = match &self.place {
            Context::Directory(place) => place.display(),
            Context::Remote(url) => url.clone(),
        };
        digest(&[
            &place,
            &format!("{:?}", self.build),
            &format!("{:?} {:?}", self.name, self.platform),
        ])
    }
}

fn is_remote(context: &str) -> bool {
    context.contains("://") || context.starts_with("git@") || context.starts_with("github.com/")
}

fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hex::encode(hash.finalize())
}

/// Builds the image unless one with the same inputs exists.
pub(super) async fn build(
    engine: Engine,
    settings: DockerSettings,
    order: Order,
) -> Result<Ready, RuntimeError> {
    let limit = Duration::from_secs(settings.build_timeout_s);
    let mut last = VecDeque::new();
    match tokio::time::timeout(limit, building(&engine, &settings, &order, &mut last)).await {
        Ok(answer) => answer,
        Err(_) => Err(RuntimeError::new(
            Fault::Image,
            format!(
                "build: not done within {} s; raise `build_timeout_s` or build the image beforehand. Its last lines:\n{}",
                limit.as_secs(),
                joined(&last)
            ),
        )),
    }
}

async fn building(
    engine: &Engine,
    settings: &DockerSettings,
    order: &Order,
    last: &mut VecDeque<String>,
) -> Result<Ready, RuntimeError> {
    let began = Stopwatch::start();
    let inputs = inputs(engine, order).await?;
    let tag = format!(
        "{}:{}",
        super::built::REPOSITORY,
        inputs.digest.get(..20).unwrap_or(&inputs.digest)
    );
    let name = order.name.clone().unwrap_or_else(|| tag.clone());
    let there = engine
        .ask(|| engine.docker.inspect_image(&tag))
        .await
        .is_ok();
    if there && !order.anew && !matches!(order.place, Context::Remote(_)) {
        set_name(engine, &tag, order).await?;
        return Ok((tag, None));
    }
    let mut credentials = HashMap::new();
    for base in &inputs.bases {
        let registry = reference::registry(base);
        let found = auth::credentials(settings.docker_config().as_deref(), registry)
            .await
            .map_err(|why| RuntimeError::new(Fault::Image, format!("build: {why}")))?;
        if let Some(found) = found {
            credentials.insert(registry.to_owned(), found);
        }
    }
    let body = inputs.archive.map(|archive| {
        bollard::body_try_stream(ReaderStream::new(tokio::fs::File::from_std(archive)))
    });
    // bollard requires a body even if the engine fetches the context.
    let body = body.unwrap_or_else(|| bollard::body_full(bytes::Bytes::new()));
    let options = options(order, &tag);
    let stream = engine
        .docker
        .build_image(options, Some(credentials), Some(body));
    let mut stream = std::pin::pin!(stream);
    while let Some(info) = stream.next().await {
        match info {
            Ok(info) => note(last, info),
            Err(error) => {
                return Err(RuntimeError::new(
                    Fault::Image,
                    format!(
                        "building {name} failed: {}. Its last lines:\n{}",
                        said(&error),
                        joined(last)
                    ),
                ));
            }
        }
    }
    // The stream also ends without an error if the connection breaks in the middle.
    if let Err(error) = engine.ask(|| engine.docker.inspect_image(&tag)).await {
        return Err(RuntimeError::new(
            Fault::Image,
            format!(
                "building {name} ended without an image: {}. Its last lines:\n{}",
                said(&error),
                joined(last)
            ),
        ));
    }
    set_name(engine, &tag, order).await?;
    let detail = format!("{name}, built in {:.1}s", began.elapsed().as_secs_f64());
    Ok((tag, Some(Prepared::Built(detail))))
}

/// The inputs of an image.
struct Inputs {
    digest: String,
    bases: Vec<String>,
    archive: Option<std::fs::File>,
}

async fn inputs(engine: &Engine, order: &Order) -> Result<Inputs, RuntimeError> {
    let errored = |why: String| RuntimeError::new(Fault::Image, format!("build: {why}"));
    let settled = format!("{:?} {:?}", order.build, order.platform);
    let Context::Directory(directory) = &order.place else {
        return Ok(Inputs {
            digest: digest(&[&settled]),
            bases: Vec::new(),
            archive: None,
        });
    };
    let path = dockerfile_path(&order.build);
    let opened = directory.open();
    let opened = opened.map_err(|error| errored(format!("{}: {error}", directory.display())))?;
    let text = match &order.build.dockerfile_inline {
        Some(text) => text.clone(),
        None => {
            let read = opened.read(Path::new(&path), MAX_DOCKERFILE);
            let read = read
                .map_err(|error| errored(format!("{path} in {}: {error}", directory.display())))?;
            String::from_utf8_lossy(&read).into_owned()
        }
    };
    let shown = match order.build.dockerfile_inline {
        Some(_) => "dockerfile_inline",
        None => path.as_str(),
    };
    if let Some(why) = dockerfile::beyond_classic(shown, &text) {
        return Err(errored(why));
    }
    let packed = {
        let path = path.clone();
        let inline = order.build.dockerfile_inline.clone();
        tokio::task::spawn_blocking(move || {
            let extra: Vec<(&str, &str)> =
                inline.iter().map(|text| (INLINE, text.as_str())).collect();
            context::pack(&opened, &[path.as_str(), ".dockerignore"], &extra)
        })
        .await
        .map_err(|panic| errored(panic.to_string()))?
        .map_err(|error| errored(error.to_string()))?
    };
    let bases = dockerfile::bases(&text);
    let mut parts = vec![packed.digest.clone(), settled];
    for base in &bases {
        // A base image that was replaced meanwhile gives a different image.
        let found = engine.ask(|| engine.docker.inspect_image(base)).await;
        parts.push(found.ok().and_then(|image| image.id).unwrap_or_default());
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    Ok(Inputs {
        digest: digest(&parts),
        bases,
        archive: Some(packed.archive),
    })
}

fn dockerfile_path(build: &Build) -> String {
    match (&build.dockerfile_inline, &build.dockerfile) {
        (Some(_), _) => INLINE.to_owned(),
        (None, Some(path)) => path.trim_start_matches("./").to_owned(),
        (None, None) => "Dockerfile".to_owned(),
    }
}

fn options(order: &Order, tag: &str) -> BuildImageOptions {
    let build = &order.build;
    let args: HashMap<String, String> = build
        .args
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), value.clone()?)))
        .collect();
    let labels: HashMap<String, String> = build
        .labels
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    BuildImageOptions {
        dockerfile: match order.place {
            Context::Remote(_) => build
                .dockerfile
                .clone()
                .unwrap_or_else(|| "Dockerfile".to_owned()),
            Context::Directory(_) => dockerfile_path(build),
        },
        t: Some(tag.to_owned()),
        remote: match &order.place {
            Context::Remote(url) => Some(url.clone()),
            Context::Directory(_) => None,
        },
        nocache: build.no_cache,
        pull: build.pull.then(|| "1".to_owned()),
        rm: true,
        forcerm: true,
        buildargs: (!args.is_empty()).then_some(args),
        labels: (!labels.is_empty()).then_some(labels),
        networkmode: build.network.clone(),
        platform: order.platform.clone().unwrap_or_default(),
        target: build.target.clone().unwrap_or_default(),
        ..BuildImageOptions::default()
    }
}

async fn set_name(engine: &Engine, tag: &str, order: &Order) -> Result<(), RuntimeError> {
    let Some(name) = &order.name else {
        return Ok(());
    };
    let full = reference::tagged(name);
    let (repo, version) = full.rsplit_once(':').unwrap_or((&full, "latest"));
    let options = TagImageOptionsBuilder::default()
        .repo(repo)
        .tag(version)
        .build();
    engine
        .ask(|| engine.docker.tag_image(tag, Some(options.clone())))
        .await
        .map_err(|error| runtime(&format!("naming the built image {name}"), &error))
}

fn note(last: &mut VecDeque<String>, info: BuildInfo) {
    let Some(text) = info.stream.or(info.status) else {
        return;
    };
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        tracing::debug!(line, "build");
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        // The line is shortened further where it is masked for display.
        last.push_back(line.chars().take(LONGEST_LINE).collect());
    }
}

fn joined(last: &VecDeque<String>) -> String {
    last.iter().cloned().collect::<Vec<_>>().join("\n")
}
