//! A stack's services as steps see them: their states, their output and the actions on them.

use super::board::{Board, Stage};
use super::dependencies::restarted_with;
use super::logs::Logs;
use super::service::actor::{Do, ServiceActor, of_send};
use super::snapshots::Snapshots;
use crate::context::acts::Acts;
use crate::context::services::{Made, NotDone, Recalled, Services, Unavailable};
use crate::runtime::contract::{Exit, Member};
use crate::runtime::head_tail::HeadTail;
use async_trait::async_trait;
use kameo::actor::ActorRef;
use phalanx_shared::event::LogTail;
use phalanx_shared::expr::Scope;
use phalanx_shared::language::model::ContainerVerb;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

/// The services of one attempt. It exists before their actors do.
pub struct StackServices {
    /// The state of the services.
    pub board: Board,
    /// The output of the services.
    pub logs: Logs,
    actors: OnceLock<BTreeMap<String, ActorRef<ServiceActor>>>,
    acts: Mutex<Acts>,
    /// The stack owns it, because it holds the context, which holds this.
    snapshots: OnceLock<Weak<Snapshots>>,
}

impl StackServices {
    /// Creates the services of a stack whose actors don't run yet.
    pub fn new(board: Board, logs: Logs) -> Self {
        StackServices {
            board,
            logs,
            actors: OnceLock::new(),
            acts: Mutex::default(),
            snapshots: OnceLock::new(),
        }
    }

    /// Registers the services' actors, and the snapshot of the stack. Only the first call has an effect.
    pub fn introduce(
        &self,
        actors: BTreeMap<String, ActorRef<ServiceActor>>,
        snapshots: Option<&Arc<Snapshots>>,
    ) {
        let _ = self.actors.set(actors);
        if let Some(snapshots) = snapshots {
            let _ = self.snapshots.set(Arc::downgrade(snapshots));
        }
    }
}

#[async_trait]
impl Services for StackServices {
    fn is_known(&self, name: &str) -> bool {
        self.board.get(name).is_some()
    }

    fn automatic(&self) -> Vec<String> {
        let all = self.board.all().into_iter();
        all.filter(|(_, status)| !status.manual && status.of.is_none())
            .map(|(name, _)| name)
            .collect()
    }

    fn values(&self) -> Value {
        self.board.contexts()
    }

    fn has_address(&self, address: IpAddr) -> bool {
        let known = self.board.all().into_values();
        known.filter_map(|status| status.addresses).any(|known| {
            known.ip == Some(address)
                || known.ipv6 == Some(address)
                || known.ports.iter().any(|(_, port)| port.ip() == address)
        })
    }

    fn has_endpoint(&self, address: SocketAddr) -> bool {
        let known = self.board.all().into_values();
        let mut known = known.filter_map(|status| status.addresses);
        known.any(|known| known.ports.iter().any(|(_, port)| *port == address))
    }

    fn member(&self, name: &str) -> Option<Arc<dyn Member>> {
        self.board.get(name)?.member
    }

    fn is_completed(&self, name: &str) -> bool {
        let status = self.board.get(name);
        status.is_some_and(|status| {
            status.stage == Stage::Exited && status.exit.is_some_and(|exit| exit.code == 0)
        })
    }

    async fn ready(&self, name: &str) -> Result<(), Unavailable> {
        self.board.ready(name).await
    }

    async fn exited(&self, name: &str) -> Result<Option<Exit>, Unavailable> {
        self.board.exited(name).await
    }

    fn replicas(&self, name: &str) -> Vec<String> {
        self.board.replicas(name)
    }

    async fn act(&self, name: &str, verb: ContainerVerb, scope: &Scope) -> Result<(), NotDone> {
        let acts = self.acting(name, verb);
        let acts = acts.iter().map(|one| self.act_on(one, verb, scope));
        // Each is done, also if one of them fails.
        for done in futures::future::join_all(acts).await {
            done?;
        }
        if verb == ContainerVerb::Restart {
            for dependent in restarted_with(name, &self.board.all()) {
                self.act_on(&dependent, verb, scope).await?;
            }
        }
        Ok(())
    }

    fn acts(&self) -> Acts {
        self.noted().clone()
    }

    fn with_dependencies(&self, names: &BTreeSet<String>) -> BTreeSet<String> {
        self.board.with_dependencies(names)
    }

    async fn settle_output(&self) {
        self.logs.settle().await;
    }

    fn tail(&self, name: &str, lines: usize) -> LogTail {
        self.logs.tail(name, lines)
    }

    fn record(&self, name: &str, limit: usize) {
        self.logs.record(name, limit);
    }

    fn recorded(&self, name: &str) -> [HeadTail; 2] {
        self.logs.recorded(name)
    }

    async fn recall(&self) -> Result<Option<Box<Recalled>>, Unavailable> {
        match self.snapshots() {
            Some(snapshots) => self.unnoted(snapshots.recall(self)).await,
            None => Ok(None),
        }
    }

    async fn remember(&self, made: Made) -> Result<(), Unavailable> {
        match self.snapshots() {
            Some(snapshots) => self.unnoted(snapshots.remember(made, self)).await,
            None => Ok(()),
        }
    }

    async fn forget(&self, reason: String) {
        if let Some(snapshots) = self.snapshots() {
            snapshots.forget(reason).await;
        }
    }
}

impl StackServices {
    fn snapshots(&self) -> Option<Arc<Snapshots>> {
        self.snapshots.get()?.upgrade()
    }

    /// Awaits what acts on services for a snapshot. These aren't actions of steps, which explain failures of later ones.
    async fn unnoted<T>(&self, work: impl Future<Output = T> + Send) -> T {
        let before = self.noted().clone();
        let done = work.await;
        *self.noted() = before;
        done
    }

    fn noted(&self) -> MutexGuard<'_, Acts> {
        self.acts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the containers to which an action on a service applies: all of its replicas. What only a running
    /// container can do is for those that run.
    fn acting(&self, name: &str, verb: ContainerVerb) -> Vec<String> {
        let all = self.board.replicas(name);
        let needs_running = match verb {
            ContainerVerb::Start
            | ContainerVerb::Run
            | ContainerVerb::Stop
            | ContainerVerb::Restart => false,
            ContainerVerb::Kill
            | ContainerVerb::Pause
            | ContainerVerb::Unpause
            | ContainerVerb::Disconnect
            | ContainerVerb::Connect => true,
        };
        let runs = |name: &&String| {
            let status = self.board.get(name);
            status.is_some_and(|one| matches!(one.stage, Stage::Started | Stage::Ready))
        };
        let running: Vec<String> = all.iter().filter(runs).cloned().collect();
        match needs_running && !running.is_empty() {
            true => running,
            false => all,
        }
    }

    async fn act_on(&self, name: &str, verb: ContainerVerb, scope: &Scope) -> Result<(), NotDone> {
        let actor = self.actors.get().and_then(|actors| actors.get(name));
        let scope = scope.clone();
        self.noted().note(name, verb);
        match actor {
            Some(actor) => actor.ask(Do { verb, scope }).await.map_err(of_send),
            None => Err(NotDone::gone()),
        }
    }
}
