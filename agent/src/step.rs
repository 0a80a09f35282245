//! The execution of one step: wait for its services ▸ act (and poll) ▸ `skip` ▸ secret captures ▸ checks and captures.
//!
//! A [`Try`] is one try of a step; the sequence decides about further tries and about the effect on other steps. The
//! actions themselves are in [`crate::action`].

mod capture;
mod conclude;
pub mod contract;
pub mod name;
pub mod open;
mod poll;

use crate::action::answer::{Answer, Fault, eval_line};
use crate::action::references::{Collector, References};
use crate::action::{check, container, cp, exec, failure, http, run, sse, wait};
use crate::context::CellContext;
use crate::context::frame::View;
use crate::duration::duration_text;
use crate::runtime::contract::Heard;
use conclude::Conclusion;
use contract::End;
use phalanx_shared::event::{CheckResult, Failure};
use phalanx_shared::expr::{EvalError, Scope};
use phalanx_shared::language::model::{Action, Poll, Step};
use phalanx_shared::node::Expr;
use poll::Pace;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

/// The output of a try's command so far, for a try that is ended from outside.
pub struct Witness {
    context: Arc<CellContext>,
    step: Arc<Step>,
    scope: Scope,
    heard: Arc<Mutex<Heard>>,
}

impl Witness {
    /// Adds the output so far to a failure, or a note that it is withheld.
    pub fn show(&self, failure: &mut Failure) {
        let answer = match &self.step.action {
            Action::Container(action) => {
                container::unfinished_run(&self.context, action, &self.scope)
            }
            _ => exec::unfinished(lock(&self.heard).so_far()),
        };
        let withheld = self.step.capture.iter().any(|capture| capture.secret);
        if answer.size > 0 {
            failure::show(&self.context, failure, &answer, withheld);
        }
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One try of a step.
pub struct Try {
    context: Arc<CellContext>,
    step: Arc<Step>,
    view: View,
    scope: Scope,
    references: References,
    collected: sse::Collected,
    heard: Arc<Mutex<Heard>>,
    /// Trace context for the calls that the step makes; its parent is the step's own span.
    traceparent: Option<String>,
}

impl Try {
    /// Creates a try.
    pub fn new(
        context: Arc<CellContext>,
        step: Arc<Step>,
        view: View,
        traceparent: Option<String>,
    ) -> Self {
        let references = Collector::new(&context.spec, &context.cache)
            .acting(&step)
            .done();
        let scope = context.scope(&view);
        Try {
            context,
            step,
            view,
            scope,
            references,
            collected: sse::Collected::default(),
            heard: Arc::default(),
            traceparent,
        }
    }

    /// Returns a witness of the command's output.
    pub fn witness(&self) -> Witness {
        Witness {
            context: Arc::clone(&self.context),
            step: Arc::clone(&self.step),
            scope: self.scope.clone(),
            heard: Arc::clone(&self.heard),
        }
    }

    /// Runs the try to its end. Awaits `acting` when the services are ready and the action begins.
    pub async fn run(self, acting: impl Future<Output = ()>) -> End {
        let services = services(&self.context, &self.references, &self.view);
        if let Err(unavailable) = self.context.services.all_ready(&services).await {
            return self.faulted(unavailable.into(), &services, 0).await;
        }
        acting.await;
        let limit = match self.limit() {
            Ok(limit) => limit,
            Err(error) => return self.faulted(error.into(), &services, 0).await,
        };
        match &self.step.poll {
            None => match self.limited(limit).await {
                Ok(answer) => self.conclude(answer, &services, 1).await,
                Err(fault) => self.faulted(fault, &services, 1).await,
            },
            Some(poll) => self.polled(poll, limit, &services).await,
        }
    }

    /// Returns the time limit for one attempt of the action, from `timeout` or a default.
    fn limit(&self) -> Result<Duration, EvalError> {
        let evaluate = self.context.evaluate(&self.scope);
        let own = evaluate.optional_duration(self.step.timeout.as_ref(), "timeout")?;
        let of_stream = match &self.step.action {
            Action::Sse(sse) => evaluate.optional_duration(sse.timeout.as_ref(), "sse.timeout")?,
            _ => None,
        };
        Ok(own
            .or(of_stream)
            .unwrap_or_else(|| usual_limit(&self.step.action)))
    }

    async fn limited(&self, limit: Duration) -> Result<Answer, Fault> {
        if let Ok(result) = timeout(limit, self.perform()).await {
            return result;
        }
        Err(Fault::Failed {
            reason: format!("timed out after {}", duration_text(limit)),
            answer: Box::new(match &self.step.action {
                Action::Sse(_) => self.collected.shown(),
                Action::Exec(_) | Action::Run(_) => exec::unfinished(lock(&self.heard).so_far()),
                Action::Container(action) => {
                    self.context.services.settle_output().await;
                    container::unfinished_run(&self.context, action, &self.scope)
                }
                _ => Answer::default(),
            }),
        })
    }

    async fn perform(&self) -> Result<Answer, Fault> {
        let (context, scope) = (&*self.context, &self.scope);
        let trace = self.traceparent.as_deref();
        match &self.step.action {
            Action::Http(http) => http::perform(context, http, scope, trace).await,
            Action::Sse(sse) => sse::perform(context, sse, scope, trace, &self.collected).await,
            Action::Exec(exec) => exec::perform(context, exec, scope, trace, self.listen()).await,
            Action::Run(run) => run::perform(context, run, scope, trace, self.listen()).await,
            Action::Container(action) => container::perform(context, action, scope).await,
            Action::Wait(wait) => wait::perform(context, wait, scope).await,
            Action::Cp(cp) => cp::perform(context, cp, scope).await,
            // The sequence handles groups; an `expect` alone has no action before its checks.
            Action::Use(_) | Action::Steps(_) | Action::Parallel(_) | Action::Check => {
                Ok(Answer::default())
            }
        }
    }

    /// Starts collecting the output of a new command.
    fn listen(&self) -> Heard {
        let mut heard = lock(&self.heard);
        *heard = Heard::default();
        heard.clone()
    }

    /// Repeats the action until `until` holds. A transport error, or an error in `until`, counts as "not yet".
    async fn polled(&self, poll: &Poll, limit: Duration, services: &BTreeSet<String>) -> End {
        let clock = &self.context.clock;
        let (whole, interval) = match self.poll_limits(poll) {
            Ok(limits) => limits,
            Err(error) => return self.faulted(error.into(), services, 0).await,
        };
        let mut pace = Pace::new(clock.monotonic(), whole, interval);
        let mut polls = 0;
        let mut last: Option<Result<(Answer, Scope), Fault>> = None;
        loop {
            polls += 1;
            let left = pace.left(clock.monotonic());
            match self.limited(limit.min(left)).await {
                Ok(answer) => {
                    let scope = self.scope.with(answer.layer());
                    match self.context.evaluate(&scope).holds(&poll.until) {
                        Ok(true) => return self.conclude(answer, services, polls).await,
                        Err(error) if answer.cut_off(&error.message) => {
                            let fault = Fault::Cut {
                                reason: eval_line(&self.context, &error),
                                answer: Box::new(answer),
                            };
                            return self.faulted(fault, services, polls).await;
                        }
                        Ok(false) | Err(_) => last = Some(Ok((answer, scope))),
                    }
                }
                // The poll deadline cut this answer short, so the previous answer is more informative.
                Err(Fault::Failed { .. }) if left < limit && matches!(last, Some(Ok(_))) => {}
                Err(fault @ Fault::Failed { .. }) => last = Some(Err(fault)),
                Err(fault) => return self.faulted(fault, services, polls).await,
            }
            match pace.pause(clock.monotonic()) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => {
                    let last = last.unwrap_or_else(|| Err(Fault::failed("no answer")));
                    return self.never(&poll.until, whole, last, services, polls).await;
                }
            }
        }
    }

    fn poll_limits(&self, poll: &Poll) -> Result<(Duration, Duration), EvalError> {
        let evaluate = self.context.evaluate(&self.scope);
        let whole = evaluate.optional_duration(poll.timeout.as_ref(), "poll.timeout")?;
        let interval = evaluate.optional_duration(poll.interval.as_ref(), "poll.interval")?;
        Ok((
            whole.unwrap_or(poll::DEFAULT_TIMEOUT),
            interval.unwrap_or(poll::DEFAULT_INTERVAL),
        ))
    }

    /// Ends a poll that ran out of time: failed, with the last answer and its parts.
    async fn never(
        &self,
        until: &Expr,
        whole: Duration,
        last: Result<(Answer, Scope), Fault>,
        services: &BTreeSet<String>,
        polls: u32,
    ) -> End {
        let held = format!(
            "`{}` did not hold within {} ({polls} times asked)",
            until.text.trim(),
            duration_text(whole)
        );
        match last {
            Ok((answer, scope)) => {
                let check = CheckResult {
                    passed: false,
                    ..check::one(&self.context, until, &scope)
                };
                let conclusion = self.conclusion(services, polls);
                conclusion
                    .failed_early(held, Some(&answer), vec![check])
                    .await
            }
            Err(fault) => {
                let reason = format!("{held}: {}", fault.reason(&self.context));
                let answer = match fault {
                    Fault::Failed { answer, .. } => answer,
                    _ => Box::default(),
                };
                self.faulted(Fault::Failed { reason, answer }, services, polls)
                    .await
            }
        }
    }

    fn conclusion<'a>(&'a self, services: &'a BTreeSet<String>, polls: u32) -> Conclusion<'a> {
        Conclusion {
            context: &self.context,
            step: &self.step,
            view: &self.view,
            references: &self.references,
            services,
            polls,
        }
    }

    async fn conclude(&self, answer: Answer, services: &BTreeSet<String>, polls: u32) -> End {
        let scope = self.scope.with(answer.layer());
        let conclusion = self.conclusion(services, polls);
        conclusion.conclude(&scope, Some(&answer)).await
    }

    async fn faulted(&self, fault: Fault, services: &BTreeSet<String>, polls: u32) -> End {
        self.conclusion(services, polls).faulted(fault).await
    }
}

/// Evaluates captures and checks of a `use` or group whose body passed. `view` is what the step itself sees, `inner` what
/// its body saw.
pub async fn conclude_group(
    context: &Arc<CellContext>,
    step: &Step,
    view: &View,
    inner: &View,
) -> End {
    let references = Collector::new(&context.spec, &context.cache)
        .concluding(step)
        .done();
    let services = services(context, &references, view);
    let conclusion = Conclusion {
        context,
        step,
        view,
        references: &references,
        services: &services,
        polls: 0,
    };
    conclusion.of_group(inner).await
}

/// Returns the limit of an action without a `timeout`: 30 s for `http` and `exec`, else 300 s.
fn usual_limit(action: &Action) -> Duration {
    Duration::from_secs(match action {
        Action::Http(_) | Action::Exec(_) => 30,
        _ => 300,
    })
}

/// Returns the services that a step waits for. If a service's name is computed, it is looked up among the step's
/// parameters and variables; if none of them is a service, the step waits for all services that start automatically.
fn services(context: &CellContext, references: &References, view: &View) -> BTreeSet<String> {
    let mut services = references.services.clone();
    if references.computed_service {
        let named: Vec<String> = open::texts_in_view(view)
            .into_iter()
            .filter(|text| context.services.is_known(text))
            .collect();
        services.extend(match named.is_empty() {
            true => context.services.automatic(),
            false => named,
        });
    }
    services
}
