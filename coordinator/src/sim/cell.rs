//! A cell on an agent: the real sequence, verdict and masks, with actions of random durations and results, and a stack
//! of two objects in the machine's engine.

use super::Switch;
use super::world::{Happening, Res, World};
use phalanx_agent::cell::core::{Ending, judge};
use phalanx_agent::context::frame::{Value, View};
use phalanx_agent::context::masks::Masks;
use phalanx_agent::context::services::Down;
use phalanx_agent::runtime::docker::Kind;
use phalanx_agent::sequence::core::Sequence;
use phalanx_agent::sequence::effect::{Effect, Input, Judgement, Limits, NodeId, Now, Timer};
use phalanx_agent::sequence::skip::{Describe, expand};
use phalanx_agent::sink::{Mask, Stamped};
use phalanx_agent::step::contract::{Asked, End, Item, Items, Opening};
use phalanx_proto::link::Offer;
use phalanx_shared::cancel::CancelOrder;
use phalanx_shared::event::{EventKind, Failure};
use phalanx_shared::id::Token;
use phalanx_shared::language::model::{Spec, Step};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::plan::Keep;
use phalanx_shared::time::Timestamp;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Timeout of a cell, as in the simulated specs.
pub const CELL_TIMEOUT: Duration = Duration::from_secs(60);

/// Something that happens in a cell.
#[derive(Clone, Copy, Debug)]
pub enum InCell {
    /// The engine creates an object, or fails to.
    Made(Kind),
    /// An action ended.
    Acted(NodeId),
    /// A timer fired, if it is still the one armed.
    Fired(Timer, u64),
    /// Clean-up is over.
    Closed,
    /// The spool may have room for the cell's waiting events.
    Speak,
}

/// A simulated cell. See the module documentation.
pub struct Cell {
    sequence: Sequence,
    spec: Arc<Spec>,
    masks: Arc<Masks>,
    secret: Option<String>,
    began: Duration,
    armed: HashMap<Timer, u64>,
    timers: u64,
    cancel: Option<CancelOrder>,
    /// Events that wait for room in the spool.
    outbox: VecDeque<EventKind>,
    speaks: bool,
    /// The cell does nothing and sends nothing until the attempt is cancelled by force.
    hangs: bool,
    closing: bool,
    /// Nothing of the cell is left in this process.
    pub gone: bool,
}

/// Uses names as written.
struct AsWritten;

impl Describe for AsWritten {
    fn name(&self, step: &Step, _: &View) -> String {
        step.name
            .as_ref()
            .map_or_else(String::new, |name| name.text.clone())
    }

    fn rows(&self, _: &Item, _: &View) -> Vec<String> {
        Vec::new()
    }

    fn params(&self, _: &Step, _: &View) -> BTreeMap<String, Value> {
        BTreeMap::new()
    }
}

fn opening(item: &Item) -> Opening {
    match item {
        Item::Phase(phase) => Opening {
            name: phase.name.text.clone(),
            ..Opening::default()
        },
        Item::Step(step) => Opening {
            name: AsWritten.name(step, &View::default()),
            retries: u32::from(step.retry.is_some()),
            delay: Duration::from_millis(500),
            ..Opening::default()
        },
    }
}

impl World {
    /// Begins the attempt of an accepted offer.
    pub fn begin_cell(&mut self, agent: usize, offer: &Offer) -> Res {
        let token = offer.token.clone();
        let Some(kept) = self.disk.runs.get(&token.run) else {
            return Ok(());
        };
        let spec = kept.made.spec.clone();
        let secret = offer.secrets.values().next().cloned();
        // The same secrets give the same masks, and building them takes longer than the whole attempt.
        let masks = self.masks.entry(token.run.clone()).or_insert_with(|| {
            let off = self.switch == Switch::MaskOff;
            let values = offer.secrets.iter().filter(|_| !off);
            Arc::new(Masks::new(values).unwrap_or_default())
        });
        let masks = masks.clone();
        let limits = Limits {
            cell: CELL_TIMEOUT,
            grace: Duration::from_secs(5),
        };
        let cell = Cell {
            sequence: Sequence::new(spec.clone(), limits),
            spec,
            masks,
            secret,
            began: self.now,
            armed: HashMap::new(),
            timers: 0,
            cancel: None,
            outbox: VecDeque::new(),
            speaks: false,
            hangs: !self.calm && self.random.chance(4),
            closing: false,
            gone: false,
        };
        if cell.hangs {
            self.tally.count("cell hung");
        }
        let hangs = cell.hangs;
        let machine = &mut self.machines[agent];
        let id = machine.about.agent.clone();
        machine.cells.insert(token.clone(), cell);
        if hangs {
            return Ok(());
        }
        self.say(agent, &token, EventKind::AttemptStarted { agent: id })?;
        let pause = self.random.millis(1, 100);
        self.in_cell(agent, &token, pause, InCell::Made(Kind::Network));
        self.tell_sequence(agent, &token, Input::Start)
    }

    fn in_cell(&mut self, agent: usize, token: &Token, pause: Duration, what: InCell) {
        let (life, token) = (self.machines[agent].life, token.clone());
        self.later(
            pause,
            Happening::Cell {
                agent,
                life,
                token,
                what,
            },
        );
    }

    /// Handles something that happened in a cell.
    pub fn cell_goes_on(&mut self, agent: usize, life: u64, token: &Token, what: InCell) -> Res {
        let machine = &mut self.machines[agent];
        if machine.life != life || machine.link.is_none() {
            return Ok(());
        }
        let Some(cell) = machine.cells.get_mut(token) else {
            return Ok(());
        };
        if cell.hangs || cell.closing && !matches!(what, InCell::Speak | InCell::Closed) {
            // What was still going on was stopped with the verdict.
            return Ok(());
        }
        match what {
            InCell::Speak => {
                cell.speaks = false;
                self.speak(agent, token)
            }
            InCell::Fired(timer, number) => {
                if cell.armed.get(&timer) != Some(&number) {
                    return Ok(());
                }
                cell.armed.remove(&timer);
                self.tell_sequence(agent, token, Input::Fired(timer))
            }
            InCell::Acted(node) => {
                let end = self.end_of_action(agent, token)?;
                let end = Box::new(end);
                self.tell_sequence(agent, token, Input::Ended { node, end })
            }
            InCell::Made(kind) => self.made(agent, token, kind),
            InCell::Closed => self.closed(agent, token),
        }
    }

    fn made(&mut self, agent: usize, token: &Token, kind: Kind) -> Res {
        let now = self.now;
        let machine = &mut self.machines[agent];
        let closing = machine.cells.get(token).is_none_or(|cell| cell.closing);
        if closing {
            return Ok(());
        }
        let engine = &mut self.engines[machine.engine];
        if engine.is_away(now) {
            self.tally.count("engine refused to make something");
            return self.service_down(agent, token, "the engine doesn't answer");
        }
        engine.make(kind, &machine.about.agent, token);
        if kind == Kind::Network {
            let pause = self.random.millis(1, 300);
            self.in_cell(agent, token, pause, InCell::Made(Kind::Container));
        }
        Ok(())
    }

    /// Reports a failed service. The sequence decides what that means.
    pub fn service_down(&mut self, agent: usize, token: &Token, reason: &str) -> Res {
        let down = Down {
            service: "db".to_owned(),
            root: "db".to_owned(),
            outcome: Outcome::Errored,
            reason: reason.to_owned(),
            failure: Failure::default(),
        };
        self.tell_sequence(agent, token, Input::ServiceDown(Box::new(down)))
    }

    /// Handles an order to cancel an attempt.
    pub fn end_cell(&mut self, agent: usize, token: &Token, order: CancelOrder) -> Res {
        let Some(cell) = self.machines[agent].cells.get_mut(token) else {
            return Ok(());
        };
        if cell.hangs && !order.force {
            return Ok(());
        }
        if std::mem::take(&mut cell.hangs) {
            self.tell_sequence(agent, token, Input::Start)?;
        }
        let Some(cell) = self.machines[agent].cells.get_mut(token) else {
            return Ok(());
        };
        cell.cancel = Some(order.clone());
        self.tell_sequence(agent, token, Input::Cancelled(order))
    }

    fn tell_sequence(&mut self, agent: usize, token: &Token, input: Input) -> Res {
        let mut inputs = VecDeque::from([input]);
        let (now, wall) = (self.now, self.wall(agent));
        while let Some(input) = inputs.pop_front() {
            let Some(cell) = self.machines[agent].cells.get_mut(token) else {
                return Ok(());
            };
            if cell.closing {
                return Ok(());
            }
            let at = Now {
                wall,
                mono: now.saturating_sub(cell.began),
            };
            for effect in cell.sequence.handle(input, at) {
                inputs.extend(self.perform(agent, token, effect, wall)?);
            }
        }
        Ok(())
    }

    fn perform(
        &mut self,
        agent: usize,
        token: &Token,
        effect: Effect,
        wall: Timestamp,
    ) -> Result<Option<Input>, phalanx_shared::invariant::Violation> {
        let Some(cell) = self.machines[agent].cells.get_mut(token) else {
            return Ok(None);
        };
        match effect {
            Effect::Emit(kind) => self.say(agent, token, kind)?,
            Effect::Ended { result, .. } => {
                self.say(agent, token, EventKind::StepFinished(result))?;
            }
            Effect::Skip(skipped) => {
                for result in expand(&skipped, &cell.spec.clone(), &AsWritten, wall) {
                    let kind = EventKind::StepFinished(Box::new(result));
                    self.say(agent, token, kind)?;
                }
            }
            Effect::Ask { node, .. } => {
                let result = Ok(Asked::Run);
                return Ok(Some(Input::Asked { node, result }));
            }
            Effect::List { node, .. } => {
                let result = Ok(Items::default());
                return Ok(Some(Input::Listed { node, result }));
            }
            Effect::Open { node, item, .. } => {
                let result = Ok(opening(&item));
                return Ok(Some(Input::Opened { node, result }));
            }
            Effect::Conclude { node, .. } => {
                let end = Box::new(End::bare(Outcome::Passed, None));
                return Ok(Some(Input::Ended { node, end }));
            }
            Effect::Act { node, .. } => {
                let slow = self.random.chance(60);
                let pause = self.random.millis(1, if slow { 9_000 } else { 1_200 });
                self.in_cell(agent, token, pause, InCell::Acted(node));
                return Ok(Some(Input::Acting));
            }
            // No simulated spec has a snapshot.
            Effect::Recall { .. } | Effect::Remember { .. } | Effect::Forget { .. } => {}
            // The sequence itself ignores a late answer.
            Effect::Stop { .. } => {}
            Effect::Arm { timer, after } => {
                cell.timers += 1;
                let number = cell.timers;
                cell.armed.insert(timer, number);
                self.in_cell(agent, token, after, InCell::Fired(timer, number));
            }
            Effect::Disarm(timer) => {
                cell.armed.remove(&timer);
            }
            Effect::Finish(judgement) => {
                let ending = Ending::Judged(judgement);
                let verdict = judge(ending, Keep::Never, cell.cancel.as_ref());
                cell.closing = true;
                let Judgement {
                    outcome,
                    reason,
                    timed_out,
                    culprit,
                } = verdict.judgement;
                self.say(
                    agent,
                    token,
                    EventKind::AttemptFinished {
                        outcome,
                        reason,
                        timed_out,
                        culprit,
                    },
                )?;
                let pause = self.random.millis(1, 800);
                self.in_cell(agent, token, pause, InCell::Closed);
            }
        }
        Ok(None)
    }

    /// Ends an action with a random result, sometimes with the secret in its output.
    fn end_of_action(
        &mut self,
        agent: usize,
        token: &Token,
    ) -> Result<End, phalanx_shared::invariant::Violation> {
        let cell = self.machines[agent].cells.get(token);
        let secret = cell
            .and_then(|cell| cell.secret.clone())
            .unwrap_or_default();
        if self.random.chance(60) {
            self.tally.count("secret said");
            let message = format!("signed in with {secret}, {}", "x".repeat(100));
            self.say(agent, token, EventKind::Note { message })?;
        }
        let outcome = match self.random.below(200) {
            0..=5 => Outcome::Failed,
            6..=7 => Outcome::Errored,
            _ => return Ok(End::bare(Outcome::Passed, None)),
        };
        let failure = Failure {
            response: Some(format!("401 for {secret}")),
            ..Failure::default()
        };
        Ok(End {
            failure: Some(failure),
            ..End::bare(outcome, Some(format!("refused {secret}")))
        })
    }

    fn closed(&mut self, agent: usize, token: &Token) -> Res {
        let (now, wall) = (self.now, self.wall(agent));
        let machine = &self.machines[agent];
        let engine = &mut self.engines[machine.engine];
        let refused = if engine.is_away(now) {
            usize::MAX
        } else {
            usize::from(self.random.chance(20))
        };
        let (removed, left) = engine.close(token, refused);
        if !left.is_empty() {
            self.tally.count("clean-up left something");
        }
        let torn_down = EventKind::TornDown {
            removed,
            left,
            kept: Vec::new(),
            began: wall,
        };
        self.say(agent, token, torn_down)
    }

    /// Queues an event of a cell and sends what the spool has room for.
    fn say(&mut self, agent: usize, token: &Token, kind: EventKind) -> Res {
        if let Some(cell) = self.machines[agent].cells.get_mut(token) {
            cell.outbox.push_back(kind);
        }
        self.speak(agent, token)
    }

    fn speak(&mut self, agent: usize, token: &Token) -> Res {
        loop {
            let (now, at, life) = (self.now, self.wall(agent), self.machines[agent].life);
            let machine = &mut self.machines[agent];
            let (Some(cell), Some(link)) = (machine.cells.get_mut(token), &machine.link) else {
                return Ok(());
            };
            if cell.outbox.is_empty() {
                return Ok(());
            }
            if !link.has_room() {
                if !cell.speaks {
                    cell.speaks = true;
                    self.tally.count("producer waited for the spool");
                    self.in_cell(agent, token, Duration::from_millis(100), InCell::Speak);
                }
                return Ok(());
            }
            let Some(kind) = cell.outbox.pop_front() else {
                return Ok(());
            };
            let finished = matches!(kind, EventKind::AttemptFinished { .. });
            let torn_down = matches!(kind, EventKind::TornDown { .. });
            cell.gone |= torn_down;
            let stamped = Stamped {
                token: token.clone(),
                at,
                mono_us: u64::try_from(now.saturating_sub(cell.began).as_micros()).unwrap_or(0),
                kind: cell.masks.event(kind),
            };
            self.with_link(agent, |link| link.emitted(now, stamped))?;
            if finished {
                let pause = self.random.millis(0, 600);
                let token = token.clone();
                self.later(pause, Happening::LogsOver { agent, life, token });
            }
            if torn_down {
                self.with_link(agent, |link| link.cell_gone(now, at, token))?;
            }
        }
    }
}
