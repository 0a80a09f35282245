//! Runs the hooks of a definition inside its container: `post_start` and `pre_stop`.

use super::exec;
use super::member::{Container, DEFAULT_GRACE};
use crate::runtime::contract::{ExecOutput, ExecRequest, Fault, RuntimeError};
use phalanx_shared::event::LogStream;
use phalanx_shared::language::service::Hook;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Bytes of each of a hook's output streams that the service's log gets.
const MAX_OUTPUT: usize = 256 << 10;
/// The least time that `pre_stop` has when a step stops a service.
const LEAST: Duration = Duration::from_secs(60);

/// Runs the hooks that belong to a start. The caller limits their time.
pub(super) async fn post_start(container: &Container) -> Result<(), RuntimeError> {
    run(container, "post_start", &container.config.post_start).await
}

/// Runs the hooks that belong to a stop by a step.
pub(super) async fn pre_stop(container: &Container) -> Result<(), RuntimeError> {
    let own = container.config.stop_grace_ms.map(Duration::from_millis);
    pre_stop_within(container, own.unwrap_or(DEFAULT_GRACE).max(LEAST)).await
}

/// Runs the hooks that belong to a stop, within a time limit.
pub(super) async fn pre_stop_within(
    container: &Container,
    limit: Duration,
) -> Result<(), RuntimeError> {
    let hooks = &container.config.pre_stop;
    if hooks.is_empty() {
        return Ok(());
    }
    if container.paused.swap(false, Ordering::AcqRel) {
        let docker = &container.shared.engine.docker;
        let _ = docker.unpause_container(&container.id).await;
    }
    let running = run(container, "pre_stop", hooks);
    match tokio::time::timeout(limit, running).await {
        // It ended by itself meanwhile, so there is nothing left to stop.
        Ok(Err(_)) if !container.runs() => Ok(()),
        Ok(done) => done,
        Err(_) => {
            let why = format!(
                "its pre_stop hooks weren't done within {} s",
                limit.as_secs()
            );
            Err(container.error(Fault::State, why))
        }
    }
}

async fn run(container: &Container, kind: &str, hooks: &[Hook]) -> Result<(), RuntimeError> {
    let service = &container.config.name;
    for (at, hook) in hooks.iter().enumerate() {
        let program = hook.command.first().map_or("", String::as_str);
        let what = match hooks.len() {
            1 => format!("service {service}: {kind} hook {program}"),
            _ => format!("service {service}: {kind} hook {} ({program})", at + 1),
        };
        let request = ExecRequest {
            command: hook.command.clone(),
            env: hook.environment.clone().into_iter().collect(),
            user: hook.user.clone(),
            workdir: hook.working_dir.clone(),
            privileged: hook.privileged,
            max_output: MAX_OUTPUT,
            ..ExecRequest::default()
        };
        let ExecOutput {
            exit_code,
            stdout,
            stderr,
            ..
        } = exec::attend(container, request, what.clone()).await?;
        // The log masks what it gets; a reason would have to shorten it first.
        for (stream, bytes) in [(LogStream::Stdout, stdout), (LogStream::Stderr, stderr)] {
            if !bytes.is_empty() {
                container.logs.write(stream, bytes).await;
            }
        }
        if exit_code != 0 {
            let reason =
                format!("{what}: exit code {exit_code}; its output is in the service's log");
            return Err(RuntimeError::new(Fault::Command, reason).naming(service));
        }
    }
    Ok(())
}
