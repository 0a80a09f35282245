//! The activities of one cell, from the submission to the end of its last clean-up, and what each waited for.
//!
//! The journal says when everything began and ended. Some of the causes follow from the structure: steps of a group run
//! one after the other, those of a `parallel` group begin together, the states of a service follow each other. Others
//! follow from the times: a service begins when the one that it depends on is ready, so what ended last before it is
//! taken for what it waited for.

use super::SegmentKind;
use super::graph::{ActivityId, Graph};
use super::rows::{Row, rows};
use phalanx_shared::event::{ServiceState, SnapshotState};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::{AttemptState, CellState, CellStatus};
use phalanx_shared::time::Timestamp;
use phalanx_shared::wait::WaitCause;
use std::collections::BTreeMap;

/// Events that follow from each other are stamped within this time of each other, in microseconds.
const AT_ONCE: u64 = 2_000;
/// Longer pauses between two steps have a reason that is looked for.
const PAUSE: u64 = 20_000;
/// Stands for no service where an activity that isn't one of a service may be waited for.
const NO_SERVICE: usize = usize::MAX;

/// What an activity of a cell is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct What {
    pub kind: SegmentKind,
    pub wait: Option<WaitCause>,
    /// Index of the attempt that it belongs to.
    pub attempt: Option<usize>,
    pub subject: Subject,
}

/// What an activity is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    /// A few words.
    Text(&'static str),
    /// Index of a step, group or phase of the attempt.
    Step(usize),
    /// Index of a service of the attempt.
    Service(usize),
}

/// The activities of a cell.
pub(super) struct Activities {
    pub graph: Graph<What>,
    /// Attempts that were not returned, oldest first.
    pub tries: Vec<Try>,
    /// The last activity before the cell's outcome, or the one that goes on.
    pub end: ActivityId,
}

/// The turning points of an attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Try {
    /// Index of the attempt.
    pub attempt: usize,
    /// Ends with the offer.
    pub offered: ActivityId,
    /// Ends when the steps end.
    pub ended: ActivityId,
    /// Ends when nothing is left of the attempt.
    pub released: ActivityId,
}

/// The times of a run, in microseconds since its submission.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub submitted: Timestamp,
    pub now: Timestamp,
    /// Whether the journal says why cells waited in the queue.
    pub causes: bool,
}

impl Clock {
    /// Returns a time in microseconds since the submission; 0 if it is before.
    pub fn us(&self, at: Timestamp) -> u64 {
        super::micros(at.since(self.submitted))
    }
}

/// Returns the activities of a cell.
pub(super) fn activities(cell: &CellState, clock: Clock) -> Activities {
    let mut graph = Graph::default();
    let mut tries: Vec<Try> = Vec::new();
    let attempts = cell.attempts.iter().enumerate();
    for (index, attempt) in attempts.filter(|(_, attempt)| !attempt.returned) {
        let before = tries.last().map(|before| before.released);
        let offered = queue(&mut graph, before, index, attempt, clock);
        tries.push(tried(&mut graph, offered, index, attempt, clock));
    }
    let last = tries.last().map(|last| last.ended);
    let waits = matches!(cell.status, CellStatus::Queued | CellStatus::Ended);
    let end = match last {
        Some(ended) if cell.outcome.is_some() || !waits => ended,
        _ => {
            let what = What {
                kind: SegmentKind::Queue,
                wait: Some(WaitCause::Other),
                attempt: None,
                subject: Subject::Text("waiting for an agent"),
            };
            let before = tries.last().map(|before| before.released);
            let until = clock.us(cell.finished.unwrap_or(clock.now));
            graph.add(what, until, before.as_slice())
        }
    };
    Activities { graph, tries, end }
}

/// Adds what an attempt waited for until it was offered.
fn queue(
    graph: &mut Graph<What>,
    before: Option<ActivityId>,
    index: usize,
    attempt: &AttemptState,
    clock: Clock,
) -> ActivityId {
    let what = |kind, wait, text| What {
        kind,
        wait,
        attempt: Some(index),
        subject: Subject::Text(text),
    };
    let offered = clock.us(attempt.offered);
    let mut last = before;
    for wait in &attempt.waits {
        let until = graph.ready(last.as_slice()).saturating_add(wait.us);
        let what = what(SegmentKind::Queue, Some(wait.cause), "");
        last = Some(graph.add(what, until.min(offered), last.as_slice()));
    }
    let left = offered.saturating_sub(graph.ready(last.as_slice()));
    let what = match !clock.causes && left > PAUSE {
        true => what(SegmentKind::Queue, Some(WaitCause::Other), ""),
        false => what(SegmentKind::Overhead, None, "planning and dispatch"),
    };
    graph.add(what, offered, last.as_slice())
}

/// Adds an attempt, from its offer until nothing is left of it.
fn tried(
    graph: &mut Graph<What>,
    offered: ActivityId,
    index: usize,
    attempt: &AttemptState,
    clock: Clock,
) -> Try {
    let mut attempts = Attempt::new(graph, index, attempt, clock);
    let ended = attempts.build(offered);
    let released = match &attempt.torn_down {
        Some(torn_down) => {
            let what = attempts.what(SegmentKind::CleanUp, Subject::Text("clean-up"));
            let until = clock.us(torn_down.ended);
            attempts.graph.add(what, until, &[ended])
        }
        None => ended,
    };
    Try {
        attempt: index,
        offered,
        ended,
        released,
    }
}

/// An attempt whose activities are being added in the order of their times.
struct Attempt<'a> {
    graph: &'a mut Graph<What>,
    index: usize,
    attempt: &'a AttemptState,
    clock: Clock,
    /// What everything in the attempt follows.
    base: ActivityId,
    rows: Vec<Row>,
    /// What each step began after, acted after and ended with.
    places: Vec<Place>,
    /// The last phase that began.
    last_phase: Option<usize>,
    /// The newest activity of each service.
    stages: Vec<Option<ActivityId>>,
    /// Activities after which something may wait for a service no longer, by their ends.
    reached: BTreeMap<(u64, ActivityId), usize>,
    /// The last `container` step that began to act.
    acting: Option<usize>,
    /// The last work on a snapshot before the steps, and whether it was found that another cell makes it.
    looked: Option<(ActivityId, bool)>,
}

/// Where a step is in the graph.
#[derive(Clone, Debug, Default)]
struct Place {
    entered: Option<ActivityId>,
    acted: Option<ActivityId>,
    done: Option<ActivityId>,
    /// Steps that began inside it: all of a `parallel` group, the last of any other.
    inside: Vec<usize>,
}

/// Something that happens in an attempt, in the order in which events at the same time are handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    Snapshot(usize),
    Stage { service: usize, entry: usize },
    Begins(usize),
    Acts(usize),
    Ends(usize),
}

impl<'a> Attempt<'a> {
    fn new(
        graph: &'a mut Graph<What>,
        index: usize,
        attempt: &'a AttemptState,
        clock: Clock,
    ) -> Self {
        let until = clock.us(attempt.finished.unwrap_or(clock.now));
        let rows = rows(attempt, until, |at| clock.us(at));
        Attempt {
            graph,
            index,
            attempt,
            clock,
            base: 0,
            places: vec![Place::default(); rows.len()],
            rows,
            last_phase: None,
            stages: vec![None; attempt.services.len()],
            reached: BTreeMap::new(),
            acting: None,
            looked: None,
        }
    }

    fn what(&self, kind: SegmentKind, subject: Subject) -> What {
        What {
            kind,
            wait: None,
            attempt: Some(self.index),
            subject,
        }
    }

    fn waits(&self, kind: SegmentKind, wait: WaitCause, subject: Subject) -> What {
        What {
            wait: Some(wait),
            ..self.what(kind, subject)
        }
    }

    fn overhead(&self, text: &'static str) -> What {
        self.what(SegmentKind::Overhead, Subject::Text(text))
    }

    /// Returns what ends with the last of these activities, or at a time if that is later.
    fn join(&mut self, after: &[ActivityId], until: u64, between: What) -> ActivityId {
        match after {
            [only] if self.graph.end(*only) >= until => *only,
            _ => self.graph.add(between, until, after),
        }
    }

    /// Adds everything up to the end of the steps.
    fn build(&mut self, offered: ActivityId) -> ActivityId {
        let ended = self
            .clock
            .us(self.attempt.finished.unwrap_or(self.clock.now));
        let Some(started) = self.attempt.started else {
            let what = self.overhead("dispatch");
            return self.join(&[offered], ended, what);
        };
        let what = self.overhead("dispatch");
        self.base = self.join(&[offered], self.clock.us(started), what);
        self.open();
        for (_, moment) in self.moments() {
            match moment {
                Moment::Snapshot(index) => self.snapshot(index),
                Moment::Stage { service, entry } => self.stage(service, entry),
                Moment::Begins(row) => self.begins(row),
                Moment::Acts(row) => self.acts(row),
                Moment::Ends(row) => self.finish(row),
            }
        }
        self.last(ended)
    }

    /// Adds the creation of what the services share.
    fn open(&mut self) {
        let Some(opened) = self.attempt.opened else {
            return;
        };
        let (began, ended) = (self.clock.us(opened.began), self.clock.us(opened.ended));
        let preparing = self.overhead("preparing the attempt");
        self.base = self.join(&[self.base], began, preparing);
        self.queued(opened.queued_us, ended, Subject::Text("the network"));
        let subject = Subject::Text("creating the network");
        let what = self.waits(SegmentKind::Network, WaitCause::Network, subject);
        self.base = self.join(&[self.base], ended, what);
    }

    fn queued(&mut self, us: u64, most: u64, subject: Subject) {
        if us > 0 {
            let until = self.graph.end(self.base).saturating_add(us).min(most);
            let what = self.waits(SegmentKind::EngineQueue, WaitCause::EngineQueue, subject);
            self.base = self.join(&[self.base], until, what);
        }
    }

    fn moments(&self) -> Vec<(u64, Moment)> {
        let services = self.attempt.services.values().enumerate();
        let stages = services.flat_map(|(service, view)| {
            let entries = view.history.iter().enumerate();
            entries.map(move |(entry, (_, began, _))| (*began, Moment::Stage { service, entry }))
        });
        let mut moments: Vec<_> = stages
            .map(|(began, moment)| (self.clock.us(began), moment))
            .collect();
        for (index, row) in self.rows.iter().enumerate() {
            if !row.skipped {
                moments.push((row.begin, Moment::Begins(index)));
                moments.push((row.acts(), Moment::Acts(index)));
                moments.push((row.end, Moment::Ends(index)));
            }
        }
        let snapshots = self.attempt.snapshots.iter().enumerate();
        moments.extend(
            snapshots.map(|(index, seen)| (self.clock.us(seen.began), Moment::Snapshot(index))),
        );
        moments.sort_unstable();
        moments
    }

    /// Adds what is done about a snapshot before its services start: it is looked for, waited for, restored.
    fn snapshot(&mut self, index: usize) {
        let Some(seen) = self.attempt.snapshots.get(index) else {
            return;
        };
        let waited = self.looked.is_some_and(|(_, waits)| waits);
        let text = |text| Subject::Text(text);
        let what = match seen.state {
            SnapshotState::Restored | SnapshotState::Missed if waited => {
                let subject = text("waiting for the cell that makes the snapshot");
                self.waits(SegmentKind::Snapshot, WaitCause::Snapshot, subject)
            }
            SnapshotState::Restored => {
                self.what(SegmentKind::Snapshot, text("restoring the snapshot"))
            }
            SnapshotState::Missed | SnapshotState::Waiting => {
                self.what(SegmentKind::Snapshot, text("looking for a snapshot"))
            }
            // It is part of its group, or took no time.
            SnapshotState::Saved | SnapshotState::Unsaved | SnapshotState::Discarded => return,
        };
        let (began, ended) = (self.clock.us(seen.began), self.clock.us(seen.ended));
        let waits = seen.state == SnapshotState::Waiting;
        let after = match self.looked {
            Some((before, _)) => before,
            None => {
                let preparing = self.overhead("preparing the attempt");
                self.join(&[self.base], began, preparing)
            }
        };
        let id = self.graph.add(what, ended, &[after]);
        self.looked = Some((id, waits));
        self.reached.insert((self.graph.end(id), id), NO_SERVICE);
    }

    /// Adds the saving of a group's snapshot, which ends the group.
    fn saved(&mut self, index: usize, after: Vec<ActivityId>) -> Vec<ActivityId> {
        let path = self.attempt.steps.get_index(index).map(|(path, _)| path);
        let mut snapshots = self.attempt.snapshots.iter();
        let Some(seen) =
            snapshots.find(|seen| seen.state == SnapshotState::Saved && Some(&seen.path) == path)
        else {
            return after;
        };
        let (began, ended) = (self.clock.us(seen.began), self.clock.us(seen.ended));
        let between = self.overhead("between steps");
        let began = self.join(&after, began, between);
        let subject = Subject::Text("saving the snapshot");
        let what = self.what(SegmentKind::Snapshot, subject);
        vec![self.graph.add(what, ended, &[began])]
    }

    /// Returns the newest activity of a service that ended after one time and not after another.
    fn reached(&self, after: u64, until: u64) -> Option<(ActivityId, usize)> {
        let from = (after.saturating_add(1), 0);
        if from.0 > until {
            return None;
        }
        let mut found = self.reached.range(from..=(until, ActivityId::MAX));
        found.next_back().map(|((_, id), service)| (*id, *service))
    }

    /// Adds a state that a service reached.
    fn stage(&mut self, service: usize, entry: usize) {
        let Some((_, view)) = self.attempt.services.get_index(service) else {
            return;
        };
        let Some((state, began, ended)) = view.history.get(entry).copied() else {
            return;
        };
        let (began, ended) = (self.clock.us(began), self.clock.us(ended));
        let subject = Subject::Service(service);
        let what = match state {
            ServiceState::Pulled => self.waits(SegmentKind::Image, WaitCause::ImagePull, subject),
            ServiceState::Built => self.waits(SegmentKind::Image, WaitCause::ImageBuild, subject),
            ServiceState::Created => self.what(SegmentKind::Create, subject),
            ServiceState::Started => self.what(SegmentKind::Start, subject),
            ServiceState::Ready => {
                self.waits(SegmentKind::Readiness, WaitCause::Readiness, subject)
            }
            ServiceState::Exited => self.what(SegmentKind::Job, subject),
            ServiceState::Stopped | ServiceState::Removed => return,
        };
        let before = self.stages.get(service).copied().flatten();
        let mut after = vec![before.unwrap_or(self.base)];
        if state != ServiceState::Exited {
            self.add_cause(&mut after, service, began);
            let between = self.what(SegmentKind::Overhead, subject);
            after = vec![self.join(&after, began, between)];
            let queued = view.queued_us.get(entry).copied().unwrap_or(0);
            if queued > 0 {
                let until = self.graph.ready(&after).saturating_add(queued).min(ended);
                let what = self.waits(SegmentKind::EngineQueue, WaitCause::EngineQueue, subject);
                after = vec![self.graph.add(what, until, &after)];
            }
        }
        let id = self.graph.add(what, ended, &after);
        if let Some(newest) = self.stages.get_mut(service) {
            *newest = Some(id);
        }
        let awaited = matches!(
            state,
            ServiceState::Started | ServiceState::Ready | ServiceState::Exited
        );
        if awaited {
            self.reached.insert((self.graph.end(id), id), service);
        }
    }

    /// Adds what a service waited for before its work began: another service, or the step that started it.
    fn add_cause(&self, after: &mut Vec<ActivityId>, service: usize, began: u64) {
        let ready = self.graph.ready(after);
        if began <= ready.saturating_add(AT_ONCE) {
            return;
        }
        let until = began.saturating_add(AT_ONCE);
        let another = self.reached(ready, until);
        after.extend(
            another
                .filter(|(_, other)| *other != service)
                .map(|(id, _)| id),
        );
        let step = self.acting.and_then(|row| self.places.get(row));
        let acted = step.filter(|place| place.done.is_none());
        after.extend(acted.and_then(|place| place.acted));
    }

    fn begins(&mut self, index: usize) {
        let Some(row) = self.rows.get(index).cloned() else {
            return;
        };
        let (before, first) = self.before(index, &row);
        let mut after = vec![before];
        let ready = self.graph.end(before);
        if row.begin > ready.saturating_add(PAUSE) {
            let service = self.reached(ready, row.begin.saturating_add(PAUSE));
            after.extend(service.map(|(id, _)| id));
        }
        let tried_before = row.parent.filter(|_| first);
        let tried_before = tried_before.filter(|parent| self.tries(*parent) > 1);
        let between = match tried_before {
            Some(parent) => self.what(SegmentKind::Step, Subject::Step(parent)),
            None => self.overhead("between steps"),
        };
        let entered = self.join(&after, row.begin, between);
        if let Some(place) = self.places.get_mut(index) {
            place.entered = Some(entered);
        }
    }

    /// Returns what a step follows, and whether it is the first inside its group. Ends the step before it.
    fn before(&mut self, index: usize, row: &Row) -> (ActivityId, bool) {
        let sibling = match row.parent {
            None => self.last_phase.replace(index),
            Some(parent) => {
                let parallel = self.rows.get(parent).is_some_and(|row| row.parallel);
                let inside = self.places.get_mut(parent).map(|place| &mut place.inside);
                match inside {
                    Some(inside) if parallel => {
                        inside.push(index);
                        None
                    }
                    Some(inside) => std::mem::replace(inside, vec![index]).first().copied(),
                    None => None,
                }
            }
        };
        if let Some(sibling) = sibling {
            self.finish(sibling);
            let done = self.places.get(sibling).and_then(|place| place.done);
            return (done.unwrap_or(self.base), false);
        }
        let around = row.parent.and_then(|parent| self.places.get(parent));
        let entered = around.and_then(|place| place.entered);
        (entered.unwrap_or(self.base), true)
    }

    fn tries(&self, row: usize) -> u32 {
        self.rows.get(row).map_or(0, |row| row.tries)
    }

    /// Adds a step's wait for its services.
    fn acts(&mut self, index: usize) {
        let (Some(row), Some(place)) = (self.rows.get(index).cloned(), self.places.get(index))
        else {
            return;
        };
        let entered = place.entered.unwrap_or(self.base);
        let mut acted = entered;
        if row.readiness > 0 {
            let (ready, until) = (self.graph.end(entered), row.acts());
            acted = match self.reached(ready, until.saturating_add(AT_ONCE)) {
                Some((service, _)) => {
                    let between = self.overhead("between steps");
                    self.join(&[entered, service], until, between)
                }
                None => {
                    let subject = Subject::Step(index);
                    let what = self.waits(SegmentKind::Readiness, WaitCause::Readiness, subject);
                    self.graph.add(what, until, &[entered])
                }
            };
        }
        if row.container {
            self.acting = Some(index);
        }
        if let Some(place) = self.places.get_mut(index) {
            place.acted = Some(acted);
        }
    }

    /// Ends a step and everything inside it that hasn't ended.
    fn finish(&mut self, index: usize) {
        let mut open = vec![index];
        while let Some(row) = open.last().copied() {
            let Some(place) = self.places.get(row) else {
                open.pop();
                continue;
            };
            let is_open = |inside: &&usize| {
                let place = self.places.get(**inside);
                place.is_some_and(|place| place.done.is_none())
            };
            let before = open.len();
            if place.done.is_none() {
                open.extend(place.inside.iter().filter(is_open));
            }
            if open.len() == before {
                self.close(row);
                open.pop();
            }
        }
    }

    fn close(&mut self, index: usize) {
        let (Some(row), Some(place)) = (self.rows.get(index).cloned(), self.places.get(index))
        else {
            return;
        };
        if place.done.is_some() {
            return;
        }
        let entered = place.acted.or(place.entered).unwrap_or(self.base);
        let done = match place.inside.is_empty() && !row.group {
            true => self.act(index, &row, entered),
            false => {
                let inside = place.inside.iter().filter_map(|row| self.places.get(*row));
                let mut after: Vec<ActivityId> = inside.filter_map(|place| place.done).collect();
                if after.is_empty() {
                    after.push(entered);
                }
                let after = self.saved(index, after);
                let between = self.overhead("between steps");
                self.join(&after, row.end, between)
            }
        };
        if let Some(place) = self.places.get_mut(index) {
            place.done = Some(done);
        }
    }

    /// Adds the action of a step, and its pauses after it.
    fn act(&mut self, index: usize, row: &Row, acted: ActivityId) -> ActivityId {
        let mut after = vec![acted];
        if row.container {
            let ready = self.graph.end(acted);
            let service = self.reached(ready, row.end.saturating_add(AT_ONCE));
            after.extend(service.map(|(id, _)| id));
        }
        let end = row.end.max(self.graph.ready(&after));
        let most = end - self.graph.ready(&after);
        let retry = row.retry.min(most);
        let poll = row.poll.min(most - retry);
        let subject = Subject::Step(index);
        let what = self.what(SegmentKind::Step, subject);
        let mut last = self.join(&after, end - retry - poll, what);
        if retry > 0 {
            let what = self.waits(SegmentKind::Pause, WaitCause::RetryPause, subject);
            last = self.graph.add(what, end - poll, &[last]);
        }
        if poll > 0 {
            let what = self.waits(SegmentKind::Pause, WaitCause::PollInterval, subject);
            last = self.graph.add(what, end, &[last]);
        }
        last
    }

    /// Adds what lies between the last step and the end of the attempt.
    fn last(&mut self, ended: u64) -> ActivityId {
        if let Some(phase) = self.last_phase {
            self.finish(phase);
        }
        let phase = self.last_phase.and_then(|phase| self.places.get(phase));
        let mut after = vec![phase.and_then(|place| place.done).unwrap_or(self.base)];
        let ready = self.graph.ready(&after);
        let ok = self.attempt.outcome.is_some_and(Outcome::is_ok);
        if ended > ready.saturating_add(PAUSE) && !ok {
            let service = self.reached(ready, ended);
            after.extend(service.map(|(id, _)| id));
            after.extend(self.not_ready(ended));
        }
        let between = self.overhead("end of the attempt");
        self.join(&after, ended, between)
    }

    /// Adds the wait for the first service that never became ready.
    fn not_ready(&mut self, ended: u64) -> Option<ActivityId> {
        let mut services = self.attempt.services.values();
        let service = services.position(|view| {
            use ServiceState::{Built, Created, Pulled, Started};
            matches!(view.state, Pulled | Built | Created | Started)
        })?;
        let after = self.stages.get(service).copied().flatten();
        let after = after.unwrap_or(self.base);
        let subject = Subject::Service(service);
        let what = self.waits(SegmentKind::Readiness, WaitCause::Readiness, subject);
        Some(self.graph.add(what, ended, &[after]))
    }
}
