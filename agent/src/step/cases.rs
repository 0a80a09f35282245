//! Test cases as results of steps: each is reported like a step below the one whose program ran it.
//!
//! Texts are masked before they are shortened, and bounded: what the cases of a step show of failures has a limit of its
//! own, and what passed cases printed counts like the output of passed steps.

use crate::context::CellContext;
use crate::results::verdict::{Facts, Verdict, judge};
use crate::results::{Case, Collected};
use phalanx_shared::event::{CASE, Failure, Output, StepResult};
use phalanx_shared::language::model::{CaseRow, Step};
use phalanx_shared::mask::{Keep, Masks, Source, shortened};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::time::Timestamp;
use regex::Regex;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// Maximum number of characters of a name.
const NAME: usize = 300;
/// Maximum bytes of a case's part of its path.
const SEGMENT: usize = 300;
/// Maximum number of characters of a message in a reason.
const MESSAGE: usize = 1_000;
/// Maximum number of characters of one text that a case shows: its stack trace, what it printed.
const SHOWN: usize = 4_096;
/// Maximum bytes that the failed cases of a step show.
const EVIDENCE: usize = 1 << 20;
/// Maximum number of characters of the first failure in the reason of the step.
const FIRST: usize = 300;

/// The test cases of a step, and what they mean for it.
pub struct Told {
    /// Results of the cases. A path holds only the part below the step.
    pub cases: Vec<StepResult>,
    /// What they mean.
    pub verdict: Verdict,
}

/// Makes the results of the cases, and judges them together with the exit code, unless a check of the step judges that.
pub fn told(context: &CellContext, step: &Step, tests: &Collected, exit_code: Option<i64>) -> Told {
    let rows = Rows::of(&step.case_rows);
    let cases = results(context, step, tests, &rows);
    judged(cases, tests, &rows, exit_code)
}

fn judged(
    cases: Vec<StepResult>,
    tests: &Collected,
    rows: &Rows<'_>,
    exit_code: Option<i64>,
) -> Told {
    let mut problems: Vec<String> = tests.suite.problems.clone();
    problems.extend(rows.unverified(&cases));
    let problem = problem(&problems);
    let outcomes: Vec<Outcome> = cases.iter().map(|case| case.outcome).collect();
    let first = cases.iter().find(|case| case.outcome == Outcome::Failed);
    let first = first.map(|case| {
        let reason = case.reason.as_deref().unwrap_or("no reason given");
        let line = format!("{}: {reason}", case.name);
        shortened(&line, FIRST).into_owned()
    });
    let verdict = judge(Facts {
        cases: &outcomes,
        problem: problem.as_deref(),
        exit_code,
        first_failed: first.as_deref(),
    });
    Told { cases, verdict }
}

/// The test cases that had ended when a step was given up.
pub struct Ended {
    /// Results of the cases, as in [`Told`].
    pub cases: Vec<StepResult>,
    /// How many there are, for the step's failure.
    pub note: String,
}

/// Makes the results of the cases that had ended when their step was given up. What is wrong with the results is no
/// wonder then.
pub fn until_then(context: &CellContext, step: &Step, tests: &Collected) -> Ended {
    let cases = results(context, step, tests, &Rows::of(&step.case_rows));
    let note = counted(&cases);
    Ended { cases, note }
}

/// Returns how many cases had ended, and how.
fn counted(cases: &[StepResult]) -> String {
    let count = |outcome: Outcome| {
        let found = cases.iter().filter(|case| case.outcome == outcome).count();
        (found > 0).then(|| format!("{found} {outcome}"))
    };
    let outcomes = [
        Outcome::Passed,
        Outcome::Flaky,
        Outcome::Failed,
        Outcome::Errored,
        Outcome::Skipped,
    ];
    let outcomes: Vec<String> = outcomes.into_iter().filter_map(count).collect();
    match cases.len() {
        0 => "test results until then: none".to_owned(),
        1 => format!("test results until then: 1 case: {}", outcomes.join(", ")),
        all => format!(
            "test results until then: {all} cases: {}",
            outcomes.join(", ")
        ),
    }
}

fn results(
    context: &CellContext,
    step: &Step,
    tests: &Collected,
    rows: &Rows<'_>,
) -> Vec<StepResult> {
    let masks = context.masks.current();
    let keeps = |bytes: usize| context.keeps(bytes);
    Telling::new(&masks, context.place(step.span), &keeps, tests).all(tests, rows)
}

/// Returns the problems in one line; of many the first ones.
fn problem(problems: &[String]) -> Option<String> {
    const NAMED: usize = 3;
    if problems.is_empty() {
        return None;
    }
    let named = problems
        .get(..NAMED.min(problems.len()))
        .unwrap_or_default();
    let more = match problems.len() - named.len() {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    Some(named.join("; ") + &more)
}

struct Telling<'a> {
    /// Counts bytes of what passed cases printed, and returns whether they are kept.
    keeps: &'a dyn Fn(usize) -> bool,
    masks: &'a Masks,
    place: Option<String>,
    /// How often each name has occurred.
    names: HashMap<String, u32>,
    /// Bytes that failures may still show.
    left: usize,
    clock: Placement,
}

impl<'a> Telling<'a> {
    fn new(
        masks: &'a Masks,
        place: Option<String>,
        keeps: &'a dyn Fn(usize) -> bool,
        tests: &Collected,
    ) -> Self {
        Telling {
            keeps,
            masks,
            place,
            names: HashMap::new(),
            left: EVIDENCE,
            clock: Placement::new(tests.began, tests.elapsed),
        }
    }

    fn all(mut self, tests: &Collected, rows: &Rows<'_>) -> Vec<StepResult> {
        let cases = tests.suite.cases.iter();
        cases
            .map(|case| self.case(case, rows.of_case(&case.name)))
            .collect()
    }

    fn case(&mut self, case: &Case, verifies: Vec<String>) -> StepResult {
        let name = self.masks.text(&case.name);
        let name = self.unique(shortened(&name, NAME).into_owned());
        let (began, elapsed) = self.clock.next(case.elapsed);
        let message = case
            .message
            .as_deref()
            .map(|message| self.masks.text(message));
        let first_line = message.as_deref().and_then(|message| {
            let mut lines = message.lines().map(str::trim);
            lines.find(|line| !line.is_empty())
        });
        let first_line = first_line.map(|line| shortened(line, MESSAGE).into_owned());
        let is_ok = case.outcome.is_ok();
        StepResult {
            path: segment(&name),
            reason: reason(case, first_line),
            name,
            id: None,
            action: CASE.to_owned(),
            outcome: case.outcome,
            unreached: false,
            timed_out: false,
            culprit: None,
            tries: case.retries.saturating_add(1),
            polls: 0,
            began,
            elapsed_us: u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
            waits: Vec::new(),
            verifies,
            checks: Vec::new(),
            output: is_ok.then(|| self.output(case)).flatten(),
            captured: Vec::new(),
            failure: (!is_ok).then(|| self.failure(case)),
            restored: None,
        }
    }

    /// Adds a number to a name that occurred before.
    fn unique(&mut self, name: String) -> String {
        let times = self.names.entry(name.clone()).or_default();
        *times += 1;
        match *times {
            1 => name,
            times => {
                let numbered = format!("{name} #{times}");
                self.unique(numbered)
            }
        }
    }

    /// Returns what a case printed that is ok, or only its size if the cell has printed too much already.
    fn output(&self, case: &Case) -> Option<Output> {
        let bytes = case.stdout.len() + case.stderr.len();
        if bytes == 0 {
            return None;
        }
        let output = Output {
            stdout: self.excerpt(&case.stdout),
            stderr: self.excerpt(&case.stderr),
            left_out: 0,
        };
        let shown = output.stdout.len() + output.stderr.len();
        Some(match (self.keeps)(shown) {
            true => output,
            false => Output {
                left_out: bytes as u64,
                ..Output::default()
            },
        })
    }

    fn failure(&mut self, case: &Case) -> Failure {
        let message = case.message.as_deref().unwrap_or_default();
        let mut shown = String::new();
        // A message of several lines is cut in the reason.
        let is_told = message.lines().count() < 2 || case.details.contains(message.trim());
        let texts = [
            ("", if is_told { "" } else { message }),
            ("", case.details.as_str()),
            ("stdout:\n", case.stdout.as_str()),
            ("stderr:\n", case.stderr.as_str()),
        ];
        for (title, text) in texts {
            let text = self.excerpt(text.trim_end());
            if text.trim().is_empty() {
                continue;
            }
            if !shown.is_empty() {
                shown.push('\n');
            }
            shown.push_str(title);
            shown.push_str(&text);
        }
        let mut notes: Vec<String> = case
            .place
            .iter()
            .map(|place| format!("test at {place}"))
            .collect();
        let fits = shown.len() <= self.left;
        if fits {
            self.left -= shown.len();
        } else {
            notes.push(
                "details left out: the failed cases before it show as much as is kept of a step"
                    .to_owned(),
            );
        }
        Failure {
            place: self.place.clone(),
            response: Some(shown).filter(|shown| fits && !shown.is_empty()),
            notes,
            ..Failure::default()
        }
    }

    fn excerpt(&self, text: &str) -> String {
        match text.is_empty() {
            true => String::new(),
            false => self
                .masks
                .excerpt(Source::whole(text.as_bytes()), Keep::Ends(SHOWN)),
        }
    }
}

/// Returns why a case failed, was skipped, or is flaky.
fn reason(case: &Case, message: Option<String>) -> Option<String> {
    match case.outcome {
        Outcome::Passed => None,
        Outcome::Flaky => {
            let tries = match case.retries {
                0 => "a failed try".to_owned(),
                1 => "1 failed try".to_owned(),
                tries => format!("{tries} failed tries"),
            };
            let message = message.map(|message| format!(": {message}"));
            Some(format!(
                "passed after {tries}{}",
                message.unwrap_or_default()
            ))
        }
        _ => message.or_else(|| Some("the runner gives no reason".to_owned())),
    }
}

/// Returns the part of a case's path: its name without the characters that divide paths. A long one ends with a digest,
/// so that different names keep different paths.
fn segment(name: &str) -> String {
    let mut segment = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '/' => segment.push_str("%2F"),
            '[' => segment.push_str("%5B"),
            ']' => segment.push_str("%5D"),
            '%' => segment.push_str("%25"),
            c => segment.push(c),
        }
    }
    if segment.len() > SEGMENT {
        let digest = hex::encode(Sha256::digest(segment.as_bytes()));
        segment.truncate(segment.floor_char_boundary(SEGMENT - 9));
        segment.push('~');
        segment.push_str(digest.get(..8).unwrap_or_default());
    }
    segment
}

/// Places cases one after the other within the time in which the program ran: formats say how long a case took, and
/// rarely when it began.
struct Placement {
    next: Duration,
    began: Timestamp,
    whole: Duration,
}

impl Placement {
    fn new(began: Timestamp, whole: Duration) -> Self {
        Placement {
            next: Duration::ZERO,
            began,
            whole,
        }
    }

    fn next(&mut self, elapsed: Option<Duration>) -> (Timestamp, Duration) {
        let elapsed = elapsed.unwrap_or_default().min(self.whole);
        // Cases that ran at once take more time together than there was.
        let at = self.next.min(self.whole.saturating_sub(elapsed));
        self.next = self.next.saturating_add(elapsed);
        let at = i64::try_from(at.as_micros()).unwrap_or(i64::MAX);
        (Timestamp(self.began.0.saturating_add(at)), elapsed)
    }
}

/// Rows of the coverage table by patterns of names.
struct Rows<'a> {
    rows: &'a [CaseRow],
    patterns: Vec<Vec<Regex>>,
}

impl<'a> Rows<'a> {
    fn of(rows: &'a [CaseRow]) -> Self {
        let patterns = rows.iter().map(|row| {
            let patterns = row.patterns.iter();
            patterns.filter_map(|text| wildcard(&text.text)).collect()
        });
        Rows {
            rows,
            patterns: patterns.collect(),
        }
    }

    fn of_case(&self, name: &str) -> Vec<String> {
        let named = self.rows.iter().zip(&self.patterns);
        named
            .filter(|(_, patterns)| patterns.iter().any(|pattern| pattern.is_match(name)))
            .map(|(row, _)| row.row.text.clone())
            .collect()
    }

    /// Returns a problem for each row that no case verifies, if there are cases at all.
    fn unverified(&self, cases: &[StepResult]) -> Vec<String> {
        if cases.is_empty() {
            return Vec::new();
        }
        let verified: HashSet<&String> = cases.iter().flat_map(|case| &case.verifies).collect();
        let rows = self
            .rows
            .iter()
            .filter(|row| !verified.contains(&row.row.text));
        rows.map(|row| {
            let patterns: Vec<&str> = row.patterns.iter().map(|text| text.text.as_str()).collect();
            format!(
                "no case verifies `{}`: none is called {}",
                row.row.text,
                patterns.join(" or ")
            )
        })
        .collect()
    }
}

/// Compiles a pattern in which `*` stands for any text. `None` if it is too large for that.
fn wildcard(pattern: &str) -> Option<Regex> {
    let parts: Vec<String> = pattern.split('*').map(regex::escape).collect();
    Regex::new(&format!("(?s)^{}$", parts.join(".*"))).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::results::Suite;
    use phalanx_shared::diagnostic::Span;
    use phalanx_shared::mask::Masker;
    use phalanx_shared::node::Text;

    #[test]
    fn different_names_have_different_paths_without_dividers() {
        assert_eq!(segment("a/b[1]%"), "a%2Fb%5B1%5D%25");
        let long = |end: &str| segment(&format!("{}{end}", "é".repeat(400)));
        assert_ne!(long("1"), long("2"));
        assert!(long("1").len() <= SEGMENT);
    }

    #[test]
    fn a_pattern_matches_the_whole_name() {
        let matches = |pattern: &str, name: &str| wildcard(pattern).unwrap().is_match(name);
        assert!(matches(
            "tests.test_orders::*",
            "tests.test_orders::test_pay[card]"
        ));
        assert!(matches(
            "*::test_pay[*]",
            "tests.test_orders::test_pay[card]"
        ));
        assert!(matches("*", "any\nthing"));
        assert!(!matches("tests.test_orders", "tests.test_orders::test_pay"));
        assert!(!matches("tests_test", "tests.test"));
    }

    #[test]
    fn cases_are_placed_within_the_time_of_the_program() {
        let ms = Duration::from_millis;
        let mut clock = Placement::new(Timestamp(1_000_000), ms(100));
        let mut place = |elapsed| {
            let (began, took) = clock.next(elapsed);
            (began.0 - 1_000_000, took)
        };
        assert_eq!(place(Some(ms(40))), (0, ms(40)));
        assert_eq!(place(None), (40_000, ms(0)));
        assert_eq!(place(Some(ms(80))), (20_000, ms(80)));
        assert_eq!(place(Some(ms(900))), (0, ms(100)));
    }

    fn case(name: &str, outcome: Outcome) -> Case {
        Case {
            name: name.to_owned(),
            outcome,
            message: None,
            details: String::new(),
            stdout: String::new(),
            stderr: String::new(),
            elapsed: None,
            retries: 0,
            place: None,
        }
    }

    fn collected(cases: Vec<Case>) -> Collected {
        Collected {
            suite: Suite {
                cases,
                ..Suite::default()
            },
            began: Timestamp(0),
            elapsed: Duration::from_secs(1),
        }
    }

    fn rows() -> Vec<CaseRow> {
        let text = |text: &str| Text {
            text: text.to_owned(),
            span: Span::default(),
        };
        vec![
            CaseRow {
                row: text("orders"),
                patterns: vec![text("orders::*")],
            },
            CaseRow {
                row: text("mail"),
                patterns: vec![text("mail::*"), text("*::mails")],
            },
        ]
    }

    fn shown(cases: Vec<Case>, secrets: &[&str]) -> Vec<StepResult> {
        let masker = Masker::new();
        masker.add_all(secrets.iter().copied()).unwrap();
        let masks = masker.masks();
        let tests = collected(cases);
        let rows = rows();
        Telling::new(&masks, None, &|bytes| bytes < 10, &tests).all(&tests, &Rows::of(&rows))
    }

    #[test]
    fn cases_of_one_name_have_numbers_and_those_of_a_row_verify_it() {
        let cases = ["orders::pay", "orders::pay", "orders::pay #2", "other"];
        let cases = cases.map(|name| case(name, Outcome::Passed)).to_vec();
        let shown = shown(cases, &[]);
        let names: Vec<&str> = shown.iter().map(|case| case.name.as_str()).collect();
        let numbered = [
            "orders::pay",
            "orders::pay #2",
            "orders::pay #2 #2",
            "other",
        ];
        assert_eq!(names, numbered);
        assert_eq!(shown[0].verifies, ["orders"]);
        assert_eq!(shown[3].verifies, Vec::<String>::new());
    }

    #[test]
    fn secrets_are_masked_in_everything_that_a_case_shows() {
        let secret = "s3cret-of-the-shop";
        let mut failed = case(&format!("login[{secret}]"), Outcome::Failed);
        failed.message = Some(format!("no {secret}\nat all"));
        failed.details = format!("assert {secret}");
        failed.stdout = format!("sent {secret}");
        let mut passed = case("x", Outcome::Passed);
        passed.stderr = "s3cret-of-the-shop".to_owned();
        let shown = shown(vec![failed, passed], &[secret]);
        let all = serde_json::to_string(&shown).unwrap();
        assert!(!all.contains(secret), "{all}");
        assert_eq!(shown[0].reason.as_deref(), Some("no ***"));
        let failure = shown[0].failure.as_ref().unwrap();
        let response = failure.response.as_deref().unwrap();
        assert_eq!(response, "no ***\nat all\nassert ***\nstdout:\nsent ***");
    }

    #[test]
    fn what_cases_show_has_limits() {
        let long = |n: usize| {
            let mut failed = case(&n.to_string(), Outcome::Failed);
            failed.details = "x".repeat(SHOWN);
            failed
        };
        let shown = shown((0..300).map(long).collect(), &[]);
        let bytes = |case: &StepResult| {
            let failure = case.failure.as_ref().unwrap();
            failure.response.as_ref().map_or(0, String::len)
        };
        assert!(shown.iter().map(bytes).sum::<usize>() <= EVIDENCE);
        let last = shown.last().unwrap().failure.clone().unwrap();
        assert!(last.notes[0].starts_with("details left out"), "{last:?}");
    }

    #[test]
    fn output_of_passed_cases_is_left_out_when_the_cell_has_printed_enough() {
        let printed = |text: &str| Case {
            stdout: text.to_owned(),
            ..case("x", Outcome::Passed)
        };
        let shown = shown(vec![printed("short"), printed("longer than ten")], &[]);
        let output = |at: usize| shown[at].output.clone().unwrap();
        assert_eq!(
            (output(0).stdout.as_str(), output(0).left_out),
            ("short", 0)
        );
        assert_eq!((output(1).stdout.as_str(), output(1).left_out), ("", 15));
    }

    #[test]
    fn results_and_exit_code_are_judged_together_and_rows_need_cases() {
        let rows = rows();
        let judged = |cases: Vec<Case>, exit_code| {
            let tests = collected(cases.clone());
            let rows = Rows::of(&rows);
            let masks = Masks::default();
            let told = Telling::new(&masks, None, &|_| true, &tests).all(&tests, &rows);
            let verdict = judged(told, &tests, &rows, exit_code).verdict;
            (verdict.outcome, verdict.reason.unwrap_or_default())
        };
        let both = [
            case("orders::a", Outcome::Passed),
            case("x::mails", Outcome::Passed),
        ];
        assert_eq!(judged(both.to_vec(), Some(0)).0, Outcome::Passed);
        let (outcome, why) = judged(both[..1].to_vec(), Some(0));
        assert_eq!(outcome, Outcome::Errored);
        assert_eq!(
            why,
            "no case verifies `mail`: none is called mail::* or *::mails"
        );
        let mut failed = case("orders::b", Outcome::Failed);
        failed.message = Some("2 != 3".to_owned());
        let (outcome, why) = judged([both.to_vec(), vec![failed]].concat(), Some(0));
        assert_eq!(outcome, Outcome::Failed);
        let text = "the exit code is 0, but 1 of 3 cases failed: orders::b: 2 != 3";
        assert_eq!(why, text);
    }

    #[test]
    fn cases_that_had_ended_are_counted() {
        let all = [
            case("a", Outcome::Passed),
            case("b", Outcome::Failed),
            case("c", Outcome::Passed),
            case("d", Outcome::Skipped),
        ];
        let text = "test results until then: 4 cases: 2 passed, 1 failed, 1 skipped";
        assert_eq!(counted(&shown(all.to_vec(), &[])), text);
        assert_eq!(counted(&[]), "test results until then: none");
    }

    #[test]
    fn many_problems_are_counted() {
        let all: Vec<String> = (0..5).map(|n| n.to_string()).collect();
        assert_eq!(problem(&all).unwrap(), "0; 1; 2 (and 2 more)");
        assert_eq!(problem(&[]), None);
    }
}
