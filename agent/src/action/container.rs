//! `container`: actions on a service's life.

use super::answer::{Answer, Fault};
use super::exec::{MAX_OUTPUT, answer, unfinished};
use crate::context::CellContext;
use crate::runtime::contract::ExecOutput;
use phalanx_shared::expr::Scope;
use phalanx_shared::language::model::{ContainerAction, ContainerVerb};

/// Performs the action. `start` and `restart` return when the service is ready, `run` when it has exited.
pub async fn perform(
    context: &CellContext,
    action: &ContainerAction,
    scope: &Scope,
) -> Result<Answer, Fault> {
    let mut service = context.evaluate(scope).text(&action.service)?;
    let services = &context.services;
    if !services.is_known(&service) {
        return Err(Fault::Errored(format!("there is no service {service}")));
    }
    let verb = action.verb;
    if verb == ContainerVerb::Run {
        service = one_of(context, service);
    }
    let began = context.clock.monotonic();
    if verb == ContainerVerb::Run {
        services.record(&service, MAX_OUTPUT);
    }
    match verb {
        ContainerVerb::Start | ContainerVerb::Run => {}
        // Wait for a service that is still starting. Stopping a service that isn't running is not an error here.
        ContainerVerb::Stop | ContainerVerb::Kill | ContainerVerb::Restart => {
            let _ = services.ready(&service).await;
        }
        _ => services.ready(&service).await?,
    }
    services.act(&service, verb, scope).await?;
    match verb {
        ContainerVerb::Start | ContainerVerb::Restart => {
            let ready = services.ready(&service).await;
            // A job may have finished before it was seen as ready.
            if !services.is_completed(&service) {
                ready?;
            }
            Ok(Answer::default())
        }
        ContainerVerb::Run => {
            let exit = services.exited(&service).await?;
            services.settle_output().await;
            let [stdout, stderr] = services.recorded(&service);
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
            let service = one_of(context, service);
            unfinished(context.services.recorded(&service))
        }
        _ => Answer::default(),
    }
}

/// Returns the container of a service that `run` runs: one of its replicas.
fn one_of(context: &CellContext, service: String) -> String {
    let replicas = context.services.replicas(&service);
    replicas.into_iter().next().unwrap_or(service)
}
