//! Keeps what the scheduler knows of agents' snapshots up to date, and puts waiting cells where their expected duration
//! belongs.

use super::core::Scheduler;
use super::fleet::Fleet;
use super::queue::At;
use super::snapshots::{Wish, families};
use phalanx_proto::link::Snapshots;
use phalanx_shared::id::{AgentId, Token};
use std::time::Duration;

impl Fleet {
    /// Notes that a cell with this family was placed on an agent.
    pub fn wished(&mut self, agent: &AgentId, family: &str, now: Duration) {
        if let Some(agent) = self.shelf_of(agent) {
            agent.placed(family, now);
            self.known.cell(family, true);
        }
    }

    /// Notes that it isn't there any more.
    pub fn wishes_no_more(&mut self, agent: &AgentId, family: &str) {
        if let Some(agent) = self.shelf_of(agent) {
            agent.released(family);
        }
        self.known.cell(family, false);
    }
}

impl Scheduler {
    /// Handles what an agent keeps from now on.
    pub(super) fn keeps(&mut self, agent: &AgentId, snapshots: &Snapshots) {
        let after = families(snapshots);
        let changed = self.fleet.keeps(agent, after);
        self.expect_anew(changed);
    }

    /// Puts the waiting cells of these families where their new expected duration belongs.
    pub(super) fn expect_anew(&mut self, families: Vec<String>) {
        for family in families {
            let is_kept = self.fleet.known.is_kept(&family);
            let waiting = self.waiting_for.get(&family).cloned();
            for token in waiting.into_iter().flatten() {
                let Some(queue) = self.runs.get_mut(&token.run) else {
                    continue;
                };
                queue.expect_anew(&token.cell, is_kept);
            }
        }
    }

    /// Notes that a cell waits, and for which family.
    pub(super) fn waits_for_family(&mut self, token: &Token) {
        let family = self.entry(token).and_then(|entry| {
            let waits = matches!(entry.at, At::Waiting(_));
            entry.request.wish.as_ref().filter(|_| waits)
        });
        if let Some(family) = family.map(|wish| wish.family.clone()) {
            let waiting = self.waiting_for.entry(family).or_default();
            waiting.insert(token.clone());
        }
    }

    /// Notes that a cell with this wish doesn't wait any more.
    pub(super) fn waits_no_more(&mut self, token: &Token, wish: Option<&Wish>) {
        let Some(wish) = wish else { return };
        if let Some(waiting) = self.waiting_for.get_mut(&wish.family) {
            waiting.remove(token);
            if waiting.is_empty() {
                self.waiting_for.remove(&wish.family);
            }
        }
    }
}
