//! Runs a command inside a container.

use super::error::{Said, runtime, said, status};
use super::member::Container;
use crate::runtime::contract::{ExecOutput, ExecRequest, Fault, RuntimeError};
use crate::runtime::head_tail::HeadTail;
use bollard::container::LogOutput;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use futures::StreamExt;
use phalanx_shared::event::LogStream;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// Runs the command until it exits.
pub(super) async fn run(
    container: &Container,
    request: ExecRequest,
) -> Result<ExecOutput, RuntimeError> {
    let what = format!(
        "service {}: exec {}",
        container.config.name,
        request.command.first().map_or("", String::as_str)
    );
    attend(container, request, what).await
}

/// Runs the command until it exits. `what` begins the messages.
pub(super) async fn attend(
    container: &Container,
    request: ExecRequest,
    what: String,
) -> Result<ExecOutput, RuntimeError> {
    let breaks = container.shared.signs_of_breaks();
    let attended = attend_until_cut(container, request, &what, breaks).await;
    attended.map_err(|error| match error.fault {
        // An engine that was restarted says that the container doesn't run: that isn't the container's fault.
        Fault::Engine => error,
        _ if container.shared.signs_of_breaks() == breaks => error,
        _ => {
            let reason = format!(
                "{}; the connection to the engine was cut in the meantime",
                error.reason
            );
            RuntimeError::new(Fault::Engine, reason)
        }
    })
}

async fn attend_until_cut(
    container: &Container,
    request: ExecRequest,
    what: &str,
    breaks: u64,
) -> Result<ExecOutput, RuntimeError> {
    let fail = |error: &bollard::errors::Error| runtime(what, error);
    let engine = &container.shared.engine;
    let config = config(&request);
    let created = engine
        .ask(|| engine.docker.create_exec(&container.id, config.clone()))
        .await
        .map_err(|error| fail(&error))?;
    // From here on nothing is retried: the command may have had its effect.
    let options = StartExecOptions {
        output_capacity: Some(64 * 1024),
        ..StartExecOptions::default()
    };
    let started = engine
        .docker
        .start_exec(&created.id, Some(options))
        .await
        .map_err(|error| start_error(what, &request, &error))?;
    let StartExecResults::Attached {
        mut output,
        mut input,
    } = started
    else {
        let reason = format!("{what}: the engine did not attach to it");
        return Err(RuntimeError::new(Fault::Engine, reason));
    };
    let mut stdout = HeadTail::new(request.max_output);
    let mut stderr = HeadTail::new(request.max_output);
    let feed = async {
        if let Some(bytes) = &request.stdin {
            // A command that doesn't read all of its input is no error, as in a pipe.
            let _ = input.write_all(bytes).await;
            let _ = input.shutdown().await;
        }
        // Keeps the input half until the output ends: both halves of the connection are dropped together.
        std::future::pending::<()>().await;
    };
    let read = async {
        while let Some(frame) = output.next().await {
            match frame {
                Ok(LogOutput::StdOut { message } | LogOutput::Console { message }) => {
                    request.heard.push(LogStream::Stdout, &message);
                    stdout.push(&message);
                }
                Ok(LogOutput::StdErr { message }) => {
                    request.heard.push(LogStream::Stderr, &message);
                    stderr.push(&message);
                }
                Ok(LogOutput::StdIn { .. }) => {}
                Err(error) => return Err(fail(&error)),
            }
        }
        Ok(())
    };
    tokio::select! {
        ended = read => ended?,
        () = feed => {}
    }
    let exit_code = exit_code(container, &created.id, what).await?;
    if container.shared.signs_of_breaks() != breaks {
        // The command exited, but its output may have been cut off; a partial answer must not be judged.
        let reason = format!(
            "{what}: the connection to the engine was cut while it ran; its output may be incomplete"
        );
        return Err(RuntimeError::new(Fault::Engine, reason));
    }
    let mut out = ExecOutput {
        exit_code,
        stdout_cut: stdout.cut(),
        stderr_cut: stderr.cut(),
        stdout: stdout.finish(),
        stderr: stderr.finish(),
    };
    could_not_run(&mut out, what, &request)?;
    Ok(out)
}

fn config(request: &ExecRequest) -> ExecConfig {
    ExecConfig {
        attach_stdin: Some(request.stdin.is_some()),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        env: (!request.env.is_empty()).then(|| {
            request
                .env
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect()
        }),
        cmd: Some(request.command.clone()),
        user: request.user.clone(),
        working_dir: request.workdir.clone(),
        privileged: request.privileged.then_some(true),
        ..ExecConfig::default()
    }
}

fn start_error(what: &str, request: &ExecRequest, error: &bollard::errors::Error) -> RuntimeError {
    match &request.user {
        Some(user) if Said::NoSuchUser.is_in(error) || Said::NotInPasswd.is_in(error) => {
            no_such_user(what, user, &said(error))
        }
        _ => runtime(what, error),
    }
}

fn no_such_user(what: &str, user: &str, said: &str) -> RuntimeError {
    let reason = format!("{what}: user {user:?} doesn't exist in the container: {said}");
    RuntimeError::new(Fault::Command, reason)
}

/// The engine reports why a command could not be run on stdout, as if the command had printed it. Moves that text to
/// stderr, where a shell would write it. Returns an error if the user doesn't exist.
fn could_not_run(
    out: &mut ExecOutput,
    what: &str,
    request: &ExecRequest,
) -> Result<(), RuntimeError> {
    let refused = matches!(out.exit_code, 126 | 127)
        && [&b"OCI runtime exec failed"[..], b"unable to find user"]
            .iter()
            .any(|start| out.stdout.starts_with(start));
    if !refused {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    if let (Some(user), true) = (&request.user, Said::NoSuchUser.is_in_text(&said)) {
        return Err(no_such_user(what, user, &said));
    }
    let mut moved = std::mem::take(&mut out.stdout);
    moved.append(&mut out.stderr);
    out.stderr = moved;
    Ok(())
}

/// Returns the exit code, which the engine may know only a moment after the end of the output.
async fn exit_code(container: &Container, exec: &str, what: &str) -> Result<i64, RuntimeError> {
    let engine = &container.shared.engine;
    let mut pause = Duration::from_millis(2);
    for _ in 0..12 {
        let seen = engine
            .ask(|| engine.docker.inspect_exec(exec))
            .await
            .map_err(|error| {
                // An engine that was restarted has forgotten its execs.
                let why = match status(&error) {
                    Some(404) => "the engine was restarted, or the container went, while it ran: ",
                    _ => "",
                };
                let reason = format!("{what}: its exit code is unknown: {why}{}", said(&error));
                RuntimeError::new(Fault::Engine, reason)
            })?;
        if let (Some(false) | None, Some(code)) = (seen.running, seen.exit_code) {
            return Ok(code);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
    let reason = format!(
        "{what}: its output ended (was the connection to the engine cut?) while the engine says that it still runs"
    );
    Err(RuntimeError::new(Fault::Engine, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_engine_says_of_a_missing_program_goes_to_stderr() {
        let mut out = ExecOutput {
            exit_code: 126,
            stdout: b"OCI runtime exec failed: no such file".to_vec(),
            ..ExecOutput::default()
        };
        let request = ExecRequest::default();
        assert!(could_not_run(&mut out, "exec", &request).is_ok());
        assert!(out.stdout.is_empty());
        assert!(out.stderr.starts_with(b"OCI"));
    }
}
