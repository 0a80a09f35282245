//! Reads JUnit XML as its many writers make it: pytest, Surefire, Playwright, gotestsum, jest-junit, googletest.
//!
//! A document type is refused, so there are no entities to expand. Namespaces are ignored.

use super::{Case, DEPTH, Suite, append, place, seconds, some};
use phalanx_shared::outcome::Outcome;
use quick_xml::XmlVersion;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::reader::Reader;
use std::collections::HashMap;
use std::time::Duration;

/// Bytes at the beginning of a file in which its XML declaration is looked for.
const DECLARATION: usize = 200;

/// Returns the encoding that the XML declaration names.
pub(super) fn encoding(bytes: &[u8]) -> Option<String> {
    let head = bytes.get(..bytes.len().min(DECLARATION))?;
    let head = String::from_utf8_lossy(head);
    let declaration = head.trim_start().strip_prefix("<?xml")?;
    let declaration = declaration.split("?>").next()?;
    let (_, value) = declaration.split_once("encoding")?;
    let value = value.trim_start().strip_prefix('=')?.trim_start();
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    value.get(1..)?.split(quote).next().map(str::to_owned)
}

/// Reads a document.
pub(super) fn read(text: &str) -> Suite {
    let mut document = Document::default();
    let mut reader = Reader::from_str(text);
    if let Err(problem) = document.read(&mut reader) {
        let at = usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX);
        let before = text.get(..text.floor_char_boundary(at.min(text.len())));
        let lines = before.unwrap_or_default().matches('\n').count() + 1;
        document.close();
        document
            .suite
            .problems
            .push(format!("broken JUnit XML in line {lines}: {problem}"));
    }
    document.suite
}

/// What an element is.
enum Element {
    /// `testsuites` or `testsuite`.
    Suite(Promise),
    Case,
    /// `failure`, `error`, `skipped` and the kinds of retries.
    Verdict,
    Stdout,
    Stderr,
    /// Anything else, and everything in it.
    Other,
}

/// What a suite says of itself.
struct Promise {
    name: String,
    tests: Option<usize>,
    /// Failures and errors.
    bad: usize,
    /// Number of cases, and of bad ones, before it.
    before: (usize, usize),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Failed,
    Skipped,
    /// A failed try of a case that passed later.
    Flaky,
    /// A failed try after the first one.
    Rerun,
}

struct Verdict {
    kind: Kind,
    message: String,
    text: String,
}

/// A case that is being read.
struct OpenCase {
    case: Case,
    verdicts: Vec<Verdict>,
}

#[derive(Default)]
struct Document {
    suite: Suite,
    open: Vec<Element>,
    case: Option<OpenCase>,
    /// Verdict on a suite as a whole.
    of_suite: Option<Verdict>,
    bad: usize,
    seen_root: bool,
}

impl Document {
    fn read(&mut self, reader: &mut Reader<&[u8]>) -> Result<(), String> {
        loop {
            match reader.read_event().map_err(|error| error.to_string())? {
                Event::Start(start) => self.start(&start)?,
                Event::Empty(start) => {
                    self.start(&start)?;
                    self.end()?;
                }
                Event::End(_) => self.end()?,
                Event::Text(text) => {
                    let text = text.xml10_content().map_err(|error| error.to_string())?;
                    self.text(&text);
                }
                Event::CData(text) => {
                    let text = text.xml10_content().map_err(|error| error.to_string())?;
                    self.text(&text);
                }
                Event::GeneralRef(reference) => self.text(&resolved(&reference)?),
                Event::DocType(_) => {
                    return Err("a document type (DOCTYPE) is not allowed".to_owned());
                }
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
                Event::Eof if !self.open.is_empty() => {
                    return Err("the file ends in the middle".to_owned());
                }
                Event::Eof if !self.seen_root => return Err("the file is empty".to_owned()),
                Event::Eof => return Ok(()),
            }
        }
    }

    fn start(&mut self, start: &BytesStart<'_>) -> Result<(), String> {
        if self.open.len() >= DEPTH {
            return Err(format!("elements are nested more than {DEPTH} deep"));
        }
        let name = start.local_name();
        let name = String::from_utf8_lossy(name.as_ref());
        let element = match (self.open.last(), name.as_ref()) {
            (None, "testsuites" | "testsuite") if !self.seen_root => {
                self.seen_root = true;
                self.suite_begins(attributes(start)?)
            }
            (None, other) => {
                return Err(format!(
                    "its root element is <{other}>, not <testsuites> or <testsuite>"
                ));
            }
            (Some(Element::Suite(_)), "testsuite") => self.suite_begins(attributes(start)?),
            (Some(Element::Suite(_)), "testcase") => {
                self.case_begins(attributes(start)?);
                Element::Case
            }
            (Some(Element::Suite(_)), "error" | "failure") => {
                self.of_suite = Some(verdict(Kind::Failed, attributes(start)?));
                Element::Verdict
            }
            (Some(Element::Case), name) => self.in_case(name, start)?,
            // Surefire writes the stack trace of a try as an element of its own.
            (Some(Element::Verdict), "stackTrace") => Element::Verdict,
            _ => Element::Other,
        };
        self.open.push(element);
        Ok(())
    }

    fn suite_begins(&self, mut attributes: HashMap<String, String>) -> Element {
        let number = |name: &str| {
            attributes
                .get(name)
                .and_then(|text| text.trim().parse().ok())
        };
        let bad = number("failures").unwrap_or(0_usize);
        let bad = bad.saturating_add(number("errors").unwrap_or(0));
        Element::Suite(Promise {
            tests: number("tests"),
            bad,
            before: (self.suite.cases.len(), self.bad),
            name: attributes.remove("name").unwrap_or_default(),
        })
    }

    fn case_begins(&mut self, attributes: HashMap<String, String>) {
        let get = |name: &str| attributes.get(name).map(String::as_str);
        let class = get("classname").filter(|class| !class.trim().is_empty());
        let class = class.unwrap_or_else(|| self.suite_name());
        let mut case = Case::new(class, get("name").unwrap_or_default());
        case.elapsed = get("time").and_then(time);
        case.place = place(get("file"), get("line"));
        let mut verdicts = Vec::new();
        // googletest says so of disabled tests, and writes no element for them.
        if let Some(word @ ("notrun" | "disabled" | "skipped")) = get("status") {
            verdicts.push(Verdict {
                kind: Kind::Skipped,
                message: format!("{word} by the runner"),
                text: String::new(),
            });
        }
        self.case = Some(OpenCase { case, verdicts });
    }

    fn suite_name(&self) -> &str {
        let mut open = self.open.iter().rev();
        let name = open.find_map(|element| match element {
            Element::Suite(promise) => Some(promise.name.as_str()),
            _ => None,
        });
        name.unwrap_or_default()
    }

    fn in_case(&mut self, name: &str, start: &BytesStart<'_>) -> Result<Element, String> {
        let kind = match name {
            "failure" | "error" => Kind::Failed,
            "skipped" | "disabled" => Kind::Skipped,
            "flakyFailure" | "flakyError" => Kind::Flaky,
            "rerunFailure" | "rerunError" => Kind::Rerun,
            "system-out" => return Ok(Element::Stdout),
            "system-err" => return Ok(Element::Stderr),
            _ => return Ok(Element::Other),
        };
        let verdict = verdict(kind, attributes(start)?);
        if let Some(open) = &mut self.case {
            open.verdicts.push(verdict);
        }
        Ok(Element::Verdict)
    }

    fn text(&mut self, text: &str) {
        let case = self.case.as_mut();
        let to = match self.open.last() {
            Some(Element::Verdict) => match case {
                Some(open) => open.verdicts.last_mut().map(|verdict| &mut verdict.text),
                None => self.of_suite.as_mut().map(|verdict| &mut verdict.text),
            },
            Some(Element::Stdout) => case.map(|open| &mut open.case.stdout),
            Some(Element::Stderr) => case.map(|open| &mut open.case.stderr),
            _ => None,
        };
        if let Some(to) = to {
            to.push_str(text);
        }
    }

    fn end(&mut self) -> Result<(), String> {
        match self.open.pop() {
            Some(Element::Case) => {
                if let Some(open) = self.case.take() {
                    self.push(open.judged())?;
                }
            }
            Some(Element::Verdict) if self.case.is_none() => {
                if let Some(verdict) = self.of_suite.take() {
                    let case = Case::new(self.suite_name(), "(the suite itself)");
                    let verdicts = vec![verdict];
                    self.push(OpenCase { case, verdicts }.judged())?;
                }
            }
            Some(Element::Suite(promise)) => self.suite_ends(&promise),
            _ => {}
        }
        Ok(())
    }

    fn push(&mut self, case: Case) -> Result<(), String> {
        self.bad += usize::from(case.outcome == Outcome::Failed);
        match self.suite.push(case) {
            true => Ok(()),
            false => Err("the rest is not read".to_owned()),
        }
    }

    fn suite_ends(&mut self, promise: &Promise) {
        let (cases, bad) = (self.suite.cases.len(), self.bad);
        let found = cases.saturating_sub(promise.before.0);
        let name = match promise.name.is_empty() {
            true => "a suite".to_owned(),
            false => format!("the suite `{}`", super::line(&promise.name)),
        };
        if let Some(tests) = promise.tests.filter(|tests| *tests > found) {
            self.suite.problems.push(format!(
                "{name} says that it has {tests} cases, but {found} are there"
            ));
        }
        // Some runners count failed assertions, so only whether there is a failure can be compared.
        if promise.bad > 0 && bad == promise.before.1 {
            let promised = promise.bad;
            self.suite.problems.push(format!(
                "{name} counts {promised} failures or errors, but no case in it failed"
            ));
        }
    }

    /// Keeps a case in whose middle the document breaks; it counts as failed, because it has no end.
    fn close(&mut self) {
        if let Some(mut open) = self.case.take() {
            open.verdicts.push(Verdict {
                kind: Kind::Failed,
                message: "the results end in the middle of this case".to_owned(),
                text: String::new(),
            });
            self.suite.push(open.judged());
        }
    }
}

impl OpenCase {
    fn judged(self) -> Case {
        let OpenCase { mut case, verdicts } = self;
        let count = |kind: Kind| {
            verdicts
                .iter()
                .filter(|verdict| verdict.kind == kind)
                .count()
        };
        let reruns = count(Kind::Flaky) + count(Kind::Rerun);
        case.retries = u32::try_from(reruns).unwrap_or(u32::MAX);
        case.outcome = if count(Kind::Failed) > 0 {
            Outcome::Failed
        } else if reruns > 0 {
            Outcome::Flaky
        } else if count(Kind::Skipped) > 0 {
            Outcome::Skipped
        } else {
            Outcome::Passed
        };
        let deciding = |verdict: &&Verdict| match case.outcome {
            Outcome::Failed => verdict.kind == Kind::Failed,
            Outcome::Flaky => verdict.kind != Kind::Skipped,
            _ => true,
        };
        let message = verdicts.iter().filter(deciding).find_map(|verdict| {
            let first = || verdict.text.lines().find_map(some);
            some(&verdict.message).or_else(first)
        });
        case.message = message;
        for verdict in &verdicts {
            append(&mut case.details, &verdict.text);
        }
        case
    }
}

fn verdict(kind: Kind, mut attributes: HashMap<String, String>) -> Verdict {
    let message = attributes.remove("message");
    let message = message.filter(|message| !message.trim().is_empty());
    Verdict {
        kind,
        message: message
            .or_else(|| attributes.remove("type"))
            .unwrap_or_default(),
        text: String::new(),
    }
}

/// Returns the attributes of an element; of equal ones the last.
fn attributes(start: &BytesStart<'_>) -> Result<HashMap<String, String>, String> {
    let mut all = HashMap::new();
    // The reader's own check for equal names compares each with all before it.
    for attribute in start.attributes().with_checks(false) {
        let attribute = attribute.map_err(|error| error.to_string())?;
        let value = attribute.normalized_value(XmlVersion::Implicit1_0);
        let value = value.map_err(|error| error.to_string())?;
        let name = String::from_utf8_lossy(attribute.key.local_name().as_ref()).into_owned();
        all.insert(name, value.into_owned());
    }
    Ok(all)
}

fn resolved(reference: &BytesRef<'_>) -> Result<String, String> {
    let number = reference.resolve_char_ref();
    if let Some(number) = number.map_err(|error| error.to_string())? {
        return Ok(number.to_string());
    }
    let name = reference.decode().map_err(|error| error.to_string())?;
    match resolve_xml_entity(&name) {
        Some(text) => Ok(text.to_owned()),
        None => Err(format!("unknown entity `{name}`")),
    }
}

/// Returns a time in seconds. Some writers group thousands by commas.
fn time(text: &str) -> Option<Duration> {
    seconds(text.trim().replace(',', "").parse().ok()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    fn outcomes(suite: &Suite) -> Vec<(&str, Outcome, Option<&str>)> {
        let cases = suite.cases.iter();
        cases
            .map(|case| (case.name.as_str(), case.outcome, case.message.as_deref()))
            .collect()
    }

    #[test]
    fn the_file_that_pytest_writes() {
        let suite = read(
            r#"<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests"><testsuite name="pytest" errors="1" failures="1" skipped="1" tests="4" time="0.123" timestamp="2026-11-30T07:00:00" hostname="h">
<testcase classname="tests.test_orders" name="test_create" time="0.001" />
<testcase classname="tests.test_orders" name="test_pay[card]" time="0.020"><failure message="AssertionError: assert 500 == 201&#10; +  where 500 = f()">def test_pay(kind):
&gt;       assert 500 == 201
E       AssertionError &amp; more

tests/test_orders.py:7: AssertionError</failure><system-out>paying &lt;now&gt;</system-out></testcase>
<testcase classname="tests.test_orders" name="test_stream" time="0.000"><skipped type="pytest.skip" message="no stream in v1">/tests/test_orders.py:12: no stream in v1</skipped></testcase>
<testcase classname="tests.test_orders" name="test_db" time="0.5"><error message="failed on setup with &quot;OSError&quot;">trace</error></testcase></testsuite></testsuites>"#,
        );
        assert_eq!(suite.problems, Vec::<String>::new());
        let pay = "AssertionError: assert 500 == 201\n +  where 500 = f()";
        assert_eq!(
            outcomes(&suite),
            [
                ("tests.test_orders::test_create", Outcome::Passed, None),
                (
                    "tests.test_orders::test_pay[card]",
                    Outcome::Failed,
                    Some(pay)
                ),
                (
                    "tests.test_orders::test_stream",
                    Outcome::Skipped,
                    Some("no stream in v1")
                ),
                (
                    "tests.test_orders::test_db",
                    Outcome::Failed,
                    Some("failed on setup with \"OSError\"")
                ),
            ]
        );
        let pay = &suite.cases[1];
        assert_eq!(pay.stdout, "paying <now>");
        assert_eq!(pay.elapsed, Some(Duration::from_millis(20)));
        assert!(
            pay.details
                .contains(">       assert 500 == 201\nE       AssertionError & more")
        );
    }

    #[test]
    fn retries_of_the_runner_are_flaky_unless_the_last_one_failed() {
        let suite = read(
            r#"<testsuite name="T" tests="3" failures="1"><testcase name="a"><flakyFailure message="once" type="E"><stackTrace>at A</stackTrace><system-out>o</system-out></flakyFailure></testcase>
            <testcase name="b"><failure message="last">x</failure><rerunFailure message="first"/><rerunError message="second"/></testcase>
            <testcase name="c"><rerunFailure message="first">y</rerunFailure></testcase></testsuite>"#,
        );
        assert!(suite.problems.is_empty(), "{suite:?}");
        assert_eq!(
            outcomes(&suite),
            [
                ("T::a", Outcome::Flaky, Some("once")),
                ("T::b", Outcome::Failed, Some("last")),
                ("T::c", Outcome::Flaky, Some("first")),
            ]
        );
        assert_eq!(suite.cases[0].details, "at A");
        assert_eq!(suite.cases[1].retries, 2);
    }

    #[test]
    fn fewer_cases_than_promised_are_a_problem_of_that_suite() {
        let suite = read(
            r#"<testsuites tests="3"><testsuite name="a" tests="2"><testcase name="x"/></testsuite><testsuite name="b" tests="1" failures="2"><testcase name="y"/></testsuite></testsuites>"#,
        );
        assert_eq!(suite.cases.len(), 2);
        assert_eq!(
            suite.problems,
            [
                "the suite `a` says that it has 2 cases, but 1 are there",
                "the suite `b` counts 2 failures or errors, but no case in it failed",
                "a suite says that it has 3 cases, but 2 are there",
            ]
        );
    }

    #[test]
    fn an_error_of_a_suite_is_a_case_and_a_disabled_case_is_skipped() {
        let suite = read(
            r#"<testsuites><testsuite name="s" tests="1"><error message="no database"/><testcase classname="C" name="n" status="notrun"/></testsuite></testsuites>"#,
        );
        assert_eq!(
            outcomes(&suite),
            [
                (
                    "s::(the suite itself)",
                    Outcome::Failed,
                    Some("no database")
                ),
                ("C::n", Outcome::Skipped, Some("notrun by the runner")),
            ]
        );
    }

    #[test]
    fn a_broken_file_gives_its_first_cases_and_a_problem() {
        for (text, cases, problem) in [
            ("", 0, "empty"),
            ("not xml", 0, "empty"),
            ("<html/>", 0, "<html>"),
            (
                "<testsuite>\n<testcase name=\"a\"/>\n<testcase name=\"b\">",
                2,
                "line 3: the file ends in the middle",
            ),
            (
                "<testsuite><testcase name=\"a\"/></testsuites>",
                1,
                "broken",
            ),
            (
                "<testsuite><testcase name=\"&no;\"/></testsuite>",
                0,
                "broken",
            ),
            ("<testsuite/><testsuite/>", 0, "root element"),
            (
                "<!DOCTYPE t [<!ENTITY a \"b\"><!ENTITY c \"&a;&a;\">]><testsuite><testcase name=\"x\"/></testsuite>",
                0,
                "DOCTYPE",
            ),
        ] {
            let suite = read(text);
            assert_eq!(suite.cases.len(), cases, "{text}");
            let problems = suite.problems.concat();
            assert!(problems.contains(problem), "{text}: {problems}");
        }
        let half = read("<testsuite><testcase name=\"b\">");
        assert_eq!(half.cases[0].outcome, Outcome::Failed);
    }

    #[test]
    fn depth_and_number_are_bounded() {
        let deep = "<testsuite>".repeat(100_000);
        assert!(read(&deep).problems.concat().contains("nested more than"));
        let many = format!(
            "<testsuite>{}</testsuite>",
            "<testcase name='a'/>".repeat(super::super::CASES + 5)
        );
        let suite = read(&many);
        assert_eq!(suite.cases.len(), super::super::CASES);
        assert!(suite.problems.concat().contains("more than 10000 cases"));
        let attributes: String = (0..50_000).map(|n| format!(" a{n}=''")).collect();
        let wide = format!("<testsuite><testcase{attributes} name='a'/></testsuite>");
        assert_eq!(read(&wide).cases[0].name, "a");
    }

    #[test]
    fn times_of_all_writers() {
        assert_eq!(time("1,234.5"), Some(Duration::from_millis(1_234_500)));
        assert_eq!(time(" 0.25 "), Some(Duration::from_millis(250)));
        for none in ["", "-1", "NaN", "1e400", "soon"] {
            assert_eq!(time(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "[<>/&;a-z'\"= \\[\\]!\\-]{0,80}") {
            let _ = read(&text);
        }

        #[test]
        fn a_file_cut_anywhere_never_looks_whole(at in 0_usize..220) {
            let whole = r#"<?xml version="1.0"?><testsuites><testsuite name="s" tests="2"><testcase name="a"><failure message="m">t</failure></testcase><testcase name="b"/></testsuite></testsuites>"#;
            if let Some(cut) = whole.get(..at.min(whole.len() - 1)) {
                prop_assert!(!read(cut).problems.is_empty());
            }
        }
    }
}
