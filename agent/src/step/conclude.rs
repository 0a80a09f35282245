//! The end of a step after its action: `skip` ▸ secret captures ▸ checks and captures ▸ the step's outcome.

use super::capture::{Captures, captures};
use super::contract::{End, body};
use super::open;
use crate::action::answer::{Answer, Fault, eval_line};
use crate::action::references::{Collector, References};
use crate::action::{check, failure};
use crate::context::CellContext;
use crate::context::frame::{Value, View};
use phalanx_shared::event::{CheckResult, Output};
use phalanx_shared::expr::{EvalError, Scope};
use phalanx_shared::language::model::{Action, Capture, DefineBody, Step};
use phalanx_shared::mask::{plain, shortened};
use phalanx_shared::outcome::Outcome;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Maximum number of characters of a command's last line in a reason.
const LAST_WORDS: usize = 200;

/// The information available when an action is over.
pub struct Conclusion<'a> {
    /// The context of the attempt.
    pub context: &'a Arc<CellContext>,
    /// The step in the spec.
    pub step: &'a Step,
    /// The scopes that the step sees.
    pub view: &'a View,
    /// The references in the step's expressions.
    pub references: &'a References,
    /// The services that the step uses.
    pub services: &'a BTreeSet<String>,
    /// Number of repetitions of the action.
    pub polls: u32,
}

impl Conclusion<'_> {
    /// Evaluates everything after the action, in the scope of its results.
    pub async fn conclude(&self, scope: &Scope, answer: Option<&Answer>) -> End {
        match self.skipped(scope) {
            Ok(None) => {}
            Ok(Some(reason)) => {
                return End {
                    skips_group: true,
                    polls: self.polls,
                    ..End::bare(Outcome::Skipped, Some(reason))
                };
            }
            Err(error) => return self.unevaluable(&error, answer).await,
        }
        let captures = match captures(self.context, &self.step.capture, scope, answer) {
            Ok(captures) => captures,
            Err(why) => return self.withheld(why, answer).await,
        };
        self.judge(captures, answer, BTreeMap::new()).await
    }

    /// Concludes a `use` or group whose body passed. The results of a `use` are the define's captures.
    pub async fn of_group(&self, inner: &View) -> End {
        let inner_scope = self.context.scope(inner);
        let own = match captures(self.context, self.offered(), &inner_scope, None) {
            Ok(own) => own,
            Err(why) => return self.failed(why, None, Vec::new()).await,
        };
        // The values are handed over by name, so that the define's scope doesn't hide the step's own names.
        let offered = match own.finish() {
            Ok(offered) => offered,
            Err(why) => {
                let needed = self.inner_needs(inner);
                return match needed {
                    Some(reason) => self.skipped_for(reason),
                    None => self.failed(why, None, Vec::new()).await,
                };
            }
        };
        let layer = offered.iter().fold(
            phalanx_shared::expr::Layer::new(),
            |layer, (name, value)| layer.value(name, value.clone()),
        );
        let scope = self.context.scope(self.view).with(layer);
        match self.skipped(&scope) {
            Ok(None) => {}
            Ok(Some(reason)) => {
                return End {
                    skips_group: true,
                    ..End::bare(Outcome::Skipped, Some(reason))
                };
            }
            Err(error) => return self.unevaluable(&error, None).await,
        }
        match captures(self.context, &self.step.capture, &scope, None) {
            Ok(captures) => self.judge(captures, None, offered).await,
            Err(why) => self.failed(why, None, Vec::new()).await,
        }
    }

    /// Returns the captures that the define of a `use` offers.
    fn offered(&self) -> &[Capture] {
        let Action::Use(used) = &self.step.action else {
            return &[];
        };
        match body(&self.context.spec, &used.define.text) {
            Some(DefineBody::Steps { capture, .. }) => capture,
            _ => &[],
        }
    }

    fn inner_needs(&self, inner: &View) -> Option<String> {
        let collector = Collector::new(&self.context.spec, &self.context.cache);
        let references = self
            .offered()
            .iter()
            .fold(collector, |found, capture| found.expr(&capture.value))
            .done();
        open::needs(&references, inner)
    }

    fn skipped(&self, scope: &Scope) -> Result<Option<String>, EvalError> {
        let Some(skip) = &self.step.skip else {
            return Ok(None);
        };
        let evaluate = self.context.evaluate(scope);
        if evaluate.holds(&skip.condition)? {
            return Ok(Some(evaluate.text(&skip.reason)?));
        }
        Ok(None)
    }

    /// Evaluates checks and captures. The step passes if all of them succeed.
    async fn judge(
        &self,
        captures: Captures,
        answer: Option<&Answer>,
        mut values: BTreeMap<String, Value>,
    ) -> End {
        let implied = answer.and_then(|answer| answer.implied);
        let checks = check::all(self.context, &self.step.expect, implied, &captures.scope);
        // Prefer a check that failed over one that could not be judged.
        let said = |check: &&CheckResult| {
            let error = check.error.as_deref();
            !check.passed && error.is_none_or(|error| !is_cut(answer, error))
        };
        let failed = || checks.iter().find(|check| !check.passed);
        if let Some(first) = checks.iter().find(said).or_else(failed) {
            if checks.iter().any(|check| check.error.is_some())
                && let Some(reason) = open::needs(self.references, self.view)
            {
                return self.skipped_for(reason);
            }
            let failed = checks.iter().filter(|check| !check.passed).count();
            let more = match failed {
                1 => String::new(),
                failed => format!(" (and {} more)", failed - 1),
            };
            let mut line = format!("{}{more}", first.failure());
            if let Some(words) = answer.and_then(|answer| answer.last_words.as_ref()) {
                // Mask before shortening. All secrets of this step are known by now.
                let masked = self.context.masks.mask(&plain(words));
                line.push_str(&format!(": {}", shortened(&masked, LAST_WORDS)));
            }
            return self.failed(line, answer, checks).await;
        }
        let finished = captures.finish().and_then(|own| {
            self.context.hold(own.values())?;
            Ok(own)
        });
        match finished {
            Ok(own) => {
                values.extend(own);
                End {
                    checks,
                    output: answer.and_then(|answer| self.output(answer)),
                    polls: self.polls,
                    captures: Arc::new(values),
                    ..End::bare(Outcome::Passed, None)
                }
            }
            Err(why) => match open::needs(self.references, self.view) {
                Some(reason) => self.skipped_for(reason),
                None => self.failed(why, answer, checks).await,
            },
        }
    }

    /// Returns the output of a passed step's command, or only its size if the cell has already printed too much.
    fn output(&self, answer: &Answer) -> Option<Output> {
        let printed = answer.printed.as_ref()?;
        let masks = self.context.masks.current();
        let output = Output {
            stdout: printed.stdout.show(&masks),
            stderr: printed.stderr.show(&masks),
            left_out: 0,
        };
        match self
            .context
            .keeps(output.stdout.len() + output.stderr.len())
        {
            true => Some(output),
            false => Some(Output {
                left_out: printed.bytes,
                ..Output::default()
            }),
        }
    }

    /// Ends a step whose secret could not be captured. None of its output is shown, not even in the parts of checks.
    /// The implied check only contains a number and often explains the failure, so it is shown.
    async fn withheld(&self, why: String, answer: Option<&Answer>) -> End {
        if let Some(reason) = open::needs(self.references, self.view) {
            return self.skipped_for(reason);
        }
        let implied = answer.and_then(|answer| answer.implied).map(check::judge);
        let (outcome, reason) = match implied.as_ref().filter(|check| !check.passed) {
            Some(check) => (Outcome::Failed, format!("{}; {why}", check.failure())),
            None => (verdict(answer, &why), why),
        };
        let failure =
            failure::of_step(self.context, self.step.span, answer, &BTreeSet::new(), true).await;
        End {
            checks: implied.into_iter().collect(),
            failure: Some(failure),
            polls: self.polls,
            ..End::bare(outcome, Some(reason))
        }
    }

    /// Ends a step whose action produced no result to judge.
    pub async fn faulted(&self, fault: Fault) -> End {
        if let Fault::Unevaluable(error) = &fault {
            return self.unevaluable(error, None).await;
        }
        let (outcome, reason) = (fault.outcome(), fault.reason(self.context));
        let answer = match &fault {
            Fault::Failed { answer, .. } | Fault::Cut { answer, .. } => Some(&**answer),
            _ => None,
        };
        let mut services = self.services.clone();
        if let Fault::Down(down) = &fault {
            services.insert(down.service.clone());
        }
        let withheld = self.holds_back();
        let mut failure =
            failure::of_step(self.context, self.step.span, answer, &services, withheld).await;
        if let Fault::Down(down) = &fault {
            failure.notes.extend(down.failure.notes.iter().cloned());
            // Adds the logs of the service that is the root cause, which this step may not refer to.
            for tail in down.failure.logs.iter().rev() {
                if !failure
                    .logs
                    .iter()
                    .any(|known| known.service == tail.service)
                {
                    failure.logs.insert(0, tail.clone());
                }
            }
        }
        End {
            failure: Some(failure),
            polls: self.polls,
            ..End::bare(outcome, Some(reason))
        }
    }

    async fn unevaluable(&self, error: &EvalError, answer: Option<&Answer>) -> End {
        match open::needs(self.references, self.view) {
            Some(reason) => self.skipped_for(reason),
            None => {
                let line = eval_line(self.context, error);
                self.failed_early(line, answer, Vec::new()).await
            }
        }
    }

    fn skipped_for(&self, reason: String) -> End {
        End {
            polls: self.polls,
            ..End::bare(Outcome::Skipped, Some(reason))
        }
    }

    /// Ends a step that failed before its captures were evaluated. Withholds output that a secret capture would have
    /// masked.
    pub async fn failed_early(
        &self,
        reason: String,
        answer: Option<&Answer>,
        mut checks: Vec<CheckResult>,
    ) -> End {
        let withheld = self.holds_back();
        if withheld {
            for check in &mut checks {
                check.parts.clear();
                check.error = None;
            }
        }
        let failure = failure::of_step(
            self.context,
            self.step.span,
            answer,
            self.services,
            withheld,
        )
        .await;
        End {
            checks,
            failure: Some(failure),
            polls: self.polls,
            ..End::bare(verdict(answer, &reason), Some(reason))
        }
    }

    /// Returns whether the output may hold a secret that isn't masked yet.
    fn holds_back(&self) -> bool {
        self.step.capture.iter().any(|capture| capture.secret)
    }

    /// Ends a step that failed after its secret captures, with all evidence.
    async fn failed(
        &self,
        reason: String,
        answer: Option<&Answer>,
        checks: Vec<CheckResult>,
    ) -> End {
        let context = self.context;
        let failure = failure::of_step(context, self.step.span, answer, self.services, false).await;
        End {
            checks,
            failure: Some(failure),
            polls: self.polls,
            ..End::bare(verdict(answer, &reason), Some(reason))
        }
    }
}

/// Returns failed, or errored if the judged result isn't complete.
fn verdict(answer: Option<&Answer>, why: &str) -> Outcome {
    match is_cut(answer, why) {
        true => Outcome::Errored,
        false => Outcome::Failed,
    }
}

fn is_cut(answer: Option<&Answer>, why: &str) -> bool {
    answer.is_some_and(|answer| answer.cut_off(why))
}
