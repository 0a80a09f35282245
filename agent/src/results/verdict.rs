//! What test results mean for the step whose program wrote them.
//!
//! A failed case is certain. A problem of the results only says that they can't be judged, so it counts after the
//! failed cases and after an exit code that isn't 0. Exit code and results have to agree; if they don't, the step
//! fails and both are shown.

use phalanx_shared::event::{CheckResult, Part};
use phalanx_shared::outcome::Outcome;

/// What is known when the program has ended.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Outcome of each case.
    pub cases: &'a [Outcome],
    /// Why the results can't be trusted to be all.
    pub problem: Option<&'a str>,
    /// The exit code, unless a check of the step judges it.
    pub exit_code: Option<i64>,
    /// Name and message of the first failed case.
    pub first_failed: Option<&'a str>,
}

/// What the results mean.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Passed (the step's own checks decide), flaky, skipped, failed or errored.
    pub outcome: Outcome,
    /// Reason in one line.
    pub reason: Option<String>,
    /// The check that failed, if exit code and results disagree.
    pub check: Option<CheckResult>,
}

impl Verdict {
    fn of(outcome: Outcome, reason: impl Into<String>) -> Verdict {
        Verdict {
            outcome,
            reason: Some(reason.into()),
            check: None,
        }
    }
}

/// Judges the results of a program.
pub fn judge(facts: Facts<'_>) -> Verdict {
    let count = |outcome: Outcome| facts.cases.iter().filter(|case| **case == outcome).count();
    let (all, failed) = (facts.cases.len(), count(Outcome::Failed));
    let bad_exit = facts.exit_code.filter(|code| *code != 0);
    if failed > 0 {
        let which = facts.first_failed.unwrap_or_default();
        let mut reason = format!("{failed} of {} failed: {which}", cases(all));
        let mut verdict = Verdict::of(Outcome::Failed, "");
        if facts.exit_code == Some(0) {
            reason = format!("the exit code is 0, but {reason}");
            verdict.check = Some(disagreement(0, failed));
        }
        add_problem(&mut reason, facts.problem);
        verdict.reason = Some(reason);
        return verdict;
    }
    if let Some(code) = bad_exit {
        let check = CheckResult {
            expression: "exit_code == 0".to_owned(),
            passed: false,
            parts: vec![part("exit_code", code)],
            error: None,
        };
        let mut reason = check.failure();
        if all > 0 {
            reason.push_str(&format!(", but no case failed ({})", cases(all)));
        }
        add_problem(&mut reason, facts.problem);
        return Verdict {
            check: Some(check),
            ..Verdict::of(Outcome::Failed, reason)
        };
    }
    if let Some(problem) = facts.problem {
        return Verdict::of(Outcome::Errored, problem);
    }
    if all > 0 && count(Outcome::Skipped) == all {
        return Verdict::of(Outcome::Skipped, format!("{} skipped", every(all)));
    }
    Verdict {
        outcome: match count(Outcome::Flaky) {
            0 => Outcome::Passed,
            _ => Outcome::Flaky,
        },
        reason: None,
        check: None,
    }
}

fn add_problem(reason: &mut String, problem: Option<&str>) {
    if let Some(problem) = problem {
        reason.push_str("; ");
        reason.push_str(problem);
    }
}

fn disagreement(code: i64, failed: usize) -> CheckResult {
    CheckResult {
        expression: "exit code and results agree".to_owned(),
        passed: false,
        parts: vec![part("exit_code", code), part("failed cases", failed)],
        error: None,
    }
}

fn part(text: &str, value: impl ToString) -> Part {
    Part {
        text: text.to_owned(),
        value: value.to_string(),
    }
}

fn cases(count: usize) -> String {
    match count {
        1 => "1 case".to_owned(),
        count => format!("{count} cases"),
    }
}

fn every(count: usize) -> String {
    match count {
        1 => "the only case was".to_owned(),
        count => format!("all {count} cases were"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use Outcome::{Errored, Failed, Flaky, Passed, Skipped};

    fn verdict(cases: &[Outcome], problem: Option<&str>, exit_code: Option<i64>) -> Verdict {
        let failed = cases.contains(&Failed).then_some("a: no");
        judge(Facts {
            cases,
            problem,
            exit_code,
            first_failed: failed,
        })
    }

    #[test]
    fn exit_code_and_results_have_to_agree() {
        for (cases, exit, outcome, reason, checked) in [
            (&[Passed, Skipped][..], 0, Passed, "", false),
            (&[Passed, Flaky], 0, Flaky, "", false),
            (
                &[Skipped, Skipped],
                0,
                Skipped,
                "all 2 cases were skipped",
                false,
            ),
            (
                &[Passed, Failed],
                1,
                Failed,
                "1 of 2 cases failed: a: no",
                false,
            ),
            (
                &[Failed],
                0,
                Failed,
                "the exit code is 0, but 1 of 1 case failed: a: no",
                true,
            ),
            (
                &[Passed, Flaky],
                3,
                Failed,
                "check failed: exit_code == 0 (exit_code = 3), but no case failed (2 cases)",
                true,
            ),
        ] {
            let verdict = verdict(cases, None, Some(exit));
            assert_eq!(verdict.outcome, outcome, "{reason}");
            assert_eq!(verdict.reason.as_deref().unwrap_or_default(), reason);
            assert_eq!(verdict.check.is_some(), checked, "{reason}");
        }
    }

    #[test]
    fn a_problem_is_errored_only_if_nothing_is_known_to_have_failed() {
        let problem = Some("no file");
        assert_eq!(verdict(&[], problem, Some(0)).outcome, Errored);
        assert_eq!(verdict(&[Passed, Flaky], problem, Some(0)).outcome, Errored);
        assert_eq!(verdict(&[Skipped], problem, Some(0)).outcome, Errored);
        let failed = verdict(&[Failed, Passed], problem, Some(1));
        assert_eq!(failed.outcome, Failed);
        assert!(failed.reason.unwrap().ends_with("; no file"));
        let exit = verdict(&[], problem, Some(2));
        assert_eq!(exit.outcome, Failed);
        let reason = exit.reason.unwrap();
        assert_eq!(
            reason,
            "check failed: exit_code == 0 (exit_code = 2); no file"
        );
    }

    #[test]
    fn a_check_that_judges_the_exit_code_is_left_alone() {
        assert_eq!(verdict(&[Passed], None, None).outcome, Passed);
        assert_eq!(verdict(&[Failed], None, None).outcome, Failed);
        assert_eq!(verdict(&[], Some("no file"), None).outcome, Errored);
    }
}
