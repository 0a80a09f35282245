//! The objects of one attempt in the engine. Creates its containers; `close` removes everything.

use super::convert::{self, Place, PlacedMount, Publish, Source};
use super::error::{Said, runtime_of, status};
use super::govern::Work;
use super::handle::Handle;
use super::image::{Doing, For};
use super::joined::{CellNetworks, Interfaces};
use super::labels::{self, Labels};
use super::lock::lock;
use super::member::{Container, OfStack};
use super::nested::{self, Mounted, Nested};
use super::network::Network;
use super::placing::Placing;
use super::reach::Way;
use super::restored::{self, Restored};
use super::{Shared, files, mounts, options, placing};
use crate::runtime::contract::{AttemptScope, Fault, Member, Prepared, RuntimeError};
use crate::runtime::env_file;
use crate::sink::LogSink;
use bollard::errors::Error;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::CreateContainerOptions;
use indexmap::IndexMap;
use phalanx_shared::language::service::{EnvFile, NetworkMode, ServiceConfig, replica_name};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// How often a container is looked for whose name is taken by a request that broke off, and the pause in between.
const LOOKS: usize = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// The objects of an attempt in the engine.
pub(super) struct Attempt {
    pub shared: Arc<Shared>,
    pub scope: AttemptScope,
    pub labels: Labels,
    pub networks: CellNetworks,
    /// Containers in order of creation.
    pub members: Mutex<Vec<Arc<Container>>>,
    /// Paths of the host that the services' containers have mounted.
    mounted: Mutex<BTreeMap<String, Mounted>>,
    placing: Placing,
    /// Image of each service, known after `prepare`.
    images: Mutex<HashMap<String, String>>,
    /// What services that aren't created yet start with.
    pub restored: Mutex<HashMap<String, Restored>>,
    /// Progress of the pulls and builds that services wait for.
    preparing: Mutex<HashMap<String, Doing>>,
    /// Calls that create objects. `close` waits for them, including those whose caller has gone away.
    pub tasks: TaskTracker,
    /// When set, starts that still wait for their turn are abandoned.
    pub closing: Arc<AtomicBool>,
}

impl Attempt {
    pub fn new(shared: Arc<Shared>, scope: AttemptScope, network: Arc<Network>) -> Attempt {
        let mut labels = labels::of_attempt(&scope.agent, &scope.token);
        labels.extend(shared.settings.home_label());
        labels.insert(labels::CELL_NAME.to_owned(), scope.cell_name.clone());
        let networks = CellNetworks::new(shared.clone(), network);
        Attempt {
            shared,
            placing: Placing::of(&scope.policy),
            scope,
            labels,
            networks,
            members: Mutex::default(),
            mounted: Mutex::default(),
            images: Mutex::default(),
            restored: Mutex::default(),
            preparing: Mutex::default(),
            tasks: TaskTracker::new(),
            closing: Arc::default(),
        }
    }

    /// Makes the service's image available and returns what had to be done.
    pub async fn prepare(&self, config: &ServiceConfig) -> Result<Option<Prepared>, RuntimeError> {
        let shared = &self.shared;
        let seen = |doing| {
            lock(&self.preparing).insert(config.name.clone(), doing);
        };
        let answer = shared
            .images
            .prepare(
                &shared.engine,
                &shared.settings,
                config,
                &self.scope,
                For::Cell,
                seen,
            )
            .await;
        lock(&self.preparing).remove(&config.name);
        let (image, prepared) = answer?;
        lock(&self.images).insert(config.name.clone(), image);
        Ok(prepared)
    }

    /// Returns what the pull or build that a service waits for is doing.
    pub fn preparing(&self, service: &str) -> Option<String> {
        let doing = lock(&self.preparing).get(service)?.get();
        (!doing.is_empty()).then_some(doing)
    }

    /// Creates the service's container.
    pub async fn make(
        self: Arc<Self>,
        config: ServiceConfig,
        logs: LogSink,
    ) -> Result<Arc<dyn Member>, RuntimeError> {
        let service = config.name.clone();
        if self.closing.load(Ordering::Acquire) {
            let why = "created after its stack was closed";
            return Err(RuntimeError::of(&service, Fault::Misuse, why));
        }
        let image = lock(&self.images)
            .get(&service)
            .or(config.image.as_ref())
            .cloned();
        let image = image.ok_or_else(|| {
            RuntimeError::of(
                &service,
                Fault::Definition,
                "it has no `image` and no `build`",
            )
        })?;
        let started_with = lock(&self.restored).get(&service).cloned();
        let started_with = started_with.unwrap_or_default();
        // Reports name the image of the definition, also if the container starts with saved files.
        let named = image.clone();
        let image = started_with.image.unwrap_or(image);
        let environment = self.environment(&config).await?;
        let mut config = config;
        self.add_labels_of_files(&mut config).await?;
        let mut mounts = mounts::place(&service, &config.volumes, &self.scope)?;
        let files = files::place(&service, &config.files, &self.scope)?;
        let pins = mounts::pins(&config, (&mounts, &files), &self.scope);
        restored::mount_restored(&mut mounts, &started_with.volumes);
        mounts.extend(files);
        self.refuse_nested(&config, &mounts)?;
        let interfaces = self.interfaces(&config).await?;
        let publish = match self.shared.way() {
            Some(Way::Published { publish, .. }) => Publish::All(publish),
            _ => Publish::Fixed("127.0.0.1"),
        };
        let peers = self.peers();
        let minor = self.shared.engine.api_minor();
        if let Some(why) = options::impossible(&config, minor, &peers) {
            return Err(RuntimeError::of(&service, Fault::Definition, why));
        }
        let mut body = convert::create_body(
            &config,
            &Place {
                image: &image,
                labels: &self.labels,
                attached: interfaces.attached(),
                environment: &environment,
                mounts: &mounts,
                publish,
                engine_log_mib: self.shared.settings.engine_log_mib,
            },
        );
        options::add(&config, interfaces.attached(), (minor, &peers), &mut body);
        let name = labels::object(&self.scope.token, &service);
        let (created, queued) = self
            .create(&name, config.platform.as_deref(), body)
            .await
            .map_err(|error| creation_error(&service, &image, &error))?;
        let images = &self.shared.images;
        let base = started_with.base.or(created.image.clone());
        let identity = images.identity(&self.shared.engine, &named, base.as_deref());
        let identity = identity.await;
        let container = Container::new(
            self.shared.clone(),
            config,
            &created,
            logs,
            pins,
            OfStack {
                interfaces,
                tasks: self.tasks.clone(),
                closing: self.closing.clone(),
                queued,
                image: identity,
                placing: self.placing.clone(),
            },
        );
        // It is known to `close` before it joins the rest of its networks.
        lock(&self.members).push(container.clone());
        container.join_further().await?;
        Ok(Arc::new(Handle(container)))
    }

    /// Refuses mounts that containers of this attempt could lead elsewhere, unless the policy allows them. Notes the
    /// service's mounts.
    fn refuse_nested(
        &self,
        config: &ServiceConfig,
        mounts: &[PlacedMount],
    ) -> Result<(), RuntimeError> {
        let Some(refusal) = placing::refusal(&self.scope.policy) else {
            return Ok(());
        };
        let mut own = Mounted::default();
        for mount in mounts {
            let Source::Path(path) = &mount.source else {
                continue;
            };
            own.sources.push(path.clone());
            if !mount.read_only {
                own.writable.push(path.clone());
            }
        }
        let mut all = lock(&self.mounted);
        for text in &config.engine.volumes_from {
            let (name, mode) = text.split_once(':').unwrap_or((text, "rw"));
            if let Some(other) = all.get(name) {
                own.take(other, mode == "ro");
            }
        }
        if let Some(nested) = nested::nested(&config.name, &own, &all) {
            let Nested {
                source,
                above,
                writer,
            } = nested;
            let why = format!(
                "the mount of {} is below {}, which service {writer} may write to: {refusal}; mount that read-only (`:ro`), or {}",
                self.shown(&source),
                self.shown(&above),
                refusal.help()
            );
            return Err(RuntimeError::of(&config.name, Fault::Policy, why));
        }
        all.insert(config.name.clone(), own);
        Ok(())
    }

    /// Returns a path as a spec would name it.
    fn shown(&self, path: &Path) -> String {
        let workspace = self.scope.workspace.as_deref();
        let workspace = workspace.and_then(|workspace| workspace.canonicalize().ok());
        match workspace.and_then(|root| path.strip_prefix(root).ok()) {
            Some(below) => format!("./{}", below.display()),
            None => path.display().to_string(),
        }
    }

    /// Returns the engine's id of the image that a prepared service runs.
    pub async fn image_id(&self, config: &ServiceConfig) -> Result<String, RuntimeError> {
        let image = lock(&self.images).get(&config.name).cloned();
        let image = image.or_else(|| config.image.clone()).unwrap_or_default();
        let engine = &self.shared.engine;
        let found = engine.ask(|| engine.docker.inspect_image(&image)).await;
        let found = found.map_err(|error| runtime_of(&config.name, "look at its image", &error))?;
        found.id.ok_or_else(|| {
            let why = format!("the engine gives no id of image {image}");
            RuntimeError::of(&config.name, Fault::Engine, why)
        })
    }

    /// Returns the interfaces of a service.
    async fn interfaces(&self, config: &ServiceConfig) -> Result<Interfaces, RuntimeError> {
        let NetworkMode::Service(name) = &config.network_mode else {
            let of = (&self.scope, &self.labels);
            return self.networks.interfaces(config, of, &self.closing).await;
        };
        // Of a service with several replicas it is the first, as in Compose.
        let owner = self.member(name).ok_or_else(|| {
            let why = format!("`network_mode: service:{name}`: {name} has no container");
            RuntimeError::of(&config.name, Fault::Definition, why)
        })?;
        Ok(Interfaces::Of {
            id: owner.id.clone(),
            own: Box::new(owner.interfaces.clone()),
        })
    }

    /// Returns the ids of the attempt's containers by service. Of a service with several replicas it is the first.
    fn peers(&self) -> options::Peers {
        let members = lock(&self.members);
        let mut peers = options::Peers::new();
        for member in members.iter() {
            peers.insert(member.config.name.clone(), member.id.clone());
            if let Some(service) = first_of(&member.config) {
                peers.insert(service.to_owned(), member.id.clone());
            }
        }
        peers
    }

    /// Returns what a definition asks for that makes no difference and that this engine doesn't know.
    pub fn notes(&self, config: &ServiceConfig) -> Vec<String> {
        options::notes(config, self.shared.engine.api_minor())
    }

    /// Adds the labels of `label_file`, which has the form of an env file. Those of `labels` go before them.
    async fn add_labels_of_files(&self, config: &mut ServiceConfig) -> Result<(), RuntimeError> {
        if config.engine.label_files.is_empty() {
            return Ok(());
        }
        let workspace = self.scope.workspace.as_deref();
        let paths = config.engine.label_files.iter();
        let files: Vec<EnvFile> = paths
            .map(|path| EnvFile {
                path: path.clone(),
                required: true,
                raw: false,
            })
            .collect();
        for file in &files {
            mounts::in_workspace(&file.path, workspace, &self.scope.policy)
                .map_err(|why| why.of(&config.name, &format!("label_file {}", file.path)))?;
        }
        let only_files = ServiceConfig {
            name: config.name.clone(),
            env_file: files,
            ..ServiceConfig::default()
        };
        for (name, value) in
            env_file::environment(&only_files, workspace, &self.scope.policy).await?
        {
            config
                .labels
                .entry(name)
                .or_insert(value.unwrap_or_default());
        }
        Ok(())
    }

    /// Returns the container of a service of this attempt.
    pub fn member(&self, service: &str) -> Option<Arc<Container>> {
        let members = lock(&self.members);
        let mut members = members.iter();
        members
            .find(|member| {
                let config = &member.config;
                config.name == service || first_of(config) == Some(service)
            })
            .cloned()
    }

    /// Returns the effective environment, including the trace context unless the service sets its own.
    async fn environment(
        &self,
        config: &ServiceConfig,
    ) -> Result<IndexMap<String, Option<String>>, RuntimeError> {
        let workspace = self.scope.workspace.as_deref();
        for file in &config.env_file {
            match mounts::in_workspace(&file.path, workspace, &self.scope.policy) {
                Ok(_) => {}
                Err(mounts::Misplaced::Missing(_)) if !file.required => {}
                Err(why) => {
                    return Err(why.of(&config.name, &format!("env_file {}", file.path)));
                }
            }
        }
        let mut all = env_file::environment(config, workspace, &self.scope.policy).await?;
        if let Some(context) = self.scope.traceparent(&config.name) {
            all.entry("TRACEPARENT".to_owned()).or_insert(Some(context));
        }
        Ok(all)
    }

    /// Creates the container and inspects it. Returns also how long it waited for its turn. After a broken connection, a container with this name belongs to this
    /// attempt.
    async fn create(
        &self,
        name: &str,
        platform: Option<&str>,
        body: bollard::models::ContainerCreateBody,
    ) -> Result<(ContainerInspectResponse, Duration), Error> {
        let engine = &self.shared.engine;
        let turn = self.shared.governor.turn(Work::Create).await;
        let with_wait = |created| (created, turn.waited());
        let options = CreateContainerOptions {
            name: Some(name.to_owned()),
            platform: platform.unwrap_or_default().to_owned(),
        };
        let mut again = false;
        for _ in 0..LOOKS {
            let taken = engine
                .ask(|| {
                    let (options, body) = (options.clone(), body.clone());
                    let second = std::mem::replace(&mut again, true);
                    async move {
                        match engine.docker.create_container(Some(options), body).await {
                            Err(error) if second && status(&error) == Some(409) => Ok(true),
                            other => other.map(|_| false),
                        }
                    }
                })
                .await?;
            match engine.inspect(name).await {
                // The request before the break holds the name, but isn't done yet or is being undone.
                Err(error) if taken && status(&error) == Some(404) => {
                    tokio::time::sleep(PAUSE).await;
                }
                other => return other.map(with_wait),
            }
        }
        engine.inspect(name).await.map(with_wait)
    }
}

/// Returns the service of which a container is the first replica.
fn first_of(config: &ServiceConfig) -> Option<&str> {
    let service = config.replica_of.as_deref()?;
    (config.name == replica_name(service, 1)).then_some(service)
}

fn creation_error(service: &str, image: &str, error: &Error) -> RuntimeError {
    if status(error) == Some(404) && Said::NoSuchImage.is_in(error) {
        let why = format!(
            "image {image} is not on the engine; `pull_policy: never` takes only what is there"
        );
        return RuntimeError::of(service, Fault::Image, why);
    }
    runtime_of(service, "create", error)
}
