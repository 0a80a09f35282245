//! The critical path of a run, through the cells that held what others waited for.
//!
//! Each cell follows at most one other: the one whose end freed its slot. So the cells form trees. If a cell of the path
//! becomes faster, everything in its tree moves with it, and the wall time shrinks until a cell outside is the last.

use super::cell::{Activities, Clock, activities};
use super::describe::segment;
use super::holds::{Hold, Holds};
use super::{Segment, SegmentKind};
use phalanx_shared::run_state::RunState;

/// Returns the segments from the submission to the end of a cell, with potentials that refer to the cell's end.
pub(super) fn of_cell(state: &RunState, index: usize, clock: Clock) -> Vec<Segment> {
    let Some((id, cell)) = state.cells.get_index(index) else {
        return Vec::new();
    };
    let Activities { graph, end, .. } = activities(cell, clock);
    let path = graph.path(end);
    let potentials = graph.potentials(&path);
    let segments = path
        .iter()
        .zip(potentials)
        .filter_map(|(at, potential_us)| {
            let activity = graph.get(*at).filter(|activity| activity.elapsed() > 0)?;
            let times = (activity.begin, activity.end);
            Some(Segment {
                potential_us,
                ..segment(id, cell, &activity.data, times)
            })
        });
    segments.collect()
}

/// Returns the segments from the submission to the finish of a run.
pub(super) fn of_run(state: &RunState, holds: &Holds, clock: Clock) -> Vec<Segment> {
    let finished = clock.us(state.finished.unwrap_or(clock.now));
    let mut path = Path::default();
    let Some(last) = holds.last_cell() else {
        path.fill(finished, "planning");
        return path.segments;
    };
    let chain = chain(holds, last);
    let slacks = slacks(holds, &chain, last);
    for (position, link) in chain.iter().enumerate() {
        let slack = slacks.get(position).copied().unwrap_or_default();
        path.add(state, link, slack, clock);
    }
    path.fill(finished, "end of the run");
    path.segments
}

/// A cell of the path.
#[derive(Clone, Copy, Debug)]
struct Link {
    cell: usize,
    /// The attempt with whose clean-up the path goes on to the next cell; `None` for the last one, whose end counts.
    until: Option<usize>,
    /// Whether it follows another cell, so that the path enters it with its offer.
    follows: bool,
}

/// By how much the wall time can shrink before a cell that doesn't depend on a cell of the path is the last.
#[derive(Clone, Copy, Debug, Default)]
struct Slack {
    /// For activities up to the end of the cell's steps.
    steps: u64,
    /// For its clean-up: the end of its own steps doesn't move.
    clean_up: u64,
}

/// Returns the cells of the path, first to last.
fn chain(holds: &Holds, last: usize) -> Vec<Link> {
    let mut chain = Vec::new();
    let mut next = Some((last, None));
    while let Some((cell, until)) = next {
        let before = holds.before(cell);
        chain.push(Link {
            cell,
            until,
            follows: before.is_some(),
        });
        next = before.map(|hold: Hold| (hold.cell, Some(hold.attempt)));
    }
    chain.reverse();
    chain
}

fn slacks(holds: &Holds, chain: &[Link], last: usize) -> Vec<Slack> {
    let cells: Vec<usize> = chain.iter().map(|link| link.cell).collect();
    let roots = holds.positions(&cells);
    let wall = holds.end(last);
    // The latest end of the cells that follow none of the chain, then of those that follow its first cell at most …
    let mut outside = 0;
    let mut latest = vec![0; chain.len()];
    for (cell, root) in roots.iter().enumerate() {
        let end = holds.end(cell);
        match root.and_then(|root| latest.get_mut(root)) {
            Some(latest) => *latest = end.max(*latest),
            None => outside = end.max(outside),
        }
    }
    let slacks = cells.iter().zip(latest).map(|(cell, inside)| {
        let slack = Slack {
            steps: wall.saturating_sub(outside),
            clean_up: wall.saturating_sub(outside.max(holds.end(*cell))),
        };
        outside = outside.max(inside);
        slack
    });
    slacks.collect()
}

/// Segments without gaps or overlaps.
#[derive(Default)]
struct Path {
    segments: Vec<Segment>,
    end: u64,
}

impl Path {
    /// Adds the part of the path within a cell.
    fn add(&mut self, state: &RunState, link: &Link, slack: Slack, clock: Clock) {
        let Some((id, cell)) = state.cells.get_index(link.cell) else {
            return;
        };
        let Activities { graph, tries, end } = activities(cell, clock);
        let until = tries.iter().find(|try_| Some(try_.attempt) == link.until);
        let path = graph.path(until.map_or(end, |try_| try_.released));
        let potentials = graph.potentials(&path);
        let offered = tries.first().filter(|_| link.follows);
        if let Some(offered) = offered {
            let from = self.segments.len();
            self.fill(graph.end(offered.offered), "handing over the slot");
            for segment in self.segments.iter_mut().skip(from) {
                segment.cell = Some(id.clone());
                segment.potential_us = segment.elapsed_us.min(slack.steps);
            }
        }
        let ended = until.map(|try_| try_.ended);
        for (at, potential) in path.iter().zip(potentials) {
            let Some(activity) = graph.get(*at) else {
                continue;
            };
            if offered.is_some_and(|offered| *at <= offered.offered) {
                continue;
            }
            let slack = match ended.is_some_and(|ended| *at > ended) {
                true => slack.clean_up,
                false => slack.steps,
            };
            let times = (self.end, activity.end);
            let mut segment = segment(id, cell, &activity.data, times);
            segment.potential_us = potential.min(slack).min(segment.elapsed_us);
            self.push(segment);
        }
    }

    /// Adds Phalanx's own work up to a time, if there is any left.
    fn fill(&mut self, until: u64, what: &str) {
        let elapsed_us = until.saturating_sub(self.end);
        self.push(Segment {
            what: what.to_owned(),
            kind: SegmentKind::Overhead,
            wait: None,
            cell: None,
            phase: None,
            step: None,
            service: None,
            began_us: self.end,
            elapsed_us,
            potential_us: elapsed_us,
        });
    }

    fn push(&mut self, segment: Segment) {
        if segment.elapsed_us > 0 {
            self.end = segment.began_us.saturating_add(segment.elapsed_us);
            self.segments.push(segment);
        }
    }
}
