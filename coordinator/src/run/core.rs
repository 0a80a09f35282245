//! The pure core of a run: it takes an input and returns effects, the first of which are events to journal.
//!
//! The caller of [`RunCore::handle`] must make a decision's events durable before it performs the effects after them.
//! The state is the fold of the events and nothing else, so that a restart ([`RunCore::recovered`]) continues where the
//! journal ends.
//!
//! stage: assigned: `CellOffered` is journaled before the offer is sent

use super::verdict::{Verdict, verdict};
use crate::dispatch::contract::{GoesOn, InventoryItem};
use crate::dispatch::reason::{AgentGone, DeclineReason, LossCause};
use crate::dispatch::sequence::InSequence;
use crate::dispatch::size::size;
use phalanx_proto::limit::{ATTEMPT_EVENT_BYTES_TAKEN, ATTEMPT_EVENTS_TAKEN};
use phalanx_shared::cancel::CancelOrder;
use phalanx_shared::event::{Event, EventKind, Placement, Recorded};
use phalanx_shared::id::{AgentId, CellId, RunId, Token};
use phalanx_shared::invariant;
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
    /// The scheduler found an agent for a waiting cell, and its job is made.
    Runnable {
        token: Token,
        agent: AgentId,
        agent_name: String,
        placement: Placement,
    },
    /// The job for a cell could not be built.
    Unrunnable { token: Token, reason: String },
    /// The agent accepted an offer.
    Accepted { token: Token },
    /// An offer was declined, or failed.
    Declined { token: Token, reason: DeclineReason },
    /// An attempt was revoked from its agent.
    Revoked { token: Token, cause: LossCause },
    /// Events of an attempt, in sequence.
    Events { token: Token, events: InSequence },
    /// An agent connected and reported the attempts of this run that it holds.
    Connected {
        agent: AgentId,
        inventory: Vec<InventoryItem>,
    },
    /// An agent is gone for good.
    AgentLost { agent: AgentId, gone: AgentGone },
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

/// An effect of a decision.
// The largest variant is also the most frequent one: a box would be one more allocation for each event.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Journal this event. All effects after it wait until it is durable.
    Journal(Recorded),
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

/// A decision in the making: events to journal, then effects to perform.
#[derive(Default)]
struct Decision {
    events: Vec<Recorded>,
    effects: Vec<Effect>,
}

/// The state of a run and its attempts in flight.
#[derive(Clone, Debug)]
pub struct RunCore {
    state: RunState,
    /// Position of the newest event.
    position: u64,
    epoch: u64,
    /// Attempts that agents hold.
    held: BTreeMap<CellId, Token>,
    /// Attempts that the scheduler has queued.
    waiting: BTreeMap<CellId, Token>,
    /// Bytes of events of the attempts that agents hold, since this term began.
    said: BTreeMap<CellId, u64>,
    missing_secrets: Vec<String>,
    /// The harshest cancel order so far.
    order: Option<CancelOrder>,
    /// Number of cells without an outcome.
    open: usize,
    settled: bool,
    /// Grace period of fail-fast, and of a cancel that an earlier version journaled without one.
    default_grace: Duration,
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

    /// Handles one input and returns what follows from it: first the events to journal, with their positions, then
    /// everything else.
    pub fn handle(&mut self, input: Input, now: Timestamp) -> Vec<Effect> {
        let mut d = Decision::default();
        match input {
            Input::Secrets { missing } => {
                self.missing_secrets = missing;
                self.enqueue_idle(now, &mut d);
            }
            Input::Runnable {
                token,
                agent,
                agent_name,
                placement,
            } => self.offer(token, (agent, agent_name), placement, now, &mut d),
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
            Input::Declined { token, reason } => self.declined(&token, &reason, now, &mut d),
            Input::Revoked { token, cause } => self.revoked(&token, &cause, now, &mut d),
            Input::Events { token, events } => self.agent_events(&token, events, now, &mut d),
            Input::Connected { agent, inventory } => {
                self.connected(agent, &inventory, now, &mut d);
            }
            Input::AgentLost { agent, gone } => {
                let cause = LossCause::Agent(gone);
                for token in self.held_by(&agent) {
                    self.lose(&token, &cause, now, &mut d);
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
        let Decision { events, effects } = d;
        let events = events.into_iter().map(Effect::Journal);
        events.chain(effects).collect()
    }

    /// Records and folds one of the coordinator's own events.
    fn record(&mut self, kind: EventKind, now: Timestamp, d: &mut Decision) {
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

    fn keep(&mut self, event: Event, d: &mut Decision) {
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

    fn requeue(&mut self, cell: &CellId, d: &mut Decision) {
        if self.missing_secrets.is_empty()
            && let Some(token) = self.next_token(cell)
        {
            d.effects.push(Effect::Queue(vec![token]));
        }
    }

    /// Decides about a cell whose attempt ended, or that has no current attempt.
    fn judge(&mut self, cell: &CellId, now: Timestamp, d: &mut Decision) {
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
    fn finish(
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

    // ---- attempts: offered, accepted, returned, reported on, lost

    fn offer(
        &mut self,
        token: Token,
        (agent, agent_name): (AgentId, String),
        mut placement: Placement,
        now: Timestamp,
        d: &mut Decision,
    ) {
        if self.waiting.get(&token.cell) != Some(&token) {
            d.effects.push(Effect::Release(token));
            return;
        }
        self.waiting.remove(&token.cell);
        self.held.insert(token.cell.clone(), token.clone());
        self.said.remove(&token.cell);
        // Once is enough: it is the same for all cells.
        let known = self.state.agents.get(&agent);
        placement.capacity = placement.capacity.filter(|new| known != Some(new));
        let offered = EventKind::CellOffered {
            token: token.clone(),
            agent: agent.clone(),
            agent_name,
            placement,
        };
        self.record(offered, now, d);
        d.effects.push(Effect::Offer { token, agent });
    }

    /// Returns whether a token is that of its cell's newest attempt and an agent holds it. This is the run's check for
    /// stale tokens.
    fn holds(&self, token: &Token) -> bool {
        self.held.get(&token.cell) == Some(token)
    }

    fn status(&self, cell: &CellId) -> Option<CellStatus> {
        Some(self.state.cells.get(cell)?.status)
    }

    fn accepted(&mut self, token: Token, now: Timestamp, d: &mut Decision) {
        if self.holds(&token) && self.status(&token.cell) == Some(CellStatus::Offered) {
            let kind = EventKind::CellAccepted {
                token: token.clone(),
            };
            self.record(kind, now, d);
            d.effects.push(Effect::Accepted(token));
        }
    }

    fn declined(
        &mut self,
        token: &Token,
        reason: &DeclineReason,
        now: Timestamp,
        d: &mut Decision,
    ) {
        let open = matches!(
            self.status(&token.cell),
            Some(CellStatus::Offered | CellStatus::Accepted)
        );
        if self.holds(token) && open {
            let reason = reason.to_string();
            let scheduler = Effect::Declined {
                token: token.clone(),
                reason: reason.clone(),
            };
            self.give_back(token, reason, scheduler, now, d);
        }
    }

    /// Returns a cell whose offer failed to the queue, or finishes it if the run is cancelled.
    fn give_back(
        &mut self,
        token: &Token,
        reason: String,
        release: Effect,
        now: Timestamp,
        d: &mut Decision,
    ) {
        self.held.remove(&token.cell);
        let kind = EventKind::CellReturned {
            token: token.clone(),
            reason,
        };
        self.record(kind, now, d);
        d.effects.push(Effect::Retire(token.clone()));
        d.effects.push(release);
        match self.order.clone() {
            Some(order) => self.finish(&token.cell, Outcome::Cancelled, Some(order.reason), now, d),
            None => self.requeue(&token.cell, d),
        }
    }

    fn agent_events(
        &mut self,
        token: &Token,
        events: InSequence,
        now: Timestamp,
        d: &mut Decision,
    ) {
        // The run may have given the attempt up while the events were on their way.
        if !self.holds(token) {
            d.effects.push(Effect::Retire(token.clone()));
            return;
        }
        let mut torn_down = false;
        let mut ended = false;
        for event in events.into_events() {
            let last = self
                .state
                .cells
                .get(&token.cell)
                .and_then(|c| c.attempts.last());
            debug_assert_eq!(
                invariant::follows(last.map_or(0, |attempt| attempt.last_seq), &event),
                Ok(())
            );
            ended |= matches!(event.kind, EventKind::AttemptFinished { .. });
            torn_down |= matches!(event.kind, EventKind::TornDown { .. });
            if torn_down && last.is_some_and(|attempt| attempt.outcome.is_none()) {
                return self.lose(token, &LossCause::NoVerdict, now, d);
            }
            if let Some(cause) = self.too_much(token, &event) {
                return self.revoked(token, &cause, now, d);
            }
            self.keep(event, d);
        }
        if torn_down {
            self.held.remove(&token.cell);
            d.effects.push(Effect::Retire(token.clone()));
            d.effects.push(Effect::Release(token.clone()));
        }
        if ended || torn_down {
            self.judge(&token.cell, now, d);
        }
    }

    /// Returns why an attempt must be revoked if it has sent more events than a correct agent allows.
    fn too_much(&mut self, token: &Token, event: &Event) -> Option<LossCause> {
        let said = self.said.entry(token.cell.clone()).or_default();
        *said += size(&event.kind);
        if event.seq > ATTEMPT_EVENTS_TAKEN {
            let limit = ATTEMPT_EVENTS_TAKEN;
            return Some(LossCause::TooManyEvents { limit });
        }
        (*said > ATTEMPT_EVENT_BYTES_TAKEN).then_some(LossCause::TooManyBytes {
            mib: ATTEMPT_EVENT_BYTES_TAKEN >> 20,
        })
    }

    /// Decides which attempts a connecting agent continues.
    fn connected(
        &mut self,
        agent: AgentId,
        inventory: &[InventoryItem],
        now: Timestamp,
        d: &mut Decision,
    ) {
        let mut attempts = Vec::new();
        for token in self.held_by(&agent) {
            if !inventory.iter().any(|item| item.token == token) {
                self.lose(&token, &LossCause::Forgotten, now, d);
                continue;
            }
            self.accepted(token.clone(), now, d);
            let seen = self.state.cells.get(&token.cell);
            let attempt = seen.and_then(|c| c.attempts.last());
            let running = attempt.is_some_and(|a| a.outcome.is_none());
            let planned = self.state.planned(&token.cell);
            attempts.push(GoesOn {
                token: token.clone(),
                durable_seq: attempt.map_or(0, |a| a.last_seq),
                timeout: Duration::from_millis(planned.map_or(0, |cell| cell.timeout_ms)),
            });
            // Force also shortens the clean-up of an attempt that has ended.
            if let Some(order) = self.order.clone().filter(|order| running || order.force) {
                d.effects.push(Effect::Cancel { token, order });
            }
        }
        // Before the cancels: the agent must know that it continues an attempt before it is told to cancel it.
        d.effects.insert(0, Effect::Resume { agent, attempts });
    }

    /// Handles an attempt that was revoked from its agent. The agent is alive, but gets no offers for a while.
    fn revoked(&mut self, token: &Token, cause: &LossCause, now: Timestamp, d: &mut Decision) {
        if self.holds(token) {
            let scheduler = Effect::Declined {
                token: token.clone(),
                reason: cause.to_string(),
            };
            self.lose_and(token, cause, scheduler, now, d);
        }
    }

    /// Handles an attempt whose agent is gone. An offer that was never accepted only returns the cell to the queue.
    fn lose(&mut self, token: &Token, cause: &LossCause, now: Timestamp, d: &mut Decision) {
        let release = Effect::Release(token.clone());
        self.lose_and(token, cause, release, now, d);
    }

    fn lose_and(
        &mut self,
        token: &Token,
        cause: &LossCause,
        release: Effect,
        now: Timestamp,
        d: &mut Decision,
    ) {
        let reason = cause.to_string();
        if self.status(&token.cell) == Some(CellStatus::Offered) {
            self.give_back(token, reason, release, now, d);
            return;
        }
        self.held.remove(&token.cell);
        let token = token.clone();
        let lost = EventKind::AttemptLost {
            token: token.clone(),
            reason,
        };
        self.record(lost, now, d);
        d.effects.push(Effect::Retire(token.clone()));
        d.effects.push(release);
        self.judge(&token.cell, now, d);
    }

    /// Returns the run's id.
    pub fn run(&self) -> &RunId {
        &self.state.run
    }
}
