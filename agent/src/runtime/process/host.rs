//! State shared by all processes of one attempt: marker, base directory and environment.

use super::fork_server::ForkServer;
use super::guarded::{Guarded, Refused};
use super::marker::Marker;
use super::output::{self, Receiver};
use super::wardens::Wardens;
use super::wire::Start;
use crate::beneath::Place;
use crate::runtime::contract::{AttemptScope, ExecOutput, ExecRequest, Fault, Heard, RuntimeError};
use crate::runtime::head_tail::HeadTail;
use base64::Engine;
use nix::unistd::{Group, User};
use phalanx_shared::event::LogStream;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// Bytes kept of each output stream if the request sets no limit.
const DEFAULT_OUTPUT: usize = 1024 * 1024;
/// Prefix of the agent's own variables, which services don't inherit: settings, secrets, and marks if the agent itself
/// runs within an attempt.
const OWN_PREFIX: &str = "PHALANX_";

/// The host as seen by one attempt.
#[derive(Debug)]
pub struct AttemptHost {
    pub(super) scope: AttemptScope,
    pub(super) fork_server: ForkServer,
    /// Wardens of this attempt.
    pub(super) wardens: Wardens,
}

impl AttemptHost {
    /// Returns the directory that relative paths in the spec are resolved against.
    pub fn base(&self) -> &Path {
        self.scope
            .workspace
            .as_deref()
            .unwrap_or(&self.scope.scratch)
    }

    /// Creates the attempt's scratch directory if relative paths are resolved against it.
    pub async fn make_base(&self) -> Result<(), RuntimeError> {
        if self.scope.workspace.is_some() {
            return Ok(());
        }
        let made = tokio::fs::create_dir_all(&self.scope.scratch).await;
        made.map_err(|error| {
            let reason = format!("{}: {error}", self.scope.scratch.display());
            RuntimeError::new(Fault::Machine, reason)
        })
    }

    /// Returns the working directory of a process, given the one written in the spec.
    pub fn workdir(&self, written: Option<&str>) -> Result<Place, RuntimeError> {
        let written = written.unwrap_or_default();
        if !Path::new(written).is_absolute() {
            return Ok(Place::new(self.base(), written));
        }
        match self.scope.policy.place(written) {
            // All paths are allowed, and links to anywhere.
            Ok((above, _)) if above == Path::new("/") => Ok(Place::new(written, "")),
            Ok((above, below)) => Ok(Place::new(above, below)),
            Err(refusal) => Err(RuntimeError::refused(&refusal)),
        }
    }

    /// Builds an environment: what the policy allows of the agent's own, without the variables that are private to the
    /// agent; then the trace context of the service (a step brings its own); then `changes`, in which `None` removes a
    /// variable.
    pub fn environment(
        &self,
        service: Option<&str>,
        changes: impl IntoIterator<Item = (String, Option<String>)>,
    ) -> BTreeMap<String, String> {
        let mut env: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| !name.starts_with(OWN_PREFIX) && self.scope.policy.inherits(name))
            .collect();
        if let Some(traceparent) = service.and_then(|service| self.scope.traceparent(service)) {
            env.insert("TRACEPARENT".to_owned(), traceparent);
        }
        for (name, value) in changes {
            match value {
                Some(value) => env.insert(name, value),
                None => env.remove(&name),
            };
        }
        env
    }

    /// Returns the marker for the processes of a service.
    pub fn marker(&self, service: &str) -> Marker {
        Marker {
            agent: self.scope.agent.clone(),
            token: self.scope.token.clone(),
            service: service.to_owned(),
        }
    }

    /// Runs a command until it exits and keeps its output. If the future is dropped, the command and all its
    /// descendants are killed.
    pub async fn run(
        &self,
        service: &str,
        request: ExecRequest,
        env: BTreeMap<String, String>,
        workdir: Place,
    ) -> Result<ExecOutput, RuntimeError> {
        if request.command.is_empty() {
            return Err(RuntimeError::new(Fault::Command, "the command is empty"));
        }
        self.make_base().await?;
        let start = Start {
            command: request.command,
            env,
            workdir,
            stdin: request
                .stdin
                .map(|bytes| base64::engine::general_purpose::STANDARD.encode(bytes)),
            ports: Vec::new(),
            user: request.user.as_deref().map(user_and_group).transpose()?,
            limits: crate::limits::SoftLimits::first(),
            marker: self.marker(service),
        };
        let limit = match request.max_output {
            0 => DEFAULT_OUTPUT,
            limit => limit,
        };
        match super::guarded::start(&self.fork_server, &self.wardens, start).await {
            Ok(guarded) => collect(guarded, limit, request.heard).await,
            Err(Refused::Command { exit_code, message }) => Ok(ExecOutput {
                exit_code,
                stdout: Vec::new(),
                stderr: message.into_bytes(),
                ..ExecOutput::default()
            }),
            Err(Refused::Machine(message)) => Err(RuntimeError::new(Fault::Machine, message)),
        }
    }
}

struct Collected {
    heard: Heard,
    stdout: Mutex<HeadTail>,
    stderr: Mutex<HeadTail>,
}

#[async_trait::async_trait]
impl Receiver for Collected {
    async fn frame(&self, stream: LogStream, bytes: Vec<u8>) {
        self.heard.push(stream, &bytes);
        let kept = match stream {
            LogStream::Stdout => &self.stdout,
            LogStream::Stderr => &self.stderr,
        };
        kept.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(&bytes);
    }
}

async fn collect(guarded: Guarded, limit: usize, heard: Heard) -> Result<ExecOutput, RuntimeError> {
    let collected = Collected {
        heard,
        stdout: Mutex::new(HeadTail::new(limit)),
        stderr: Mutex::new(HeadTail::new(limit)),
    };
    let Guarded {
        orders,
        mut end,
        stdout,
        stderr,
        ..
    } = guarded;
    let gone = watch::Sender::new(false);
    let ending = output::drain(stdout, stderr, end.wait(), &collected, &gone).await;
    drop(orders); // Held until here: dropping the orders ends the command.
    let ending = ending.ok_or_else(|| {
        let reason = "the warden of the command was killed from outside";
        RuntimeError::new(Fault::Machine, reason)
    })?;
    let kept = |kept: Mutex<HeadTail>| kept.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (stdout, stderr) = (kept(collected.stdout), kept(collected.stderr));
    Ok(ExecOutput {
        exit_code: ending.code,
        stdout_cut: stdout.cut(),
        stderr_cut: stderr.cut(),
        stdout: stdout.finish(),
        stderr: stderr.finish(),
    })
}

/// Parses `USER[:GROUP]`, by name or number, and looks it up on this host.
fn user_and_group(text: &str) -> Result<(u32, u32), RuntimeError> {
    let failed = |why: String| RuntimeError::new(Fault::Command, format!("user `{text}`: {why}"));
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let known = match user.parse::<u32>() {
        Ok(id) => User::from_uid(id.into()),
        Err(_) => User::from_name(user),
    }
    .map_err(|error| failed(error.to_string()))?;
    let uid = match (&known, user.parse::<u32>()) {
        (Some(known), _) => known.uid.as_raw(),
        (None, Ok(id)) => id,
        (None, Err(_)) => return Err(failed("no such user on the agent's host".to_owned())),
    };
    let gid = match group.map(|group| (group, group.parse::<u32>())) {
        None => known.map_or(uid, |known| known.gid.as_raw()),
        Some((_, Ok(id))) => id,
        Some((name, Err(_))) => Group::from_name(name)
            .map_err(|error| failed(error.to_string()))?
            .ok_or_else(|| failed("no such group on the agent's host".to_owned()))?
            .gid
            .as_raw(),
    };
    Ok((uid, gid))
}
