//! Agents: what each offers, what is reserved on it, and which agent is best for a class.

use super::prepared::Prepared;
use super::request::{ClassId, ClassKey, ShapeId};
use super::snapshots::{Hope, Known, Shelf, families};
use crate::dispatch::contract::AgentInfo;
use phalanx_shared::id::{AgentId, Token};
use phalanx_shared::plan::{Resources, WantedImage};
use phalanx_shared::policy::Rules;
use phalanx_shared::wait::WaitCause;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// Load and costs, in millionths of an agent's slots.
type Millionths = u64;

/// Cost of an agent that lacks a cell's images: as much as half of its slots being taken.
const MISSING_IMAGES: Millionths = 500_000;
/// First pause after a decline; each further decline doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause after a decline.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A pause after a decline, in which the agent gets no offers.
#[derive(Clone, Debug)]
pub(super) struct Pause {
    pub until: Duration,
    pub reason: String,
    /// The pause has ended. It is kept because its length determines that of the next one.
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
    /// Attempts with a reservation on it.
    pub held: BTreeSet<Token>,
    pub reserved: Resources,
    shape: ShapeId,
    /// Images that it holds, was told to prepare, or gets for a cell.
    images: BTreeSet<String>,
    pub prepared: Prepared,
    /// The snapshots that it keeps and makes.
    pub shelf: Shelf,
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

    pub fn load(&self) -> Millionths {
        u64::from(self.running()) * 1_000_000 / u64::from(self.info.slots.max(1))
    }

    fn fits(&self, class: &ClassKey) -> bool {
        self.takes() && self.free_slots() > 0 && class.resources().fits(&self.free())
    }

    /// Returns which resource it has too little of for a class.
    fn lacks(&self, class: &ClassKey) -> Option<WaitCause> {
        let free = self.free();
        match class {
            _ if class.memory > free.memory_bytes => Some(WaitCause::Memory),
            _ if class.cpus > free.millicpus => Some(WaitCause::Cpu),
            _ if class.subnets > free.subnets => Some(WaitCause::Subnet),
            _ => None,
        }
    }

    /// Returns whether it is one of the agents of these shapes.
    pub fn is_of(&self, shapes: &[ShapeId]) -> bool {
        shapes.contains(&self.shape)
    }

    fn cost(&self, class: &ClassKey, hope: Option<Hope<'_>>) -> Millionths {
        let held = |image: &WantedImage| self.images.contains(image.id());
        let missing = !class.images.iter().all(held);
        let snapshot = hope.map_or(0, |hope| hope.cost(&self.shelf));
        self.load() + if missing { MISSING_IMAGES } else { 0 } + snapshot
    }
}

/// State of an agent, for display.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentView {
    /// The agent as it described itself.
    pub info: AgentInfo,
    /// Resources that its attempts reserve.
    pub reserved: Resources,
    /// The attempts that it holds.
    pub attempts: Vec<Token>,
    /// Whether its connection is up.
    pub connected: bool,
    /// Whether it takes no new attempts.
    pub draining: bool,
    /// Why it gets no offers at the moment, if it declined one.
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

/// What agents have in common: all agents of a shape may run the same cells.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Traits {
    labels: BTreeSet<String>,
    policy: Option<Rules>,
}

impl Traits {
    fn of(info: &AgentInfo) -> Traits {
        Traits {
            labels: info.labels.iter().cloned().collect(),
            policy: info.policy.clone(),
        }
    }

    fn meet(&self, class: &ClassKey) -> bool {
        let refused = self
            .policy
            .as_ref()
            .and_then(|rules| rules.refuses_one(&class.needs));
        class.labels.is_subset(&self.labels)
            && class.avoids.is_disjoint(&self.labels)
            && refused.is_none()
    }
}

/// Agents with the same labels and the same policy.
#[derive(Debug)]
struct Shape {
    traits: Traits,
    /// Agents that take cells and have a free slot, least loaded first.
    open: BTreeSet<(Millionths, AgentId)>,
}

/// All known agents.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    agents: BTreeMap<AgentId, Agent>,
    shapes: Vec<Shape>,
    shape_ids: HashMap<Traits, ShapeId>,
    /// The snapshots of all agents.
    pub known: Known,
}

/// What an agent's arrival changed.
pub(super) struct Arrived {
    pub shape: ShapeId,
    /// No agent had these labels and this policy before.
    pub new_shape: bool,
    /// Families of snapshots that some agent keeps now and none did before, or the other way round.
    pub families: Vec<String>,
}

impl Fleet {
    pub fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.agents.values()
    }

    pub fn get(&self, agent: &AgentId) -> Option<&Agent> {
        self.agents.get(agent)
    }

    /// Returns the shapes that have all labels of a class and allow what it needs.
    pub fn shapes_for(&self, class: &ClassKey) -> Vec<ShapeId> {
        let shapes = self.shapes.iter().enumerate();
        shapes
            .filter(|(_, shape)| shape.traits.meet(class))
            .map(|(id, _)| id)
            .collect()
    }

    pub fn shape_meets(&self, shape: ShapeId, class: &ClassKey) -> bool {
        let shape = self.shapes.get(shape);
        shape.is_some_and(|shape| shape.traits.meet(class))
    }

    pub fn shape_of(&self, agent: &AgentId) -> Option<ShapeId> {
        self.agents.get(agent).map(|agent| agent.shape)
    }

    /// Adds an agent that connected or described itself anew. Keeps the reservations on it.
    pub fn arrive(&mut self, info: AgentInfo) -> Arrived {
        let traits = Traits::of(&info);
        let known = self.shape_ids.get(&traits).copied();
        let shape = known.unwrap_or_else(|| {
            let shape = Shape {
                traits: traits.clone(),
                open: BTreeSet::new(),
            };
            self.shapes.push(shape);
            self.shape_ids.insert(traits, self.shapes.len() - 1);
            self.shapes.len() - 1
        });
        let id = info.id.clone();
        let before = self.close(&id);
        let mut shelf = before.as_ref().map(|a| a.shelf.clone()).unwrap_or_default();
        let kept = families(&info.snapshots);
        let families = self.known.keeps(&shelf.kept, &kept);
        shelf.kept = kept;
        let agent = Agent {
            shelf,
            images: info.images.iter().cloned().collect(),
            prepared: Prepared::greeted(&info.images, before.as_ref().map(|a| a.prepared.clone())),
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
            families,
        }
    }

    /// Replaces the families of the snapshots that an agent keeps. Returns those that some agent keeps now and none did
    /// before, or the other way round.
    pub fn keeps(&mut self, agent: &AgentId, families: BTreeSet<String>) -> Vec<String> {
        let Some(agent) = self.agents.get_mut(agent) else {
            return Vec::new();
        };
        let before = std::mem::replace(&mut agent.shelf.kept, families);
        self.known.keeps(&before, &agent.shelf.kept)
    }

    pub fn shelf_of(&mut self, agent: &AgentId) -> Option<&mut Shelf> {
        self.agents.get_mut(agent).map(|agent| &mut agent.shelf)
    }

    /// Changes an agent and keeps its place in the order of its shape up to date.
    pub fn change(&mut self, agent: &AgentId, change: impl FnOnce(&mut Agent)) {
        if let Some(mut changed) = self.close(agent) {
            change(&mut changed);
            self.open(agent.clone(), changed);
        }
    }

    /// Removes an agent. Returns the attempts with reservations on it.
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

    /// Returns the best agent for a cell of a class: the least loaded, with a preference for agents that hold its images and
    /// the snapshot that it hopes for.
    pub fn best(
        &self,
        class: &ClassKey,
        shapes: &[ShapeId],
        hope: Option<Hope<'_>>,
    ) -> Option<AgentId> {
        let hope = self.told_apart(hope);
        let mut best: Option<(Millionths, &AgentId)> = None;
        for shape in shapes.iter().filter_map(|id| self.shapes.get(*id)) {
            for (load, id) in &shape.open {
                if best.is_some_and(|(cost, _)| cost <= *load) {
                    break;
                }
                let Some(agent) = self.agents.get(id).filter(|a| a.fits(class)) else {
                    continue;
                };
                let cost = agent.cost(class, hope);
                if best.is_none_or(|known| (cost, id) < known) {
                    best = Some((cost, id));
                }
            }
        }
        best.map(|(_, id)| id.clone())
    }

    /// Returns the best of a few agents for a class. Checks shapes again, since an agent may have come back with other
    /// labels.
    pub fn best_of(
        &self,
        class: &ClassKey,
        shapes: &[ShapeId],
        agents: &BTreeSet<AgentId>,
        hope: Option<Hope<'_>>,
    ) -> Option<AgentId> {
        let hope = self.told_apart(hope);
        let agents = agents.iter().filter_map(|id| self.agents.get(id));
        let fitting = agents.filter(|a| shapes.contains(&a.shape) && a.fits(class));
        let best = fitting.min_by_key(|agent| (agent.cost(class, hope), agent.info.id.clone()));
        best.map(|agent| agent.info.id.clone())
    }

    /// Drops a hope that tells no agents apart, so that most searches end at the least loaded agent.
    fn told_apart<'w>(&self, hope: Option<Hope<'w>>) -> Option<Hope<'w>> {
        hope.filter(|hope| self.known.differs(&hope.wish.family))
    }

    /// Returns what the agents lack that were asked for a class last. `asked` is `None` if that were all of them.
    pub fn lacking(
        &self,
        class: &ClassKey,
        shapes: &[ShapeId],
        asked: Option<&BTreeSet<AgentId>>,
    ) -> WaitCause {
        let of_shape = shapes.iter().filter_map(|id| self.shapes.get(*id));
        let open = of_shape.flat_map(|shape| shape.open.iter().map(|(_, id)| id));
        let mut lacks = open
            .filter(|id| asked.is_none_or(|asked| asked.contains(*id)))
            .filter_map(|id| self.agents.get(id)?.lacks(class));
        let busy = |agent: &Agent| shapes.contains(&agent.shape) && agent.takes();
        lacks.next().unwrap_or_else(|| {
            let busy = match asked {
                Some(asked) => asked.iter().any(|id| self.agents.get(id).is_some_and(busy)),
                None => self.agents.values().any(busy),
            };
            if busy {
                WaitCause::Slot
            } else {
                WaitCause::Agent
            }
        })
    }

    pub fn reserve(
        &mut self,
        agent: &AgentId,
        token: &Token,
        resources: &Resources,
        images: &BTreeSet<WantedImage>,
        class: ClassId,
    ) {
        self.change(agent, |agent| {
            agent.held.insert(token.clone());
            agent.reserved = agent.reserved.plus(resources);
            // It will hold the images soon, so the next cell with the same images should go there.
            let ids = images.iter().map(|image| image.id().to_owned());
            agent.images.extend(ids);
            agent.prepared.placed(class);
        });
    }

    pub fn release(
        &mut self,
        agent: &AgentId,
        token: &Token,
        resources: &Resources,
        class: ClassId,
    ) {
        self.change(agent, |agent| {
            agent.held.remove(token);
            agent.reserved = agent.reserved.minus(resources);
            agent.prepared.released(class);
        });
    }

    /// Pauses an agent that declined, longer each time. Returns when the pause ends.
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

    /// Ends the pauses that are over. Returns their agents, and when the next pause ends.
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

    /// Changes what is known of the images that an agent prepares.
    pub fn prepared(&mut self, agent: &AgentId, change: impl FnOnce(&mut Prepared)) {
        if let Some(agent) = self.agents.get_mut(agent) {
            change(&mut agent.prepared);
        }
    }

    /// Notes images that an agent holds or will hold soon.
    pub fn holds(&mut self, agent: &AgentId, images: Vec<String>) {
        if let Some(agent) = self.agents.get_mut(agent) {
            agent.images.extend(images);
        }
    }
}
