//! Builds an image in the engine: with BuildKit if the engine has it, else with the classic builder.
//!
//! Both get the context as the body of the request, so that a large one isn't held in memory. BuildKit gets secrets, SSH
//! agents and registry credentials through a [`super::session`].
//!
//! The image's tag is derived from its inputs (context, Dockerfile, arguments, base images). So an image is not built
//! twice, and two cells that build different images with the same name can't get each other's. A name given in the spec
//! is set in addition. The builder removes its intermediate containers even if the agent dies: the build ends with the
//! connection.

use super::dockerfile::{Fetched, Stage};
use super::session::{Given, Session};
use super::trace::Steps;
use super::{Doing, Ready};
use super::{auth, context, dockerfile, reference};
use crate::beneath::Place;
use crate::clock::Stopwatch;
use crate::policy::Policy;
use crate::runtime::contract::{AttemptScope, Fault, Prepared, RuntimeError};
use crate::runtime::docker::client::Engine;
use crate::runtime::docker::error::{runtime, said};
use crate::runtime::docker::mounts;
use crate::runtime::docker::settings::{Builder, DockerSettings};
use bollard::auth::DockerCredentials;
use bollard::models::BuildInfo;
use bollard::query_parameters::{BuildImageOptions, BuilderVersion, TagImageOptionsBuilder};
use bollard_stubs::models::BuildInfoAux;
use futures::StreamExt;
use phalanx_shared::language::service::{
    Build, BuildSecret, ContextSource, FileSource, PullPolicy, ServiceConfig,
};
use phalanx_shared::policy::{Need, Rule};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::io::ReaderStream;

/// Path in the context of a Dockerfile that is written in the spec.
const INLINE: &str = ".phalanx.Dockerfile";
/// Where the archive has a directory whose files are all that an image holds.
const BARE: &str = "context";
/// Maximum size of a Dockerfile, in bytes.
const MAX_DOCKERFILE: u64 = 1024 * 1024;
/// Number of output lines shown when a build fails.
const LAST_LINES: usize = 25;
/// Maximum characters kept of one output line.
const LONGEST_LINE: usize = 16_384;
/// Maximum size of a secret's file, in bytes.
const MAX_SECRET: u64 = 1024 * 1024;

/// Describes a build.
pub(super) struct Order {
    build: Build,
    place: Context,
    /// Root of the paths of secrets.
    workspace: Option<PathBuf>,
    policy: Arc<Policy>,
    /// Image name given in the spec.
    name: Option<String>,
    platform: Option<String>,
    /// Whether to build even if an image with the same inputs exists.
    anew: bool,
    /// Images of the further contexts, by name.
    contexts: BTreeMap<String, String>,
    /// Whether the image holds the files of the context and nothing else.
    bare: bool,
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
    #[error("a context behind a URL can't take `additional_contexts`; the engine fetches it")]
    ContextsForUrl,
}

impl InvalidBuild {
    /// Returns the fault of the error.
    pub fn fault(&self) -> Fault {
        match self {
            InvalidBuild::Misplaced(_, mounts::Misplaced::Refused(_)) => Fault::Policy,
            _ => Fault::Definition,
        }
    }
}

impl Order {
    /// `contexts` are the images of its further contexts, by name.
    pub fn new(
        config: &ServiceConfig,
        scope: &AttemptScope,
        contexts: BTreeMap<String, String>,
    ) -> Result<Order, InvalidBuild> {
        let build = config.build.clone().unwrap_or_default();
        let place = match build.is_remote() {
            true if !build.contexts.is_empty() => {
                return Err(InvalidBuild::ContextsForUrl);
            }
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
                Context::Directory(match (&scope.workspace, &build.dockerfile_inline) {
                    (None, Some(_)) if written == "." => {
                        let empty = scope.scratch.join("empty-context");
                        std::fs::create_dir_all(&empty).map_err(InvalidBuild::Scratch)?;
                        Place::new(empty, "")
                    }
                    _ => directory(written, scope)?,
                })
            }
        };
        Ok(Order {
            anew: config.pull_policy == PullPolicy::Build || build.no_cache || build.pull,
            build,
            place,
            workspace: scope.workspace.clone(),
            policy: Arc::clone(&scope.policy),
            name: config.image.clone(),
            platform: config.platform.clone(),
            contexts,
            bare: false,
        })
    }

    /// Makes an image of a directory, for a build that has it as a further context.
    pub fn of_directory(written: &str, scope: &AttemptScope) -> Result<Order, InvalidBuild> {
        Ok(Order {
            build: Build {
                dockerfile_inline: Some(format!("FROM scratch\nCOPY {BARE}/ /\n")),
                ..Build::default()
            },
            place: Context::Directory(directory(written, scope)?),
            workspace: None,
            policy: Arc::clone(&scope.policy),
            name: None,
            platform: None,
            anew: false,
            contexts: BTreeMap::new(),
            bare: true,
        })
    }

    /// Returns the stages that stand for further contexts.
    fn stages(&self) -> Vec<Stage> {
        let contexts = self.contexts.iter();
        let stages = contexts.map(|(name, image)| Stage {
            name: name.clone(),
            image: image.clone(),
        });
        stages.collect()
    }

    /// Returns the definition without the texts of its secrets: as in Docker, a changed secret is no reason to build anew,
    /// and no digest of it leaves the agent in a tag.
    fn without_texts(&self) -> Build {
        let mut build = self.build.clone();
        for secret in &mut build.secrets {
            secret.source = FileSource::Text(String::new());
        }
        for context in &mut build.contexts {
            if let ContextSource::Service { of, .. } = &mut context.source {
                // Its image stands for it.
                *of = None;
            }
        }
        build
    }

    /// Returns whether the image is built even if one with the same inputs exists.
    pub fn is_anew(&self) -> bool {
        self.anew || matches!(self.place, Context::Remote(_))
    }
}

/// A build whose context is read and packed.
pub(super) struct Packed {
    order: Order,
    inputs: Inputs,
    buildkit: bool,
}

impl Packed {
    /// Reads and packs the context.
    pub async fn of(
        engine: &Engine,
        settings: &DockerSettings,
        order: Order,
    ) -> Result<Packed, RuntimeError> {
        let buildkit = match settings.builder {
            Builder::Auto => engine.has_buildkit().await,
            Builder::Buildkit => true,
            Builder::Classic => false,
        };
        let inputs = inputs(engine, &order, buildkit).await?;
        Ok(Packed {
            order,
            inputs,
            buildkit,
        })
    }

    /// Returns whether the image is built even if one with the same inputs exists.
    pub fn is_anew(&self) -> bool {
        self.order.is_anew()
    }

    /// Returns a digest that is the same for builds that give the same image. Cells and builds ahead of them have copies of
    /// the workspace, so what counts is what the context holds and not where it is.
    pub fn identity(&self) -> String {
        let order = &self.order;
        let is_file = |secret: &BuildSecret| matches!(secret.source, FileSource::Path(_));
        let own_files = order.build.secrets.iter().any(is_file);
        digest(&[
            &self.inputs.digest,
            // With the texts of secrets, so that a cell doesn't get what another one's secret made. It stays in memory.
            &format!("{:?}", order.build),
            // A cell may have changed its files of secrets, and those aren't read here.
            &format!("{:?}", order.workspace.as_ref().filter(|_| own_files)),
            &format!("{:?} {:?}", order.name, order.platform),
            &format!("{:?} {}", order.contexts, order.bare),
        ])
    }
}

/// Returns a directory that the agent may read.
fn directory(written: &str, scope: &AttemptScope) -> Result<Place, InvalidBuild> {
    let (workspace, policy) = (scope.workspace.as_deref(), &scope.policy);
    let misplaced = |why| InvalidBuild::Misplaced(written.to_owned(), why);
    mounts::in_workspace(written, workspace, policy).map_err(misplaced)?;
    let place = place_of(written, workspace, policy).map_err(misplaced)?;
    match place.open() {
        Ok(_) => Ok(place),
        Err(error) => Err(InvalidBuild::NoDirectory(written.to_owned(), error)),
    }
}

/// Returns the URL of a context for the engine: a repository without a branch means its default branch. Engines before 23
/// take `master` instead, which newer repositories don't have.
fn at_default_branch(url: &str) -> String {
    let (repository, fragment) = url.split_once('#').unwrap_or((url, ""));
    let over_http = repository.starts_with("http://") || repository.starts_with("https://");
    let is_repository = !over_http || repository.ends_with(".git");
    let (branch, folder) = match fragment.split_once(':') {
        Some((branch, folder)) => (branch, Some(folder)),
        None => (fragment, None),
    };
    match (is_repository && branch.is_empty(), folder) {
        (false, _) => url.to_owned(),
        (true, None) => format!("{repository}#HEAD"),
        (true, Some(folder)) => format!("{repository}#HEAD:{folder}"),
    }
}

/// Returns the directory of a context, which no link in it leads out of.
fn place_of(
    written: &str,
    workspace: Option<&Path>,
    policy: &Policy,
) -> Result<Place, mounts::Misplaced> {
    if !Path::new(written).is_absolute() {
        return Ok(Place::new(workspace.unwrap_or(Path::new("/")), written));
    }
    let place = policy.place(written).map_err(mounts::Misplaced::Refused)?;
    Ok(match place {
        // All paths are allowed, and links to anywhere.
        (above, _) if above == Path::new("/") => Place::new(written, ""),
        (above, below) => Place::new(above, below),
    })
}

/// Returns the first thing that a build fetches and the policy refuses.
fn refused_fetch(order: &Order, text: &str) -> Option<String> {
    let policy = &order.policy;
    if policy.is_open(Rule::Registries) && policy.is_open(Rule::BuildUrls) {
        return None;
    }
    let args = order.build.args.iter();
    let args = args.filter_map(|(name, value)| Some((name.as_str(), value.as_deref()?)));
    let refused = |what: &str, need: Option<Need>| {
        let refusal = policy.refuses(&need?)?;
        Some(format!("{what}: {refusal}; {}", refusal.help()))
    };
    let all = dockerfile::fetched(text, &args.collect());
    all.into_iter().find_map(|fetched| match fetched {
        // The policy has judged what they are.
        Fetched::Image(image) if order.contexts.contains_key(&image) => None,
        Fetched::Image(image) => refused(&image, Need::image(&image)),
        Fetched::Url(url) => refused(&url, Some(Need::build_url(&url))),
        Fetched::Frontend(image) if is_official(&image) => refused(&image, Need::image(&image)),
        Fetched::Frontend(image) => Some(format!(
            "`# syntax={image}`: the agent's policy lists what builds may fetch, and only docker/dockerfile is known to fetch nothing else: leave the line out"
        )),
        Fetched::Unknown(written) => Some(format!(
            "`{written}`: the agent's policy lists what builds may fetch, and what this is can't be told: write it without variables and signs that only the build knows"
        )),
    })
}

/// Returns whether an image is Docker's own frontend for Dockerfiles.
fn is_official(image: &str) -> bool {
    let image = image.strip_prefix("docker.io/").unwrap_or(image);
    let name = image.split([':', '@']).next().unwrap_or(image);
    name == "docker/dockerfile"
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
    packed: Packed,
    doing: Doing,
) -> Result<Ready, RuntimeError> {
    let limit = Duration::from_secs(settings.build_timeout_s);
    let mut said = Said::new(doing);
    match tokio::time::timeout(limit, building(&engine, &settings, packed, &mut said)).await {
        Ok(answer) => answer,
        Err(_) => Err(RuntimeError::new(
            Fault::Image,
            format!(
                "build: not done within {} s; raise `build_timeout_s` or build the image beforehand. Its last lines:\n{}",
                limit.as_secs(),
                said.last()
            ),
        )),
    }
}

async fn building(
    engine: &Engine,
    settings: &DockerSettings,
    packed: Packed,
    last: &mut Said,
) -> Result<Ready, RuntimeError> {
    let began = Stopwatch::start();
    let Packed {
        order,
        inputs,
        buildkit,
    } = packed;
    let order = &order;
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
    if there && !order.is_anew() {
        set_name(engine, &tag, order).await?;
        return Ok((tag, None));
    }
    let failed = |how: &str, error: &bollard::errors::Error, last: &Said| {
        let why = format!(
            "building {name} {how}: {}. Its last lines:\n{}",
            said(error),
            last.last()
        );
        RuntimeError::new(Fault::Image, why)
    };
    let mut options = options(order, &tag)?;
    // The session must outlive the build.
    let (session, credentials) = match buildkit {
        true => (Some(session_of(engine, settings, order).await?), None),
        false => (None, Some(credentials(settings, &inputs.bases).await?)),
    };
    if let Some(session) = &session {
        options.version = BuilderVersion::BuilderBuildKit;
        options.session = Some(session.id.clone());
    }
    let body = inputs.archive.map(|archive| {
        bollard::body_try_stream(ReaderStream::new(tokio::fs::File::from_std(archive)))
    });
    // bollard requires a body even if the engine fetches the context.
    let body = body.unwrap_or_else(|| bollard::body_full(bytes::Bytes::new()));
    let docker = engine.with_hosts(&order.build.extra_hosts);
    let stream = docker.build_image(options, credentials, Some(body));
    let mut stream = std::pin::pin!(stream);
    while let Some(info) = stream.next().await {
        match info {
            Ok(info) => last.note(info),
            Err(error) => return Err(failed("failed", &error, last)),
        }
    }
    // The stream also ends without an error if the connection breaks in the middle.
    if let Err(error) = engine.ask(|| engine.docker.inspect_image(&tag)).await {
        return Err(failed("ended without an image", &error, last));
    }
    set_name(engine, &tag, order).await?;
    let detail = format!("{name}, built in {:.1}s", began.elapsed().as_secs_f64());
    Ok((tag, Some(Prepared::Built(detail))))
}

/// Returns the credentials for the base images, which the classic builder receives with its request.
async fn credentials(
    settings: &DockerSettings,
    bases: &[String],
) -> Result<HashMap<String, DockerCredentials>, RuntimeError> {
    let mut credentials = HashMap::new();
    for base in bases {
        let registry = reference::registry(base);
        let found = auth::credentials(settings.docker_config().as_deref(), registry)
            .await
            .map_err(|why| RuntimeError::new(Fault::Image, format!("build: {why}")))?;
        if let Some(found) = found {
            credentials.insert(registry.to_owned(), found);
        }
    }
    Ok(credentials)
}

async fn session_of(
    engine: &Engine,
    settings: &DockerSettings,
    order: &Order,
) -> Result<Session, RuntimeError> {
    let mut secrets = HashMap::new();
    for secret in &order.build.secrets {
        let text = match &secret.source {
            FileSource::Text(text) => text.clone().into_bytes(),
            FileSource::Path(path) => read_secret(order, path.into()).await.map_err(|error| {
                let why = format!("build: the secret {}: {path}: {error}", secret.id);
                RuntimeError::new(Fault::Path, why)
            })?,
        };
        secrets.insert(secret.id.clone(), text);
    }
    let agents = order.build.ssh.iter();
    let given = Given {
        secrets,
        agents: agents
            .map(|agent| (agent.id.clone(), PathBuf::from(&agent.socket)))
            .collect(),
        docker_config: settings.docker_config(),
    };
    Session::open(engine, given)
        .await
        .map_err(|error| RuntimeError::new(Fault::Engine, format!("build: {error}")))
}

async fn read_secret(order: &Order, path: PathBuf) -> io::Result<Vec<u8>> {
    let (workspace, policy) = (order.workspace.clone(), Arc::clone(&order.policy));
    let read = move || policy.read(workspace.as_deref(), &path, MAX_SECRET);
    tokio::task::spawn_blocking(read)
        .await
        .map_err(io::Error::other)?
}

/// The inputs of an image.
struct Inputs {
    digest: String,
    bases: Vec<String>,
    archive: Option<std::fs::File>,
}

async fn inputs(engine: &Engine, order: &Order, buildkit: bool) -> Result<Inputs, RuntimeError> {
    let errored = |why: String| RuntimeError::new(Fault::Image, format!("build: {why}"));
    let settled = format!(
        "{:?} {:?} {:?}",
        order.without_texts(),
        order.platform,
        order.contexts
    );
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
    if let Some(why) = refused_fetch(order, &text) {
        return Err(RuntimeError::new(
            Fault::Policy,
            format!("build: {shown}: {why}"),
        ));
    }
    if !buildkit {
        let needs = order.build.needs_buildkit().map(|key| {
            format!(
                "`{key}` needs BuildKit, and images are built by the engine's classic builder here"
            )
        });
        if let Some(why) = needs.or_else(|| dockerfile::beyond_classic(shown, &text)) {
            return Err(errored(why));
        }
    }
    let stages = order.stages();
    let (text, rewritten) = match stages.is_empty() {
        true => (text, order.build.dockerfile_inline.clone()),
        false => {
            let text = dockerfile::with_stages(shown, &text, &stages).map_err(&errored)?;
            (text.clone(), Some(text))
        }
    };
    let packed = {
        let path = path.clone();
        let below = if order.bare { BARE } else { "" };
        tokio::task::spawn_blocking(move || {
            let extra = rewritten.iter().map(|text| (INLINE, text.as_str()));
            let extra: Vec<(&str, &str)> = extra.collect();
            let always = [path.as_str(), ".dockerignore"];
            context::pack(&opened, below, &always, &extra)
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

fn options(order: &Order, tag: &str) -> Result<BuildImageOptions, RuntimeError> {
    let build = &order.build;
    let shmsize = build.shm_size.map(|bytes| {
        i32::try_from(bytes).map_err(|_| {
            let why = format!("build: `shm_size` is {bytes} bytes; the engine takes at most 2 GiB");
            RuntimeError::new(Fault::Definition, why)
        })
    });
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
    Ok(BuildImageOptions {
        shmsize: shmsize.transpose()?,
        cachefrom: (!build.cache_from.is_empty()).then(|| build.cache_from.clone()),
        dockerfile: match order.place {
            Context::Remote(_) => build
                .dockerfile
                .clone()
                .unwrap_or_else(|| "Dockerfile".to_owned()),
            // With further stages, it is written anew.
            Context::Directory(_) if !order.contexts.is_empty() => INLINE.to_owned(),
            Context::Directory(_) => dockerfile_path(build),
        },
        t: Some(tag.to_owned()),
        remote: match &order.place {
            Context::Remote(url) => Some(at_default_branch(url)),
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
    })
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

/// What a build has said.
struct Said {
    lines: VecDeque<String>,
    steps: Steps,
    doing: Doing,
}

impl Said {
    fn new(doing: Doing) -> Said {
        Said {
            lines: VecDeque::new(),
            steps: Steps::default(),
            doing,
        }
    }

    fn note(&mut self, info: BuildInfo) {
        if let Some(BuildInfoAux::BuildKit(status)) = &info.aux {
            let lines = self.steps.note(status);
            lines.iter().for_each(|line| self.line(line));
            self.doing.set(self.steps.summary(), self.steps.counted());
        }
        if let Some(text) = info.stream.or(info.status) {
            // The classic builder announces its steps: `Step 2/5 : RUN make`.
            if let Some(line) = text.lines().find(|line| line.starts_with("Step ")) {
                let counted = line.split(" :").next().unwrap_or_default();
                let line = line.chars().take(LONGEST_LINE).collect();
                self.doing.set(line, counted.to_owned());
            }
            text.lines().for_each(|line| self.line(line));
        }
    }

    fn line(&mut self, line: &str) {
        if line.trim().is_empty() {
            return;
        }
        tracing::debug!(line, "build");
        if self.lines.len() == LAST_LINES {
            self.lines.pop_front();
        }
        // The line is shortened further where it is masked for display.
        self.lines
            .push_back(line.chars().take(LONGEST_LINE).collect());
    }

    /// Returns the last lines.
    fn last(&self) -> String {
        self.lines.iter().cloned().collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_without_a_branch_is_built_from_its_default_branch() {
        for (written, asked) in [
            ("https://h/r.git", "https://h/r.git#HEAD"),
            ("https://h/r.git#", "https://h/r.git#HEAD"),
            ("https://h/r.git#:docker", "https://h/r.git#HEAD:docker"),
            ("https://h/r.git#v1", "https://h/r.git#v1"),
            ("https://h/r.git#v1:docker", "https://h/r.git#v1:docker"),
            ("git@h:o/r.git", "git@h:o/r.git#HEAD"),
            ("github.com/o/r", "github.com/o/r#HEAD"),
            ("git://h/r", "git://h/r#HEAD"),
            ("ssh://git@h/r", "ssh://git@h/r#HEAD"),
            // An archive or a Dockerfile, which has no branches.
            ("https://h/context.tar.gz", "https://h/context.tar.gz"),
        ] {
            assert_eq!(at_default_branch(written), asked);
        }
    }
}
