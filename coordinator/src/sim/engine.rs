//! A container engine: objects with the real labels, and an engine that is unavailable or refuses requests. I3 is about
//! the objects left in it.

use super::checks::broken;
use super::world::{Res, World};
use phalanx_agent::runtime::docker::{Found, Kind, doomed, of_attempt};
use phalanx_shared::id::{AgentId, Token};
use phalanx_shared::invariant::{self, Leftover};
use std::time::Duration;

/// Interval at which an agent reaps, besides once at its start.
pub const REAP_EVERY: Duration = Duration::from_secs(20);
/// Time within which an unclaimed object must be gone if an agent and an engine are there to remove it.
const GONE_WITHIN: Duration = Duration::from_secs(25);

#[derive(Debug)]
struct Object {
    found: Found,
    /// Since when no attempt claims it, counted while agent and engine are there.
    unclaimed: Option<Duration>,
}

/// A simulated engine. See the module documentation.
#[derive(Debug, Default)]
pub struct Engine {
    objects: Vec<Object>,
    /// Until when it doesn't answer.
    pub away_until: Duration,
    made: u64,
}

impl Engine {
    pub fn is_away(&self, now: Duration) -> bool {
        now < self.away_until
    }

    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Creates a network or a container of an attempt.
    pub fn make(&mut self, kind: Kind, agent: &AgentId, token: &Token) {
        self.made += 1;
        let id = format!("{kind:?}-{}", self.made);
        let found = Found {
            kind,
            name: id.clone(),
            id,
            labels: of_attempt(agent, token),
        };
        self.objects.push(Object {
            found,
            unclaimed: None,
        });
    }

    /// Returns the objects with an agent's label.
    fn list(&self, agent: &AgentId) -> Vec<Found> {
        let mine = self.objects.iter().map(|object| &object.found);
        let mine = mine.filter(|found| found.agent() == Some(agent.as_str()));
        mine.cloned().collect()
    }

    fn remove(&mut self, id: &str) {
        self.objects.retain(|object| object.found.id != id);
    }

    /// Removes an attempt's objects, except `refused` of them. Returns how many were removed and the ids of those left.
    pub fn close(&mut self, token: &Token, refused: usize) -> (u32, Vec<String>) {
        let objects = self.objects.iter().map(|object| &object.found);
        let mine = objects.filter(|found| found.token().as_ref() == Some(token));
        let ids: Vec<String> = mine.map(|found| found.id.clone()).collect();
        let (left, gone) = ids.split_at(refused.min(ids.len()));
        gone.iter().for_each(|id| self.remove(id));
        let removed = u32::try_from(gone.len()).unwrap_or(u32::MAX);
        (removed, left.to_vec())
    }
}

impl World {
    /// Lets the agent's reaper remove what no live attempt claims. The decision is the real one.
    pub fn reap(&mut self, agent: usize) -> Res {
        let (now, wall) = (self.now, self.wall(agent));
        let machine = &self.machines[agent];
        let engine = &mut self.engines[machine.engine];
        let Some(link) = &machine.link else {
            return Ok(());
        };
        if engine.is_away(now) {
            self.tally.count("reaper found no engine");
            return Ok(());
        }
        let live: Vec<&Token> = link.live().collect();
        let open = |token: &Token| live.contains(&token);
        let now_s = u64::try_from(wall.0 / 1_000_000).unwrap_or(0);
        let found = engine.list(&machine.about.agent);
        for object in doomed(found, now_s, &open, &|_| false) {
            let token = object.token();
            let cell = token.as_ref().and_then(|token| machine.cells.get(token));
            if cell.is_some_and(|cell| !cell.gone) {
                let what = format!("the reaper took {object} of a live attempt");
                return Err(broken("I3", what));
            }
            engine.remove(&object.id);
            self.tally.count("leftover reaped");
        }
        Ok(())
    }

    /// **I3** Nothing outlives its attempt's clean-up deadline, as long as an agent is there to remove it.
    pub fn nothing_outlives(&mut self) -> Res {
        let now = self.now;
        for (number, engine) in self.engines.iter_mut().enumerate() {
            let away = engine.is_away(now);
            for object in &mut engine.objects {
                let owner = self.machines.iter().find(|machine| {
                    machine.engine == number
                        && object.found.agent() == Some(machine.about.agent.as_str())
                });
                let Some(owner) = owner else { continue };
                let there = owner.link.is_some() && !owner.is_frozen(now) && !away;
                let token = object.found.token();
                let cell = token.as_ref().and_then(|token| owner.cells.get(token));
                if !there || cell.is_some_and(|cell| !cell.gone) {
                    object.unclaimed = None;
                } else if object.unclaimed.is_none() {
                    object.unclaimed = Some(now);
                }
            }
            let leftovers = engine.objects.iter().filter_map(|object| {
                Some(Leftover {
                    what: &object.found.name,
                    unclaimed_for: now.saturating_sub(object.unclaimed?),
                })
            });
            invariant::nothing_outlives(leftovers, GONE_WITHIN)?;
        }
        Ok(())
    }
}
