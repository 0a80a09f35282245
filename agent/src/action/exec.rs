//! `exec`: runs a command inside a service.

use super::answer::{Answer, Extent, Fault, Implied, LastWords, Printed, Stdout};
use super::exhibit::Exhibit;
use crate::context::CellContext;
use crate::runtime::contract::{ExecOutput, ExecRequest, Heard};
use crate::runtime::head_tail::HeadTail;
use phalanx_shared::expr::{EvalError, Scope};
use phalanx_shared::language::model::{Command, Exec};
use phalanx_shared::mask::Keep;
use phalanx_shared::node::{Node, NodeValue};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The environment variable in which programs look for their trace context.
const TRACEPARENT: &str = "TRACEPARENT";
/// Maximum number of bytes kept of each output stream.
pub const MAX_OUTPUT: usize = 16 * 1024 * 1024;
/// Number of bytes at the end of stderr in which the last line is searched.
const LAST_LINE: usize = 64 * 1024;
/// Maximum number of characters of an output that a failure shows, and that are kept for a step that passes.
const SHOWN: usize = 4_096;

/// Runs the command.
pub async fn perform(
    context: &CellContext,
    exec: &Exec,
    scope: &Scope,
    traceparent: Option<&str>,
    heard: Heard,
) -> Result<Answer, Fault> {
    let evaluate = context.evaluate(scope);
    let service = evaluate.text(&exec.service)?;
    context.services.ready(&service).await?;
    let member = context.services.member(&service).ok_or_else(|| {
        let reason = format!("service {service} isn't running");
        Fault::not_running(service.as_str(), reason)
    })?;
    // A service whose definition sets a trace context keeps it.
    let traceparent = traceparent.filter(|_| !defines_traceparent(context, &service));
    let request = ExecRequest {
        privileged: false,
        command: command(context, &exec.command, scope)?,
        stdin: evaluate
            .optional_text(exec.stdin.as_ref())?
            .map(String::into_bytes),
        env: env(context, exec.env.as_ref(), scope, traceparent)?,
        user: evaluate.optional_text(exec.user.as_ref())?,
        workdir: evaluate.optional_text(exec.workdir.as_ref())?,
        max_output: MAX_OUTPUT,
        heard,
    };
    let text = request_text(format!("exec in {service}: "), &request);
    let began = context.clock.monotonic();
    let output = member.exec(request).await?;
    let elapsed = context.clock.monotonic().saturating_sub(began);
    Ok(Answer {
        request: Some(text),
        ..answer(output, elapsed)
    })
}

/// Returns the words of a command; a script is run by `sh -eu`.
pub fn command(
    context: &CellContext,
    command: &Command,
    scope: &Scope,
) -> Result<Vec<String>, EvalError> {
    let evaluate = context.evaluate(scope);
    match command {
        Command::Script(script) => {
            let script = evaluate.text(script)?;
            Ok(["sh", "-eu", "-c", &script].map(str::to_owned).to_vec())
        }
        Command::Words(node) => {
            let words = evaluate.words(node, "command")?;
            if words.is_empty() {
                return Err(EvalError::new(node.span, "the command has no words"));
            }
            Ok(words)
        }
    }
}

/// Returns the environment variables of a command, including the trace context.
pub fn env(
    context: &CellContext,
    node: Option<&Node>,
    scope: &Scope,
    traceparent: Option<&str>,
) -> Result<BTreeMap<String, String>, EvalError> {
    let mut env: BTreeMap<String, String> = traceparent
        .map(|parent| (TRACEPARENT.to_owned(), parent.to_owned()))
        .into_iter()
        .collect();
    env.extend(context.evaluate(scope).pairs(node, "env")?);
    Ok(env)
}

/// Returns whether the spec itself sets `TRACEPARENT` for a service.
fn defines_traceparent(context: &CellContext, service: &str) -> bool {
    let services = context.spec.services.iter();
    let mut defined = services.filter(|defined| {
        let name = &defined.name.text;
        name == service
            || context
                .services
                .replicas(name)
                .iter()
                .any(|one| one == service)
    });
    let environment = defined
        .next()
        .and_then(|service| service.definition.get("environment"));
    match environment.map(|node| &node.value) {
        Some(NodeValue::Map(entries)) => entries.iter().any(|entry| entry.key.text == TRACEPARENT),
        Some(NodeValue::List(lines)) => lines.iter().any(|line| {
            matches!(&line.value, NodeValue::Text(text) if text.split('=').next() == Some(TRACEPARENT))
        }),
        _ => false,
    }
}

/// Returns the results of a command that has ended.
pub fn answer(output: ExecOutput, elapsed: Duration) -> Answer {
    let ExecOutput {
        exit_code,
        stdout,
        stderr,
        stdout_cut,
        stderr_cut,
    } = output;
    let last_words = match exit_code {
        0 => None,
        _ => last_line(&stderr).map(LastWords::Line),
    };
    let mut response = Exhibit::from(format!("exit code {exit_code}"));
    let mut answer = Answer::default().value("exit_code", exit_code);
    let mut printed = Printed::default();
    for (name, bytes, cut, kept) in [
        ("stdout", stdout, stdout_cut, &mut printed.stdout),
        ("stderr", stderr, stderr_cut, &mut printed.stderr),
    ] {
        let (bytes, extent): (Arc<[u8]>, _) = (bytes.into(), Extent::from(cut));
        if !bytes.is_empty() {
            // The end of an output says more than its beginning.
            let all = extent.text(bytes.len());
            response = response.text(format!("\n{name}:\n")).part_of(
                Arc::clone(&bytes),
                Keep::Tail(SHOWN),
                all.clone(),
            );
            *kept = Exhibit::new().part_of(Arc::clone(&bytes), Keep::Ends(SHOWN), all);
            printed.bytes += cut.unwrap_or(bytes.len() as u64);
        }
        answer.size += bytes.len();
        if name == "stdout" {
            answer.stdout = Some(Stdout {
                bytes: Arc::clone(&bytes),
                cut: extent.cut_at(MAX_OUTPUT),
            });
        }
        answer = match extent.cut_at(MAX_OUTPUT) {
            None => answer.lazy(name, move || {
                Ok(Value::from(String::from_utf8_lossy(&bytes)))
            }),
            Some(why) => answer.cut(name, why),
        };
    }
    Answer {
        implied: Some(Implied::ExitCode(exit_code)),
        response: Some(response),
        printed: (printed.bytes > 0).then_some(printed),
        last_words,
        ..answer.value("elapsed", json!(elapsed.as_secs_f64()))
    }
}

/// Returns the output of a command up to the moment when it was given up.
pub fn unfinished(so_far: [HeadTail; 2]) -> Answer {
    let mut answer = Answer::default();
    for (name, kept) in ["stdout", "stderr"].into_iter().zip(so_far) {
        let extent = Extent::from(kept.cut());
        let bytes = kept.finish();
        if bytes.is_empty() {
            continue;
        }
        answer.size += bytes.len();
        let bytes: Arc<[u8]> = bytes.into();
        if name == "stdout" {
            answer.stdout = Some(Stdout {
                bytes: Arc::clone(&bytes),
                // What is missing is no problem of a program that was given up.
                cut: None,
            });
        }
        let (shown, all) = (answer.response.take(), extent.text(bytes.len()));
        let shown = match shown {
            Some(before) => before.text(format!("\n{name} until then:\n")),
            None => format!("{name} until then:\n").into(),
        };
        answer.response = Some(shown.part_of(bytes, Keep::Tail(SHOWN), all));
    }
    answer
}

/// Returns the last line that isn't blank.
fn last_line(bytes: &[u8]) -> Option<String> {
    let end = match bytes.len().checked_sub(LAST_LINE) {
        None => bytes,
        // Skip the first, partial line: it may begin in the middle of a secret.
        Some(from) => {
            let end = bytes.get(from..)?;
            end.get(end.iter().position(|byte| *byte == b'\n')?..)?
        }
    };
    let text = String::from_utf8_lossy(end).into_owned();
    let mut lines = text.lines().rev().map(str::trim);
    lines.find(|line| !line.is_empty()).map(str::to_owned)
}

/// Describes a command for failures. Its environment variables may be secret and aren't shown.
pub fn request_text(what: String, request: &ExecRequest) -> Exhibit {
    let words = match request.command.as_slice() {
        [sh, eu, c, script] if sh == "sh" && eu == "-eu" && c == "-c" => script.clone(),
        words => words.join(" "),
    };
    let text = Exhibit::from(what).text(words);
    match &request.stdin {
        Some(stdin) => text
            .text("\nstdin:\n")
            .part(stdin.as_slice(), Keep::Head(SHOWN)),
        None => text,
    }
}
