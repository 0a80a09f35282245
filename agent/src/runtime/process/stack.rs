//! The host processes of one attempt.

use super::copy;
use super::fork_server::ForkServer;
use super::health::Check;
use super::host::AttemptHost;
use super::kept::KeptNotes;
use super::life::Definition;
use super::member::ProcessMember;
use super::ports::Ports;
use super::reap;
use super::wardens::Wardens;
use crate::clock::Clock;
use crate::runtime::blocking::blocking;
use crate::runtime::contract::{
    AttemptScope, Closed, ExecOutput, ExecRequest, Fault, Member, Prepared, RuntimeError, Stack,
};
use crate::runtime::env_file;
use crate::runtime::gather::Gather;
use crate::runtime::search::{FoundFile, Search};
use crate::sink::LogSink;
use async_trait::async_trait;
use futures::future::join_all;
use phalanx_shared::language::service::ServiceConfig;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Service name in the mark of processes started by `run` steps.
const RUN: &str = "run";

/// The host processes of an attempt, their ports, and commands next to them.
pub struct ProcessStack {
    host: Arc<AttemptHost>,
    ports: Arc<Ports>,
    kept: KeptNotes,
    clock: Arc<dyn Clock>,
    members: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    created: Vec<Arc<ProcessMember>>,
    closed: bool,
}

impl ProcessStack {
    pub(super) fn new(
        scope: AttemptScope,
        fork_server: ForkServer,
        kept: KeptNotes,
        clock: Arc<dyn Clock>,
    ) -> ProcessStack {
        ProcessStack {
            host: Arc::new(AttemptHost {
                scope,
                fork_server,
                wardens: Wardens::default(),
            }),
            ports: Arc::default(),
            kept,
            clock,
            members: Mutex::default(),
        }
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the address of each port: a free port for one that has only a name, the given port for one with a fixed
    /// number.
    fn addresses_of_ports(
        &self,
        config: &ServiceConfig,
    ) -> Result<Vec<(String, SocketAddr)>, RuntimeError> {
        config
            .ports
            .iter()
            .filter_map(|port| match (&port.name, port.target) {
                (_, Some(fixed)) => Some(Ok((fixed.to_string(), fixed))),
                (Some(name), None) => Some(self.reserve(&config.name, name)),
                (None, None) => None,
            })
            .map(|port| port.map(|(key, port)| (key, (Ipv4Addr::LOCALHOST, port).into())))
            .collect()
    }

    fn reserve(&self, service: &str, name: &str) -> Result<(String, u16), RuntimeError> {
        match self.ports.reserve(service, name) {
            Ok(port) => Ok((name.to_owned(), port)),
            Err(error) => {
                let why = format!("no free port for `{name}`: {error}");
                Err(RuntimeError::of(service, Fault::Machine, why))
            }
        }
    }

    /// Keeps everything for `ttl`, even if the agent exits.
    async fn keep(&self, ttl: Duration, members: &[Arc<ProcessMember>]) -> Closed {
        let mut closed = Closed::default();
        let token = &self.host.scope.token;
        if let Err(error) = self.kept.write(token, self.clock.wall(), ttl) {
            let note = format!("can't note that {token} is kept, it may be reaped early: {error}");
            closed.left.push(note);
        }
        join_all(members.iter().map(|member| member.keep(ttl))).await;
        closed
    }
}

#[async_trait]
impl Stack for ProcessStack {
    async fn prepare(&self, _: &ServiceConfig) -> Result<Option<Prepared>, RuntimeError> {
        Ok(None)
    }

    async fn create(
        &self,
        config: &ServiceConfig,
        logs: LogSink,
    ) -> Result<Arc<dyn Member>, RuntimeError> {
        let error = |fault, why: &str| RuntimeError::of(&config.name, fault, why);
        let command = config.process.clone().unwrap_or_default();
        if command.is_empty() {
            let why = "has no `process` command, so it can't run as a host process";
            return Err(error(Fault::Definition, why));
        }
        self.host.make_base().await?;
        let scope = &self.host.scope;
        let variables =
            env_file::environment(config, Some(self.host.base()), &scope.policy).await?;
        let workdir = self.host.workdir(config.working_dir.as_deref())?;
        let member = Arc::new(ProcessMember::new(
            self.host.clone(),
            self.ports.clone(),
            Definition {
                name: config.name.clone(),
                command,
                env: self.host.environment(Some(&config.name), variables),
                workdir,
                addresses: self.addresses_of_ports(config)?,
                check: Check::of(config.healthcheck.as_ref()),
                stop_signal: super::signal::parse(
                    config.stop_signal.as_deref().unwrap_or("SIGTERM"),
                )?,
                stop_grace: Duration::from_millis(config.stop_grace_ms.unwrap_or(10_000)),
            },
            logs,
        ));
        let mut members = self.members();
        if members.closed {
            return Err(error(Fault::Misuse, "the stack is closed"));
        }
        if members
            .created
            .iter()
            .any(|other| other.name() == config.name)
        {
            return Err(error(Fault::Misuse, "was created already"));
        }
        members.created.push(member.clone());
        Ok(member)
    }

    async fn reserve_ports(
        &self,
        service: &str,
        names: &[String],
    ) -> Result<Vec<(String, u16)>, RuntimeError> {
        names
            .iter()
            .map(|name| self.reserve(service, name))
            .collect()
    }

    async fn run_on_host(&self, request: ExecRequest) -> Result<ExecOutput, RuntimeError> {
        let changes = request
            .env
            .clone()
            .into_iter()
            .map(|(name, value)| (name, Some(value)));
        let env = self.host.environment(None, changes);
        let workdir = self.host.workdir(request.workdir.as_deref())?;
        self.host.run(RUN, request, env, workdir).await
    }

    async fn find_on_host(&self, search: Search) -> Result<Vec<FoundFile>, RuntimeError> {
        copy::found(self.host.workdir(None)?, search).await
    }

    async fn gather_on_host(&self, gather: Gather) -> Result<(), RuntimeError> {
        copy::gathered(self.host.workdir(None)?, gather).await
    }

    async fn close(&self, grace: Duration, keep: Option<Duration>) -> Closed {
        let members = {
            let mut members = self.members();
            members.closed = true;
            members.created.clone()
        };
        if let Some(ttl) = keep {
            return self.keep(ttl, &members).await;
        }
        let mut closed = Closed::default();
        for result in join_all(members.iter().rev().map(|member| member.close(grace))).await {
            match result {
                Ok(()) => closed.removed += 1,
                Err(left) => closed.left.push(left.to_string()),
            }
        }
        if !self.host.wardens.all_ended(reap::WARDEN_TIME).await {
            // Processes left by a killed warden still have the mark.
            let (agent, token) = (self.host.scope.agent.clone(), self.host.scope.token.clone());
            let swept = blocking(move || {
                reap::end_marked(|marker| marker.agent == agent && marker.token == token)
            })
            .await;
            closed.removed += swept.removed;
            closed.left.extend(swept.left);
        }
        self.ports.release();
        closed
    }
}
