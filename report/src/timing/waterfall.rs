//! What one cell did, as bars over time.

use super::cell::{Activities, Clock, Subject, What, activities};
use super::describe::segment;
use super::rows::parent_of;
use super::summary::clock;
use super::{Bar, BarKind, SegmentKind, Waterfall, micros, name_of};
use phalanx_shared::id::CellId;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::{AttemptState, CellState, RunState};
use phalanx_shared::time::Timestamp;
use phalanx_shared::wait::Wait;
use std::collections::HashSet;

/// Returns the waterfall of a cell; `None` for an unknown cell.
pub fn waterfall(state: &RunState, cell: &CellId, now: Timestamp) -> Option<Waterfall> {
    let (_, id, seen) = state.cells.get_full(cell)?;
    let bars = Bars::of(id, seen, clock(state, now));
    Some(Waterfall {
        cell: id.clone(),
        name: name_of(state, id),
        end_us: bars.iter().map(end).max().unwrap_or(0),
        bars,
    })
}

fn end(bar: &Bar) -> u64 {
    bar.began_us.saturating_add(bar.elapsed_us)
}

/// The bars of a cell.
struct Bars<'a> {
    id: &'a CellId,
    cell: &'a CellState,
    clock: Clock,
    activities: Activities,
    /// Steps and services of attempts with an activity on the cell's critical path.
    critical: HashSet<(usize, Subject)>,
    bars: Vec<Bar>,
}

impl Bars<'_> {
    fn of(id: &CellId, cell: &CellState, clock: Clock) -> Vec<Bar> {
        let activities = activities(cell, clock);
        let path = activities.graph.path(activities.end);
        let on_path = path.iter().filter_map(|id| activities.graph.get(*id));
        let on_path = on_path.filter(|activity| activity.elapsed() > 0);
        let critical = on_path.filter_map(|activity| {
            let attempt = activity.data.attempt?;
            Some((attempt, activity.data.subject))
        });
        let mut bars = Bars {
            id,
            cell,
            clock,
            critical: critical.collect(),
            activities,
            bars: Vec::new(),
        };
        bars.queue();
        let attempts = cell.attempts.iter().enumerate();
        for (index, attempt) in attempts.filter(|(_, attempt)| !attempt.returned) {
            bars.services(index, attempt);
            bars.steps(index, attempt);
            bars.clean_up(index, attempt);
        }
        bars.bars
    }

    /// Adds what belongs to no step and to no service: queue, dispatch, network.
    fn queue(&mut self) {
        let end = self.activities.end;
        let path: HashSet<usize> = self.activities.graph.path(end).into_iter().collect();
        let all = self.activities.graph.activities().iter().enumerate();
        let own = all.filter(|(id, activity)| {
            let text = matches!(activity.data.subject, Subject::Text(_));
            let shown = match activity.data.kind {
                SegmentKind::CleanUp => false,
                SegmentKind::Overhead => path.contains(id),
                _ => true,
            };
            text && shown && activity.elapsed() > 0
        });
        let bars = own.map(|(id, activity)| {
            let times = (activity.begin, activity.end);
            self.activity(&activity.data, times, 0, path.contains(&id))
        });
        let bars: Vec<Bar> = bars.collect();
        self.bars.extend(bars);
        self.bars.sort_by_key(|bar| bar.began_us);
    }

    fn activity(&self, what: &What, times: (u64, u64), depth: usize, critical: bool) -> Bar {
        let segment = segment(self.id, self.cell, what, times);
        let waits = what.wait.map(|cause| Wait {
            cause,
            us: segment.elapsed_us,
        });
        Bar {
            what: segment.what,
            kind: BarKind::Activity,
            activity: Some(what.kind),
            depth,
            attempt: self.number(what.attempt),
            step: None,
            service: segment.service,
            began_us: segment.began_us,
            elapsed_us: segment.elapsed_us,
            outcome: None,
            waits: waits.into_iter().collect(),
            critical,
        }
    }

    fn number(&self, attempt: Option<usize>) -> u32 {
        let attempt = attempt.and_then(|index| self.cell.attempts.get(index));
        attempt.map_or(0, |attempt| attempt.attempt)
    }

    /// Adds a bar for each service, with one for each of its activities.
    fn services(&mut self, index: usize, attempt: &AttemptState) {
        let graph = &self.activities.graph;
        let mut inside: Vec<Vec<Bar>> = vec![Vec::new(); attempt.services.len()];
        for activity in graph.activities() {
            let Subject::Service(service) = activity.data.subject else {
                continue;
            };
            let between = activity.data.kind == SegmentKind::Overhead;
            if activity.data.attempt == Some(index)
                && !between
                && let Some(bars) = inside.get_mut(service)
            {
                let critical = self.critical.contains(&(index, activity.data.subject));
                let times = (activity.begin, activity.end);
                bars.push(self.activity(&activity.data, times, 1, critical));
            }
        }
        let mut groups: Vec<Vec<Bar>> = Vec::new();
        for ((name, view), inside) in attempt.services.iter().zip(inside) {
            let began = view
                .history
                .iter()
                .map(|(_, began, _)| self.clock.us(*began));
            let ended = view
                .history
                .iter()
                .map(|(_, _, ended)| self.clock.us(*ended));
            let (Some(began), Some(ended)) = (began.min(), ended.max()) else {
                continue;
            };
            let head = Bar {
                what: name.clone(),
                kind: BarKind::Service,
                activity: None,
                depth: 0,
                attempt: attempt.attempt,
                step: None,
                service: Some(name.clone()),
                began_us: began,
                elapsed_us: ended.saturating_sub(began),
                outcome: None,
                waits: Vec::new(),
                critical: inside.iter().any(|bar| bar.critical),
            };
            groups.push(std::iter::once(head).chain(inside).collect());
        }
        groups.sort_by_key(|bars| bars.first().map(|bar| bar.began_us));
        self.bars.extend(groups.into_iter().flatten());
    }

    /// Adds a bar for each phase, group and step that did something.
    fn steps(&mut self, index: usize, attempt: &AttemptState) {
        let until = attempt.finished.unwrap_or(self.clock.now);
        let parents: Vec<Option<usize>> = attempt
            .steps
            .keys()
            .enumerate()
            .map(|(at, path)| parent_of(attempt, path).filter(|parent| *parent < at))
            .collect();
        let mut depths: Vec<usize> = Vec::with_capacity(parents.len());
        let mut groups = HashSet::new();
        for parent in &parents {
            let depth = parent.and_then(|parent| depths.get(parent));
            depths.push(depth.map_or(0, |depth| depth + 1));
            groups.extend(*parent);
        }
        for (at, (path, step)) in attempt.steps.iter().enumerate() {
            let result = step.result.as_ref();
            let elapsed_us = result.map_or_else(
                || micros(until.since(step.began)),
                |result| result.elapsed_us,
            );
            let outcome = result.map(|result| result.outcome);
            if outcome == Some(Outcome::Skipped) && elapsed_us == 0 {
                continue;
            }
            let group = groups.contains(&at);
            let phase = step.action == "phase";
            let single = !phase && !group;
            self.bars.push(Bar {
                what: result.map_or(&step.name, |result| &result.name).clone(),
                kind: match (phase, group) {
                    (true, _) => BarKind::Phase,
                    (_, true) => BarKind::Group,
                    _ => BarKind::Activity,
                },
                activity: single.then_some(SegmentKind::Step),
                depth: depths.get(at).copied().unwrap_or(0),
                attempt: attempt.attempt,
                step: Some(path.clone()),
                service: None,
                began_us: self.clock.us(step.began),
                elapsed_us,
                outcome,
                waits: result
                    .map(|result| result.waits.clone())
                    .unwrap_or_default(),
                critical: self.critical.contains(&(index, Subject::Step(at))),
            });
        }
        self.mark_groups(attempt);
    }

    /// Marks the groups and phases around critical steps of an attempt.
    fn mark_groups(&mut self, attempt: &AttemptState) {
        let mut around = HashSet::new();
        let steps = self
            .bars
            .iter()
            .filter(|bar| bar.attempt == attempt.attempt);
        for path in steps
            .filter(|bar| bar.critical)
            .filter_map(|bar| bar.step.as_deref())
        {
            let mut next = parent_of(attempt, path);
            while let Some(parent) = next.filter(|parent| around.insert(*parent)) {
                let path = attempt.steps.get_index(parent).map(|(path, _)| path);
                next = path.and_then(|path| parent_of(attempt, path));
            }
        }
        for bar in &mut self.bars {
            let at = bar
                .step
                .as_ref()
                .and_then(|path| attempt.steps.get_index_of(path));
            let own = bar.attempt == attempt.attempt;
            bar.critical |= own && at.is_some_and(|at| around.contains(&at));
        }
    }

    fn clean_up(&mut self, index: usize, attempt: &AttemptState) {
        if let Some(done) = &attempt.torn_down {
            let what = What {
                kind: SegmentKind::CleanUp,
                wait: None,
                attempt: Some(index),
                subject: Subject::Text("clean-up"),
            };
            let times = (self.clock.us(done.began), self.clock.us(done.ended));
            let critical = self.critical.contains(&(index, what.subject));
            self.bars.push(self.activity(&what, times, 0, critical));
        }
    }
}
