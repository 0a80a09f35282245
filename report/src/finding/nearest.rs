//! The closest cell without a finding, and where the two part.

use super::axes::Axes;
use super::gather::end_of;
use super::key::masked;
use super::{Differing, Divergence, DivergenceKind, Nearest};
use crate::logs::{LogLine, Logs, ServiceLog};
use crate::text::duration;
use crate::view::{AttemptView, CellView, RunView, ServiceReport, StepKind, StepView, micros};
use phalanx_shared::event::{Captured, ServiceState};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::time::Timestamp;
use std::collections::{HashMap, HashSet};

/// Cells of a finding for which the closest other cell is sought.
const FROM: usize = 8;
/// Equally close cells whose steps are compared.
const TIED: usize = 50;
/// Other cells without the finding whose captured values tell a constant from a number that always differs.
const BESIDE: usize = 8;
/// Other cells that must have captured the same value for it to count as a constant.
const SAME: usize = 2;
/// Maximum number of differences to keep.
const KEPT: usize = 8;
/// Lines of a log that are compared.
const LINES: usize = 20_000;
/// Characters of a text to keep.
const TEXT: usize = 200;
/// A service that is ready so much later, and more than twice as late, differs.
const LATER_US: u64 = 2_000_000;

/// Returns the closest pair of a cell with a finding and one without.
pub(super) fn nearest(
    view: &RunView,
    logs: Option<&Logs>,
    axes: &Axes,
    with: &[usize],
    without: &[usize],
) -> Option<Nearest> {
    let (red, green) = closest(view, axes, with, without)?;
    let (red_cell, green_cell) = (view.cells.get(red)?, view.cells.get(green)?);
    let beside = without.iter().filter(|cell| **cell != green);
    let beside = beside.filter_map(|cell| view.cells.get(*cell)?.newest());
    let beside: Vec<&AttemptView> = beside.take(BESIDE).collect();
    Some(Nearest {
        red,
        green,
        differs: differing(red_cell, green_cell),
        divergences: divergences(logs, red_cell, green_cell, &beside),
    })
}

/// Returns the pair that differs on the fewest axes; among equals, the one whose steps are most alike. Green cells are
/// taken before cells that failed elsewhere.
fn closest(
    view: &RunView,
    axes: &Axes,
    with: &[usize],
    without: &[usize],
) -> Option<(usize, usize)> {
    let is_green = |cell: &&usize| {
        let cell = view.cells.get(**cell);
        cell.is_some_and(super::causes::is_green)
    };
    let green: Vec<usize> = without.iter().filter(is_green).copied().collect();
    let others = if green.is_empty() { without } else { &green };
    let distance = |red: usize, green: usize| {
        let columns = axes.columns.iter();
        let apart = columns.filter(|column| column.of_cell.get(red) != column.of_cell.get(green));
        apart.count()
    };
    let mut best = usize::MAX;
    let mut tied = Vec::new();
    for red in with.iter().take(FROM) {
        for green in others {
            let apart = distance(*red, *green);
            if apart < best {
                best = apart;
                tied.clear();
            }
            if apart == best && tied.len() < TIED {
                tied.push((*red, *green));
            }
        }
    }
    let unlike = |pair: &(usize, usize)| match (view.cells.get(pair.0), view.cells.get(pair.1)) {
        (Some(red), Some(green)) => unlike(red, green),
        _ => usize::MAX,
    };
    tied.into_iter().min_by_key(unlike)
}

/// Returns the number of steps that only one of two cells has.
fn unlike(red: &CellView, green: &CellView) -> usize {
    let paths = |cell: &CellView| -> HashSet<String> {
        cell.steps().map(|step| step.path.clone()).collect()
    };
    paths(red).symmetric_difference(&paths(green)).count()
}

fn differing(red: &CellView, green: &CellView) -> Vec<Differing> {
    let mut axes: Vec<&String> = red.matrix.keys().collect();
    axes.extend(
        green
            .matrix
            .keys()
            .filter(|axis| !red.matrix.contains_key(*axis)),
    );
    axes.into_iter()
        .filter(|axis| red.matrix.get(*axis) != green.matrix.get(*axis))
        .map(|axis| Differing {
            axis: axis.clone(),
            red: red.matrix.get(axis).cloned(),
            green: green.matrix.get(axis).cloned(),
        })
        .collect()
}

/// Two attempts that are compared.
struct Pair<'a> {
    red: &'a AttemptView,
    green: &'a AttemptView,
    /// Other attempts without the finding.
    beside: &'a [&'a AttemptView],
}

fn divergences(
    logs: Option<&Logs>,
    red: &CellView,
    green: &CellView,
    beside: &[&AttemptView],
) -> Vec<Divergence> {
    let (Some(red_attempt), Some(green_attempt)) = (red.newest(), green.newest()) else {
        return Vec::new();
    };
    let pair = Pair {
        red: red_attempt,
        green: green_attempt,
        beside,
    };
    let mut found = pair.services();
    found.extend(pair.steps());
    if let Some(logs) = logs {
        let of = |cell: &CellView, attempt: &AttemptView| -> Vec<ServiceLog> {
            logs.of(&cell.id, attempt.attempt).cloned().collect()
        };
        found.extend(pair.logs(&of(red, red_attempt), &of(green, green_attempt)));
    }
    found.sort_by_key(|divergence| (divergence.at_us.unwrap_or(0), divergence.kind));
    found.truncate(KEPT);
    found
}

impl Pair<'_> {
    /// Returns the time since the red attempt started.
    fn at(&self, time: Timestamp) -> Option<u64> {
        self.red.started.map(|started| micros(time.since(started)))
    }

    fn services(&self) -> Vec<Divergence> {
        let mut found = Vec::new();
        for service in &self.red.services {
            let others = self.green.services.iter();
            let Some(other) = others.into_iter().find(|other| other.name == service.name) else {
                continue;
            };
            found.extend(self.image(service, other));
            found.extend(self.readiness(service, other));
        }
        found
    }

    /// Compares what two services run.
    fn image(&self, red: &ServiceReport, green: &ServiceReport) -> Option<Divergence> {
        if red.image == green.image || red.image.is_none() || green.image.is_none() {
            return None;
        }
        let created = red.history.first().map(|stage| stage.ended);
        Some(Divergence {
            kind: DivergenceKind::Image,
            subject: red.name.clone(),
            red: red.image.clone(),
            green: green.image.clone(),
            at_us: created.and_then(|created| self.at(created)),
        })
    }

    /// Compares when a service was ready.
    fn readiness(&self, red: &ServiceReport, green: &ServiceReport) -> Option<Divergence> {
        let ready = |service: &ServiceReport, attempt: &AttemptView| {
            let mut stages = service.history.iter();
            let stage = stages.find(|stage| stage.state == ServiceState::Ready)?;
            Some(micros(stage.ended.since(attempt.started?)))
        };
        let (before, after) = (ready(green, self.green), ready(red, self.red));
        let differs = match (after, before) {
            (Some(after), Some(before)) => {
                after > before.saturating_mul(2) && after - before > LATER_US
            }
            (None, Some(_)) => true,
            (_, None) => false,
        };
        let told = |us: Option<u64>, service: &ServiceReport| match us {
            Some(us) => format!("ready after {}", duration(us)),
            None => format!("not ready, {}", service.state.as_str()),
        };
        let last = red.history.last().map(|stage| stage.ended);
        differs.then(|| Divergence {
            kind: DivergenceKind::Service,
            subject: red.name.clone(),
            red: Some(told(after, red)),
            green: Some(told(before, green)),
            at_us: after.or_else(|| self.at(last?)),
        })
    }

    /// Compares the steps up to the first failed one.
    fn steps(&self) -> Vec<Divergence> {
        let steps = self.green.steps.iter();
        let others: HashMap<&str, &StepView> =
            steps.map(|step| (step.path.as_str(), step)).collect();
        let mut found = Vec::new();
        for step in self
            .red
            .steps
            .iter()
            .filter(|step| step.kind == StepKind::Step || step.reported)
        {
            let other = others.get(step.path.as_str()).copied();
            found.extend(self.result(step, other));
            if step.outcome.is_some_and(super::gather::is_red) {
                break;
            }
            if let Some(other) = other {
                found.extend(self.captured(step, other));
                found.extend(self.output(step, other));
            }
        }
        found
    }

    /// Compares how a step ended. The time is that of its end: what it waited for may differ before.
    fn result(&self, red: &StepView, green: Option<&StepView>) -> Option<Divergence> {
        let kind = |outcome: Option<Outcome>| match outcome {
            Some(Outcome::Passed | Outcome::Flaky) => Some(Outcome::Passed),
            other => other,
        };
        if red.unreached || green.is_some_and(|green| kind(green.outcome) == kind(red.outcome)) {
            return None;
        }
        let told = |step: &StepView| match &step.reason {
            Some(reason) => cut(&format!("{}: {reason}", step.word())),
            None => step.word().to_owned(),
        };
        Some(Divergence {
            kind: DivergenceKind::Step,
            subject: red.name.clone(),
            red: Some(told(red)),
            green: green.map(told),
            at_us: self.at(end_of(red)),
        })
    }

    /// Compares what a step that passed in both captured. Numbers and ids may differ, unless all cells without the
    /// finding captured the same.
    fn captured(&self, red: &StepView, green: &StepView) -> Vec<Divergence> {
        let told = |one: &Captured| cut(&format!("{} = {}", one.name, one.value));
        let differs = red.captured.iter().filter_map(|one| {
            let other = of_name(green, &one.name)?;
            let differs = match self.is_constant(green, other) {
                true => one.value != other.value,
                false => masked(&one.value) != masked(&other.value),
            };
            differs.then(|| Divergence {
                kind: DivergenceKind::Captured,
                subject: red.name.clone(),
                red: Some(told(one)),
                green: Some(told(other)),
                at_us: self.at(red.began),
            })
        });
        differs.collect()
    }

    /// Returns whether several other cells captured exactly this value, and none another one.
    fn is_constant(&self, step: &StepView, value: &Captured) -> bool {
        let steps = self.beside.iter().filter_map(|attempt| {
            let mut steps = attempt.steps.iter();
            steps.find(|other| other.path == step.path)
        });
        let values = steps.filter_map(|step| of_name(step, &value.name));
        let mut count = 0;
        for other in values {
            if other.value != value.value {
                return false;
            }
            count += 1;
        }
        count >= SAME
    }

    /// Compares what a step that passed in both printed; numbers and ids may differ.
    fn output(&self, red: &StepView, green: &StepView) -> Option<Divergence> {
        let (red_output, green_output) = (red.output.as_ref()?, green.output.as_ref()?);
        let mut lines = red_output.stdout.lines();
        let mut others = green_output.stdout.lines();
        loop {
            let (line, other) = (lines.next(), others.next());
            if line.is_none() && other.is_none() {
                return None;
            }
            if line.map(masked) != other.map(masked) {
                return Some(Divergence {
                    kind: DivergenceKind::Value,
                    subject: red.name.clone(),
                    red: line.map(cut),
                    green: other.map(cut),
                    at_us: self.at(red.began),
                });
            }
        }
    }

    /// Returns for each service the first line during the failed step that the other cell's log doesn't have.
    fn logs(&self, red: &[ServiceLog], green: &[ServiceLog]) -> Vec<Divergence> {
        let failed = self
            .red
            .steps
            .iter()
            .find(|step| step.reported && step.outcome.is_some_and(super::gather::is_red));
        let (from, to) = match failed {
            Some(step) => (step.began, end_of(step)),
            None => (
                Timestamp::default(),
                self.red.finished.unwrap_or(Timestamp(i64::MAX)),
            ),
        };
        let within = |line: &&LogLine| line.at >= from && line.at <= to && !line.gap;
        red.iter()
            .filter_map(|log| {
                let other = green.iter().find(|other| other.service == log.service)?;
                let known: HashSet<String> = other
                    .lines
                    .iter()
                    .take(LINES)
                    .map(|line| masked(&line.text))
                    .collect();
                let lines = log.lines.iter().filter(within).take(LINES);
                let line = lines.into_iter().find(|line| {
                    !line.text.trim().is_empty() && !known.contains(&masked(&line.text))
                })?;
                Some(Divergence {
                    kind: DivergenceKind::Log,
                    subject: log.service.clone(),
                    red: Some(cut(&line.text)),
                    green: None,
                    at_us: self.at(line.at),
                })
            })
            .collect()
    }
}

fn of_name<'a>(step: &'a StepView, name: &str) -> Option<&'a Captured> {
    step.captured.iter().find(|one| one.name == name)
}

/// Returns the first line of a text, bounded.
fn cut(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(TEXT) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line.to_owned(),
    }
}
