//! The invariants that can be seen from facts alone, one predicate each: used by tests, by the simulator and by debug assertions.
//!
//! The facts are whatever the caller has of them: a journal, an engine's list of objects, the bytes of a file.

use crate::event::{Event, EventKind, Speaker};
use crate::id::{AgentId, CellId, RunId};
use crate::outcome::Outcome;
use crate::plan::Resources;
use crate::run_state::RunState;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// A broken promise, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{invariant} broken: {what}")]
pub struct Violation {
    /// `I2`, `I6` …
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

fn violated<T>(invariant: &'static str, what: String) -> Result<T, Violation> {
    Err(Violation { invariant, what })
}

/// **I2** Each cell of a run ends in exactly one outcome, which is its newest attempt's; a late attempt's events change nothing.
///
/// Takes a run's journal from its beginning; holds for every prefix of it.
pub fn one_outcome<'a>(
    run: &RunId,
    journal: impl IntoIterator<Item = &'a Event>,
) -> Result<RunState, Violation> {
    let mut outcomes = Outcomes::new(run.clone());
    journal
        .into_iter()
        .try_for_each(|event| outcomes.take(event))?;
    Ok(outcomes.state)
}

/// The same, event by event, for who looks after each of them.
#[derive(Debug)]
pub struct Outcomes {
    state: RunState,
    finished: HashSet<CellId>,
}

impl Outcomes {
    /// Before a run's first event.
    pub fn new(run: RunId) -> Self {
        Outcomes {
            state: RunState::new(run),
            finished: HashSet::new(),
        }
    }

    /// What the events so far come to.
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// The next event of the journal.
    pub fn take(&mut self, event: &Event) -> Result<(), Violation> {
        let Outcomes { state, finished } = self;
        let run = state.run.clone();
        if let EventKind::CellFinished { cell, outcome, .. } = &event.kind {
            if !finished.insert(cell.clone()) {
                return violated("I2", format!("cell {cell} of run {run} finished twice"));
            }
            outcome_is_earned(state, cell, *outcome)?;
        }
        state.apply(event);
        if let EventKind::RunFinished { outcome } = &event.kind {
            let open = state.cells.iter().find(|(_, c)| c.outcome.is_none());
            if let Some((cell, _)) = open {
                return violated("I2", format!("run {run} finished before its cell {cell}"));
            }
            if state.run_outcome() != Some(*outcome) {
                return violated("I2", format!("run {run} isn't {outcome} by its cells"));
            }
        }
        Ok(())
    }
}

/// An outcome that judges the system under test must be the newest attempt's own word.
fn outcome_is_earned(state: &RunState, cell: &CellId, outcome: Outcome) -> Result<(), Violation> {
    let Some(seen) = state.cells.get(cell) else {
        return violated("I2", format!("cell {cell} finished but isn't in the plan"));
    };
    let word = seen.newest().and_then(|attempt| attempt.outcome);
    let earned = match outcome {
        Outcome::Passed | Outcome::Failed | Outcome::Skipped => word == Some(outcome),
        Outcome::Flaky => matches!(word, Some(Outcome::Passed | Outcome::Flaky)),
        Outcome::Cancelled | Outcome::Errored => true,
    };
    if earned {
        return Ok(());
    }
    let said = word.map_or("nothing", Outcome::as_str);
    violated(
        "I2",
        format!("cell {cell} finished {outcome}, its newest attempt said {said}"),
    )
}

/// **I2** Events of an attempt are of kinds that agents make, the coordinator's own are of no attempt: nobody speaks for the other.
pub fn said_by_the_right_one(event: &Event) -> Result<(), Violation> {
    let agents = event.kind.speaker() == Speaker::Agent;
    let unknown = matches!(event.kind, EventKind::Unknown(_));
    if unknown || agents == event.attempt.is_some() {
        return Ok(());
    }
    let kind = event.kind.name();
    let said = match agents {
        true => format!("the coordinator said `{kind}`, which is an agent's"),
        false => format!("an agent said `{kind}`, which is the coordinator's"),
    };
    violated("I2", said)
}

/// A cell that waits, and what it needs.
#[derive(Clone, Debug)]
pub struct Demand<'a> {
    /// Its run.
    pub run: &'a RunId,
    /// The cell.
    pub cell: &'a CellId,
    /// Labels that an agent must offer.
    pub labels: &'a [String],
    /// What it reserves.
    pub resources: Resources,
    /// Whether a limit (of its run, of a label) holds it back.
    pub limited: bool,
}

/// An agent, and what is free on it.
#[derive(Clone, Debug)]
pub struct Capacity<'a> {
    /// The agent.
    pub agent: &'a AgentId,
    /// What it offers.
    pub labels: &'a [String],
    /// Slots that nothing holds.
    pub free_slots: u32,
    /// Resources that nothing reserves.
    pub free: Resources,
    /// Connected, not draining, and not just having declined.
    pub takes: bool,
}

/// **I6** No cell waits while some agent meets all its constraints and its run is under its limits.
pub fn nobody_waits_in_vain(
    waiting: &[Demand<'_>],
    agents: &[Capacity<'_>],
) -> Result<(), Violation> {
    for demand in waiting.iter().filter(|demand| !demand.limited) {
        let taker = agents.iter().find(|agent| {
            agent.takes
                && agent.free_slots > 0
                && demand.resources.fits(&agent.free)
                && demand.labels.iter().all(|l| agent.labels.contains(l))
        });
        if let Some(agent) = taker {
            let (run, cell, agent) = (demand.run, demand.cell, agent.agent);
            return violated(
                "I6",
                format!("cell {cell} of run {run} waits while agent {agent} could take it"),
            );
        }
    }
    Ok(())
}

/// An object in an engine, or a process, that no live attempt claims.
#[derive(Clone, Debug)]
pub struct Leftover<'a> {
    /// Its name, for people.
    pub what: &'a str,
    /// For how long there was somebody to remove it, and nobody did.
    pub unclaimed_for: Duration,
}

/// **I3** Nothing outlives its attempt's clean-up deadline.
pub fn nothing_outlives<'a>(
    leftovers: impl IntoIterator<Item = Leftover<'a>>,
    deadline: Duration,
) -> Result<(), Violation> {
    match leftovers.into_iter().find(|l| l.unclaimed_for > deadline) {
        None => Ok(()),
        Some(Leftover {
            what,
            unclaimed_for,
        }) => violated(
            "I3",
            format!(
                "{what} is left {unclaimed_for:?} after its attempt, the deadline is {deadline:?}"
            ),
        ),
    }
}

/// **I4** No value of a secret is in a text that leaves its cell. The message doesn't repeat it.
pub fn no_secret<'a>(
    place: &str,
    bytes: &[u8],
    values: impl IntoIterator<Item = &'a str>,
) -> Result<(), Violation> {
    // Bytes that are no text can't be part of one.
    let text = String::from_utf8_lossy(bytes);
    for value in values.into_iter().filter(|value| !value.is_empty()) {
        if text.contains(value) {
            return violated(
                "I4",
                format!("a secret of {} bytes is in {place}", value.len()),
            );
        }
    }
    Ok(())
}

/// **I7** Nothing that was told of an attempt is lost or repeated: its events are in the journal once each, in sequence from 1.
///
/// Takes events in the order of the journal, over restarts of the coordinator; the coordinator's own (without attempt) don't count.
#[derive(Clone, Debug, Default)]
pub struct Sequences(HashMap<(CellId, u32), u64>);

impl Sequences {
    /// The next event of the journal.
    pub fn take(&mut self, event: &Event) -> Result<(), Violation> {
        let Some(attempt) = &event.attempt else {
            return Ok(());
        };
        let last = self
            .0
            .entry((attempt.cell.clone(), attempt.attempt))
            .or_default();
        if event.seq != *last + 1 {
            let (cell, number, seq) = (&attempt.cell, attempt.attempt, event.seq);
            return violated(
                "I7",
                format!("attempt {number} of cell {cell}: event {seq} follows event {last}"),
            );
        }
        *last = event.seq;
        Ok(())
    }
}

/// How an attempt was lost, as far as can be seen from outside.
#[derive(Clone, Debug)]
pub struct Loss<'a> {
    /// Its cell.
    pub cell: &'a CellId,
    /// Whether the coordinator was restarted since it was offered.
    pub restarted: bool,
    /// Whether the process that ran it is gone, or had ended it by itself.
    pub ended_by_its_agent: bool,
    /// For how long the coordinator had heard nothing of the agent.
    pub silent_for: Duration,
    /// Whether it should have ended by its cell's timeout, or by an order, and all that may follow.
    pub overdue: bool,
    /// Whether its agent said of it what only a coordinator may say.
    pub lied: bool,
}

/// **I7, I8** An attempt is lost only when its agent died, gave it up, lied, didn't end it in time, or was away for at least `patience`: neither a restart of the
/// coordinator nor a short cut of the connection costs it.
pub fn loss_has_a_cause(loss: &Loss<'_>, patience: Duration) -> Result<(), Violation> {
    if loss.ended_by_its_agent || loss.overdue || loss.lied || loss.silent_for >= patience {
        return Ok(());
    }
    let (cell, silent) = (loss.cell, loss.silent_for);
    let what = format!("cell {cell} was lost while its agent ran it, after {silent:?} of silence");
    violated(if loss.restarted { "I7" } else { "I8" }, what)
}

/// **I8** An attempt ends when its agent dies: it isn't held for longer than the lease and what follows from it.
pub fn no_attempt_outlives_its_agent(
    cell: &CellId,
    dead_for: Duration,
    deadline: Duration,
) -> Result<(), Violation> {
    if dead_for <= deadline {
        return Ok(());
    }
    violated(
        "I8",
        format!("cell {cell} is still held by an agent that is gone for {dead_for:?}"),
    )
}
