//! Test results as programs write them: JUnit XML, CTRF and TAP, read into one form. Pure and bounded.
//!
//! A reader never gives up what it has read: a file that is broken in the middle gives its first cases and a problem. A
//! problem means that the results can't be trusted to be all, so a step with one never passes ([`verdict`]).

mod ctrf;
mod junit;
mod tap;
pub mod verdict;

use crate::charset;
use phalanx_shared::language::model::ResultFormat;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::time::Timestamp;
use std::time::Duration;

/// Maximum number of test cases of one step. Each is an event.
pub const CASES: usize = 10_000;
/// Maximum depth of nested elements of XML, and of subtests.
const DEPTH: usize = 64;
/// Maximum bytes of a name.
const NAME: usize = 1_000;

/// The test cases of one file or of several.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Suite {
    /// Cases in the order of the file.
    pub cases: Vec<Case>,
    /// Why these may not be all cases, or can't be trusted. Empty if the file is complete.
    pub problems: Vec<String>,
}

/// Test results that a program wrote.
#[derive(Clone, Debug)]
pub struct Collected {
    /// The cases, and why they may not be all.
    pub suite: Suite,
    /// When the program began.
    pub began: Timestamp,
    /// How long it ran.
    pub elapsed: Duration,
}

/// One test case.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Full name: that of its class, file or suite, `::`, and its own.
    pub name: String,
    /// Passed, flaky, skipped or failed.
    pub outcome: Outcome,
    /// Why it failed or was skipped.
    pub message: Option<String>,
    /// Stack trace and the like.
    pub details: String,
    /// What it printed on standard output.
    pub stdout: String,
    /// What it printed on standard error.
    pub stderr: String,
    /// How long it took, if known.
    pub elapsed: Option<Duration>,
    /// Number of tries by the runner before the last one.
    pub retries: u32,
    /// Place of the test: `file` or `file:line`.
    pub place: Option<String>,
}

impl Case {
    /// Creates a case that passed.
    fn new(suite: &str, name: &str) -> Case {
        Case {
            name: full_name(suite, name),
            outcome: Outcome::Passed,
            message: None,
            details: String::new(),
            stdout: String::new(),
            stderr: String::new(),
            elapsed: None,
            retries: 0,
            place: None,
        }
    }
}

impl Suite {
    /// Adds a case. Returns false if there are too many, which is a problem of the suite.
    fn push(&mut self, case: Case) -> bool {
        if self.cases.len() < CASES {
            self.cases.push(case);
            return true;
        }
        self.problems.push(format!(
            "the results have more than {CASES} cases: let several steps run parts of the suite"
        ));
        false
    }

    /// Adds the cases and problems of another file. A problem then says which file has it.
    pub fn add(&mut self, file: &str, other: Suite) {
        let problems = other.problems.into_iter();
        self.problems
            .extend(problems.map(|problem| format!("{file}: {problem}")));
        for case in other.cases {
            if !self.push(case) {
                return;
            }
        }
    }
}

/// Reads a file. It is decoded by its byte order mark, else by the encoding that an XML declaration names, else as
/// UTF-8.
pub fn read(format: ResultFormat, bytes: &[u8]) -> Suite {
    let encoding = match format {
        ResultFormat::Junit => junit::encoding(bytes),
        ResultFormat::Ctrf | ResultFormat::Tap => None,
    };
    let kind = encoding.map_or(String::new(), |name| format!("text/xml; charset={name}"));
    if let Err(unknown) = charset::detect(&kind, bytes) {
        return Suite {
            problems: vec![format!(
                "its encoding {unknown:?} is not supported: let the runner write UTF-8"
            )],
            ..Suite::default()
        };
    }
    let text = charset::text(&kind, bytes);
    match format {
        ResultFormat::Junit => junit::read(&text),
        ResultFormat::Ctrf => ctrf::read(&text),
        ResultFormat::Tap => tap::read(&text),
    }
}

fn full_name(suite: &str, name: &str) -> String {
    let (suite, name) = (line(suite), line(name));
    let name = match name.is_empty() {
        true => "(no name)".to_owned(),
        false => name,
    };
    let full = match suite.is_empty() {
        true => name,
        false => format!("{suite}::{name}"),
    };
    full.get(..full.floor_char_boundary(NAME))
        .unwrap_or_default()
        .to_owned()
}

/// Returns a name in one line.
fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns a number of seconds as a duration; `None` if it is none.
fn seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok()
}

/// Returns `file` or `file:line`.
fn place(file: Option<&str>, line: Option<&str>) -> Option<String> {
    let file = file.map(str::trim).filter(|file| !file.is_empty())?;
    Some(match line.map(str::trim).filter(|line| !line.is_empty()) {
        Some(line) => format!("{file}:{line}"),
        None => file.to_owned(),
    })
}

fn some(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Adds a text after a line break.
fn append(to: &mut String, text: &str) {
    let text = text.trim_matches(['\n', '\r']);
    if text.trim().is_empty() {
        return;
    }
    if !to.is_empty() {
        to.push('\n');
    }
    to.push_str(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoding_is_known_or_named() {
        let latin = b"<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><testsuite><testcase name=\"caf\xe9\"/></testsuite>";
        let suite = read(ResultFormat::Junit, latin);
        assert_eq!(suite.problems, Vec::<String>::new());
        assert_eq!(
            suite.cases.first().map(|case| case.name.as_str()),
            Some("café")
        );
        let other = read(
            ResultFormat::Junit,
            b"<?xml version='1.0' encoding='koi8-r'?><testsuite/>",
        );
        assert!(other.problems.concat().contains("koi8-r"), "{other:?}");
        let marked: Vec<u8> = "\u{feff}1..1\nok 1"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        assert_eq!(read(ResultFormat::Tap, &marked).cases.len(), 1);
    }

    #[test]
    fn several_files_have_one_limit() {
        let many = |n: usize| Suite {
            cases: (0..n).map(|i| Case::new("s", &i.to_string())).collect(),
            problems: Vec::new(),
        };
        let mut all = Suite::default();
        all.add("a.xml", many(CASES - 1));
        all.add("b.xml", many(1));
        assert!(all.problems.is_empty());
        all.add("c.xml", many(3));
        assert_eq!((all.cases.len(), all.problems.len()), (CASES, 1));
    }

    #[test]
    fn names_are_one_bounded_line() {
        assert_eq!(full_name(" a\n b ", "c\td"), "a b::c d");
        assert_eq!(full_name("", ""), "(no name)");
        assert!(full_name("é", &"é".repeat(9_000)).len() <= NAME);
    }
}
