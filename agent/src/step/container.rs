//! `container`: actions on a service's life.

use super::answer::{Answer, Fault};
use super::exec::{MAX_OUTPUT, answer, unfinished};
use crate::cell::context::CellContext;
use crate::runtime::contract::ExecOutput;
use crate::stack::board::Stage;
use crate::stack::container::{Do, of_send};
use phalanx_shared::expr::Scope;
use phalanx_shared::language::model::{ContainerAction, ContainerVerb};

/// Performs the action. `start` and `restart` return when the service is ready, `run` when it has exited.
pub async fn perform(
    context: &CellContext,
    action: &ContainerAction,
    scope: &Scope,
) -> Result<Answer, Fault> {
    let service = context.evaluate(scope).text(&action.service)?;
    let actor = context
        .service(&service)
        .ok_or_else(|| Fault::Errored(format!("there is no service {service}")))?;
    let verb = action.verb;
    let began = context.clock.monotonic();
    if verb == ContainerVerb::Run {
        context.logs.record(&service, MAX_OUTPUT);
    }
    match verb {
        ContainerVerb::Start | ContainerVerb::Run => {}
        // Wait for a service that is still starting. Stopping a service that isn't running is not an error here.
        ContainerVerb::Stop | ContainerVerb::Kill | ContainerVerb::Restart => {
            let _ = context.board.ready([&service]).await;
        }
        _ => context.board.ready([&service]).await?,
    }
    let order = Do {
        verb,
        scope: scope.clone(),
    };
    if let Err(error) = actor.ask(order).await {
        let error = of_send(error);
        // If a dependency can't be met, its evidence is shown.
        let down = context.board.get(&service).and_then(|status| status.down);
        return Err(match down.filter(|down| down.reason == error.to_string()) {
            Some(down) => Fault::Down(down),
            None => error.into(),
        });
    }
    match verb {
        ContainerVerb::Start | ContainerVerb::Restart => {
            let ready = context.board.ready([&service]).await;
            // A job may have finished before it was seen as ready.
            let status = context.board.get(&service);
            let done = status.is_some_and(|status| {
                status.stage == Stage::Exited && status.exit.is_some_and(|exit| exit.code == 0)
            });
            if !done {
                ready?;
            }
            Ok(Answer::default())
        }
        ContainerVerb::Run => {
            let exit = context.board.exited(&service).await?;
            context.logs.settle().await;
            let [stdout, stderr] = context.logs.recorded(&service);
            let output = ExecOutput {
                exit_code: exit.map_or(0, |exit| exit.code),
                stdout_cut: stdout.cut(),
                stderr_cut: stderr.cut(),
                stdout: stdout.finish(),
                stderr: stderr.finish(),
            };
            let elapsed = context.clock.monotonic().saturating_sub(began);
            Ok(Answer {
                request: Some(format!("run of service {service}").into()),
                ..answer(output, elapsed)
            })
        }
        _ => Ok(Answer::default()),
    }
}

/// Returns the output so far of a service that `run` runs, for a step that ends before the service does.
pub fn unfinished_run(context: &CellContext, action: &ContainerAction, scope: &Scope) -> Answer {
    match context.evaluate(scope).text(&action.service) {
        Ok(service) if action.verb == ContainerVerb::Run => {
            unfinished(context.logs.recorded(&service))
        }
        _ => Answer::default(),
    }
}
