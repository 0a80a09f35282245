//! Which images each agent should prepare before a cell needs them.
//!
//! An agent prepares what the cells on it lack, which may not have reached the service in question, and what waiting cells
//! will need. For those, as many agents are chosen as there are waiting cells: those with the shortest lists first, then the
//! least loaded. An agent gets its whole list whenever it changes, so what is no longer wanted ends. Nothing here decides
//! where a cell runs (I6); an agent that holds a cell's images is only cheaper.

use super::core::{Effect, Scheduler};
use super::fleet::{Agent, Fleet};
use super::queue::Class;
use super::request::{ClassId, ClassKey, ShapeId};
use phalanx_proto::limit::AHEAD;
use phalanx_proto::link::{Ahead, AheadState};
use phalanx_shared::id::AgentId;
use phalanx_shared::plan::WantedImage;
use std::collections::BTreeMap;

/// Maximum number of images that an agent prepares for waiting cells. It does a few at a time; a cell that is further back
/// would find another agent, or its turn comes when these are ready.
const LISTED: usize = 8;

impl Agent {
    /// Returns whether it may prepare images for waiting cells of a class.
    fn may_prepare(&self, key: &ClassKey, shapes: &[ShapeId]) -> bool {
        self.takes()
            && self.info.ahead != Some(0)
            && self.is_of(shapes)
            && key.resources().fits(&self.info.resources)
    }
}

impl Fleet {
    /// Chooses agents for the waiting cells of a class, in addition to those that were chosen before or hold its images.
    /// Returns whether there are too few because of the length of their lists.
    fn choose(&mut self, id: ClassId, class: &mut Class) -> bool {
        let Class {
            key,
            shapes,
            waiting,
            next,
            ..
        } = class;
        let (mut lacking, mut settled, mut full) = (Vec::new(), 0, false);
        for agent in self.agents().filter(|a| a.may_prepare(key, shapes)) {
            let lacks = agent.prepared.lacks(key).count();
            let listed = agent.prepared.listed();
            if lacks == 0 || next.contains(&agent.info.id) {
                settled += 1;
            } else if listed > 0 && listed + lacks > LISTED {
                full = true;
            } else {
                lacking.push((listed, agent.load(), agent.info.id.clone(), lacks));
            }
        }
        let more = usize::try_from(*waiting).unwrap_or(usize::MAX);
        let more = more.saturating_sub(settled);
        lacking.sort();
        let starved = full && lacking.len() < more;
        for (_, _, agent, lacks) in lacking.into_iter().take(more) {
            self.prepared(&agent, |prepared| {
                prepared.next.insert(id, lacks);
            });
            next.insert(agent);
        }
        starved
    }
}

impl Scheduler {
    /// Ends what agents prepare for the waiting cells of a class, because there are none any more.
    pub(super) fn nobody_waits(&mut self, id: ClassId) {
        let Some(class) = self.classes.get_mut(id).filter(|c| c.waiting == 0) else {
            return;
        };
        class.prefetch_due = false;
        class.starved = false;
        for agent in std::mem::take(&mut class.next) {
            self.fleet.prepared(&agent, |prepared| {
                prepared.next.remove(&id);
            });
            self.changed_lists.insert(agent);
        }
    }

    /// Frees an agent from the waiting cells, because it goes, or says anew what it has. Others are chosen for them.
    pub(super) fn prepares_for_nobody(&mut self, agent: &AgentId) {
        let mut chosen = BTreeMap::new();
        self.fleet.prepared(agent, |prepared| {
            chosen = std::mem::take(&mut prepared.next);
        });
        for id in chosen.into_keys() {
            if let Some(class) = self.classes.get_mut(id) {
                class.next.remove(agent);
                class.prefetch_due = class.waiting > 0;
            }
        }
        self.changed_lists.insert(agent.clone());
    }

    /// Notes how far the images of an agent's list are.
    pub(super) fn prepared(&mut self, agent: &AgentId, images: Vec<Ahead>) {
        let Some(shape) = self.fleet.shape_of(agent) else {
            return;
        };
        let (mut held, mut room, mut unasked) = (Vec::new(), false, false);
        self.fleet.prepared(agent, |prepared| {
            prepared.states.clear();
            for Ahead { id, state } in images {
                // An agent may name only what it was asked for, so it can't fill these sets.
                let mut told = prepared.told.iter().flatten();
                if !told.any(|image| image.id() == id) {
                    unasked = true;
                    continue;
                }
                match &state {
                    AheadState::Ready => {
                        room |= prepared.ready.insert(id.clone());
                        held.push(id.clone());
                    }
                    AheadState::Failed => room |= prepared.failed.insert(id.clone()),
                    AheadState::Waiting | AheadState::Doing(_) => {}
                }
                prepared.states.insert(id, state);
            }
            if unasked {
                prepared.told = None;
            }
        });
        self.fleet.holds(agent, held);
        if unasked {
            // Its list is an older one. If the newest one was lost, only this reveals it.
            self.changed_lists.insert(agent.clone());
        }
        if !room {
            return;
        }
        self.changed_lists.insert(agent.clone());
        for (id, class) in self.classes.iter_mut_with_ids() {
            if class.starved && self.fleet.shape_meets(shape, &class.key) {
                class.prefetch_due = true;
            }
            if class.next.contains(agent) {
                // What became ready or failed makes room in its list.
                let key = &class.key;
                self.fleet.prepared(agent, |prepared| {
                    let lacks = prepared.lacks(key).count();
                    prepared.next.insert(id, lacks);
                });
            }
        }
    }

    /// Chooses agents for the waiting cells, and tells each agent whose list has changed.
    pub(super) fn prefetch(&mut self, effects: &mut Vec<Effect>) {
        for (id, class) in self.classes.iter_mut_with_ids() {
            if std::mem::take(&mut class.prefetch_due) {
                class.starved = self.fleet.choose(id, class);
                self.changed_lists.extend(class.next.iter().cloned());
            }
        }
        for id in std::mem::take(&mut self.changed_lists) {
            let Some(agent) = self.fleet.get(&id).filter(|agent| agent.connected) else {
                continue;
            };
            let Some(told) = self.list_of(agent) else {
                continue;
            };
            if agent.prepared.told.as_ref() == Some(&told) {
                continue;
            }
            let ids: Vec<String> = told.iter().map(|image| image.id().to_owned()).collect();
            let says_nothing = agent.info.ahead.is_none();
            self.fleet.prepared(&id, |prepared| {
                if says_nothing {
                    prepared.ready.extend(ids.iter().cloned());
                }
                prepared.told = Some(told.clone());
            });
            self.fleet.holds(&id, ids);
            effects.push(Effect::Prefetch {
                agent: id,
                images: told,
            });
        }
    }

    /// Returns the images that an agent should prepare, those of the cells on it first. `None` if it prepares nothing.
    fn list_of(&self, agent: &Agent) -> Option<Vec<WantedImage>> {
        if agent.info.ahead == Some(0) {
            return None;
        }
        let prepared = &agent.prepared;
        let by_name_only = agent.info.ahead.is_none();
        let classes = prepared.placed.keys().chain(prepared.next.keys());
        let mut list: Vec<WantedImage> = Vec::new();
        for class in classes.filter_map(|id| self.classes.get(*id)) {
            for image in prepared.lacks(&class.key) {
                if list.len() == AHEAD {
                    return Some(list);
                }
                if !list.contains(image) && (!by_name_only || image.name().is_some()) {
                    list.push(image.clone());
                }
            }
        }
        // What earlier versions were told isn't taken back.
        (!by_name_only || !list.is_empty()).then_some(list)
    }

    /// Returns what agents do ahead for the waiting cells of a class, for display.
    pub(super) fn prepares_for(&self, class: &Class) -> Vec<Preparing> {
        let mut shown = Vec::new();
        for agent in class.next.iter().filter_map(|id| self.fleet.get(id)) {
            for image in &class.key.images {
                if let Some(state) = agent.prepared.states.get(image.id()) {
                    let image = Ahead {
                        id: image.what().to_owned(),
                        state: state.clone(),
                    };
                    let agent = agent.info.name.clone();
                    shown.push(Preparing { agent, image });
                }
            }
        }
        shown
    }

    /// Returns whether agents prepare only what cells on them or waiting cells need, and are asked for no more than they may
    /// be.
    pub(super) fn lists_are_wanted(&self) -> bool {
        let of_agents = self.fleet.agents().all(|agent| {
            let chosen = agent.prepared.next.keys();
            let waited_for = |id: &ClassId| {
                let class = self.classes.get(*id);
                class.is_some_and(|c| c.waiting > 0 && c.next.contains(&agent.info.id))
            };
            chosen.clone().all(waited_for)
                && (agent.prepared.next.len() <= 1 || agent.prepared.listed() <= LISTED)
                && agent
                    .prepared
                    .told
                    .as_ref()
                    .is_none_or(|told| told.len() <= AHEAD)
        });
        let of_classes = self.classes.iter().all(|(id, class)| {
            let chosen = class.next.iter();
            let knows = |agent: &AgentId| {
                let agent = self.fleet.get(agent);
                agent.is_some_and(|agent| agent.prepared.next.contains_key(&id))
            };
            chosen.clone().all(knows)
        });
        of_agents && of_classes
    }
}

/// What an agent does ahead for waiting cells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preparing {
    /// Display name of the agent.
    pub agent: String,
    /// What it does (`pull postgres:17`), in the place of an id, and how far it is.
    pub image: Ahead,
}
