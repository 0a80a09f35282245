//! The start of a service: definition ▸ dependencies ▸ pull or build ▸ create ▸ start ▸ ready.

use super::board::Stage;
use super::container::{Exited, Probed, ServiceActor, Unhealthy};
use super::core::{Decision, decide};
use super::{definition, probe, secrets};
use crate::context::services::NotDone;
use crate::runtime::contract::{Addresses, Exit, Member, Prepared, RuntimeError, Stack};
use crate::runtime::env_file;
use kameo::actor::ActorRef;
use phalanx_shared::event::{EventKind, ServiceState};
use phalanx_shared::expr::Scope;
use phalanx_shared::language::model::ContainerVerb;
use phalanx_shared::language::service::ServiceConfig;
use std::sync::Arc;
use std::time::Duration;

/// A pull or build that takes longer than this is reported as progress.
const SLOW: Duration = Duration::from_secs(1);

impl ServiceActor {
    pub(super) async fn define(
        &mut self,
        within: Option<&Scope>,
    ) -> Result<ServiceConfig, RuntimeError> {
        if let Some(config) = &self.config {
            return Ok(config.clone());
        }
        let stack = self.stack()?;
        let context = &self.args.context;
        let config = definition::config(context, &self.args.service, &*stack, within).await?;
        let ports = config.ports.clone();
        let board = &self.args.board;
        board.update(&self.name, |status| status.ports = ports);
        self.config = Some(config.clone());
        Ok(config)
    }

    pub(super) fn stack(&self) -> Result<Arc<dyn Stack>, RuntimeError> {
        self.args.stack.clone().map_err(|why| {
            RuntimeError::Errored(format!("service {} can't start: {why}", self.name))
        })
    }

    pub(super) async fn start(
        &mut self,
        within: Option<&Scope>,
        me: &ActorRef<Self>,
    ) -> Result<(), NotDone> {
        if matches!(self.stage(), Some(Stage::Started | Stage::Ready)) {
            return Ok(());
        }
        let config = self.define(within).await?;
        if within.is_some() {
            self.dependencies(&config).await?;
        }
        self.set_stage(Stage::Starting);
        let member = match &self.member {
            Some(member) => Arc::clone(member),
            None => self.create(&config).await?,
        };
        let began = self.args.context.clock.wall();
        self.asked = false;
        self.held = false;
        self.watchers.abort_all();
        let before = member
            .exits()
            .borrow()
            .as_ref()
            .map_or(0, |exit| exit.start);
        let exits = member.exits();
        // Prepare the predicate before the start, so that it sees the first log line.
        let probe = probe::prepare(&self.args.context, &self.args.logs, &self.args.service);
        let addresses = member.start().await?;
        self.start += 1;
        let detail = shown(&addresses);
        let board = &self.args.board;
        let start = self.start;
        board.update(&self.name, |status| {
            status.stage = Stage::Started;
            status.starts = start;
            status.addresses = Some(addresses);
            status.exit = None;
            status.down = None;
        });
        self.tell(ServiceState::Started, began, detail).await;
        self.watch_exit(exits, before, me);
        self.watch_readiness(member, probe, me);
        Ok(())
    }

    /// When a step starts a service, starts its manual dependencies too and waits for all dependencies.
    pub(super) async fn dependencies(&self, config: &ServiceConfig) -> Result<(), NotDone> {
        let (context, board) = (&self.args.context, &self.args.board);
        let on: Vec<_> = config
            .depends_on
            .iter()
            .map(|(name, on)| (name.clone(), *on))
            .collect();
        for (name, _) in &on {
            let idle = board
                .get(name)
                .is_some_and(|s| s.stage == Stage::Idle && s.manual);
            if idle {
                let (scope, verb) = (context.definition_scope(None), ContainerVerb::Start);
                let started = context.services.act(name, verb, &scope).await;
                started.map_err(RuntimeError::from)?;
            }
        }
        let wanted = std::collections::BTreeMap::from([(self.name.clone(), on)]);
        let mut changes = board.subscribe();
        loop {
            let mut now = changes.borrow_and_update().clone();
            if let Some(own) = now.get_mut(&self.name) {
                own.stage = Stage::Idle;
            }
            match decide(&wanted, &now).pop() {
                Some(Decision::Start(_)) => return Ok(()),
                Some(Decision::GiveUp {
                    outcome,
                    reason,
                    cause,
                    ..
                }) => {
                    let down = self.down_for(outcome, reason, Some(cause)).await;
                    return Err(NotDone::Down(Arc::new(down)));
                }
                None => {
                    let mut on = wanted.values().flatten();
                    let blocked = on.find_map(|(name, _)| board.blocked(name));
                    if let Some(why) = blocked {
                        let reason = format!("service {} can't start: {why}", self.name);
                        return Err(RuntimeError::Failed(reason).into());
                    }
                    if changes.changed().await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }

    pub(super) async fn create(
        &mut self,
        config: &ServiceConfig,
    ) -> Result<Arc<dyn Member>, RuntimeError> {
        let (stack, clock) = (self.stack()?, Arc::clone(&self.args.context.clock));
        let began = clock.wall();
        match self.told_if_slow(config, stack.prepare(config)).await? {
            Some(Prepared::Pulled(what)) => {
                self.tell(ServiceState::Pulled, began, Some(what)).await;
            }
            Some(Prepared::Built(what)) => self.tell(ServiceState::Built, began, Some(what)).await,
            None => {}
        }
        let context = &self.args.context;
        let mut notes = secrets::mask(context, config).await;
        notes.extend(env_file::notes(config, context.workspace.as_deref()).await);
        for message in notes {
            self.args.events.emit(EventKind::Note { message }).await;
        }
        let began = clock.wall();
        let logs = self.args.logs.sink(&self.name);
        let member = stack.create(config, logs).await?;
        self.member = Some(Arc::clone(&member));
        let handle = Arc::clone(&member);
        let board = &self.args.board;
        board.update(&self.name, |status| status.member = Some(handle));
        self.tell(ServiceState::Created, began, config.image.clone())
            .await;
        Ok(member)
    }

    /// Waits for a pull or build. If it takes long, reports it as progress.
    async fn told_if_slow<T>(&self, config: &ServiceConfig, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        if let Ok(done) = tokio::time::timeout(SLOW, &mut work).await {
            return done;
        }
        let image = config.image.as_deref().unwrap_or_default();
        let doing = match config.build {
            Some(_) => "building its image".to_owned(),
            None => format!("pulling {image}"),
        };
        let service = self.name.clone();
        let told = EventKind::ServiceProgress { service, doing };
        self.args.events.emit(told).await;
        work.await
    }

    pub(super) fn watch_exit(
        &mut self,
        mut exits: tokio::sync::watch::Receiver<Option<Exit>>,
        before: u32,
        me: &ActorRef<Self>,
    ) {
        let (me, start) = (me.clone(), self.start);
        self.watchers.spawn(async move {
            let newer = |exit: &Option<Exit>| exit.as_ref().is_some_and(|exit| exit.start > before);
            let exit = match exits.wait_for(newer).await {
                Ok(exit) => exit.clone(),
                Err(_) => None,
            };
            if let Some(exit) = exit {
                let _ = me.tell(Exited { start, exit }).await;
            }
        });
    }

    pub(super) fn watch_readiness(
        &mut self,
        member: Arc<dyn Member>,
        probe: Result<probe::Prepared, probe::NotReady>,
        me: &ActorRef<Self>,
    ) {
        let (me, start) = (me.clone(), self.start);
        let (context, board) = (Arc::clone(&self.args.context), self.args.board.clone());
        let service = self.args.service.clone();
        let events = self.args.events.clone();
        self.watchers.spawn(async move {
            let began = context.clock.wall();
            let result = match probe {
                Ok(probe) => {
                    let tell = probe::Teller {
                        service: &service.name.text,
                        events: &events,
                    };
                    probe::ready(&context, &board, &service, member, probe, start, tell).await
                }
                Err(not_ready) => Err(not_ready),
            };
            let _ = me
                .tell(Probed {
                    start,
                    began,
                    result,
                })
                .await;
        });
    }

    /// If the health check defines readiness, a service that turns unhealthy later goes down. With a `ready` predicate
    /// the health check doesn't count.
    pub(super) fn watch_health(&mut self, me: &ActorRef<Self>) {
        let Some(member) = &self.member else { return };
        if self.args.service.ready.is_some() || !member.has_healthcheck() {
            return;
        }
        let (me, start, mut health) = (me.clone(), self.start, member.health());
        self.watchers.spawn(async move {
            let lost = health
                .wait_for(|health| *health == Some(false))
                .await
                .is_ok();
            if lost {
                let _ = me.tell(Unhealthy { start }).await;
            }
        });
    }
}

fn shown(addresses: &Addresses) -> Option<String> {
    let ports: Vec<String> = addresses
        .ports
        .iter()
        .map(|(_, at)| at.to_string())
        .collect();
    let ip = addresses.ip.map(|ip| ip.to_string());
    if ports.is_empty() {
        ip
    } else {
        Some(ports.join(", "))
    }
}
