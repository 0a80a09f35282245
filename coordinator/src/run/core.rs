//! The pure core of a run: it takes an input and returns events to journal and effects to perform.
//!
//! The caller of [`RunCore::handle`] must make a decision's events durable before it performs the decision's effects.
//! The state is the fold of the events and nothing else, so that a restart ([`RunCore::recovered`]) continues where the
//! journal ends.
//!
//! stage: assigned: `CellOffered` is journaled before the offer is sent

use super::verdict::{Verdict, verdict};
use crate::dispatch::contract::{GoesOn, InventoryItem};
use phalanx_shared::cancel::CancelOrder;
use phalanx_shared::event::{Event, EventKind, Recorded};
use phalanx_shared::id::{AgentId, CellId, RunId, Token};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::{CellStatus, RunState};
use phalanx_shared::time::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// Input of a run.
#[derive(Clone, Debug)]
pub enum Input {
    /// Starts the run, continues it after a restart, or tells it which secrets still have no value. While any is
    /// missing, no cell starts.
    Secrets { missing: Vec<String> },
    /// The scheduler found an agent for a waiting cell.
    Assigned {
        token: Token,
        agent: AgentId,
        agent_name: String,
    },
    /// The job for a cell could not be built.
    Unrunnable { token: Token, reason: String },
    /// The agent accepted an offer.
    Accepted { token: Token },
    /// An offer was declined, or failed.
    Declined { token: Token, reason: String },
    /// An attempt was revoked from its agent.
    Revoked { token: Token, reason: String },
    /// Events of an attempt, in sequence.
    Events { token: Token, events: Vec<Event> },
    /// An agent connected and reported the attempts of this run that it holds.
    Connected {
        agent: AgentId,
        inventory: Vec<InventoryItem>,
    },
    /// An agent is gone for good.
    AgentLost { agent: AgentId, reason: String },
    /// These cells have waited for their first start as long as they may; each comes with what it waited for.
    NeverStarted {
        cells: Vec<(CellId, String)>,
        limit: Duration,
    },
    /// A request to cancel the run.
    Cancel(CancelOrder),
}

/// Formats a time limit for display: `90s`, `0.5s`.
fn seconds(limit: Duration) -> String {
    format!("{}s", limit.as_secs_f64())
}

/// An effect to perform once the decision's events are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Queue these attempts with the scheduler.
    Queue(Vec<Token>),
    /// Withdraw these attempts from the scheduler.
    Withdraw(Vec<Token>),
    /// Offer an attempt to an agent.
    Offer { token: Token, agent: AgentId },
    /// Tell the scheduler that the agent accepted an offer.
    Accepted(Token),
    /// Tell the scheduler that an agent declined.
    Declined { token: Token, reason: String },
    /// Release the reservation of an attempt: nothing of it is left.
    Release(Token),
    /// Cancel an attempt.
    Cancel { token: Token, order: CancelOrder },
    /// Close the token of an attempt at the gate.
    Retire(Token),
    /// Let an agent continue these attempts of the run, and no others.
    Resume {
        agent: AgentId,
        attempts: Vec<GoesOn>,
    },
    /// Report that the run has its outcome.
    Finished(Outcome),
    /// Report that nothing more will happen in the run.
    Settled,
}

/// Events to journal, then effects to perform.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// Events to journal, in order, with their positions.
    pub events: Vec<Recorded>,
    /// Effects to perform afterwards, in order.
    pub effects: Vec<Effect>,
}

/// The state of a run and its attempts in flight.
#[derive(Clone, Debug)]
pub struct RunCore {
    pub(super) state: RunState,
    /// Position of the newest event.
    pub(super) position: u64,
    pub(super) epoch: u64,
    /// Attempts that agents hold.
    pub(super) held: BTreeMap<CellId, Token>,
    /// Attempts that the scheduler has queued.
    pub(super) waiting: BTreeMap<CellId, Token>,
    /// Bytes of events of the attempts that agents hold, since this term began.
    pub(super) said: BTreeMap<CellId, u64>,
    pub(super) missing_secrets: Vec<String>,
    /// The harshest cancel order so far.
    pub(super) order: Option<CancelOrder>,
    /// Number of cells without an outcome.
    pub(super) open: usize,
    pub(super) settled: bool,
    /// Grace period of fail-fast, and of a cancel that an earlier version journaled without one.
    pub(super) default_grace: Duration,
}

impl RunCore {
    /// Restores a run from the fold of its events. `position` is that of the newest event.
    pub fn recovered(state: RunState, position: u64, epoch: u64, default_grace: Duration) -> Self {
        let mut held = BTreeMap::new();
        for (cell, seen) in &state.cells {
            if let Some(attempt) = seen.attempts.last().filter(|a| a.is_held()) {
                held.insert(cell.clone(), attempt.token(&state.run, cell));
            }
        }
        let of_earlier_version = || {
            let reason = state.cancel.clone()?;
            Some(CancelOrder {
                reason,
                grace: default_grace,
                force: false,
            })
        };
        let order = state.order.clone().or_else(of_earlier_version);
        RunCore {
            open: state.cells.values().filter(|c| c.outcome.is_none()).count(),
            state,
            position,
            epoch,
            held,
            waiting: BTreeMap::new(),
            said: BTreeMap::new(),
            missing_secrets: Vec::new(),
            order,
            settled: false,
            default_grace,
        }
    }

    /// Returns the fold of the run's events.
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// Returns the position of the newest event.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Returns the names of secrets without a value, which the run waits for.
    pub fn missing_secrets(&self) -> &[String] {
        &self.missing_secrets
    }

    /// Returns the tokens of the attempts that an agent holds.
    pub fn held_by(&self, agent: &AgentId) -> Vec<Token> {
        let mine = self.held.iter().filter(|(cell, _)| {
            let attempt = self.state.cells.get(*cell).and_then(|c| c.attempts.last());
            attempt.is_some_and(|a| a.agent == *agent)
        });
        mine.map(|(_, token)| token.clone()).collect()
    }

    /// Returns the agents that hold attempts.
    pub fn agents(&self) -> Vec<AgentId> {
        let attempts = self.held.keys().filter_map(|cell| {
            let attempt = self.state.cells.get(cell)?.attempts.last()?;
            Some(attempt.agent.clone())
        });
        let mut agents: Vec<AgentId> = attempts.collect();
        agents.sort();
        agents.dedup();
        agents
    }

    /// Handles one input and returns what follows from it.
    pub fn handle(&mut self, input: Input, now: Timestamp) -> Decision {
        let mut d = Decision::default();
        match input {
            Input::Secrets { missing } => {
                self.missing_secrets = missing;
                self.enqueue_idle(now, &mut d);
            }
            Input::Assigned {
                token,
                agent,
                agent_name,
            } => self.assigned(token, agent, agent_name, now, &mut d),
            Input::Unrunnable { token, reason } => {
                d.effects.push(Effect::Release(token.clone()));
                // If the cell was withdrawn while its job was being built, it has already been decided about.
                if self.waiting.get(&token.cell) == Some(&token) {
                    self.waiting.remove(&token.cell);
                    let reason = Some(reason);
                    self.finish(&token.cell, Outcome::Errored, reason, now, &mut d);
                }
            }
            Input::Accepted { token } => self.accepted(token, now, &mut d),
            Input::Declined { token, reason } => self.declined(&token, reason, now, &mut d),
            Input::Revoked { token, reason } => self.revoked(&token, reason, now, &mut d),
            Input::Events { token, events } => self.agent_events(&token, events, now, &mut d),
            Input::Connected { agent, inventory } => {
                self.connected(agent, &inventory, now, &mut d);
            }
            Input::AgentLost { agent, reason } => {
                for token in self.held_by(&agent) {
                    self.lose(&token, &reason, now, &mut d);
                }
            }
            Input::NeverStarted { cells, limit } => {
                for (cell, why) in cells {
                    self.never_started(&cell, &why, limit, now, &mut d);
                }
            }
            Input::Cancel(order) => self.cancel(order, now, &mut d),
        }
        self.close(now, &mut d);
        d
    }

    /// Records and folds one of the coordinator's own events.
    pub(super) fn record(&mut self, kind: EventKind, now: Timestamp, d: &mut Decision) {
        let event = Event {
            run: self.state.run.clone(),
            attempt: None,
            seq: 0,
            at: now,
            mono_us: 0,
            kind,
        };
        self.keep(event, d);
    }

    pub(super) fn keep(&mut self, event: Event, d: &mut Decision) {
        self.state.apply_without_output(&event);
        self.position += 1;
        let position = self.position;
        d.events.push(Recorded { position, event });
    }

    /// Queues every cell that only waits for an agent. Judges cells whose attempt ended just before a restart.
    fn enqueue_idle(&mut self, now: Timestamp, d: &mut Decision) {
        let idle = |(cell, seen): (&CellId, &phalanx_shared::run_state::CellState)| {
            let idle = seen.outcome.is_none()
                && !self.held.contains_key(cell)
                && !self.waiting.contains_key(cell);
            idle.then(|| (cell.clone(), seen.status))
        };
        let idle: Vec<(CellId, CellStatus)> = self.state.cells.iter().filter_map(idle).collect();
        let mut queue = Vec::new();
        for (cell, status) in idle {
            if status == CellStatus::Ended || self.order.is_some() {
                self.judge(&cell, now, d);
            } else if self.missing_secrets.is_empty() {
                queue.extend(self.next_token(&cell));
            }
        }
        if !queue.is_empty() {
            d.effects.push(Effect::Queue(queue));
        }
        // Also judge attempts that ended while the coordinator was down and still clean up.
        let ended = self.held.keys().filter(|cell| {
            let seen = self.state.cells.get(*cell);
            seen.is_some_and(|c| c.outcome.is_none() && c.status == CellStatus::Ended)
        });
        for cell in ended.cloned().collect::<Vec<_>>() {
            self.judge(&cell, now, d);
        }
    }

    /// Returns the token of a cell's next attempt and records it as waiting.
    fn next_token(&mut self, cell: &CellId) -> Option<Token> {
        let seen = self.state.cells.get(cell)?;
        let token = Token {
            run: self.state.run.clone(),
            cell: cell.clone(),
            attempt: seen.attempts.last().map_or(0, |a| a.attempt) + 1,
            epoch: self.epoch,
        };
        self.waiting.insert(cell.clone(), token.clone());
        Some(token)
    }

    pub(super) fn requeue(&mut self, cell: &CellId, d: &mut Decision) {
        if self.missing_secrets.is_empty()
            && let Some(token) = self.next_token(cell)
        {
            d.effects.push(Effect::Queue(vec![token]));
        }
    }

    /// Decides about a cell whose attempt ended, or that has no current attempt.
    pub(super) fn judge(&mut self, cell: &CellId, now: Timestamp, d: &mut Decision) {
        let (Some(planned), Some(seen)) = (self.state.planned(cell), self.state.cells.get(cell))
        else {
            return;
        };
        if seen.outcome.is_some() {
            return;
        }
        let cancelled = self.order.as_ref().map(|order| order.reason.as_str());
        let ended = seen.status == CellStatus::Ended;
        let verdict = if ended {
            verdict(planned, seen, self.epoch, cancelled)
        } else {
            None
        };
        match (verdict, cancelled) {
            (Some(Verdict::Finish(outcome, reason)), _) => {
                self.finish(cell, outcome, reason, now, d);
            }
            // The next attempt begins when nothing of this one is left.
            (Some(Verdict::Again), _) if self.held.contains_key(cell) => {}
            (Some(Verdict::Again), _) => self.requeue(cell, d),
            (None, Some(reason)) => {
                let reason = Some(reason.to_owned());
                self.finish(cell, Outcome::Cancelled, reason, now, d);
            }
            (None, None) => self.requeue(cell, d),
        }
    }

    /// Gives a cell its one outcome (I2).
    pub(super) fn finish(
        &mut self,
        cell: &CellId,
        outcome: Outcome,
        reason: Option<String>,
        now: Timestamp,
        d: &mut Decision,
    ) {
        let Some(seen) = self.state.cells.get(cell).filter(|c| c.outcome.is_none()) else {
            return;
        };
        let kind = EventKind::CellFinished {
            cell: cell.clone(),
            outcome,
            reason,
            attempts: seen.tries(),
        };
        self.record(kind, now, d);
        self.open = self.open.saturating_sub(1);
        if let Some(token) = self.waiting.remove(cell) {
            d.effects.push(Effect::Withdraw(vec![token]));
        }
        let fail_fast = self.state.plan.as_ref().is_some_and(|plan| plan.fail_fast);
        if fail_fast && !outcome.is_ok() && self.order.is_none() && self.open > 0 {
            let name = self.state.planned(cell).map_or(cell.as_str(), |c| &c.name);
            let order = CancelOrder {
                reason: format!("fail-fast: {name} {outcome}"),
                grace: self.default_grace,
                force: false,
            };
            self.cancel(order, now, d);
        }
    }

    /// Ends a cell that no agent has started. Does nothing if the cell was offered in the meantime.
    fn never_started(
        &mut self,
        cell: &CellId,
        why: &str,
        limit: Duration,
        now: Timestamp,
        d: &mut Decision,
    ) {
        let begun = self
            .state
            .cells
            .get(cell)
            .is_none_or(|seen| seen.attempts.iter().any(|a| a.started.is_some()));
        if begun || self.held.contains_key(cell) {
            return;
        }
        let limit = seconds(limit);
        let why = if why.is_empty() {
            "its turn never came"
        } else {
            why
        };
        let reason = format!("not started within {limit} (queue-timeout): {why}");
        self.finish(cell, Outcome::Errored, Some(reason), now, d);
    }

    fn cancel(&mut self, order: CancelOrder, now: Timestamp, d: &mut Decision) {
        let harsher = self
            .order
            .as_ref()
            .is_none_or(|known| order.is_harsher_than(known));
        if self.state.is_finished() && !order.force || !harsher {
            return;
        }
        let requested = EventKind::CancelRequested {
            reason: order.reason.clone(),
            grace_ms: Some(u64::try_from(order.grace.as_millis()).unwrap_or(u64::MAX)),
            force: order.force,
        };
        self.record(requested, now, d);
        self.order = Some(order.clone());
        let withdrawn: Vec<Token> = std::mem::take(&mut self.waiting).into_values().collect();
        if !withdrawn.is_empty() {
            d.effects.push(Effect::Withdraw(withdrawn));
        }
        let open = |(cell, seen): (&CellId, &phalanx_shared::run_state::CellState)| {
            seen.outcome.is_none().then(|| cell.clone())
        };
        let open: Vec<CellId> = self.state.cells.iter().filter_map(open).collect();
        for cell in open {
            match self.held.get(&cell).cloned() {
                Some(token) if self.status(&cell) != Some(CellStatus::Ended) => {
                    let order = order.clone();
                    d.effects.push(Effect::Cancel { token, order });
                }
                _ => self.judge(&cell, now, d),
            }
        }
        if order.force {
            // Also speed up clean-up in progress.
            for (cell, token) in &self.held {
                if self
                    .state
                    .cells
                    .get(cell)
                    .is_some_and(|c| c.outcome.is_some())
                {
                    let (token, order) = (token.clone(), order.clone());
                    d.effects.push(Effect::Cancel { token, order });
                }
            }
        }
    }

    /// Finishes the run when its last cell has its outcome, and settles it when its last stack is gone.
    fn close(&mut self, now: Timestamp, d: &mut Decision) {
        if self.open == 0
            && !self.state.is_finished()
            && let Some(outcome) = self.state.run_outcome()
        {
            self.record(EventKind::RunFinished { outcome }, now, d);
            d.effects.push(Effect::Finished(outcome));
        }
        if !self.settled && self.state.is_finished() && self.held.is_empty() {
            self.settled = true;
            d.effects.push(Effect::Settled);
        }
    }

    /// Returns the run's id.
    pub fn run(&self) -> &RunId {
        &self.state.run
    }
}
