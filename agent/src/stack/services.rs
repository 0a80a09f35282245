//! A stack's services as steps see them: their states, their output and the actions on them.

use super::board::{Board, Stage};
use super::logs::Logs;
use super::service::actor::{Do, ServiceActor, of_send};
use crate::context::services::{NotDone, Services, Unavailable};
use crate::runtime::contract::{Exit, Member};
use crate::runtime::head_tail::HeadTail;
use async_trait::async_trait;
use kameo::actor::ActorRef;
use phalanx_shared::event::LogTail;
use phalanx_shared::expr::Scope;
use phalanx_shared::language::model::ContainerVerb;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

/// The services of one attempt. It exists before their actors do.
pub struct StackServices {
    /// The state of the services.
    pub board: Board,
    /// The output of the services.
    pub logs: Logs,
    actors: OnceLock<BTreeMap<String, ActorRef<ServiceActor>>>,
}

impl StackServices {
    /// Creates the services of a stack whose actors don't run yet.
    pub fn new(board: Board, logs: Logs) -> Self {
        StackServices {
            board,
            logs,
            actors: OnceLock::new(),
        }
    }

    /// Registers the services' actors. Only the first call has an effect.
    pub fn introduce(&self, actors: BTreeMap<String, ActorRef<ServiceActor>>) {
        let _ = self.actors.set(actors);
    }
}

#[async_trait]
impl Services for StackServices {
    fn is_known(&self, name: &str) -> bool {
        self.board.get(name).is_some()
    }

    fn automatic(&self) -> Vec<String> {
        let all = self.board.all().into_iter();
        all.filter(|(_, status)| !status.manual)
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

    async fn act(&self, name: &str, verb: ContainerVerb, scope: &Scope) -> Result<(), NotDone> {
        let actor = self.actors.get().and_then(|actors| actors.get(name));
        let scope = scope.clone();
        match actor {
            Some(actor) => actor.ask(Do { verb, scope }).await.map_err(of_send),
            None => Err(NotDone::gone()),
        }
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
}
