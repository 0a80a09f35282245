//! Groups with a snapshot: restored instead of run if an earlier cell has made them, else run and then saved.

use super::node::{OfSnapshot, State};
use super::{Sequence, down_end, micros};
use crate::context::group::{Group, SavedHanded, saved};
use crate::context::services::{Made, Recalled, Unavailable};
use crate::sequence::effect::{Effect, NodeId};
use crate::step::contract::{End, Item};
use phalanx_shared::event::{Culprit, EventKind, Restored, StepResult};
use phalanx_shared::outcome::Outcome;
use std::sync::Arc;

impl Sequence {
    pub(super) fn has_snapshot(&self, id: NodeId) -> bool {
        let node = self.node(id);
        let on_it = matches!(&node.item, Some(Item::Step(step)) if step.snapshot.is_some());
        on_it && !node.other_branch && !node.looped
    }

    /// Asks for what an earlier cell has made of the group.
    pub(super) fn recall(&mut self, id: NodeId) {
        let before = self.frames.ids(self.node(id).home);
        let node = self.node_mut(id);
        node.snapshot = Some(OfSnapshot {
            before,
            ..OfSnapshot::default()
        });
        node.state = State::Recalling;
        let path = node.path.clone();
        self.effects.push(Effect::Recall { node: id, path });
    }

    pub(super) fn recalled(
        &mut self,
        id: NodeId,
        result: Result<Option<Box<Recalled>>, Unavailable>,
    ) {
        if !self.is_in(id, |state| matches!(state, State::Recalling)) {
            return;
        }
        match result {
            Ok(Some(recalled)) => self.restore(id, *recalled),
            Ok(None) => self.run_body(id),
            Err(unavailable) => {
                self.settle(id);
                self.complete(id, end_of(&unavailable));
            }
        }
    }

    /// Reports the steps inside as restored, records their captures, and ends the group as it ended then.
    fn restore(&mut self, id: NodeId, recalled: Recalled) {
        self.acted = true;
        let Recalled { key, run, group } = recalled;
        let (now, node) = (self.now, self.node(id));
        let (path, home) = (node.path.clone(), node.home);
        // Rows that the group and the phase around it name in this spec.
        let around = node.rows.clone();
        for (step, record_key, record) in group.records() {
            self.frames.record(home, &step, record_key.as_ref(), record);
        }
        let of = |elapsed_us| Restored {
            key: key.clone(),
            run: run.clone(),
            elapsed_us,
        };
        for step in group.steps {
            let mut verifies = step.verifies;
            verifies.extend(around.iter().cloned());
            self.effects
                .push(Effect::Emit(EventKind::StepFinished(Box::new(
                    StepResult {
                        path: format!("{path}/{}", step.path),
                        verifies,
                        began: now.wall,
                        restored: Some(of(step.elapsed_us)),
                        elapsed_us: 0,
                        waits: Vec::new(),
                        ..step
                    },
                ))));
        }
        let end = End {
            checks: group.checks,
            captured: group.captured,
            handed: Arc::new(group.handed.handed()),
            ..End::bare(Outcome::Passed, None)
        };
        let elapsed_us = group.elapsed_us;
        if let Some(snapshot) = &mut self.node_mut(id).snapshot {
            snapshot.restored = Some(of(elapsed_us));
            snapshot.settled = true;
        }
        self.complete(id, end);
    }

    /// Begins to save a group that has passed, or gives up to. Returns the end of a node that is complete.
    pub(super) fn before_completion(&mut self, id: NodeId, end: End) -> Option<End> {
        let node = self.node(id);
        let Some(snapshot) = &node.snapshot else {
            return Some(end);
        };
        if snapshot.settled {
            return Some(end);
        }
        let reason = match end.outcome {
            Outcome::Passed if node.tally.is_flaky() => {
                Some("a step of the group was flaky".to_owned())
            }
            Outcome::Passed if self.halt.is_some() => Some("the cell was ended".to_owned()),
            Outcome::Passed => None,
            other => Some(format!("the group {other}")),
        };
        self.settle(id);
        if let Some(reason) = reason {
            self.effects.push(Effect::Forget { reason });
            return Some(end);
        }
        let node = self.node(id);
        let before = node.snapshot.as_ref().map(|of| of.before.clone());
        let entries = self.frames.entries(node.home, &before.unwrap_or_default());
        let took = self.now.mono.saturating_sub(node.began.mono);
        let group = Group {
            steps: Vec::new(),
            records: entries
                .iter()
                .map(|(step, entry)| (step.clone(), saved(entry)))
                .collect(),
            handed: SavedHanded::of(&end.handed),
            checks: end.checks.clone(),
            captured: end.captured.clone(),
            elapsed_us: micros(took),
            masked: Vec::new(),
        };
        let (path, name, around) = (node.path.clone(), node.name.clone(), node.rows.clone());
        // The group's steps are over, and saving has limits of its own.
        self.disarm(id);
        let node = self.node_mut(id);
        node.state = State::Remembering;
        if let Some(snapshot) = &mut node.snapshot {
            snapshot.end = Some(Box::new(end));
        }
        let made = Box::new(Made { name, took, group });
        self.effects.push(Effect::Remember {
            node: id,
            path,
            around,
            made,
        });
        None
    }

    pub(super) fn remembered(&mut self, id: NodeId, result: Result<(), Unavailable>) {
        if !self.is_in(id, |state| matches!(state, State::Remembering)) {
            return;
        }
        let snapshot = self.node_mut(id).snapshot.as_mut();
        let end = snapshot.and_then(|snapshot| snapshot.end.take());
        let end = match (result, end) {
            (Ok(()), Some(end)) => *end,
            (Err(unavailable), _) => {
                let mut end = end_of(&unavailable);
                let reason = end.reason.unwrap_or_default();
                end.reason = Some(format!("after its snapshot was made: {reason}"));
                end
            }
            (Ok(()), None) => return,
        };
        self.complete(id, end);
    }

    fn settle(&mut self, id: NodeId) {
        if let Some(snapshot) = &mut self.node_mut(id).snapshot {
            snapshot.settled = true;
        }
    }
}

fn end_of(unavailable: &Unavailable) -> End {
    match unavailable {
        Unavailable::Down(down) => down_end(down),
        Unavailable::NotRunning { service, reason } => End {
            culprit: Some(Culprit::Service {
                service: service.clone(),
            }),
            ..End::bare(Outcome::Failed, Some(reason.clone()))
        },
        Unavailable::Unknown(reason) => End::bare(Outcome::Errored, Some(reason.clone())),
    }
}
