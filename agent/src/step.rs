//! The execution of one step: wait for its services ▸ act (and poll) ▸ `skip` ▸ secret captures ▸ checks and captures.
//!
//! A [`Try`] is one try of a step; the sequence decides about further tries and about the effect on other steps. The
//! actions themselves are in [`crate::action`].

mod capture;
mod cases;
mod conclude;
pub mod contract;
pub mod name;
pub mod open;
mod poll;

use crate::action::answer::{Answer, Fault, eval_line};
use crate::action::artifacts::{self, Owner, TimeLimit};
use crate::action::references::{Collector, References};
use crate::action::{check, container, cp, exec, failure, http, results, run, sse, wait};
use crate::context::CellContext;
use crate::context::acts::Acts;
use crate::context::artifacts::Owed;
use crate::context::frame::View;
use crate::duration::duration_text;
use crate::runtime::contract::Heard;
use conclude::Conclusion;
use contract::End;
use phalanx_shared::event::{CheckResult, Failure, StepPath};
use phalanx_shared::expr::{EvalError, Scope};
use phalanx_shared::language::model::{Action, Poll, Step};
use phalanx_shared::node::Expr;
use phalanx_shared::outcome::Outcome;
use poll::Pace;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

/// The output of a try's command so far, for a try that is ended from outside.
pub struct Witness {
    context: Arc<CellContext>,
    step: Arc<Step>,
    scope: Scope,
    heard: Arc<Mutex<Heard>>,
    judged: Arc<OnceLock<Outcome>>,
}

impl Witness {
    /// Returns whether the try had its outcome, and only kept its artifacts.
    pub fn is_judged(&self) -> bool {
        self.judged.get().is_some()
    }

    /// Has the artifacts of the step kept at the end of the attempt, since the step can't do it any more.
    pub fn owe_artifacts(&self, path: &str) {
        if !self.step.artifacts.is_empty() {
            self.context.artifacts.owe(Owed {
                step: Arc::clone(&self.step),
                scope: self.scope.clone(),
                outcome: self.judged.get().copied(),
                path: path.to_owned(),
            });
        }
    }

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
    /// Its outcome, once its artifacts are being kept.
    judged: Arc<OnceLock<Outcome>>,
    /// Path of the step.
    path: StepPath,
    /// Trace context for the calls that the step makes; its parent is the step's own span.
    traceparent: Option<String>,
}

impl Try {
    /// Creates a try.
    pub fn new(
        context: Arc<CellContext>,
        step: Arc<Step>,
        path: StepPath,
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
            judged: Arc::default(),
            path,
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
            judged: Arc::clone(&self.judged),
        }
    }

    /// Runs the try to its end. Awaits `acting` when the services are ready and the action begins, and `judged` before its
    /// artifacts are kept.
    pub async fn run<J: Future<Output = ()>>(
        self,
        acting: impl Future<Output = ()>,
        judged: impl FnOnce(End) -> J,
    ) -> End {
        let services = services(&self.context, &self.references, &self.view);
        let acts = self.context.services.acts();
        let began = self.context.clock.monotonic();
        let ready = self.context.services.all_ready(&services).await;
        let readiness = self.context.clock.monotonic().saturating_sub(began);
        let mut end = match ready {
            Err(unavailable) => self.faulted(unavailable.into(), &services, 0).await,
            Ok(()) => {
                acting.await;
                self.act(&services).await
            }
        };
        end.waits.readiness = readiness;
        self.name_acts(&mut end, &acts, &services);
        if self.step.artifacts.is_empty() {
            return end;
        }
        // Files are no part of what is judged: no timeout may end the step because of them.
        let _ = self.judged.set(end.outcome);
        judged(end.clone()).await;
        self.keep_artifacts(end).await
    }

    /// Keeps the files that the try left. A file that is missing and had to be there changes the outcome.
    async fn keep_artifacts(&self, end: End) -> End {
        let owner = Owner {
            step: Some(&self.path),
            service: None,
        };
        let problem = artifacts::keep(
            &self.context,
            &self.step.artifacts,
            &self.scope,
            owner,
            end.outcome,
            TimeLimit::fixed(artifacts::OF_STEP),
        );
        match problem.await {
            Some(problem) if end.outcome.is_ok() => End {
                outcome: Outcome::Errored,
                reason: Some(problem),
                skips_group: false,
                handed: Arc::default(),
                captured: Vec::new(),
                ..end
            },
            _ => end,
        }
    }

    /// Adds to the reason of a failure what other steps did to the services meanwhile. An action on a service is its own
    /// step's, and a service that isn't running already says why.
    fn name_acts(&self, end: &mut End, before: &Acts, services: &BTreeSet<String>) {
        if matches!(self.step.action, Action::Container(_)) || end.culprit.is_some() {
            return;
        }
        let known = &self.context.services;
        let Some(reason) = end
            .reason
            .as_mut()
            .filter(|_| end.outcome == Outcome::Failed)
        else {
            return;
        };
        let services = known.with_dependencies(services);
        if let Some(acts) = known.acts().meanwhile(before, &services) {
            reason.push_str(&format!("; {acts}"));
        }
    }

    async fn act(&self, services: &BTreeSet<String>) -> End {
        let limit = match self.limit() {
            Ok(limit) => limit,
            Err(error) => return self.faulted(error.into(), services, 0).await,
        };
        match &self.step.poll {
            None => match self.tested(limit).await {
                Ok(answer) => self.conclude(answer, services, 1).await,
                Err(fault) => self.faulted(fault, services, 1).await,
            },
            Some(poll) => self.polled(poll, limit, services).await,
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

    fn captures_secret(&self) -> bool {
        self.step.capture.iter().any(|capture| capture.secret)
    }

    /// Performs the action once, and collects the test results that its program wrote, also if it was given up.
    async fn tested(&self, limit: Duration) -> Result<Answer, Fault> {
        let expected = results::expect(&self.context, &self.step, &self.scope).await?;
        let mut result = self.limited(limit).await;
        let answer = match &mut result {
            Ok(answer) => Some(answer),
            Err(Fault::TimedOut { answer, .. }) => Some(&mut **answer),
            Err(_) => None,
        };
        if let (Some(expected), Some(answer)) = (expected, answer) {
            let collected = expected.collect(&self.context, answer).await;
            answer.tests = Some(Arc::new(collected));
        }
        result
    }

    async fn limited(&self, limit: Duration) -> Result<Answer, Fault> {
        if let Ok(result) = timeout(limit, self.perform()).await {
            return result.map(|mut answer| {
                // They may be shown before the step's secrets are known, and they hold the beginning of a body.
                if self.captures_secret() {
                    answer.nulls.clear();
                }
                answer
            });
        }
        Err(Fault::TimedOut {
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
        let mut paused = Duration::ZERO;
        let mut last: Option<Result<(Answer, Scope), Fault>> = None;
        loop {
            polls += 1;
            let left = pace.left(clock.monotonic());
            match self.limited(limit.min(left)).await {
                Ok(answer) => {
                    let scope = self.scope.with(answer.layer());
                    match self.context.evaluate(&scope).holds(&poll.until) {
                        Ok(true) => {
                            let mut end = self.conclude(answer, services, polls).await;
                            end.waits.poll = paused;
                            return end;
                        }
                        Err(error) if error.incomplete => {
                            let fault = Fault::Cut {
                                reason: eval_line(&self.context, &error),
                                answer: Box::new(answer),
                            };
                            return self.faulted(fault, services, polls).await;
                        }
                        Ok(false) | Err(_) => last = Some(Ok((answer, scope))),
                    }
                }
                // If the poll deadline cut this answer short, the previous answer is more informative.
                Err(fault) if fault.may_pass() => {
                    let more_telling = left < limit && matches!(last, Some(Ok(_)));
                    if !more_telling {
                        last = Some(Err(fault));
                    }
                }
                Err(fault) => return self.faulted(fault, services, polls).await,
            }
            match pace.pause(clock.monotonic()) {
                Some(pause) => {
                    tokio::time::sleep(pause).await;
                    paused = pause;
                }
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
                    ..check::one(&self.context, until, &scope).result
                };
                let conclusion = self.conclusion(services, polls);
                let mut reason = held;
                // Values would be shown before the step's secrets are known.
                if !self.captures_secret() {
                    reason.push_str(&check.why());
                    conclusion.add_last_words(&mut reason, &answer);
                }
                conclusion
                    .failed_early(reason.into(), Some(&answer), vec![check])
                    .await
            }
            Err(fault) => {
                let reason = format!("{held}: {}", fault.reason(&self.context));
                let answer = match fault {
                    Fault::Failed { answer, .. } | Fault::TimedOut { answer, .. } => answer,
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
