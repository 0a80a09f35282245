//! `run`: runs a command on the agent's host, if the agent allows it.
//!
//! The command runs in its own process group, beside the cell's host processes. No process that it starts outlives it.

use super::answer::{Answer, Fault};
use super::exec::{MAX_OUTPUT, answer, command, env, request_text};
use crate::context::CellContext;
use crate::runtime::contract::{ExecRequest, Heard};
use phalanx_shared::expr::Scope;
use phalanx_shared::language::model::Run;

/// Runs the command.
pub async fn perform(
    context: &CellContext,
    run: &Run,
    scope: &Scope,
    traceparent: Option<&str>,
    heard: Heard,
) -> Result<Answer, Fault> {
    let host = context
        .host
        .as_ref()
        .map_err(|why| Fault::Errored(why.clone()))?;
    let request = ExecRequest {
        privileged: false,
        command: command(context, &run.command, scope)?,
        stdin: None,
        env: env(context, run.env.as_ref(), scope, traceparent)?,
        user: None,
        workdir: context
            .evaluate(scope)
            .optional_text(run.workdir.as_ref())?,
        max_output: MAX_OUTPUT,
        heard,
    };
    let text = request_text("run: ".to_owned(), &request);
    let began = context.clock.monotonic();
    let output = host.run_on_host(request).await?;
    let elapsed = context.clock.monotonic().saturating_sub(began);
    Ok(Answer {
        request: Some(text),
        ..answer(output, elapsed)
    })
}
