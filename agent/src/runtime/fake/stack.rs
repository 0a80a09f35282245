//! The fake's stack: tracks what has been prepared, created and closed, and reports misuse.

use super::member::FakeMember;
use super::record::Record;
use super::script::{self, Script};
use crate::runtime::contract::{
    Closed, ExecOutput, ExecRequest, Fault, Member, Prepared, RuntimeError, SaveOrder, Saved,
    SavedService, SavedVolume, Stack,
};
use crate::sink::LogSink;
use async_trait::async_trait;
use phalanx_shared::id::Token;
use phalanx_shared::language::service::ServiceConfig;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// First number for named ports without an address in the script; nothing listens there.
const FIRST_PORT: u16 = 40_000;

pub struct FakeStack {
    token: Token,
    script: Arc<Script>,
    record: Arc<Record>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    prepared: BTreeSet<String>,
    created: BTreeMap<String, Arc<FakeMember>>,
    ports: BTreeMap<(String, String), u16>,
    restored: BTreeSet<String>,
    closed: bool,
}

impl FakeStack {
    pub fn new(token: Token, script: Arc<Script>, record: Arc<Record>) -> FakeStack {
        FakeStack {
            token,
            script,
            record,
            known: Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a call. Returns an error and records a violation if the stack is closed.
    fn call(&self, call: String) -> Result<(), RuntimeError> {
        self.record.call(call.clone());
        if self.known().closed {
            return Err(self.violation(format!("{call} after close")));
        }
        Ok(())
    }

    fn violation(&self, what: String) -> RuntimeError {
        self.record.violation(format!("{}: {what}", self.token));
        RuntimeError::new(Fault::Misuse, format!("fake: {what}"))
    }

    fn service(&self, name: &str) -> super::script::ServiceScript {
        let mut service = self.script.services.get(name).cloned().unwrap_or_default();
        if service.addresses.host.is_empty() {
            service.addresses.host = name.to_owned();
        }
        service
    }
}

#[async_trait]
impl Stack for FakeStack {
    async fn prepare(&self, config: &ServiceConfig) -> Result<Option<Prepared>, RuntimeError> {
        self.call(format!("prepare {}", config.name))?;
        let service = self.service(&config.name);
        tokio::time::sleep(service.prepare_delay).await;
        if let Some(error) = service.prepare_error {
            return Err(error);
        }
        self.known().prepared.insert(config.name.clone());
        Ok(service.prepared)
    }

    async fn create(
        &self,
        config: &ServiceConfig,
        logs: LogSink,
    ) -> Result<Arc<dyn Member>, RuntimeError> {
        let name = &config.name;
        self.call(format!("create {name}"))?;
        if !self.known().prepared.contains(name) {
            return Err(self.violation(format!("create {name} before prepare")));
        }
        if self.known().created.contains_key(name) {
            return Err(self.violation(format!("create {name} twice")));
        }
        let mut service = self.service(name);
        if let Some(error) = service.create_error {
            return Err(error);
        }
        for port in config.ports.iter().filter_map(|port| port.name.as_ref()) {
            if let Some(number) = self.known().ports.get(&(name.clone(), port.clone()))
                && !service
                    .addresses
                    .ports
                    .iter()
                    .any(|(known, _)| known == port)
            {
                let address = ([127, 0, 0, 1], *number).into();
                service.addresses.ports.push((port.clone(), address));
            }
        }
        if self.known().restored.contains(name)
            && let Some(error) = &service.restored_error
        {
            service.start_error = Some(error.clone());
        }
        let member = FakeMember::new(name.clone(), service, logs, self.record.clone());
        let member = Arc::new(member);
        self.known().created.insert(name.clone(), member.clone());
        Ok(member)
    }

    async fn image_id(&self, config: &ServiceConfig) -> Result<Option<String>, RuntimeError> {
        if !self.known().prepared.contains(&config.name) {
            return Err(self.violation(format!("image_id {} before prepare", config.name)));
        }
        Ok(self.service(&config.name).image_id)
    }

    async fn save(&self, order: SaveOrder) -> Result<Saved, RuntimeError> {
        self.call(format!("save {}", order.services.join(" ")))?;
        let mut saved = Saved::default();
        for name in order.services {
            let member = self.known().created.get(&name).cloned();
            if member.is_none_or(|member| member.is_running()) {
                return Err(self.violation(format!("save {name} while it runs")));
            }
            let file = format!("{name}.tar");
            let wrong =
                |error: std::io::Error| RuntimeError::new(Fault::Machine, error.to_string());
            std::fs::write(order.directory.join(&file), &name).map_err(wrong)?;
            saved.volumes.push(SavedVolume {
                service: name.clone(),
                file,
                bytes: name.len() as u64,
                ..SavedVolume::default()
            });
            saved.services.push(SavedService {
                name,
                ..SavedService::default()
            });
        }
        match &self.script.save_error {
            Some(error) => Err(error.clone()),
            None => Ok(saved),
        }
    }

    async fn restore(&self, saved: &Saved, from: PathBuf) -> Result<(), RuntimeError> {
        let names: Vec<&str> = saved.services.iter().map(|one| one.name.as_str()).collect();
        self.call(format!("restore {}", names.join(" ")))?;
        for volume in &saved.volumes {
            if self.known().created.contains_key(&volume.service) {
                let what = format!("restore {} after it was created", volume.service);
                return Err(self.violation(what));
            }
            let text = std::fs::read_to_string(from.join(&volume.file)).unwrap_or_default();
            if text != volume.service {
                let why = format!("{} isn't what was saved", volume.file);
                return Err(RuntimeError::of(&volume.service, Fault::Machine, why));
            }
            self.known().restored.insert(volume.service.clone());
        }
        Ok(())
    }

    async fn discard(&self, services: &[String]) -> Result<(), RuntimeError> {
        self.call(format!("discard {}", services.join(" ")))?;
        for name in services {
            let member = self.known().created.remove(name);
            if let Some(member) = member {
                member.close(Duration::ZERO).await;
            }
            self.known().restored.remove(name);
        }
        Ok(())
    }

    async fn reserve_ports(
        &self,
        service: &str,
        names: &[String],
    ) -> Result<Vec<(String, u16)>, RuntimeError> {
        self.call(format!("reserve_ports {service}"))?;
        let scripted = self.service(service).addresses.ports;
        let mut known = self.known();
        Ok(names
            .iter()
            .map(|name| {
                let fixed = scripted.iter().find(|(key, _)| key == name);
                let next =
                    FIRST_PORT.saturating_add(u16::try_from(known.ports.len()).unwrap_or(u16::MAX));
                let number = known
                    .ports
                    .entry((service.to_owned(), name.clone()))
                    .or_insert(fixed.map_or(next, |(_, address)| address.port()));
                (name.clone(), *number)
            })
            .collect())
    }

    async fn run_on_host(&self, request: ExecRequest) -> Result<ExecOutput, RuntimeError> {
        self.call(format!("run {}", request.command.join(" ")))?;
        script::answer(&self.script.commands, &request.command).await
    }

    async fn close(&self, grace: Duration, keep: Option<Duration>) -> Closed {
        if self.call("close".to_owned()).is_err() {
            return Closed::default();
        }
        let created: Vec<Arc<FakeMember>> = {
            let mut known = self.known();
            known.closed = true;
            known.created.values().rev().cloned().collect()
        };
        let mut closed = Closed::default();
        if keep.is_none() {
            for member in created {
                member.close(grace).await;
                closed.removed += 1;
            }
            tokio::time::sleep(self.script.close_delay).await;
            closed.left.clone_from(&self.script.left);
        }
        self.record.closed(&self.token);
        closed
    }
}

impl Drop for FakeStack {
    fn drop(&mut self) {
        if !self.known().closed {
            self.violation("dropped without close".to_owned());
        }
    }
}
