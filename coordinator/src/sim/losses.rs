//! Checks that each lost attempt had a cause (I7, I8).

use super::cell::CELL_TIMEOUT;
use super::center::ATTEMPT_MARGIN;
use super::world::{Res, World};
use phalanx_shared::event::{EventKind, Recorded};
use phalanx_shared::id::{AgentId, Token};
use phalanx_shared::invariant::{self, Loss};
use std::collections::BTreeSet;
use std::time::Duration;

/// An agent that was silent for less than this isn't dead. It is shorter than a session's lease and its grace after a
/// reset.
const PATIENCE: Duration = Duration::from_secs(6);
/// Lease, margin, the wait after a restart of the coordinator, and a disk that is full for a while.
const NOTICED_WITHIN: Duration = Duration::from_secs(60);

impl World {
    /// Checks that each attempt that a run has declared lost had a cause.
    pub fn losses_have_causes(&mut self, events: &[Recorded]) -> Res {
        for recorded in events {
            if let EventKind::AttemptLost { token, .. } = &recorded.event.kind {
                self.loss_has_a_cause(token)?;
            }
        }
        Ok(())
    }

    fn loss_has_a_cause(&self, token: &Token) -> Res {
        let Some(center) = &self.center else {
            return Ok(());
        };
        let holder = self.holders.get(token);
        let machine =
            holder.and_then(|agent| self.machines.iter().find(|m| m.about.agent == *agent));
        let Some(machine) = machine else {
            return Ok(());
        };
        let link = machine.link.as_ref();
        let here = link.is_some_and(|link| link.answers_for(token));
        let heard = center.heard.get(&machine.about.agent).copied();
        let loss = Loss {
            cell: &token.cell,
            restarted: token.epoch < center.epoch,
            ended_by_its_agent: !here,
            silent_for: self.now.saturating_sub(heard.unwrap_or(center.started)),
            overdue: self.overdue(token),
            lied: self.forged.contains(token),
        };
        invariant::loss_has_a_cause(&loss, PATIENCE)
    }

    /// **I8** Attempts of dead processes end.
    pub fn dead_agents_hold_nothing(&mut self) -> Res {
        let Some(center) = &self.center else {
            self.orphaned.clear();
            return Ok(());
        };
        let mut orphans: BTreeSet<Token> = BTreeSet::new();
        for machine in &self.machines {
            for run in center.runs.values() {
                let held = run.held_by(&machine.about.agent).into_iter();
                orphans.extend(held.filter(|token| {
                    let begun = self.holders.contains_key(token);
                    begun && (machine.link.is_none() || !machine.began.contains(token))
                }));
            }
        }
        self.orphaned.retain(|token, _| orphans.contains(token));
        for token in orphans {
            let since = *self.orphaned.entry(token.clone()).or_insert(self.now);
            let dead_for = self.now.saturating_sub(since);
            invariant::no_attempt_outlives_its_agent(&token.cell, dead_for, NOTICED_WITHIN)?;
        }
        Ok(())
    }

    /// Records which agent began an attempt, and when.
    pub fn holds(&mut self, token: &Token, agent: &AgentId) {
        self.holders.insert(token.clone(), agent.clone());
        self.begun.insert(token.clone(), self.now);
    }

    /// Returns whether an attempt should have ended by now, by its cell's timeout or by an order.
    fn overdue(&self, token: &Token) -> bool {
        let begun = self.begun.get(token);
        // A cancel, by a user or by `fail-fast`, shortens the time, too.
        let ordered = self.disk.runs.get(&token.run);
        let ordered = ordered.is_some_and(|kept| kept.state().cancel.is_some());
        let allowed = match ordered {
            true => ATTEMPT_MARGIN,
            false => CELL_TIMEOUT * 2 + ATTEMPT_MARGIN,
        };
        begun.is_some_and(|begun| self.now >= *begun + allowed)
    }
}
