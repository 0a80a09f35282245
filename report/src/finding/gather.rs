//! Gathers equal failures of all cells.

use super::{Cause, Variant, key};
use crate::view::{CellView, RunView, StepView};
use indexmap::IndexMap;
use phalanx_shared::event::{Culprit, StepResult};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::time::Timestamp;
use std::collections::HashSet;

/// Maximum number of forms to keep of a failure.
const FORMS: usize = 20;
/// Maximum number of failures to keep: each is compared with all cells.
pub(super) const MOST: usize = 1_000;

/// Equal failures, gathered.
pub(super) struct Gathered {
    /// What the id is made of. Failures of several items of a `foreach`, or of several lost agents, may share it.
    pub(super) known_by: String,
    pub(super) cause: Cause,
    pub(super) outcome: Outcome,
    pub(super) reason: String,
    /// Cells in plan order.
    pub(super) cells: Vec<usize>,
    /// When it was seen first in each of them.
    pub(super) times: Vec<Timestamp>,
    /// Paths of the steps that failed.
    pub(super) paths: Vec<String>,
    /// Forms, most cells first.
    pub(super) variants: Vec<Variant>,
    pub(super) forms: usize,
}

impl Gathered {
    /// Returns when the failure was seen first in a cell; `None` if it wasn't.
    pub(super) fn time_in(&self, cell: usize) -> Option<Timestamp> {
        let index = self.cells.binary_search(&cell).ok()?;
        self.times.get(index).copied()
    }
}

/// A failure of one cell.
struct Failed<'a> {
    key: String,
    known_by: String,
    exact: String,
    cause: Cause,
    outcome: Outcome,
    reason: &'a str,
    path: Option<&'a str>,
    at: Timestamp,
}

pub(super) fn is_red(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Failed | Outcome::Errored)
}

/// Returns the failures of a view in the order in which they appear, and the number of those left out: of too many, those
/// in most cells are kept. The items of a `foreach` that fail in the same way in the same cells are one.
pub(super) fn gather(view: &RunView) -> (Vec<Gathered>, usize) {
    let mut gathered: IndexMap<String, Collected> = IndexMap::new();
    for (index, cell) in view.cells.iter().enumerate() {
        for failed in failures(cell) {
            gathered
                .entry(failed.key.clone())
                .or_insert_with(|| Collected::new(&failed))
                .add(index, &failed);
        }
    }
    let mut merged: IndexMap<(String, Vec<usize>), Collected> = IndexMap::new();
    for (_, collected) in gathered {
        let same = (key::of_any_item(&collected.key), collected.cells.clone());
        match merged.entry(same) {
            indexmap::map::Entry::Occupied(mut entry) => entry.get_mut().merge(collected),
            indexmap::map::Entry::Vacant(entry) => {
                entry.insert(collected);
            }
        }
    }
    let (kept, left_out) = most_cells(merged.into_values().collect());
    (kept.into_iter().map(Collected::finish).collect(), left_out)
}

/// Keeps the failures in most cells, in their order, and returns how many are left out.
fn most_cells(mut all: Vec<Collected>) -> (Vec<Collected>, usize) {
    let left_out = all.len().saturating_sub(MOST);
    if left_out > 0 {
        let mut order: Vec<usize> = (0..all.len()).collect();
        order.sort_by_key(|at| std::cmp::Reverse(all.get(*at).map(|one| one.cells.len())));
        let kept: HashSet<usize> = order.into_iter().take(MOST).collect();
        let mut at = 0..;
        all.retain(|_| at.next().is_some_and(|at| kept.contains(&at)));
    }
    (all, left_out)
}

/// Returns the failures of a cell, in the order of its steps.
fn failures(cell: &CellView) -> Vec<Failed<'_>> {
    let mut failures: Vec<Failed> = cell
        .steps()
        .filter_map(|step| {
            let outcome = step.outcome.filter(|outcome| is_red(*outcome))?;
            Some(of_step(step, outcome))
        })
        .collect();
    if failures.is_empty()
        && let Some(outcome) = cell.outcome.filter(|outcome| is_red(*outcome))
    {
        failures.push(of_cell(cell, outcome));
    }
    failures
}

fn of_step(step: &StepView, outcome: Outcome) -> Failed<'_> {
    let reason = step.reason.as_deref().unwrap_or(NO_REASON);
    let said = step.reason.as_deref().unwrap_or_default();
    let fingerprint =
        |path: &str| key::fingerprint((&step.phase, path), outcome, &step.checks, said);
    let (key, known_by, cause) = match blamed(step.culprit.as_ref(), reason) {
        Some(service) => of_service(service, reason),
        None => (
            fingerprint(&step.path),
            fingerprint(&key::of_any_item(&step.path)),
            Cause::Step {
                phase: step.phase.clone(),
                name: step.name.clone(),
                path: step.path.clone(),
            },
        ),
    };
    Failed {
        key,
        known_by,
        exact: key::exact(step),
        cause,
        outcome,
        reason,
        path: Some(&step.path),
        at: end_of(step),
    }
}

/// Returns the id of the finding that a failed step of this phase leads to, from its result alone.
pub(super) fn id_of(phase: &str, result: &StepResult) -> Option<String> {
    let outcome = Some(result.outcome).filter(|outcome| is_red(*outcome))?;
    let reason = result.reason.as_deref().unwrap_or(NO_REASON);
    let known_by = match blamed(result.culprit.as_ref(), reason) {
        Some(service) => of_service(service, reason).1,
        None => {
            let place = (phase, &*key::of_any_item(&result.path));
            let said = result.reason.as_deref().unwrap_or_default();
            key::fingerprint(place, outcome, &result.checks, said)
        }
    };
    Some(key::id(&known_by))
}

const NO_REASON: &str = "no reason given";

fn of_cell(cell: &CellView, outcome: Outcome) -> Failed<'_> {
    let reason = cell.reason.as_deref().unwrap_or(NO_REASON);
    let attempt = cell.newest();
    let culprit = attempt.and_then(|attempt| attempt.culprit.as_ref());
    let service = blamed(culprit, reason);
    let (key, known_by, cause) = match (service, attempt) {
        (Some(service), _) => of_service(service, reason),
        (None, Some(attempt)) if attempt.lost => (
            format!("agent {} lost", attempt.agent),
            "agent lost".to_owned(), // another run has other agents
            Cause::Agent {
                agent: attempt.agent.clone(),
            },
        ),
        _ => {
            let key = format!("cell {outcome} {}", key::masked(reason));
            (key.clone(), key, Cause::Cell)
        }
    };
    Failed {
        key,
        known_by,
        exact: format!("{outcome:?} {reason}"),
        cause,
        outcome,
        reason,
        path: None,
        at: attempt
            .and_then(|attempt| attempt.finished)
            .unwrap_or_default(),
    }
}

/// Returns the key of a failed service, what its id is made of, and the cause.
fn of_service(service: &str, reason: &str) -> (String, String, Cause) {
    let cause = Cause::Service {
        service: service.to_owned(),
    };
    let key = format!("service {service} {}", key::masked(reason));
    (key.clone(), key, cause)
}

/// Returns the service that a failure follows from.
fn blamed<'a>(culprit: Option<&'a Culprit>, reason: &'a str) -> Option<&'a str> {
    match culprit {
        Some(Culprit::Service { service }) => Some(service),
        Some(Culprit::Step { .. }) => None,
        None => old_text_names_a_service(reason),
    }
}

/// Returns the service that a reason blames, for journals of versions that recorded no culprit. Their agents began such
/// reasons with `service NAME`; if that one could not start because of another (`service a can't start: b isn't ready`),
/// the last one named is the root.
fn old_text_names_a_service(reason: &str) -> Option<&str> {
    let mut rest = reason.strip_prefix("service ")?;
    loop {
        let (name, verb) = named(rest)?;
        let why = rest
            .get(name.len()..)
            .and_then(|rest| rest.strip_prefix(verb));
        let why = why.filter(|_| verb == CANT_START).unwrap_or_default();
        let why = why.strip_prefix("service ").unwrap_or(why);
        if named(why).is_none() {
            return Some(name);
        }
        rest = why;
    }
}

const CANT_START: &str = " can't start: ";
const VERBS: [&str; 5] = [
    CANT_START,
    " isn't ready",
    " isn't running",
    " exited unexpectedly",
    ": ",
];

/// Returns the service with which a text begins, and what the text says of it.
fn named(text: &str) -> Option<(&str, &'static str)> {
    let found = VERBS
        .iter()
        .filter_map(|verb| Some((text.find(verb)?, *verb)));
    let (at, verb) = found.min()?;
    let name = text.get(..at)?;
    let is_name = !name.is_empty() && !name.contains(char::is_whitespace);
    is_name.then_some((name, verb))
}

/// Returns the time at which a step ended.
pub(super) fn end_of(step: &StepView) -> Timestamp {
    let elapsed = i64::try_from(step.elapsed_us).unwrap_or(i64::MAX);
    Timestamp(step.began.0.saturating_add(elapsed))
}

struct Collected {
    key: String,
    known_by: String,
    cause: Cause,
    outcome: Outcome,
    reason: String,
    cells: Vec<usize>,
    times: Vec<Timestamp>,
    paths: IndexMap<String, ()>,
    forms: IndexMap<String, Variant>,
}

impl Collected {
    fn new(first: &Failed) -> Collected {
        Collected {
            key: first.key.clone(),
            known_by: first.known_by.clone(),
            cause: first.cause.clone(),
            outcome: first.outcome,
            reason: first.reason.to_owned(),
            cells: Vec::new(),
            times: Vec::new(),
            paths: IndexMap::new(),
            forms: IndexMap::new(),
        }
    }

    fn add(&mut self, cell: usize, failed: &Failed) {
        self.outcome = self.outcome.max(failed.outcome);
        if self.cells.last() != Some(&cell) {
            self.cells.push(cell);
            self.times.push(failed.at);
        }
        if let Some(path) = failed.path {
            self.paths.insert(path.to_owned(), ());
        }
        let form = self
            .forms
            .entry(failed.exact.clone())
            .or_insert_with(|| Variant {
                cells: Vec::new(),
                path: failed.path.map(str::to_owned),
            });
        if form.cells.last() != Some(&cell) {
            form.cells.push(cell);
        }
    }

    /// Takes over the failures of another item in the same cells.
    fn merge(&mut self, other: Collected) {
        for (time, other) in self.times.iter_mut().zip(other.times) {
            *time = (*time).min(other);
        }
        self.outcome = self.outcome.max(other.outcome);
        self.paths.extend(other.paths);
        self.forms.extend(other.forms);
    }

    fn finish(self) -> Gathered {
        let forms = self.forms.len();
        let mut variants: Vec<Variant> = self.forms.into_values().collect();
        variants.sort_by_key(|variant| std::cmp::Reverse(variant.cells.len()));
        variants.truncate(FORMS);
        Gathered {
            known_by: self.known_by,
            cause: self.cause,
            outcome: self.outcome,
            reason: self.reason,
            cells: self.cells,
            times: self.times,
            paths: self.paths.into_keys().collect(),
            variants,
            forms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_culprit_counts_and_not_the_text() {
        let service = Culprit::Service {
            service: "db".to_owned(),
        };
        let told = "service shop can't start: db should complete, and exited with code 1";
        assert_eq!(blamed(Some(&service), told), Some("db"));
        assert_eq!(blamed(Some(&service), "the shop is closed"), Some("db"));
        let step = Culprit::Step {
            id: "placed".to_owned(),
            outcome: Outcome::Failed,
        };
        assert_eq!(blamed(Some(&step), "service db: gone"), None);
        assert_eq!(blamed(None, "service db isn't ready: no"), Some("db"));
    }

    #[test]
    fn the_last_service_that_a_reason_names_is_the_root() {
        for (reason, service) in [
            ("service db isn't ready: not within 1s", Some("db")),
            ("service a can't start: b isn't running any more", Some("b")),
            (
                "service a can't start: service b can't start: service c exited unexpectedly, with code 3",
                Some("c"),
            ),
            (
                "service db can't start: the db of users is full",
                Some("db"),
            ),
            ("service netbox: pull failed", Some("netbox")),
            ("services are fine", None),
            ("check failed: a == 1", None),
            ("service  isn't ready", None),
        ] {
            assert_eq!(old_text_names_a_service(reason), service, "{reason}");
        }
    }
}
