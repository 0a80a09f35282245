//! Implements the runtime contract with containers, through the engine's API. bollard's types stay in this folder.
//!
//! `client`, `endpoint`, `away` (connection) · `labels` (names) · `convert`, `options`, `mounts` (from definition to
//! request) ·
//! `nested`, `placing` (mounts that others could lead elsewhere) · `image` (pull, build) · `govern` (limits concurrency and decides the order) · `network`, `joined`, `subnet`, `reach` (the
//! cell's networks) · `stack`, `attempt` (a cell's containers) · `handle`, `start`, `output`, `carried`, `position`,
//! `exec`, `copy`, `summary`, `member`, `address` (one container) · `watch` (the engine's events) · `close`, `sweep`
//! (clean-up) · `checkup` (tries the engine).
//!
//! The caller decides when a service is ready, what an exit means and in which order services start.

mod address;
mod attempt;
mod away;
mod carried;
mod checkup;
mod client;
mod close;
mod convert;
mod copy;
mod endpoint;
mod error;
mod exec;
mod files;
mod find;
mod gather;
mod govern;
mod handle;
mod hooks;
mod image;
mod joined;
mod labels;
mod lock;
mod member;
mod mounts;
mod nested;
mod network;
mod options;
mod output;
mod placing;
mod position;
mod reach;
mod restored;
mod settings;
mod snapshot;
mod snapshot_images;
mod stack;
mod start;
mod subnet;
mod summary;
mod sweep;
mod watch;

pub use checkup::Checkup;
pub use endpoint::InvalidEndpoint;
pub use error::Unusable;
pub use image::Doing;
pub use labels::of_attempt;
pub use settings::{Builder, DockerSettings, Reach};
pub use snapshot_images::SnapshotImage;
pub use subnet::core::InvalidPool;
pub use sweep::{Found, Kind, doomed};

use self::attempt::Attempt;
use self::client::Engine;
use self::govern::Governor;
use self::image::{For, Images};
use self::lock::lock;
use self::network::{Network, Networks, Wanted};
use self::reach::Way;
use self::stack::Hold;
use self::subnet::core::Allocator;
use self::watch::Watch;
use super::contract::{AttemptScope, Closed, Fault, Runtime, RuntimeError, Stack};
use crate::clock::{Clock, SystemClock};
use crate::policy::Policy;
use async_trait::async_trait;
use bollard::query_parameters::ListImagesOptionsBuilder;
use phalanx_shared::id::{AgentId, Token};
use phalanx_shared::plan::WantedImage;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, Weak};
use tokio::sync::{OnceCell, oneshot};
use tokio::task::{AbortHandle, JoinHandle};

/// State shared by all stacks of one engine.
struct Shared {
    settings: DockerSettings,
    engine: Engine,
    networks: Arc<Networks>,
    watch: Arc<Watch>,
    images: Images,
    governor: Arc<Governor>,
    way: OnceCell<Way>,
    open: Mutex<HashMap<Token, Weak<Attempt>>>,
    clock: SystemClock,
}

impl Shared {
    fn way(&self) -> Option<&Way> {
        self.way.get()
    }

    /// Counts how often a connection to the engine was seen to break. While the count doesn't change, the end of a
    /// stream may be trusted where there is no other proof.
    fn signs_of_breaks(&self) -> u64 {
        self.watch.breaks() + self.engine.cuts()
    }

    fn now_s(&self) -> u64 {
        u64::try_from(self.clock.wall().0 / 1_000_000).unwrap_or(0)
    }

    fn is_open(&self, token: &Token) -> bool {
        lock(&self.open)
            .get(token)
            .is_some_and(|attempt| attempt.strong_count() > 0)
    }

    fn release(&self, token: &Token) {
        lock(&self.open).remove(token);
    }
}

/// The runtime of one container engine.
pub struct DockerRuntime {
    shared: Arc<Shared>,
    listener: AbortHandle,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

impl DockerRuntime {
    /// Connects, and starts to listen for events and to prepare networks.
    pub async fn connect(settings: DockerSettings) -> Result<Arc<DockerRuntime>, Unusable> {
        if settings.agent.0.is_empty() {
            return Err(Unusable::NoIdentity);
        }
        let engine = Engine::connect(&settings).await?;
        let allocator = Allocator::new(
            &settings.subnets,
            settings.subnet_prefix,
            &settings.subnets_v6,
            spread(&settings.agent.0),
        )?;
        let agent = settings.agent.clone();
        let ready = settings.ready_networks;
        let mut of_pool = labels::of_pool(&agent);
        of_pool.extend(settings.home_label());
        let governor = Arc::new(Governor::new(settings.starts()));
        let networks =
            Networks::new(engine.clone(), governor.clone(), of_pool, allocator, ready).await?;
        let watch = Watch::new(engine.clone(), agent);
        let shared = Arc::new(Shared {
            governor,
            images: Images::default(),
            way: OnceCell::new(),
            open: Mutex::default(),
            clock: SystemClock::default(),
            engine,
            networks: networks.clone(),
            watch: watch.clone(),
            settings,
        });
        let keeper = (ready > 0).then(|| tokio::spawn(networks.keep_ready()));
        Ok(Arc::new(DockerRuntime {
            shared,
            listener: tokio::spawn(watch.listen()).abort_handle(),
            keeper: Mutex::new(keeper),
        }))
    }

    /// Returns how many networks (and so cells) this agent can have at the same time, which `Hello` reports to the
    /// scheduler.
    pub fn network_capacity(&self) -> u32 {
        self.shared.networks.capacity()
    }

    /// Pulls an image before the cell that needs it arrives, so that pulling overlaps with waiting.
    pub async fn prefetch(&self, image: &str) -> Result<(), RuntimeError> {
        let shared = &self.shared;
        shared
            .images
            .prefetch(&shared.engine, &shared.settings, image)
            .await
    }

    /// Pulls or builds an image ahead of the cells that need it, if the policy was asked about it. `seen` receives the
    /// progress. Returns the kind of the failure without its text, which no masks have seen.
    pub async fn prepare_ahead(
        &self,
        image: &WantedImage,
        policy: Arc<Policy>,
        workspace: Option<PathBuf>,
        scratch: PathBuf,
        seen: impl Fn(Doing),
    ) -> Result<(), Fault> {
        let config = image.config().ok_or(Fault::Definition)?;
        let shared = &self.shared;
        let scope = AttemptScope {
            token: Token {
                run: image.parts().run.clone().unwrap_or_else(|| "".into()),
                cell: "".into(),
                attempt: 0,
                epoch: 0,
            },
            agent: shared.settings.agent.clone(),
            cell_name: String::new(),
            scratch,
            workspace,
            ipv6: false,
            trace: None,
            images: Default::default(),
            policy,
        };
        let (engine, settings) = (&shared.engine, &shared.settings);
        let prepared = shared
            .images
            .prepare(engine, settings, &config, &scope, For::Later, seen);
        prepared.await.map(drop).map_err(|error| error.fault)
    }

    /// Returns whether the engine has an image.
    pub async fn has(&self, image: &str) -> Result<bool, RuntimeError> {
        let shared = &self.shared;
        shared.images.present(&shared.engine, image).await
    }

    /// Returns the names (with tag) of the images on the engine, which `Hello` reports to the scheduler.
    pub async fn images_present(&self) -> Result<Vec<String>, RuntimeError> {
        let engine = &self.shared.engine;
        let options = || Some(ListImagesOptionsBuilder::default().build());
        let listed = engine.ask(|| engine.docker.list_images(options())).await;
        let listed =
            listed.map_err(|error| error::runtime("listing the engine's images", &error))?;
        let mut names: Vec<String> = listed
            .into_iter()
            .flat_map(|image| image.repo_tags)
            .filter(|name| name != "<none>:<none>")
            .collect();
        names.sort();
        Ok(names)
    }

    /// Lists all objects with Phalanx labels in the engine, of this agent or (for `phalanx gc`) of any agent.
    pub async fn list_ours(&self, any_agent: bool) -> Result<Vec<Found>, RuntimeError> {
        let filter = match any_agent {
            true => HashMap::from([("label".to_owned(), vec![labels::AGENT.to_owned()])]),
            false => labels::filter_agent(&self.shared.settings.agent),
        };
        sweep::list(&self.shared.engine, &filter)
            .await
            .map_err(|error| error::runtime("listing the engine's objects", &error))
    }

    /// Lists the objects that attempts of these agents keep, including their markers.
    pub async fn list_kept(&self, agents: &HashSet<AgentId>) -> Result<Vec<Found>, RuntimeError> {
        let all = self.list_ours(true).await?;
        Ok(sweep::kept(all, agents))
    }

    /// Removes built images that are older than `before_s` (Unix time in seconds) and that no container uses. Returns
    /// their tags and the bytes freed.
    pub async fn remove_built(
        &self,
        before_s: i64,
        dry_run: bool,
    ) -> Result<Vec<(String, u64)>, RuntimeError> {
        image::remove_built(&self.shared.engine, before_s, dry_run)
            .await
            .map_err(|error| error::runtime("removing images that were built", &error))
    }

    /// Lists the images of a store's snapshots, also what is half-made.
    pub async fn snapshot_images(&self, store: &str) -> Result<Vec<SnapshotImage>, RuntimeError> {
        snapshot_images::list(&self.shared.engine, store)
            .await
            .map_err(|error| error::runtime("listing images of snapshots", &error))
    }

    /// Removes the image of a snapshot. Returns `false` if a container uses it.
    pub async fn remove_snapshot_image(&self, image: &str) -> Result<bool, RuntimeError> {
        snapshot_images::remove(&self.shared.engine, image)
            .await
            .map_err(|error| error::runtime("removing an image of a snapshot", &error))
    }

    /// Removes objects that [`DockerRuntime::list_ours`] found and the caller chose.
    pub async fn remove(&self, objects: &[Found]) -> Closed {
        sweep::remove_all(&self.shared, objects).await
    }

    /// Returns a network for an attempt: a ready one, or one created now.
    async fn network(
        shared: Arc<Shared>,
        scope: &AttemptScope,
    ) -> Result<Arc<Network>, RuntimeError> {
        if !scope.ipv6
            && let Some(ready) = shared.networks.take_ready()
        {
            return Ok(ready);
        }
        let name = labels::object(&scope.token, "net");
        let mut labels = labels::of_attempt(&scope.agent, &scope.token);
        labels.extend(shared.settings.home_label());
        let (send, receive) = oneshot::channel();
        let wanted = Wanted {
            ipv6: scope.ipv6,
            ..Wanted::default()
        };
        // Runs in its own task: if the caller drops the call, nothing else would remove the network.
        tokio::spawn(async move {
            let never = AtomicBool::new(false);
            let made = shared.networks.make(&name, labels, &wanted, &never).await;
            if let Err(Ok(unwanted)) = send.send(made) {
                let _ = shared.networks.remove(&unwanted).await;
            }
        });
        receive.await.unwrap_or_else(|_| {
            Err(RuntimeError::new(
                Fault::Misuse,
                "making the cell's network ended by a bug in Phalanx",
            ))
        })
    }
}

impl Drop for DockerRuntime {
    fn drop(&mut self) {
        self.listener.abort();
        self.shared.networks.stop();
    }
}

/// Returns where in the pool an identity begins, so that two agents on one machine rarely collide.
fn spread(agent: &str) -> u32 {
    let digest = Sha256::digest(agent.as_bytes());
    digest
        .iter()
        .take(4)
        .fold(0u32, |number, byte| number << 8 | u32::from(*byte))
}

#[async_trait]
impl Runtime for DockerRuntime {
    fn kind(&self) -> &'static str {
        "docker"
    }

    async fn open(&self, scope: AttemptScope) -> Result<Arc<dyn Stack>, RuntimeError> {
        let shared = &self.shared;
        let network = Self::network(shared.clone(), &scope).await?;
        let token = scope.token.clone();
        let attempt = Arc::new(Attempt::new(shared.clone(), scope, network));
        lock(&shared.open).insert(token, Arc::downgrade(&attempt));
        let setting = shared.settings.reach;
        let way = shared
            .way
            .get_or_init(|| reach::decide(setting, &shared.engine, &attempt.networks.first))
            .await;
        if let Way::Join(own) = way {
            let joined = reach::join(&shared.engine, own, &attempt.networks.first).await;
            if let Err(error) = joined {
                let why = error::said(&error);
                close::close(attempt, std::time::Duration::ZERO, None).await;
                let reason =
                    format!("the agent's container could not join the cell's network: {why}");
                return Err(RuntimeError::new(Fault::Engine, reason));
            }
        }
        Ok(Arc::new(Hold(attempt)))
    }

    async fn reap(&self, live: &HashSet<Token>) -> Result<Closed, RuntimeError> {
        sweep::reap(&self.shared, live)
            .await
            .map_err(|error| error::runtime("reaping", &error))
    }

    async fn shutdown(&self) {
        self.listener.abort();
        self.shared.networks.stop();
        let keeper = lock(&self.keeper).take();
        if let Some(keeper) = keeper {
            // A network that is being created must exist before it can be removed.
            let limit = self.shared.settings.close_timeout();
            let _ = tokio::time::timeout(limit, keeper).await;
        }
        self.shared.networks.drain().await;
    }
}
