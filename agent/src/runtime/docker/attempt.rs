//! The objects of one attempt in the engine. Creates its containers; `close` removes everything.

use super::convert::{self, Place, Publish};
use super::error::{Said, runtime_of, status};
use super::govern::Work;
use super::handle::Handle;
use super::labels::{self, Labels};
use super::lock::lock;
use super::member::{Container, OfStack};
use super::network::Network;
use super::reach::Way;
use super::{Shared, files, mounts};
use crate::runtime::contract::{AttemptScope, Fault, Member, Prepared, RuntimeError};
use crate::runtime::env_file;
use crate::sink::LogSink;
use bollard::errors::Error;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::CreateContainerOptions;
use indexmap::IndexMap;
use phalanx_shared::language::service::ServiceConfig;
use std::collections::HashMap;
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
    pub network: Arc<Network>,
    /// Containers in order of creation.
    pub members: Mutex<Vec<Arc<Container>>>,
    /// Image of each service, known after `prepare`.
    images: Mutex<HashMap<String, String>>,
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
        Attempt {
            shared,
            scope,
            labels,
            network,
            members: Mutex::default(),
            images: Mutex::default(),
            tasks: TaskTracker::new(),
            closing: Arc::default(),
        }
    }

    /// Makes the service's image available and returns what had to be done.
    pub async fn prepare(&self, config: &ServiceConfig) -> Result<Option<Prepared>, RuntimeError> {
        let shared = &self.shared;
        let (image, prepared) = shared
            .images
            .prepare(&shared.engine, &shared.settings, config, &self.scope)
            .await?;
        lock(&self.images).insert(config.name.clone(), image);
        Ok(prepared)
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
        let environment = self.environment(&config).await?;
        let mut mounts = mounts::place(&service, &config.volumes, &self.scope)?;
        let pins = mounts::pins(&config.volumes, &mounts, &self.scope);
        mounts.extend(files::place(&service, &config.files, &self.scope)?);
        let publish = match self.shared.way() {
            Some(Way::Published { publish, .. }) => Publish::All(publish),
            _ => Publish::Fixed("127.0.0.1"),
        };
        let body = convert::create_body(
            &config,
            &Place {
                image: &image,
                labels: &self.labels,
                network: &self.network.name,
                environment: &environment,
                mounts: &mounts,
                publish,
                engine_log_mib: self.shared.settings.engine_log_mib,
            },
        );
        let name = labels::object(&self.scope.token, &service);
        let created = self
            .create(&name, config.platform.as_deref(), body)
            .await
            .map_err(|error| creation_error(&service, &image, &error))?;
        let container = Container::new(
            self.shared.clone(),
            config,
            &created,
            logs,
            pins,
            OfStack {
                network: self.network.clone(),
                tasks: self.tasks.clone(),
                closing: self.closing.clone(),
            },
        );
        lock(&self.members).push(container.clone());
        Ok(Arc::new(Handle(container)))
    }

    /// Returns the effective environment, including the trace context unless the service sets its own.
    async fn environment(
        &self,
        config: &ServiceConfig,
    ) -> Result<IndexMap<String, Option<String>>, RuntimeError> {
        let workspace = self.scope.workspace.as_deref();
        for file in &config.env_file {
            match mounts::in_workspace(&file.path, workspace) {
                Ok(_) => {}
                Err(mounts::Misplaced::Missing(_)) if !file.required => {}
                Err(why) => {
                    let why = format!("env_file {}: {why}", file.path);
                    return Err(RuntimeError::of(&config.name, Fault::Definition, why));
                }
            }
        }
        let mut all = env_file::environment(config, workspace).await?;
        if let Some(context) = self.scope.traceparent(&config.name) {
            all.entry("TRACEPARENT".to_owned()).or_insert(Some(context));
        }
        Ok(all)
    }

    /// Creates the container and inspects it. After a broken connection, a container with this name belongs to this
    /// attempt.
    async fn create(
        &self,
        name: &str,
        platform: Option<&str>,
        body: bollard::models::ContainerCreateBody,
    ) -> Result<ContainerInspectResponse, Error> {
        let engine = &self.shared.engine;
        let _turn = self.shared.governor.turn(Work::Create).await;
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
                other => return other,
            }
        }
        engine.inspect(name).await
    }
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
