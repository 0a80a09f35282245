//! The end of a step after its action: `skip` ▸ secret captures ▸ checks and captures ▸ the step's outcome.

use super::capture::{Captures, captures, shown};
use super::cases::{Told, told, until_then};
use super::contract::{End, Needed, body};
use super::open;
use crate::action::answer::{Answer, Fault, Implied, LastWords, eval_line};
use crate::action::references::{Collector, References};
use crate::action::{check, failure, page};
use crate::context::CellContext;
use crate::context::frame::{Handed, View};
use crate::context::secrecy::Secrecy;
use crate::results::verdict::Verdict;
use phalanx_shared::event::{CheckResult, Output};
use phalanx_shared::expr::{EvalError, Lack, Scope};
use phalanx_shared::language::model::{Action, Capture, DefineBody, Step};
use phalanx_shared::mask::{plain, shortened};
use phalanx_shared::outcome::Outcome;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Maximum number of characters of a command's last line in a reason.
const LAST_WORDS: usize = 200;
/// Maximum number of characters of an answer in a reason. Pages say first that something went wrong, and then what.
const ANSWERED: usize = 300;

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
                if let Some(why) = self.overdue(&reason) {
                    return self.failed_early(why.into(), answer, Vec::new()).await;
                }
                return End {
                    skips_group: true,
                    polls: self.polls,
                    ..End::bare(Outcome::Skipped, Some(reason))
                };
            }
            Err(error) => return self.unevaluable(&error, answer).await,
        }
        let secrecy = Secrecy::new(self.context, self.view);
        let captures = match captures(self.context, &self.step.capture, scope, secrecy) {
            Ok(captures) => captures,
            Err(why) => return self.withheld(why, answer).await,
        };
        self.judge(captures, answer, Handed::default()).await
    }

    /// Concludes a `use` or group whose body passed. The results of a `use` are the define's captures.
    pub async fn of_group(&self, inner: &View) -> End {
        let inner_scope = self.context.scope(inner);
        let secrecy = Secrecy::new(self.context, inner);
        let own = match captures(self.context, self.offered(), &inner_scope, secrecy) {
            Ok(own) => own,
            Err(why) => return self.failed(why, None, Vec::new()).await,
        };
        // The values are handed over by name, so that the define's scope doesn't hide the step's own names.
        let offered = match own.finish() {
            Ok(offered) => offered,
            Err(why) => {
                let needed = self.inner_needs(inner);
                return match needed {
                    Some(needed) => self.skipped_for(needed),
                    None => self.failed(why, None, Vec::new()).await,
                };
            }
        };
        let layer = offered.values.iter().fold(
            phalanx_shared::expr::Layer::new(),
            |layer, (name, value)| layer.value(name, value.clone()),
        );
        let scope = self.context.scope(self.view).with(layer);
        match self.skipped(&scope) {
            Ok(None) => {}
            Ok(Some(reason)) => {
                if let Some(why) = self.overdue(&reason) {
                    return self.failed_early(why.into(), None, Vec::new()).await;
                }
                return End {
                    skips_group: true,
                    ..End::bare(Outcome::Skipped, Some(reason))
                };
            }
            Err(error) => return self.unevaluable(&error, None).await,
        }
        let mut secrecy = Secrecy::new(self.context, self.view);
        offered.secret.iter().for_each(|name| secrecy.hide(name));
        match captures(self.context, &self.step.capture, &scope, secrecy) {
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

    fn inner_needs(&self, inner: &View) -> Option<Needed> {
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

    /// Returns why the step's `skip` is no longer allowed.
    fn overdue(&self, reason: &str) -> Option<String> {
        let until = self.step.skip.as_ref()?.until.as_ref()?;
        open::overdue(self.context, until, reason)
    }

    /// Judges test results, if there are any, and then evaluates checks and captures. The step passes if all of them
    /// succeed.
    async fn judge(&self, captures: Captures, answer: Option<&Answer>, handed: Handed) -> End {
        let implied = answer.and_then(|answer| answer.implied);
        let implied = check::implied(self.context, &self.step.expect, implied);
        let Some((answer, tests)) =
            answer.and_then(|answer| Some((answer, answer.tests.as_deref()?)))
        else {
            return self.checked(captures, answer, handed, implied).await;
        };
        let exit_code = match implied {
            Some(Implied::ExitCode(code)) => Some(code),
            _ => None,
        };
        let Told { cases, verdict } = told(self.context, self.step, tests, exit_code);
        let end = match verdict.outcome {
            Outcome::Passed | Outcome::Flaky => {
                self.checked(captures, Some(answer), handed, None).await
            }
            Outcome::Skipped => End {
                polls: self.polls,
                ..End::bare(Outcome::Skipped, verdict.reason)
            },
            _ => self.tests_failed(verdict, answer, cases.is_empty()).await,
        };
        End { cases, ..end }
    }

    /// Ends a step whose test results failed, can't be judged, or contradict the exit code.
    async fn tests_failed(&self, verdict: Verdict, answer: &Answer, no_case: bool) -> End {
        let mut reason = verdict.reason.unwrap_or_default();
        if no_case && verdict.outcome == Outcome::Failed {
            self.add_last_words(&mut reason, answer);
        }
        let why = Lack {
            reason,
            incomplete: verdict.outcome == Outcome::Errored,
        };
        let checks = verdict.check.into_iter().collect();
        self.failed(why, Some(answer), checks).await
    }

    /// Adds what the system under test says of the failure: the last line that a failed command wrote on its standard
    /// error, or the answer with an error status.
    pub fn add_last_words(&self, line: &mut String, answer: &Answer) {
        let Some(words) = &answer.last_words else {
            return;
        };
        // Mask before shortening, and before white space and tags go. All secrets of this step are known by now.
        let mask = |text: &str| self.context.masks.mask(&plain(text));
        let (masked, limit) = match words {
            LastWords::Line(line) => (mask(line), LAST_WORDS),
            LastWords::Body(text) => (mask(&page::one_line(&mask(text))), ANSWERED),
            LastWords::Page(html) => (mask(&page::text(&mask(html))), ANSWERED),
        };
        if !masked.is_empty() {
            line.push_str(&format!(": {}", shortened(&masked, limit)));
        }
    }

    /// Evaluates checks and captures. The step passes if all of them succeed.
    async fn checked(
        &self,
        captures: Captures,
        answer: Option<&Answer>,
        mut handed: Handed,
        implied: Option<Implied>,
    ) -> End {
        let judged = check::all(self.context, &self.step.expect, implied, &captures.scope);
        // Prefer a check that failed over one that could not be judged.
        let bad = || judged.iter().filter(|check| !check.result.passed);
        let first = bad()
            .find(|check| !check.incomplete)
            .or_else(|| bad().next());
        let first = first.map(|check| (check.result.failure(), check.incomplete));
        let checks: Vec<CheckResult> = judged.into_iter().map(|check| check.result).collect();
        if let Some((first, incomplete)) = first {
            if checks.iter().any(|check| check.error.is_some())
                && let Some(needed) = open::needs(self.references, self.view)
            {
                return self.skipped_for(needed);
            }
            let failed = checks.iter().filter(|check| !check.passed).count();
            let more = match failed {
                1 => String::new(),
                failed => format!(" (and {} more)", failed - 1),
            };
            let mut line = format!("{first}{more}");
            if let Some(answer) = answer {
                self.add_last_words(&mut line, answer);
            }
            let why = Lack {
                reason: line,
                incomplete,
            };
            return self.failed(why, answer, checks).await;
        }
        let finished = captures.finish().and_then(|own| {
            self.context.hold(own.values.values())?;
            Ok(own)
        });
        match finished {
            Ok(own) => {
                handed.extend(own);
                End {
                    captured: shown(self.context, &handed),
                    checks,
                    output: answer.and_then(|answer| self.output(answer)),
                    polls: self.polls,
                    handed: Arc::new(handed),
                    ..End::bare(Outcome::Passed, None)
                }
            }
            Err(why) => match open::needs(self.references, self.view) {
                Some(needed) => self.skipped_for(needed),
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
    async fn withheld(&self, why: Lack, answer: Option<&Answer>) -> End {
        if let Some(needed) = open::needs(self.references, self.view) {
            return self.skipped_for(needed);
        }
        let implied = answer.and_then(|answer| answer.implied).map(check::judge);
        let (outcome, reason) = match implied.as_ref().filter(|check| !check.passed) {
            Some(check) => {
                let reason = format!("{}; {}", check.failure(), why.reason);
                (Outcome::Failed, reason)
            }
            None => (verdict(&why), why.reason),
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
        let none = Answer::default();
        let answer = match &fault {
            Fault::Failed { answer, .. }
            | Fault::TimedOut { answer, .. }
            | Fault::Cut { answer, .. } => Some(&**answer),
            Fault::OfService { outcome, .. } if *outcome == Outcome::Failed => Some(&none),
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
        // The results of a program that was given up are those of the cases that had ended.
        let tests = answer.and_then(|answer| answer.tests.as_deref());
        let mut cases = Vec::new();
        if let Some(tests) = tests.filter(|_| !withheld) {
            let ended = until_then(self.context, self.step, tests);
            failure.notes.push(ended.note);
            cases = ended.cases;
        }
        End {
            timed_out: matches!(fault, Fault::TimedOut { .. }),
            cases,
            culprit: fault.culprit(),
            failure: Some(failure),
            polls: self.polls,
            ..End::bare(outcome, Some(reason))
        }
    }

    async fn unevaluable(&self, error: &EvalError, answer: Option<&Answer>) -> End {
        match open::needs(self.references, self.view) {
            Some(needed) => self.skipped_for(needed),
            None => {
                let why = Lack {
                    reason: eval_line(self.context, error),
                    incomplete: error.incomplete,
                };
                self.failed_early(why, answer, Vec::new()).await
            }
        }
    }

    fn skipped_for(&self, needed: Needed) -> End {
        End {
            polls: self.polls,
            culprit: Some(needed.culprit),
            ..End::bare(Outcome::Skipped, Some(needed.reason))
        }
    }

    /// Ends a step that failed before its captures were evaluated. Withholds output that a secret capture would have
    /// masked.
    pub async fn failed_early(
        &self,
        why: Lack,
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
            ..End::bare(verdict(&why), Some(why.reason))
        }
    }

    /// Returns whether the output may hold a secret that isn't masked yet.
    fn holds_back(&self) -> bool {
        self.step.capture.iter().any(|capture| capture.secret)
    }

    /// Ends a step that failed after its secret captures, with all evidence.
    async fn failed(&self, why: Lack, answer: Option<&Answer>, checks: Vec<CheckResult>) -> End {
        let context = self.context;
        let failure = failure::of_step(context, self.step.span, answer, self.services, false).await;
        End {
            checks,
            failure: Some(failure),
            polls: self.polls,
            ..End::bare(verdict(&why), Some(why.reason))
        }
    }
}

/// Returns failed, or errored if the judged result isn't complete.
fn verdict(why: &Lack) -> Outcome {
    match why.incomplete {
        true => Outcome::Errored,
        false => Outcome::Failed,
    }
}
