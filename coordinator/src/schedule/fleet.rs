//! Agents: what each offers, what is reserved on it, and who comes first for a class.

use super::queue::ClassKey;
use crate::dispatch::contract::AgentInfo;
use phalanx_shared::id::{AgentId, Token};
use phalanx_shared::plan::Resources;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

pub(super) type ShapeId = usize;

/// Load and costs: millionths of an agent's slots.
type Millionths = u64;

/// What not holding a cell's images costs in the choice of an agent: as much as half of its slots being taken.
const MISSING_IMAGES: Millionths = 500_000;
/// The first pause after a decline; doubled by each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// An agent that declined, and until when it isn't asked.
#[derive(Clone, Debug)]
pub(super) struct Pause {
    pub until: Duration,
    pub reason: String,
    /// It is over; kept for the length of the next one.
    over: bool,
    length: Duration,
}

/// An agent and what is reserved on it.
#[derive(Clone, Debug)]
pub(super) struct Agent {
    pub info: AgentInfo,
    pub connected: bool,
    pub draining: bool,
    pub pause: Option<Pause>,
    /// Attempts that reserve on it.
    pub held: BTreeSet<Token>,
    pub reserved: Resources,
    shape: ShapeId,
    /// Images that it holds or was told to pull.
    images: BTreeSet<String>,
}

impl Agent {
    pub fn takes(&self) -> bool {
        self.connected && !self.draining && self.pause.as_ref().is_none_or(|pause| pause.over)
    }

    pub fn running(&self) -> u32 {
        u32::try_from(self.held.len()).unwrap_or(u32::MAX)
    }

    pub fn free_slots(&self) -> u32 {
        self.info.slots.saturating_sub(self.running())
    }

    pub fn free(&self) -> Resources {
        self.info.resources.minus(&self.reserved)
    }

    fn load(&self) -> Millionths {
        u64::from(self.running()) * 1_000_000 / u64::from(self.info.slots.max(1))
    }

    fn fits(&self, class: &ClassKey) -> bool {
        self.takes() && self.free_slots() > 0 && class.resources().fits(&self.free())
    }

    fn cost(&self, class: &ClassKey) -> Millionths {
        let missing = !class.images.is_subset(&self.images);
        self.load() + if missing { MISSING_IMAGES } else { 0 }
    }
}

/// An agent, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentView {
    /// What it said of itself.
    pub info: AgentInfo,
    /// What its attempts reserve.
    pub reserved: Resources,
    /// The attempts it holds.
    pub attempts: Vec<Token>,
    /// Whether its connection is up.
    pub connected: bool,
    /// Whether it takes nothing further.
    pub draining: bool,
    /// Why it isn't asked at the moment.
    pub declined: Option<String>,
}

impl Agent {
    pub fn view(&self) -> AgentView {
        let pause = self.pause.as_ref().filter(|pause| !pause.over);
        AgentView {
            info: self.info.clone(),
            reserved: self.reserved,
            attempts: self.held.iter().cloned().collect(),
            connected: self.connected,
            draining: self.draining,
            declined: pause.map(|pause| pause.reason.clone()),
        }
    }
}

/// Agents with the same labels.
#[derive(Debug)]
struct Shape {
    labels: BTreeSet<String>,
    /// Those that take cells and have a free slot, least loaded first.
    open: BTreeSet<(Millionths, AgentId)>,
}

/// All agents known.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    agents: BTreeMap<AgentId, Agent>,
    shapes: Vec<Shape>,
    shape_ids: HashMap<BTreeSet<String>, ShapeId>,
}

/// What an agent's arrival changed.
pub(super) struct Arrived {
    pub shape: ShapeId,
    /// No agent had these labels before.
    pub new_shape: bool,
}

impl Fleet {
    pub fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.agents.values()
    }

    pub fn get(&self, agent: &AgentId) -> Option<&Agent> {
        self.agents.get(agent)
    }

    /// Shapes whose labels include all of a class.
    pub fn shapes_for(&self, class: &ClassKey) -> Vec<ShapeId> {
        let shapes = self.shapes.iter().enumerate();
        shapes
            .filter(|(_, shape)| class.labels.is_subset(&shape.labels))
            .map(|(id, _)| id)
            .collect()
    }

    pub fn shape_meets(&self, shape: ShapeId, class: &ClassKey) -> bool {
        let shape = self.shapes.get(shape);
        shape.is_some_and(|shape| class.labels.is_subset(&shape.labels))
    }

    pub fn shape_of(&self, agent: &AgentId) -> Option<ShapeId> {
        self.agents.get(agent).map(|agent| agent.shape)
    }

    /// An agent connected, or said anew what it is. Reservations on it stay.
    pub fn arrive(&mut self, info: AgentInfo) -> Arrived {
        let labels: BTreeSet<String> = info.labels.iter().cloned().collect();
        let known = self.shape_ids.get(&labels).copied();
        let shape = known.unwrap_or_else(|| {
            let shape = Shape {
                labels: labels.clone(),
                open: BTreeSet::new(),
            };
            self.shapes.push(shape);
            self.shape_ids.insert(labels, self.shapes.len() - 1);
            self.shapes.len() - 1
        });
        let id = info.id.clone();
        let before = self.close(&id);
        let agent = Agent {
            images: info.images.iter().cloned().collect(),
            connected: true,
            draining: false,
            pause: None,
            reserved: before.as_ref().map(|a| a.reserved).unwrap_or_default(),
            held: before.map(|a| a.held).unwrap_or_default(),
            shape,
            info,
        };
        self.open(id, agent);
        Arrived {
            shape,
            new_shape: known.is_none(),
        }
    }

    /// Changes an agent, with its place in the order of its shape kept true.
    pub fn change(&mut self, agent: &AgentId, change: impl FnOnce(&mut Agent)) {
        if let Some(mut changed) = self.close(agent) {
            change(&mut changed);
            self.open(agent.clone(), changed);
        }
    }

    /// An agent is gone. Returns the attempts that reserved on it.
    pub fn remove(&mut self, agent: &AgentId) -> BTreeSet<Token> {
        self.close(agent)
            .map(|agent| agent.held)
            .unwrap_or_default()
    }

    fn close(&mut self, id: &AgentId) -> Option<Agent> {
        let agent = self.agents.remove(id)?;
        if let Some(shape) = self.shapes.get_mut(agent.shape) {
            shape.open.remove(&(agent.load(), id.clone()));
        }
        Some(agent)
    }

    fn open(&mut self, id: AgentId, agent: Agent) {
        if agent.takes()
            && agent.free_slots() > 0
            && let Some(shape) = self.shapes.get_mut(agent.shape)
        {
            shape.open.insert((agent.load(), id.clone()));
        }
        self.agents.insert(id, agent);
    }

    /// The best agent for a class: least loaded, images preferred.
    pub fn best(&self, class: &ClassKey, shapes: &[ShapeId]) -> Option<AgentId> {
        let mut best: Option<(Millionths, &AgentId)> = None;
        for shape in shapes.iter().filter_map(|id| self.shapes.get(*id)) {
            for (load, id) in &shape.open {
                if best.is_some_and(|(cost, _)| cost <= *load) {
                    break;
                }
                let Some(agent) = self.agents.get(id).filter(|a| a.fits(class)) else {
                    continue;
                };
                let cost = agent.cost(class);
                if best.is_none_or(|known| (cost, id) < known) {
                    best = Some((cost, id));
                }
            }
        }
        best.map(|(_, id)| id.clone())
    }

    /// The best of a few agents for a class. One of them may have gone and come again with other labels.
    pub fn best_of(
        &self,
        class: &ClassKey,
        shapes: &[ShapeId],
        agents: &BTreeSet<AgentId>,
    ) -> Option<AgentId> {
        let agents = agents.iter().filter_map(|id| self.agents.get(id));
        let fitting = agents.filter(|a| shapes.contains(&a.shape) && a.fits(class));
        let best = fitting.min_by_key(|agent| (agent.cost(class), agent.info.id.clone()));
        best.map(|agent| agent.info.id.clone())
    }

    pub fn reserve(
        &mut self,
        agent: &AgentId,
        token: &Token,
        resources: &Resources,
        images: &BTreeSet<String>,
    ) {
        self.change(agent, |agent| {
            agent.held.insert(token.clone());
            agent.reserved = agent.reserved.plus(resources);
            // It will hold them soon, and the next cell with the same images had better go there.
            agent.images.extend(images.iter().cloned());
        });
    }

    pub fn release(&mut self, agent: &AgentId, token: &Token, resources: &Resources) {
        self.change(agent, |agent| {
            agent.held.remove(token);
            agent.reserved = agent.reserved.minus(resources);
        });
    }

    /// An agent declined: it isn't asked for a while, longer each time. Returns until when.
    pub fn pause(&mut self, agent: &AgentId, reason: String, now: Duration) -> Option<Duration> {
        let mut until = None;
        self.change(agent, |agent| {
            let length = agent.pause.as_ref().map_or(FIRST_PAUSE, |pause| {
                pause.length.saturating_mul(2).min(LONGEST_PAUSE)
            });
            let pause = Pause {
                until: now + length,
                reason,
                over: false,
                length,
            };
            until = Some(pause.until);
            agent.pause = Some(pause);
        });
        until
    }

    /// Ends pauses whose time has come. Returns who may be asked again, and when the next pause ends.
    pub fn end_pauses(&mut self, now: Duration) -> (Vec<AgentId>, Option<Duration>) {
        let mut ended = Vec::new();
        let mut next: Option<Duration> = None;
        for (id, agent) in &self.agents {
            match &agent.pause {
                Some(pause) if !pause.over && pause.until <= now => ended.push(id.clone()),
                Some(pause) if !pause.over => {
                    next = Some(next.map_or(pause.until, |n| n.min(pause.until)));
                }
                _ => {}
            }
        }
        for id in &ended {
            self.change(id, |agent| {
                if let Some(pause) = &mut agent.pause {
                    pause.over = true;
                }
            });
        }
        (ended, next)
    }

    /// Agents of a class that lack its images, marked as told to pull them; at most `limit`, least loaded first.
    pub fn prefetch(
        &mut self,
        class: &ClassKey,
        shapes: &[ShapeId],
        limit: usize,
    ) -> Vec<(AgentId, Vec<String>)> {
        let mut lacking: Vec<(Millionths, AgentId)> = self
            .agents
            .values()
            .filter(|a| a.takes() && shapes.contains(&a.shape))
            .filter(|a| class.resources().fits(&a.info.resources))
            .filter(|a| !class.images.is_subset(&a.images))
            .map(|a| (a.load(), a.info.id.clone()))
            .collect();
        lacking.sort();
        lacking.truncate(limit);
        let mut told = Vec::new();
        for (_, id) in lacking {
            if let Some(agent) = self.agents.get_mut(&id) {
                let missing: Vec<String> =
                    class.images.difference(&agent.images).cloned().collect();
                agent.images.extend(missing.iter().cloned());
                told.push((id, missing));
            }
        }
        told
    }
}
