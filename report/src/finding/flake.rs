//! Steps that failed first and passed later, and what the cells in which they did have in common: axis values, the
//! agent, or what ran beside them.

use super::axes::Axes;
use super::key::masked;
use super::rule::{self, Split, Work};
use super::{Explained, Flake, FlakeCause, Is, Rule, Term};
use crate::view::{CellView, RunView};
use indexmap::IndexMap;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::time::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Maximum number of flaky steps to explain.
const KEPT: usize = 50;
/// Cells beside a cell that count.
const BESIDE: usize = 64;
/// Higher p values explain nothing.
const ALPHA: f64 = 0.05;

/// The cells in which a step was flaky, and those in which it passed at once.
#[derive(Default)]
struct Group {
    phase: String,
    name: String,
    flaky: Vec<usize>,
    steady: Vec<usize>,
}

/// Returns the flaky steps, those of most cells first.
pub(super) fn flakes(view: &RunView, axes: &Axes, work: &mut Work) -> Vec<Flake> {
    let mut groups: Vec<Group> = steps(view);
    groups.extend(attempts(view));
    groups.sort_by_key(|group| std::cmp::Reverse(group.flaky.len()));
    groups.truncate(KEPT);
    if groups.is_empty() {
        return Vec::new();
    }
    let agents = Axes::of_agents(view, first_agent);
    let beside = Beside::of(view, axes);
    groups
        .into_iter()
        .map(|group| Flake {
            explained: explain(&group, axes, &agents, &beside, work),
            compared: group.flaky.len() + group.steady.len(),
            phase: group.phase,
            name: group.name,
            cells: group.flaky,
        })
        .collect()
}

/// Returns the steps that were flaky in some cell.
fn steps(view: &RunView) -> Vec<Group> {
    let flaky: HashSet<&str> = all_steps(view)
        .filter(|(_, step)| step.outcome == Some(Outcome::Flaky))
        .map(|(_, step)| step.path.as_str())
        .collect();
    let mut groups: IndexMap<&str, Group> = IndexMap::new();
    for (cell, step) in all_steps(view).filter(|(_, step)| flaky.contains(step.path.as_str())) {
        let group = groups.entry(&step.path).or_insert_with(|| Group {
            phase: step.phase.clone(),
            name: step.name.clone(),
            ..Group::default()
        });
        match step.outcome {
            Some(Outcome::Flaky) => group.flaky.push(cell),
            Some(Outcome::Passed) => group.steady.push(cell),
            _ => {}
        }
    }
    groups.into_values().collect()
}

fn all_steps(view: &RunView) -> impl Iterator<Item = (usize, &crate::view::StepView)> {
    let cells = view.cells.iter().enumerate();
    cells.flat_map(|(index, cell)| cell.steps().map(move |step| (index, step)))
}

/// Returns the cells whose last attempt was good after one that wasn't, by the reason of the first.
fn attempts(view: &RunView) -> Vec<Group> {
    let mut groups: IndexMap<String, Group> = IndexMap::new();
    let mut steady = Vec::new();
    for (index, cell) in view.cells.iter().enumerate() {
        if !matches!(cell.outcome, Some(Outcome::Passed | Outcome::Flaky)) {
            continue;
        }
        let [first, _, ..] = cell.attempts.as_slice() else {
            steady.push(index);
            continue;
        };
        if first.lost {
            continue; // the reason is known: its agent
        }
        let reason = first.reason.as_deref().unwrap_or("no reason given");
        let group = groups.entry(masked(reason)).or_insert_with(|| Group {
            name: reason.lines().next().unwrap_or_default().to_owned(),
            ..Group::default()
        });
        group.flaky.push(index);
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    for group in &mut groups {
        group.steady.clone_from(&steady);
    }
    groups
}

/// Returns the agent on which a cell's first attempt ran: where it was flaky.
fn first_agent(cell: &CellView) -> Option<&str> {
    cell.attempts.first().map(|attempt| attempt.agent.as_str())
}

fn explain(
    group: &Group,
    axes: &Axes,
    agents: &Axes,
    beside: &Beside,
    work: &mut Work,
) -> FlakeCause {
    let split = Split {
        with: &group.flaky,
        without: &group.steady,
    };
    let by_axes = first_rule(rule::explain(axes, &split, work));
    let by_agent = first_rule(rule::explain(agents, &split, work));
    match (by_axes, by_agent) {
        // An agent explains more if it explains better: a cell has its axis values wherever it runs.
        (Some(rule), agent) if agent.as_ref().is_none_or(|agent| rule.p <= agent.p) => {
            FlakeCause::Axes { rule }
        }
        (_, Some(rule)) => match named_agent(&rule) {
            Some(agent) => FlakeCause::Agent {
                agent,
                hits: rule.hits,
                matching: rule.matching,
                p: rule.p,
            },
            None => FlakeCause::Unknown,
        },
        _ => beside.explain(axes, &split),
    }
}

fn first_rule(explained: Explained) -> Option<Rule> {
    match explained {
        Explained::Rules { rules, .. } => rules.into_iter().next(),
        _ => None,
    }
}

fn named_agent(rule: &Rule) -> Option<String> {
    let [term] = rule.terms.as_slice() else {
        return None;
    };
    let Is::In(values) = &term.is else {
        return None;
    };
    let names: Vec<&str> = values.iter().flatten().filter_map(Value::as_str).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// Which axis values ran at the same time on the same agent as each cell: positions of a column and of a value in it.
struct Beside {
    of_cell: Vec<HashSet<(usize, usize)>>,
}

impl Beside {
    fn of(view: &RunView, axes: &Axes) -> Beside {
        let mut by_agent: HashMap<&str, Vec<(Timestamp, Timestamp, usize)>> = HashMap::new();
        for (index, cell) in view.cells.iter().enumerate() {
            if let Some(attempt) = cell.attempts.first()
                && let (Some(began), Some(ended)) = (attempt.started, attempt.finished)
            {
                let times = by_agent.entry(&attempt.agent).or_default();
                times.push((began, ended, index));
            }
        }
        let mut of_cell = vec![HashSet::new(); view.cells.len()];
        for times in by_agent.values_mut() {
            times.sort_unstable();
            neighbours(times, |cell, other| {
                for (column, values) in axes.columns.iter().enumerate() {
                    if let (Some(set), Some(value)) =
                        (of_cell.get_mut(cell), values.of_cell.get(other))
                    {
                        set.insert((column, *value));
                    }
                }
            });
        }
        Beside { of_cell }
    }

    /// Returns the axis value beside which the flaky cells ran more often than chance explains.
    fn explain(&self, axes: &Axes, split: &Split) -> FlakeCause {
        let mut tallies: BTreeMap<(usize, usize), (usize, usize)> = BTreeMap::new();
        let mut count = |cells: &[usize], flaky: bool| {
            for cell in cells {
                for what in self.of_cell.get(*cell).into_iter().flatten() {
                    let (hits, matching) = tallies.entry(*what).or_default();
                    *hits += usize::from(flaky);
                    *matching += 1;
                }
            }
        };
        count(split.with, true);
        count(split.without, false);
        let (bad, tried) = (split.with.len(), tallies.len());
        let all = bad + split.without.len();
        let best = tallies
            .into_iter()
            .map(|(what, (hits, matching))| {
                let p = axes.fisher(all, bad, matching, hits) * tried as f64;
                (p, what, hits, matching)
            })
            .min_by(|(a, ..), (b, ..)| a.total_cmp(b));
        match best {
            Some((p, what, hits, matching)) if p <= ALPHA && hits > 1 => match term(axes, what) {
                Some(beside) => FlakeCause::Beside {
                    beside,
                    hits,
                    matching,
                    p,
                },
                None => FlakeCause::Unknown,
            },
            _ => FlakeCause::Unknown,
        }
    }
}

fn term(axes: &Axes, (column, value): (usize, usize)) -> Option<Term> {
    let column = axes.columns.get(column)?;
    Some(Term {
        axis: column.name.clone(),
        is: Is::In(vec![column.values.get(value)?.clone()]),
    })
}

/// Calls `both` with each cell and each that ran at the same time, of one agent's cells sorted by their begin; at most
/// [`BESIDE`] for each.
fn neighbours(times: &[(Timestamp, Timestamp, usize)], mut both: impl FnMut(usize, usize)) {
    for (index, (_, ended, cell)) in times.iter().enumerate() {
        let later = times.get(index + 1..).unwrap_or_default();
        let overlapping = later.iter().take_while(|(began, ..)| began < ended);
        for (_, _, other) in overlapping.take(BESIDE) {
            both(*cell, *other);
            both(*other, *cell);
        }
    }
}
