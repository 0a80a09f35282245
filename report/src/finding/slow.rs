//! Which axis values explain the time of a phase or a step.

use super::axes::Axes;
use super::rule::{self, Split, Work};
use super::{Explained, Slow};
use crate::view::{RunView, StepKind, StepView};
use indexmap::IndexMap;
use phalanx_shared::outcome::Outcome;

/// Phases and steps that are looked at, those with the most time first.
const LOOKED_AT: usize = 60;
/// Maximum number of results.
const KEPT: usize = 10;
/// A difference below this, or below half of the others' median, isn't told.
const LEAST_US: u64 = 200_000;
/// Higher corrected p values are not told: there are many steps, and chance has many tries.
const ALPHA: f64 = 0.001;

struct Times<'a> {
    phase: &'a str,
    step: Option<&'a str>,
    /// Time by cell.
    cells: Vec<(usize, u64)>,
    sum: u64,
}

/// Returns the phases and steps that take longer for some axis values, those that cost most first.
pub(super) fn slow(view: &RunView, axes: &Axes, work: &mut Work) -> Vec<Slow> {
    let mut all: IndexMap<&str, Times> = IndexMap::new();
    for (index, cell) in view.cells.iter().enumerate() {
        let steps = cell.newest().into_iter().flat_map(|attempt| &attempt.steps);
        for step in steps.filter(|step| counts(step)) {
            let times = all.entry(&step.path).or_insert_with(|| Times {
                phase: &step.phase,
                step: (step.kind != StepKind::Phase).then_some(&step.name),
                cells: Vec::new(),
                sum: 0,
            });
            times.cells.push((index, step.elapsed_us));
            times.sum = times.sum.saturating_add(step.elapsed_us);
        }
    }
    let mut all: Vec<Times> = all.into_values().collect();
    all.sort_by_key(|times| std::cmp::Reverse(times.sum));
    all.truncate(LOOKED_AT);
    let explained = all.iter().filter_map(|times| explain(times, axes, work));
    let mut found: Vec<Slow> = explained.collect();
    found.sort_by_key(|slow| (std::cmp::Reverse(slow.extra_us), slow.step.is_some()));
    without_repeats(found)
}

/// Leaves out a phase if one of its steps explains most of its time by the same rule.
fn without_repeats(found: Vec<Slow>) -> Vec<Slow> {
    let repeats = |slow: &Slow| {
        slow.step.is_none()
            && found.iter().any(|other| {
                other.step.is_some()
                    && other.phase == slow.phase
                    && other.rule.terms == slow.rule.terms
                    && other.extra_us.saturating_mul(2) > slow.extra_us
            })
    };
    let keep: Vec<bool> = found.iter().map(|slow| !repeats(slow)).collect();
    let kept = found.into_iter().zip(keep).filter(|(_, keep)| *keep);
    kept.map(|(slow, _)| slow).take(KEPT).collect()
}

/// Only good ends are compared: a failure ends a step early, or late by its timeout.
fn counts(step: &StepView) -> bool {
    matches!(step.outcome, Some(Outcome::Passed | Outcome::Flaky)) && step.kind != StepKind::Group
}

fn explain(times: &Times, axes: &Axes, work: &mut Work) -> Option<Slow> {
    let limit = gap(&times.cells)?;
    let (long, short): (Vec<_>, Vec<_>) = times.cells.iter().partition(|(_, us)| *us > limit);
    let cells =
        |times: &[(usize, u64)]| -> Vec<usize> { times.iter().map(|(cell, _)| *cell).collect() };
    let (with, without) = (cells(&long), cells(&short));
    let split = Split {
        with: &with,
        without: &without,
    };
    let Explained::Rules { rules, .. } = rule::explain(axes, &split, work) else {
        return None;
    };
    let rule = rules.into_iter().next().filter(|rule| rule.p <= ALPHA)?;
    let matcher = rule::Matcher::new(axes, &rule);
    let (matching, others): (Vec<_>, Vec<_>) = times
        .cells
        .iter()
        .copied()
        .partition(|(cell, _)| matcher.is_match(*cell));
    let (median_us, others_us) = (median(&matching)?, median(&others)?);
    let more = median_us.saturating_sub(others_us);
    if more < LEAST_US || more < others_us / 2 {
        return None;
    }
    let extra = matching.iter().map(|(_, us)| us.saturating_sub(others_us));
    Some(Slow {
        phase: times.phase.to_owned(),
        step: times.step.map(str::to_owned),
        extra_us: extra.fold(0, u64::saturating_add),
        rule,
        median_us,
        others_us,
    })
}

fn median(times: &[(usize, u64)]) -> Option<u64> {
    let mut times: Vec<u64> = times.iter().map(|(_, us)| *us).collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

/// Returns the time that splits times best into short and long ones: the variance between the two is largest (Otsu).
/// `None` if all are equal.
fn gap(times: &[(usize, u64)]) -> Option<u64> {
    let mut sorted: Vec<u64> = times.iter().map(|(_, us)| *us).collect();
    sorted.sort_unstable();
    let scaled: Vec<f64> = sorted
        .iter()
        .map(|us| (*us as f64 + 1_000.0).ln())
        .collect();
    let (count, total) = (scaled.len() as f64, scaled.iter().sum::<f64>());
    let mut best: Option<(f64, u64)> = None;
    let mut below = 0.0;
    for (index, pair) in sorted.windows(2).enumerate() {
        below += scaled.get(index).copied().unwrap_or_default();
        let [at, next] = pair else { continue };
        if at == next {
            continue;
        }
        let left = (index + 1) as f64;
        let right = count - left;
        let apart = below / left - (total - below) / right;
        let between = left * right * apart * apart;
        if best.is_none_or(|(most, _)| between > most) {
            best = Some((between, *at));
        }
    }
    best.map(|(_, at)| at)
}
