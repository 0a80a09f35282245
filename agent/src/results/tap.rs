//! Reads the Test Anything Protocol, versions 13 and 14 (<https://testanything.org>). Lines that aren't TAP are ignored,
//! as the protocol says: programs print other things as well.
//!
//! A subtest of version 14 stands indented before its test point. Its cases carry the names of the points around them,
//! and the point itself is a case only if it failed although none of its cases did.

use super::{Case, DEPTH, Suite, append, seconds, some};
use phalanx_shared::outcome::Outcome;
use std::time::Duration;

/// Columns by which each level is indented.
const INDENT: usize = 4;

/// Reads a document.
pub(super) fn read(text: &str) -> Suite {
    let mut document = Document::default();
    for line in text.lines() {
        if !document.line(line.trim_end_matches('\r')) {
            break;
        }
    }
    document.finish()
}

/// Test points of one level of indentation.
#[derive(Default)]
struct Level {
    plan: Option<usize>,
    /// Reason of a plan `1..0 # SKIP`.
    skipped: Option<String>,
    points: usize,
    /// Number of cases before this level began.
    first_case: usize,
}

#[derive(Default)]
struct Document {
    suite: Suite,
    /// Levels that are open; the first is that of the document.
    levels: Vec<Level>,
    /// Level and indentation of the diagnostics that are being read.
    block: Option<usize>,
    /// Whether diagnostics that follow belong to the last case.
    last_is_case: bool,
}

impl Document {
    /// Takes a line. Returns false if the document is over.
    fn line(&mut self, line: &str) -> bool {
        if self.levels.is_empty() {
            self.levels.push(Level::default());
        }
        let text = line.trim_start_matches(' ');
        let indent = line.len() - text.len();
        if let Some(block) = self.block {
            if text == "..." && indent == block {
                self.block = None;
            } else {
                self.diagnostic(line.get(block.min(indent)..).unwrap_or_default());
            }
            return true;
        }
        if text.trim_end() == "---" && indent > 0 {
            self.block = Some(indent);
            return true;
        }
        let depth = indent / INDENT;
        if let Some(reason) = text.strip_prefix("Bail out!") {
            let reason = some(reason).unwrap_or_else(|| "no reason given".to_owned());
            self.suite
                .problems
                .push(format!("the runner gave up: {reason}"));
            return false;
        }
        if !indent.is_multiple_of(INDENT) || depth > DEPTH {
            return true;
        }
        if let Some((count, reason)) = plan(text) {
            if let Some(level) = self.level(depth) {
                level.plan = Some(count);
                level.skipped = reason;
            }
            return true;
        }
        match point(text) {
            Some(point) => self.point(depth, point),
            None => true,
        }
    }

    /// Returns the level at a depth; opens it. A level may be opened only directly below an open one.
    fn level(&mut self, depth: usize) -> Option<&mut Level> {
        if depth > self.levels.len() {
            return None;
        }
        if depth == self.levels.len() {
            let first_case = self.suite.cases.len();
            self.levels.push(Level {
                first_case,
                ..Level::default()
            });
        }
        while self.levels.len() > depth + 1 {
            // A level that has ended without a test point around it.
            self.end_level("a subtest");
        }
        self.levels.get_mut(depth)
    }

    fn point(&mut self, depth: usize, point: Point) -> bool {
        if depth > self.levels.len() {
            return true;
        }
        let mut inner = None;
        if self.levels.len() > depth + 1 {
            while self.levels.len() > depth + 2 {
                self.end_level("a subtest");
            }
            inner = self.end_level(&point.name);
        }
        let Some(level) = self.level(depth) else {
            return true;
        };
        level.points += 1;
        let mut case = point.case;
        self.last_is_case = true;
        if let Some(first_case) = inner {
            let inside = self.suite.cases.get_mut(first_case..).unwrap_or_default();
            for case in &mut *inside {
                case.name = super::full_name(&point.name, &case.name);
            }
            let bad = inside.iter().any(|case| case.outcome == Outcome::Failed);
            let is_told = match case.outcome {
                Outcome::Failed => bad,
                _ => !inside.is_empty(),
            };
            if is_told {
                self.last_is_case = false;
                return true;
            }
            case.message = case
                .message
                .or_else(|| Some("it failed although none of its subtests did".to_owned()));
        }
        self.suite.push(case)
    }

    /// Ends the innermost level, and returns the number of its first case.
    fn end_level(&mut self, name: &str) -> Option<usize> {
        let level = self.levels.pop()?;
        let first_case = level.first_case;
        self.judge(&level, name);
        Some(first_case)
    }

    fn judge(&mut self, level: &Level, name: &str) {
        let points = level.points;
        let problem = match level.plan {
            None if points == 0 => return,
            None => format!("{name} has no plan (`1..{points}`), so it may have ended early"),
            Some(plan) if plan > points => {
                format!("{name} plans {plan} tests, but {points} are there")
            }
            Some(plan) if plan < points => {
                format!("{name} plans {plan} tests, but has {points}")
            }
            Some(_) => return,
        };
        self.suite.problems.push(problem);
    }

    /// Takes a line of the diagnostics of the last case.
    fn diagnostic(&mut self, line: &str) {
        let Some(case) = self.suite.cases.last_mut().filter(|_| self.last_is_case) else {
            return;
        };
        append(&mut case.details, line);
        if let Some((key, value)) = line.split_once(':') {
            let value = value.trim().trim_matches(['\'', '"']);
            match key {
                "message" | "error"
                    if case.message.is_none() && !matches!(value, "" | "|" | "|-" | ">" | ">-") =>
                {
                    case.message = some(value);
                }
                "duration_ms" => case.elapsed = millis(value),
                "at" | "location" if case.place.is_none() => case.place = some(value),
                _ => {}
            }
        }
    }

    fn finish(mut self) -> Suite {
        while self.levels.len() > 1 {
            self.end_level("a subtest");
        }
        let Some(level) = self.levels.pop() else {
            self.suite.problems.push("the file is empty".to_owned());
            return self.suite;
        };
        if level.plan.is_none() && level.points == 0 && self.suite.problems.is_empty() {
            let problem = "no test point and no plan: this is not TAP".to_owned();
            self.suite.problems.push(problem);
        }
        self.judge(&level, "the file");
        if let (Some(0), Some(reason)) = (level.plan, &level.skipped) {
            let mut case = Case::new("", "(the whole suite)");
            case.outcome = Outcome::Skipped;
            case.message = Some(reason.clone());
            self.suite.push(case);
        }
        // What passed says why nothing.
        for case in &mut self.suite.cases {
            if case.outcome == Outcome::Passed {
                case.message = None;
            }
        }
        self.suite
    }
}

/// A test point: `not ok 3 - name # SKIP reason`.
struct Point {
    name: String,
    case: Case,
}

fn point(text: &str) -> Option<Point> {
    let (ok, rest) = match (text.strip_prefix("not ok"), text.strip_prefix("ok")) {
        (Some(rest), _) => (false, rest),
        (None, Some(rest)) => (true, rest),
        (None, None) => return None,
    };
    if !rest.is_empty() && !rest.starts_with([' ', '\t']) {
        return None;
    }
    let rest = rest.trim_start();
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, after) = rest.split_at(digits);
    // `ok 2nd try` has no number.
    let (number, rest) = match after.is_empty() || after.starts_with([' ', '\t']) {
        true => (number, after.trim_start()),
        false => ("", rest),
    };
    let rest = rest.strip_prefix("- ").unwrap_or(rest);
    let (name, directive) = split_directive(rest);
    let name = match name.is_empty() {
        true => format!("test {number}").trim_end().to_owned(),
        false => name,
    };
    let mut case = Case::new("", &name);
    let word = directive.split([' ', '\t']).next().unwrap_or_default();
    let reason = directive.get(word.len()..).and_then(some);
    let starts = |what: &str| {
        word.get(..4)
            .is_some_and(|head| head.eq_ignore_ascii_case(what))
    };
    if starts("skip") {
        case.outcome = Outcome::Skipped;
        case.message = reason.or_else(|| Some("skipped by the runner".to_owned()));
    } else if starts("todo") && !ok {
        case.outcome = Outcome::Skipped;
        case.message = Some(
            format!("todo: {}", reason.unwrap_or_default())
                .trim_end()
                .to_owned(),
        );
    } else if !ok {
        case.outcome = Outcome::Failed;
    }
    if let Some(time) = directive.strip_prefix("time=") {
        case.elapsed = time.strip_suffix("ms").and_then(millis);
    }
    Some(Point { name, case })
}

/// Splits a description from its directive, at the first `#` that isn't escaped.
fn split_directive(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some((_, escaped @ ('#' | '\\'))) => name.push(escaped),
                Some((_, other)) => name.extend(['\\', other]),
                None => name.push('\\'),
            },
            '#' if name.is_empty() || name.ends_with([' ', '\t']) => {
                let directive = text.get(at + 1..).unwrap_or_default().trim();
                return (name.trim().to_owned(), directive);
            }
            c => name.push(c),
        }
    }
    (name.trim().to_owned(), "")
}

/// Returns the number of a plan `1..N`, and the reason of a plan `1..0 # SKIP reason`.
fn plan(text: &str) -> Option<(usize, Option<String>)> {
    let rest = text.strip_prefix("1..")?;
    let (number, comment) = rest.split_once('#').unwrap_or((rest, ""));
    let number = number.trim().parse().ok()?;
    let comment = comment.trim();
    let is_skip = comment
        .get(..4)
        .is_some_and(|head| head.eq_ignore_ascii_case("skip"));
    let reason = is_skip.then(|| {
        let reason = comment.split_once([' ', '\t']).map(|(_, reason)| reason);
        reason
            .and_then(some)
            .unwrap_or_else(|| "skipped by the runner".to_owned())
    });
    Some((number, reason))
}

fn millis(text: &str) -> Option<Duration> {
    seconds(text.trim().parse::<f64>().ok()? / 1_000.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    fn cases(suite: &Suite) -> Vec<(&str, Outcome, Option<&str>)> {
        let cases = suite.cases.iter();
        cases
            .map(|case| (case.name.as_str(), case.outcome, case.message.as_deref()))
            .collect()
    }

    #[test]
    fn points_directives_and_diagnostics_are_read() {
        let suite = read(
            "TAP version 13\nhello\n1..6\nok 1 - opens\nnot ok 2 - pays \\# 5\n  ---\n  message: 'expected 201'\n  duration_ms: 1500\n  at: pay.js:3\n  ...\nok 3 # SKIP no card\nnot ok 4 - later # TODO write it\nok 5 bills # time=250ms\nok 6 - done # todo\n# a comment\n",
        );
        assert_eq!(suite.problems, Vec::<String>::new());
        assert_eq!(
            cases(&suite),
            [
                ("opens", Outcome::Passed, None),
                ("pays # 5", Outcome::Failed, Some("expected 201")),
                ("test 3", Outcome::Skipped, Some("no card")),
                ("later", Outcome::Skipped, Some("todo: write it")),
                ("bills", Outcome::Passed, None),
                ("done", Outcome::Passed, None),
            ]
        );
        let pays = &suite.cases[1];
        assert_eq!(pays.elapsed, Some(Duration::from_millis(1_500)));
        assert_eq!(pays.place.as_deref(), Some("pay.js:3"));
        assert_eq!(suite.cases[4].elapsed, Some(Duration::from_millis(250)));
    }

    #[test]
    fn subtests_carry_the_names_around_them() {
        let suite = read(
            "TAP version 14\n# Subtest: orders\n    ok 1 - create\n    # Subtest: pay\n        not ok 1 - card\n        1..1\n    not ok 2 - pay\n    1..2\nnot ok 1 - orders\n    ok 1 - x\n    1..1\nnot ok 2 - odd\n1..2\n",
        );
        assert_eq!(suite.problems, Vec::<String>::new());
        let told = "it failed although none of its subtests did";
        assert_eq!(
            cases(&suite),
            [
                ("orders::create", Outcome::Passed, None),
                ("orders::pay::card", Outcome::Failed, None),
                ("odd::x", Outcome::Passed, None),
                ("odd", Outcome::Failed, Some(told)),
            ]
        );
    }

    #[test]
    fn what_ends_early_or_keeps_no_plan_is_a_problem() {
        for (text, count, problem) in [
            ("", 0, "empty"),
            ("hello\n", 0, "not TAP"),
            ("1..3\nok 1\nok 2\n", 2, "plans 3 tests, but 2 are there"),
            ("ok 1\nok 2\n", 2, "no plan"),
            ("1..1\nok 1\nok 2\n", 2, "plans 1 tests, but has 2"),
            (
                "1..2\nok 1\nBail out! no disk\nok 2\n",
                1,
                "gave up: no disk",
            ),
            ("    1..2\n    ok 1 - a\nok 1 - s\n1..1\n", 1, "s plans 2"),
        ] {
            let suite = read(text);
            assert_eq!(suite.cases.len(), count, "{text}");
            let problems = suite.problems.concat();
            assert!(problems.contains(problem), "{text}: {problems}");
        }
        let none = read("1..0 # SKIP not on this machine\n");
        assert!(none.problems.is_empty());
        let expected = [(
            "(the whole suite)",
            Outcome::Skipped,
            Some("not on this machine"),
        )];
        assert_eq!(cases(&none), expected);
    }

    #[test]
    fn words_that_only_look_like_points_are_no_points() {
        let suite = read("1..1\nokay then\nnot okay\nok 2nd try\n");
        assert_eq!(cases(&suite), [("2nd try", Outcome::Passed, None)]);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "([ ]{0,9}(ok|not ok|1\\.\\.|---|\\.\\.\\.|# SKIP|-|[0-9]|é| )*\n){0,20}") {
            let _ = read(&text);
        }
    }
}
