//! `--report junit=FILE`: a test suite for each cell, a test case for each step.
//!
//! Failed steps contain their failure in full and the log tails as `system-out`; skipped steps contain their reason. If
//! a cell isn't ok although no step failed (errored before the first step, lost, cancelled in the queue), the cell gets
//! a test case of its own, so that it doesn't look like a cell without tests. So does a run that fails only because more
//! steps were skipped than the spec allows.
//!
//! Class name and name together are unique within a report: readers such as GitLab drop test cases that look like
//! duplicates.

use super::artifacts::{Attachment, Attachments};
use super::style::Style;
use super::text::{failure, lines_text, restored, too_many_skips};
use super::view::{CellView, RunView, StepView};
use phalanx_shared::outcome::Outcome;
use quick_junit::{
    NonSuccessKind, Property, Report, SerializeError, TestCase, TestCaseStatus, TestSuite,
    XmlString,
};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// Name of the suite and the test case of a run that fails although all of its cells are ok.
const RUN: &str = "(run)";

/// Returns the report as XML.
pub fn render(view: &RunView) -> Result<String, SerializeError> {
    render_with(view, &Attachments::default())
}

/// Returns the report with the files of its steps, as `[[ATTACHMENT|PATH]]` in their output: the form that Jenkins and
/// GitLab read.
pub fn render_with(view: &RunView, files: &Attachments) -> Result<String, SerializeError> {
    let mut report = Report::new(view.spec.as_str());
    report.set_time(Duration::from_micros(view.timing.wall_us));
    report.add_test_suites(view.cells.iter().map(|cell| suite(view, cell, files)));
    report.add_test_suites(too_many_skips(view).map(|why| whole_run(view, &why)));
    make_unique(&mut report);
    report.to_string().map(well_formed)
}

/// Replaces characters that XML 1.0 forbids but the writer lets through. They can't be escaped either.
fn well_formed(xml: String) -> String {
    const FORBIDDEN: [char; 2] = ['\u{fffe}', '\u{ffff}'];
    if xml.contains(FORBIDDEN) {
        xml.replace(FORBIDDEN, "\u{fffd}")
    } else {
        xml
    }
}

/// Makes test cases unique: cases with equal class and name get the path of their step, and if both are still equal,
/// the cell's id.
fn make_unique(report: &mut Report) {
    let distinctions: [fn(&TestSuite, &mut TestCase); 2] = [
        |_, case| {
            if let Some(path) = property(&case.properties, "path") {
                case.name = XmlString::new(format!("{} ({path})", &*case.name));
            }
        },
        |suite, case| {
            let cell = property(&suite.properties, "cell").unwrap_or_default();
            case.name = XmlString::new(format!("{} [{cell}]", &*case.name));
        },
    ];
    for distinguish in distinctions {
        let mut uses: HashMap<Key, u32> = HashMap::new();
        for case in report
            .test_suites
            .iter()
            .flat_map(|suite| &suite.test_cases)
        {
            *uses.entry(key(case)).or_default() += 1;
        }
        for suite in &mut report.test_suites {
            let mut cases = std::mem::take(&mut suite.test_cases);
            for case in &mut cases {
                if uses.get(&key(case)).is_some_and(|uses| *uses > 1) {
                    distinguish(suite, case);
                }
            }
            suite.test_cases = cases;
        }
    }
    // A user's name may look like one of these names.
    let mut taken = HashSet::new();
    for suite in &mut report.test_suites {
        for case in &mut suite.test_cases {
            let name = case.name.clone();
            let mut number = 1;
            while !taken.insert(key(case)) {
                number += 1;
                case.name = XmlString::new(format!("{} #{number}", &*name));
            }
        }
    }
}

/// Class and name as readers compare them: white space in an attribute is a space.
type Key = (String, String);

fn key(case: &TestCase) -> Key {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let class = case.classname.as_deref().unwrap_or_default();
    (words(class), words(&case.name))
}

fn property(properties: &[Property], name: &str) -> Option<String> {
    let known = properties.iter().find(|known| &*known.name == name);
    known.map(|known| known.value.to_string())
}

fn suite(view: &RunView, cell: &CellView, files: &Attachments) -> TestSuite {
    let mut suite = TestSuite::new(cell.name.as_str());
    suite.set_time(Duration::from_micros(cell.elapsed_us.unwrap_or(0)));
    if let Some(started) = cell.attempts.iter().find_map(|attempt| attempt.started) {
        suite
            .extra
            .insert("timestamp".into(), started.to_rfc3339().into());
    }
    suite.add_property(Property::new("run", view.run.as_str()));
    suite.add_property(Property::new("cell", cell.id.as_str()));
    if let Some(outcome) = cell.outcome {
        suite.add_property(Property::new("outcome", outcome.as_str()));
    }
    if cell.experimental {
        suite.add_property(Property::new("experimental", "true"));
    }
    if cell.attempts.len() > 1 {
        suite.add_property(Property::new("attempts", cell.attempts.len().to_string()));
    }
    for (axis, value) in &cell.matrix {
        let value = crate::view::coverage::axis_text(value);
        suite.add_property(Property::new(format!("matrix.{axis}"), value));
    }
    let files = files.by_step(cell);
    let mut bad_step = false;
    for step in cell.steps().filter(|step| step.outcome.is_some()) {
        bad_step |= step.outcome.is_some_and(|outcome| !outcome.is_ok());
        let files = files.get(step.path.as_str()).map_or(&[][..], Vec::as_slice);
        suite.add_test_case(case(cell, step, files));
    }
    if cell.outcome.is_some_and(|outcome| !outcome.is_ok()) && !bad_step {
        suite.add_test_case(whole_cell(cell));
    }
    suite
}

fn case(cell: &CellView, step: &StepView, files: &[Attachment<'_>]) -> TestCase {
    let outcome = step.outcome.unwrap_or(Outcome::Cancelled);
    let reason = step.reason.as_deref().unwrap_or_default();
    let reason = match step.unreached {
        // JUnit has no better status for it than skipped.
        true => format!("not run: {reason}"),
        false => reason.to_owned(),
    };
    let mut case = TestCase::new(step.name.as_str(), status(outcome, &reason, &step.action));
    case.set_classname(format!("{}.{}", cell.name, step.phase));
    case.set_time(Duration::from_micros(step.elapsed_us));
    case.assertions = Some(step.checks.len());
    case.add_property(Property::new("path", step.path.as_str()));
    if let Some(of) = &step.restored {
        // JUnit has no status for it.
        case.add_property(Property::new("restored", restored(of)));
    }
    if step.tries > 1 {
        case.add_property(Property::new("tries", step.tries.to_string()));
    }
    for row in &step.verifies {
        case.add_property(Property::new("verifies", row.as_str()));
    }
    let mut out = String::new();
    if !outcome.is_ok() {
        case.status
            .set_description(lines_text(&failure(step), Style::PLAIN));
        let logs = step.failure.iter().flat_map(|failure| &failure.logs);
        let tails = logs.map(|tail| format!("== {}\n{}\n", tail.service, tail.lines.join("\n")));
        out.extend(tails);
    }
    if let Some(output) = &step.output {
        if !output.stdout.is_empty() {
            out.clone_from(&output.stdout);
        }
        if !output.stderr.is_empty() {
            case.set_system_err(output.stderr.as_str());
        }
    }
    for file in files {
        if !out.is_empty() && !out.ends_with('\n') {
            out.push('\n');
        }
        out.push_str(&format!("[[ATTACHMENT|{}]]\n", file.path));
    }
    if !out.is_empty() {
        case.set_system_out(out);
    }
    case
}

fn whole_cell(cell: &CellView) -> TestCase {
    let outcome = cell.outcome.unwrap_or(Outcome::Cancelled);
    let reason = cell.reason.as_deref().unwrap_or("no reason given");
    let mut case = TestCase::new("(cell)", status(outcome, reason, "cell"));
    case.set_classname(cell.name.as_str());
    case.set_time(Duration::from_micros(cell.elapsed_us.unwrap_or(0)));
    case
}

/// Returns the suite of a run that fails although all of its cells are ok.
fn whole_run(view: &RunView, why: &str) -> TestSuite {
    let mut suite = TestSuite::new(RUN);
    suite.add_property(Property::new("run", view.run.as_str()));
    let mut case = TestCase::new(RUN, status(Outcome::Failed, why, "run"));
    case.set_classname(view.spec.as_str());
    suite.add_test_case(case);
    suite
}

/// Returns the JUnit status. JUnit has no flaky and no cancelled: flaky becomes a success (the `tries` property shows
/// it), and cancelled becomes an error, so that a cancelled run isn't green.
fn status(outcome: Outcome, reason: &str, action: &str) -> TestCaseStatus {
    let mut status = match outcome {
        Outcome::Passed | Outcome::Flaky => return TestCaseStatus::success(),
        Outcome::Skipped => TestCaseStatus::skipped(),
        Outcome::Failed => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Outcome::Errored | Outcome::Cancelled => TestCaseStatus::non_success(NonSuccessKind::Error),
    };
    if !reason.is_empty() {
        status.set_message(reason.lines().next().unwrap_or_default());
    }
    if outcome == Outcome::Skipped {
        // Some readers show the message, others the content.
        status.set_description(reason);
    } else {
        status.set_type(format!("{outcome}.{action}"));
    }
    status
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    /// Class, name and path of a case.
    type Case = (&'static str, &'static str, &'static str);

    fn report(cells: &[(&str, &[Case])]) -> Report {
        let mut report = Report::new("r");
        for (cell, cases) in cells {
            let mut suite = TestSuite::new(*cell);
            suite.add_property(Property::new("cell", format!("id-{cell}")));
            for (class, name, path) in *cases {
                let mut case = TestCase::new(*name, TestCaseStatus::success());
                case.set_classname(*class);
                if !path.is_empty() {
                    case.add_property(Property::new("path", *path));
                }
                suite.add_test_case(case);
            }
            report.add_test_suite(suite);
        }
        report
    }

    fn names(report: &Report) -> Vec<&str> {
        let cases = report.test_suites.iter().flat_map(|s| &s.test_cases);
        cases.map(|case| &*case.name).collect()
    }

    #[test]
    fn equal_names_get_their_path_then_their_cell_then_a_number() {
        let mut report = report(&[
            (
                "a",
                &[
                    ("a.t", "one", "t/0"),
                    ("a.t", "one", "t/1"),
                    ("a.t", "other", "t/2"),
                ],
            ),
            ("b", &[("x.y", "s", "t/0"), ("x", "(cell)", "")]),
            ("c", &[("x.y", "s", "t/0"), ("x", "(cell)", "")]),
            ("c", &[("x", "(cell) [id-b]", "")]),
        ]);
        make_unique(&mut report);
        let names = names(&report);
        assert_eq!(
            names,
            [
                "one (t/0)",
                "one (t/1)",
                "other",
                "s (t/0) [id-b]",
                "(cell) [id-b]",
                "s (t/0) [id-c]",
                "(cell) [id-c]",
                "(cell) [id-b] #2"
            ]
        );
    }

    #[test]
    fn names_that_differ_in_forbidden_characters_or_white_space_only_are_equal() {
        let mut report = report(&[(
            "a",
            &[
                ("a", "x\u{1}y", "t/0"),
                ("a", "xy", "t/1"),
                ("a", "p\nq", "t/2"),
                ("a", "p q", "t/3"),
            ],
        )]);
        make_unique(&mut report);
        let unique: HashSet<Key> = report.test_suites[0].test_cases.iter().map(key).collect();
        assert_eq!(unique.len(), 4);
    }

    #[test]
    fn no_character_that_xml_forbids_remains() {
        for number in 0..=0x11_0000_u32 {
            let Some(c) = char::from_u32(number) else {
                continue;
            };
            // Control characters, and the last two code points of each plane.
            if number > 0x9f && number & 0xfffe != 0xfffe {
                continue;
            }
            let allowed = matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
            let text = well_formed(XmlString::new(format!("a{c}b")).to_string());
            assert!(allowed || !text.contains(c), "U+{number:04X}");
        }
    }
}
