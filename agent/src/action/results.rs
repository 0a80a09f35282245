//! Fetches the test results that a step's program wrote: from a service, from the workspace, or from its output.
//!
//! A file that the program didn't write doesn't count. What the files looked like before is noted ([`Expected`]), and a
//! file that looks the same afterwards (time of change, size, and inode where it is known) is left out. Clocks aren't
//! compared, because an engine may run on another machine.

use super::answer::{Answer, Fault};
use crate::beneath::Root;
use crate::context::CellContext;
use crate::results::{self, Collected, Suite};
use crate::runtime::blocking::blocking;
use crate::runtime::contract::RuntimeError;
use crate::runtime::search::{self, FoundFile, Pattern, Search};
use phalanx_shared::expr::{EvalError, Scope, to_text};
use phalanx_shared::language::model::{Action, ResultFormat, Step, TestResults};
use phalanx_shared::time::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::timeout;

/// Time limit for fetching the results.
const FETCH: Duration = Duration::from_secs(60);

/// Results that a program is about to write.
pub struct Expected {
    format: ResultFormat,
    sources: Vec<Source>,
    place: Place,
    /// Stamps of the files that are there already, by path.
    before: BTreeMap<String, String>,
    began: Timestamp,
    mono: Duration,
}

enum Source {
    Output,
    Files(Pattern),
}

enum Place {
    Workspace,
    Service(String),
}

/// Notes what is there before the program of a step runs. `None` if the step has no `results`.
pub async fn expect(
    context: &CellContext,
    step: &Step,
    scope: &Scope,
) -> Result<Option<Expected>, Fault> {
    let Some(results) = &step.results else {
        return Ok(None);
    };
    let place = place(context, step, results, scope)?;
    let sources = sources(context, results, scope)?;
    let mut expected = Expected {
        format: results.format,
        sources,
        place,
        before: BTreeMap::new(),
        began: Timestamp::default(),
        mono: Duration::ZERO,
    };
    for pattern in expected.patterns() {
        // What can't be looked for now is reported when the program has run.
        if let Ok(files) = find(context, &expected.place, pattern, false).await {
            let stamps = files.into_iter().map(|file| (file.path, file.stamp));
            expected.before.extend(stamps);
        }
    }
    expected.began = context.clock.wall();
    expected.mono = context.clock.monotonic();
    Ok(Some(expected))
}

impl Expected {
    fn patterns(&self) -> Vec<Pattern> {
        let files = self.sources.iter().filter_map(|source| match source {
            Source::Files(pattern) => Some(pattern.clone()),
            Source::Output => None,
        });
        files.collect()
    }

    /// Collects what the program wrote.
    pub async fn collect(self, context: &CellContext, answer: &Answer) -> Collected {
        let elapsed = context.clock.monotonic().saturating_sub(self.mono);
        let mut suite = Suite::default();
        for source in &self.sources {
            match source {
                Source::Output => self.add_output(&mut suite, answer).await,
                Source::Files(pattern) => self.add_files(&mut suite, context, pattern).await,
            }
        }
        if suite.cases.is_empty() && suite.problems.is_empty() {
            suite
                .problems
                .push("the results hold no test case".to_owned());
        }
        Collected {
            suite,
            began: self.began,
            elapsed,
        }
    }

    async fn add_output(&self, suite: &mut Suite, answer: &Answer) {
        let Some(stdout) = answer.stdout.clone() else {
            suite
                .problems
                .push("there is no output with results".to_owned());
            return;
        };
        let format = self.format;
        let read = blocking(move || results::read(format, &stdout.bytes)).await;
        suite.add("stdout", read);
        if let Some(cut) = answer
            .stdout
            .as_ref()
            .and_then(|stdout| stdout.cut.as_ref())
        {
            suite.problems.push(format!("stdout {cut}"));
        }
    }

    async fn add_files(&self, suite: &mut Suite, context: &CellContext, pattern: &Pattern) {
        let found = timeout(FETCH, find(context, &self.place, pattern.clone(), true)).await;
        let found = match found {
            Ok(Ok(found)) => found,
            Ok(Err(why)) => return suite.problems.push(format!("no results: {why}")),
            Err(_) => {
                let why = format!("no results: {} not fetched within 60s", pattern.as_str());
                return suite.problems.push(why);
            }
        };
        let all = found.len();
        let fresh = fresh(&self.before, found);
        if fresh.is_empty() {
            return suite.problems.push(self.nothing(pattern, all));
        }
        for file in fresh {
            let format = self.format;
            let read = blocking(move || results::read(format, &file.bytes)).await;
            suite.add(&file.path, read);
        }
    }

    /// Explains why there are no results.
    fn nothing(&self, pattern: &Pattern, stale: usize) -> String {
        let place = match &self.place {
            Place::Workspace => "the workspace".to_owned(),
            Place::Service(service) => format!("service {service}"),
        };
        let pattern = pattern.as_str();
        match stale {
            0 => format!("no results: the program wrote no {pattern} in {place}"),
            1 => format!(
                "no results: {pattern} in {place} is from before the step, the program didn't write it"
            ),
            stale => format!(
                "no results: the {stale} files that match {pattern} in {place} are from before the step"
            ),
        }
    }
}

/// Leaves out the files that are as they were before.
fn fresh(before: &BTreeMap<String, String>, found: Vec<FoundFile>) -> Vec<FoundFile> {
    let is_fresh = |file: &FoundFile| before.get(&file.path) != Some(&file.stamp);
    found.into_iter().filter(is_fresh).collect()
}

fn place(
    context: &CellContext,
    step: &Step,
    results: &TestResults,
    scope: &Scope,
) -> Result<Place, EvalError> {
    let ran_in = match &step.action {
        Action::Exec(exec) => Some(&exec.service),
        Action::Container(change) => Some(&change.service),
        _ => None,
    };
    let Some(named) = results.from.as_ref().or(ran_in) else {
        return Ok(Place::Workspace);
    };
    let name = context.evaluate(scope).text(named)?;
    if results.from.is_some() && name == TestResults::WORKSPACE {
        return Ok(Place::Workspace);
    }
    match context.services.is_known(&name) {
        true => Ok(Place::Service(name)),
        false => Err(
            EvalError::new(named.span, format!("there is no service `{name}`"))
                .with_help("`from` is a service, or `workspace`"),
        ),
    }
}

fn sources(
    context: &CellContext,
    results: &TestResults,
    scope: &Scope,
) -> Result<Vec<Source>, EvalError> {
    let format = results.format.as_str();
    let value = context.evaluate(scope).value(&results.files)?;
    let texts: Vec<String> = match &value {
        Value::Array(items) => items.iter().map(to_text).collect(),
        one => vec![to_text(one)],
    };
    let sources = texts.into_iter().map(|text| {
        if text == TestResults::OUTPUT {
            return Ok(Source::Output);
        }
        let pattern = Pattern::new(&text).map_err(|why| {
            EvalError::new(
                results.files.span,
                format!("results.{format}: `{text}`: {why}"),
            )
        })?;
        Ok(Source::Files(pattern))
    });
    let sources = sources.collect::<Result<Vec<_>, EvalError>>()?;
    match sources.is_empty() {
        true => Err(EvalError::new(
            results.files.span,
            format!("results.{format} names no file"),
        )),
        false => Ok(sources),
    }
}

/// Finds files; the error is a reason in one line.
async fn find(
    context: &CellContext,
    place: &Place,
    pattern: Pattern,
    content: bool,
) -> Result<Vec<FoundFile>, String> {
    let search = Search { pattern, content };
    match place {
        Place::Service(service) => match context.services.member(service) {
            Some(member) => {
                let found = member.find(search).await;
                found.map_err(|error: RuntimeError| error.reason)
            }
            None => Ok(Vec::new()),
        },
        Place::Workspace => {
            let what = search.pattern.as_str().to_owned();
            if what.starts_with('/') {
                return Err(format!("{what} is not in the workspace"));
            }
            let Some(workspace) = context.workspace.clone() else {
                // Without a workspace, commands on the host run in a directory of the attempt.
                let host = context.host.as_ref().map_err(Clone::clone)?;
                let found = host.find_on_host(search).await;
                return found.map_err(|error| error.reason);
            };
            let found = blocking(move || search::below(&Root::open(&workspace)?, &search)).await;
            found.map_err(|error| format!("{what} in the workspace: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_as_it_was_before_does_not_count() {
        let file = |path: &str, stamp: &str| FoundFile {
            path: path.to_owned(),
            stamp: stamp.to_owned(),
            bytes: Vec::new(),
        };
        let before = [
            ("old.xml", "1 10"),
            ("again.xml", "1 10"),
            ("gone.xml", "1 10"),
        ];
        let before = before.map(|(path, stamp)| (path.to_owned(), stamp.to_owned()));
        let found = vec![
            file("old.xml", "1 10"),
            file("again.xml", "2 10"),
            file("new.xml", "1 10"),
        ];
        let paths: Vec<String> = fresh(&before.into(), found)
            .into_iter()
            .map(|file| file.path)
            .collect();
        assert_eq!(paths, ["again.xml", "new.xml"]);
    }
}
