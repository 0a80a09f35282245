//! What works on this machine, tried with the code that cells use (`phalanx self check`): a host command below a warden,
//! a free port, and a network of the container engine.

use crate::clock::SystemClock;
use crate::identity::Identity;
use crate::policy::Policy;
use crate::reaper;
use crate::runtime::contract::{AttemptScope, ExecRequest, Heard, Runtime, RuntimeError};
use crate::runtime::docker::{Checkup, DockerRuntime, DockerSettings, Unusable};
use crate::runtime::process::ProcessRuntime;
use phalanx_shared::id::{CellId, RunId, Token};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Why the engine can't be used.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// It can't be reached.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// It refuses what a cell needs.
    #[error(transparent)]
    Refused(#[from] RuntimeError),
}

/// Tries the container engine.
///
/// # Errors
/// No engine can be used, or it refuses what a cell needs.
pub async fn engine(identity: &Identity, docker: &DockerSettings) -> Result<Checkup, EngineError> {
    let settings = DockerSettings {
        agent: identity.agent().clone(),
        home: identity.home(),
        ready_networks: 0,
        // Nobody waits for an engine that comes back.
        reconnect_s: 0,
        ..docker.clone()
    };
    // The note must precede the first object.
    reaper::note_engine(identity.state_dir());
    let runtime = DockerRuntime::connect(settings).await?;
    let checked = runtime.checkup().await;
    runtime.shutdown().await;
    Ok(checked?)
}

/// Runs a command on this machine and finds a free port, as for a cell.
///
/// # Errors
/// No command can be run, or no port is free.
pub async fn host(identity: &Identity) -> Result<(), RuntimeError> {
    let agent = identity.agent().clone();
    let clock = Arc::new(SystemClock::default());
    let runtime = ProcessRuntime::new(agent.clone(), identity.state_dir(), clock);
    let scope = AttemptScope {
        token: Token {
            run: RunId::from("self-check"),
            cell: CellId::from("self-check"),
            attempt: 1,
            epoch: 0,
        },
        agent,
        cell_name: "self check".to_owned(),
        scratch: identity.state_dir().join("self-check"),
        workspace: None,
        ipv6: false,
        trace: None,
        images: BTreeMap::new(),
        // It is this program's own command.
        policy: Arc::new(Policy::open()),
    };
    let scratch = scope.scratch.clone();
    let stack = runtime.open(scope).await?;
    let tried = async {
        stack.reserve_ports("check", &["port".to_owned()]).await?;
        let request = ExecRequest {
            privileged: false,
            command: vec!["true".to_owned()],
            stdin: None,
            env: BTreeMap::new(),
            user: None,
            workdir: None,
            max_output: 0,
            heard: Heard::default(),
        };
        stack.run_on_host(request).await
    }
    .await;
    stack.close(Duration::ZERO, None).await;
    runtime.shutdown().await;
    // It holds nothing; the next agent of this identity removes what stays.
    let _ = std::fs::remove_dir_all(scratch);
    tried.map(drop)
}
