//! What may have caused a difference between two runs: inputs, images, spec, agents.

use super::{Pairs, Side};
use crate::text::plural;
use crate::view::RunView;
use phalanx_shared::plan::{Plan, PlannedCell};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Maximum length of a value, in characters.
const LONG: usize = 160;
/// Maximum number of changed lines of a file that are shown.
const LINES: usize = 12;
/// Maximum number of changes of one kind.
const LISTED: usize = 50;

/// Something that differs between two runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What kind of thing.
    pub kind: ChangeKind,
    /// Its name.
    pub what: String,
    /// What the earlier run has; `None` if it has nothing.
    pub before: Option<String>,
    /// What the later run has.
    pub after: Option<String>,
    /// Changed lines of a file, with `-` and `+`; bounded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
}

/// Kind of a change, in the order in which to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// An input of the spec.
    Input,
    /// The image of a service.
    Image,
    /// The spec, the files that it reads, or what it plans.
    Spec,
    /// The agents that ran the cells.
    Agent,
}

/// Returns what differs, in the order of the kinds.
pub(super) fn changes(before: &Side<'_>, after: &Side<'_>, pairs: &Pairs) -> Vec<Change> {
    let mut found = inputs(before.view, after.view);
    found.extend(images(before.view, after.view));
    found.extend(spec(before, after, pairs));
    found.extend(agents(before.view, after.view));
    found
}

fn change(kind: ChangeKind, what: &str, before: Option<String>, after: Option<String>) -> Change {
    let short = |text: String| match text.char_indices().nth(LONG) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    };
    Change {
        kind,
        what: what.to_owned(),
        before: before.map(short),
        after: after.map(short),
        lines: Vec::new(),
    }
}

fn inputs(before: &RunView, after: &RunView) -> Vec<Change> {
    let names: BTreeSet<&String> = before.inputs.keys().chain(after.inputs.keys()).collect();
    let text = |value: Option<&Value>| value.map(crate::view::coverage::axis_text);
    let differing = names.into_iter().filter_map(|name| {
        let (old, new) = (before.inputs.get(name), after.inputs.get(name));
        (old != new).then(|| change(ChangeKind::Input, name, text(old), text(new)))
    });
    differing.take(LISTED).collect()
}

/// Returns the services whose images differ. A service may have several, by cell.
fn images(before: &RunView, after: &RunView) -> Vec<Change> {
    let (old, new) = (images_of(before), images_of(after));
    let names: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
    let text = |images: Option<&BTreeSet<String>>| {
        images.map(|images| {
            images
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(", ")
        })
    };
    let differing = names.into_iter().filter_map(|name| {
        let (old, new) = (old.get(name), new.get(name));
        (old != new).then(|| change(ChangeKind::Image, name, text(old), text(new)))
    });
    differing.take(LISTED).collect()
}

fn images_of(view: &RunView) -> BTreeMap<&str, BTreeSet<String>> {
    let mut images: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for service in view
        .cells
        .iter()
        .filter_map(|cell| cell.newest())
        .flat_map(|attempt| &attempt.services)
    {
        if let Some(image) = image(service) {
            images.entry(&service.name).or_default().insert(image);
        }
    }
    images
}

/// Returns what a service ran, by digest; `None` if the journal doesn't say.
fn image(service: &crate::view::ServiceReport) -> Option<String> {
    service.image.clone()
}

fn spec(before: &Side<'_>, after: &Side<'_>, pairs: &Pairs) -> Vec<Change> {
    let mut found = files(before.files, after.files);
    if let (Some(old), Some(new)) = (before.plan, after.plan) {
        found.extend(read_files(old, new));
        found.extend(settings(old, new));
        found.extend(cell_settings(old, new, pairs));
    }
    let (old, new) = (&before.view.digest, &after.view.digest);
    let unexplained = found.is_empty() && before.view.inputs == after.view.inputs;
    if unexplained && old != new {
        found.push(change(
            ChangeKind::Spec,
            "digest of the plan",
            Some(old.clone()),
            Some(new.clone()),
        ));
    }
    found
}

/// Returns the spec files that differ, with their changed lines.
fn files(before: &[(String, String)], after: &[(String, String)]) -> Vec<Change> {
    if before.is_empty() || after.is_empty() {
        return Vec::new();
    }
    let old: BTreeMap<&str, &str> = before
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    let new: BTreeMap<&str, &str> = after
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    let names: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
    let differing = names.into_iter().filter_map(|name| {
        let (old, new) = (old.get(name).copied(), new.get(name).copied());
        if old == new {
            return None;
        }
        let (removed, added) = changed_lines(old.unwrap_or_default(), new.unwrap_or_default());
        let mut made = change(
            ChangeKind::Spec,
            name,
            old.map(|_| plural(removed.len(), "line")),
            new.map(|_| plural(added.len(), "line")),
        );
        let removed = removed
            .iter()
            .take(LINES / 2)
            .map(|line| format!("- {line}"));
        let added = added.iter().take(LINES / 2).map(|line| format!("+ {line}"));
        made.lines = removed.chain(added).collect();
        Some(made)
    });
    differing.take(LISTED).collect()
}

/// Returns the lines of one text that the other doesn't have, and the other way round. Equal lines count as often as
/// they occur.
fn changed_lines<'a>(old: &'a str, new: &'a str) -> (Vec<&'a str>, Vec<&'a str>) {
    fn left<'a>(lines: &'a str, others: &'a str) -> Vec<&'a str> {
        let mut known: HashMap<&str, usize> = HashMap::new();
        others
            .lines()
            .for_each(|line| *known.entry(line).or_default() += 1);
        let mut left = Vec::new();
        for line in lines.lines() {
            match known.get_mut(line).filter(|count| **count > 0) {
                Some(count) => *count -= 1,
                None => left.push(line),
            }
        }
        left
    }
    (left(old, new), left(new, old))
}

/// Returns the files that expressions read and that differ; never their contents.
fn read_files(before: &Plan, after: &Plan) -> Vec<Change> {
    let names: BTreeSet<&String> = before.files.keys().chain(after.files.keys()).collect();
    let size = |text: Option<&String>| text.map(|text| plural(text.len(), "byte"));
    let differing = names.into_iter().filter_map(|name| {
        let (old, new) = (before.files.get(name), after.files.get(name));
        let what = format!("file {name}, which an expression reads");
        (old != new).then(|| change(ChangeKind::Spec, &what, size(old), size(new)))
    });
    differing.take(LISTED).collect()
}

fn settings(before: &Plan, after: &Plan) -> Vec<Change> {
    let number = |number: Option<u64>| number.map(|number| number.to_string());
    let settings = [
        (
            "digest of the workspace",
            before.workspace.clone(),
            after.workspace.clone(),
        ),
        (
            "max-parallel",
            number(before.max_parallel.map(u64::from)),
            number(after.max_parallel.map(u64::from)),
        ),
        (
            "max-skips",
            number(before.max_skips.map(u64::from)),
            number(after.max_skips.map(u64::from)),
        ),
        (
            "fail-fast",
            Some(before.fail_fast.to_string()),
            Some(after.fail_fast.to_string()),
        ),
        (
            "queue-timeout (ms)",
            number(before.queue_timeout_ms),
            number(after.queue_timeout_ms),
        ),
        (
            "axes",
            Some(before.axes.join(", ")),
            Some(after.axes.join(", ")),
        ),
    ];
    let differing = settings.into_iter().filter(|(_, old, new)| old != new);
    differing
        .map(|(what, old, new)| change(ChangeKind::Spec, what, old, new))
        .collect()
}

/// Returns the settings of cells that differ, each with the number of cells.
fn cell_settings(before: &Plan, after: &Plan, pairs: &Pairs) -> Vec<Change> {
    let mut found: BTreeMap<(&'static str, String, String), usize> = BTreeMap::new();
    for (new, old) in &pairs.before {
        let (Some(old), Some(new)) = (before.cells.get(*old), after.cells.get(*new)) else {
            continue;
        };
        for ((what, old), (_, new)) in shown_settings(old).into_iter().zip(shown_settings(new)) {
            if old != new {
                *found.entry((what, old, new)).or_default() += 1;
            }
        }
    }
    let changes = found.into_iter().map(|((what, old, new), cells)| {
        let what = format!("{what} of {}", plural(cells, "cell"));
        change(ChangeKind::Spec, &what, Some(old), Some(new))
    });
    changes.take(LISTED).collect()
}

fn shown_settings(cell: &PlannedCell) -> [(&'static str, String); 7] {
    [
        ("runs-on", cell.runs_on.join(", ")),
        ("experimental", cell.experimental.to_string()),
        ("cpus (thousandths)", cell.resources.millicpus.to_string()),
        ("memory (bytes)", cell.resources.memory_bytes.to_string()),
        ("timeout (ms)", cell.timeout_ms.to_string()),
        ("attempts", cell.attempts.to_string()),
        ("retries", cell.retries.to_string()),
    ]
}

/// Returns the agents if they differ, with the number of cells on each.
fn agents(before: &RunView, after: &RunView) -> Option<Change> {
    let (old, new) = (agents_of(before), agents_of(after));
    let differ = old.keys().ne(new.keys());
    let text = |agents: &BTreeMap<&str, usize>| {
        let shown: Vec<String> = agents
            .iter()
            .map(|(name, cells)| format!("{name} ({})", plural(*cells, "cell")))
            .collect();
        (!shown.is_empty()).then(|| shown.join(", "))
    };
    differ.then(|| change(ChangeKind::Agent, "agents", text(&old), text(&new)))
}

fn agents_of(view: &RunView) -> BTreeMap<&str, usize> {
    let mut agents = BTreeMap::new();
    for attempt in view.cells.iter().filter_map(|cell| cell.newest()) {
        *agents.entry(attempt.agent.as_str()).or_default() += 1;
    }
    agents
}
