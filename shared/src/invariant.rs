//! The invariants that can be checked from facts alone, one predicate each. Tests, the simulator and debug assertions
//! use them.
//!
//! The caller supplies the facts: a journal, an engine's list of objects, the bytes of a file.

use crate::event::{Event, EventKind, Speaker};
use crate::id::{AgentId, CellId, RunId};
use crate::outcome::Outcome;
use crate::plan::Resources;
use crate::policy::{Need, Rules};
use crate::run_state::RunState;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// A violated invariant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{invariant} broken: {what}")]
pub struct Violation {
    /// Name of the invariant: `I2`, `I6` …
    pub invariant: &'static str,
    /// Description of what was observed.
    pub what: String,
}

fn violated<T>(invariant: &'static str, what: String) -> Result<T, Violation> {
    Err(Violation { invariant, what })
}

/// **I2** Each cell of a run ends in exactly one outcome, which is the outcome of its newest attempt; events of a stale
/// attempt change nothing.
///
/// Takes a run's journal from its beginning; the invariant holds for every prefix of it.
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

/// Checks the same as [`one_outcome`], one event at a time.
#[derive(Debug)]
pub struct Outcomes {
    state: RunState,
    finished: HashSet<CellId>,
}

impl Outcomes {
    /// Returns the checker before a run's first event.
    pub fn new(run: RunId) -> Self {
        Outcomes {
            state: RunState::new(run),
            finished: HashSet::new(),
        }
    }

    /// Returns the state of the run after the events so far.
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// Takes the next event of the journal.
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

/// Checks that an outcome that judges the system under test is the outcome that the newest attempt reported.
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

/// **I2** Events of an attempt have kinds that agents make, and the coordinator's events belong to no attempt: neither
/// side makes the other's events.
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

/// A waiting cell and its requirements.
#[derive(Clone, Debug)]
pub struct Demand<'a> {
    /// Run of the cell.
    pub run: &'a RunId,
    /// Id of the waiting cell.
    pub cell: &'a CellId,
    /// Labels that an agent must offer.
    pub labels: &'a [String],
    /// Labels that an agent must not have.
    pub avoids: &'a [String],
    /// Resources that the cell reserves.
    pub resources: Resources,
    /// Whether a limit (of its run or of a label) holds the cell back.
    pub limited: bool,
    /// What the cell needs of its agent's machine.
    pub needs: &'a [Need],
}

/// An agent and its free capacity.
#[derive(Clone, Debug)]
pub struct Capacity<'a> {
    /// Id of the agent.
    pub agent: &'a AgentId,
    /// Labels that the agent offers.
    pub labels: &'a [String],
    /// Number of free slots.
    pub free_slots: u32,
    /// Resources that are not reserved.
    pub free: Resources,
    /// Whether the agent takes cells: connected, not draining, and not paused after declining an offer.
    pub takes: bool,
    /// What its policy allows; `None` if it doesn't say.
    pub policy: Option<&'a Rules>,
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
                && !demand.avoids.iter().any(|l| agent.labels.contains(l))
                && agent
                    .policy
                    .is_none_or(|rules| rules.refuses_one(demand.needs).is_none())
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
    /// Description of the object, for messages.
    pub what: &'a str,
    /// How long the object stayed unclaimed while a process that could remove it was running.
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

/// **I4** No value of a secret is in a text that leaves its cell. The error message doesn't repeat the value.
pub fn no_secret<'a>(
    place: &str,
    bytes: &[u8],
    values: impl IntoIterator<Item = &'a str>,
) -> Result<(), Violation> {
    // Secrets are text, so bytes that aren't valid UTF-8 can't be part of one.
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

/// **I7** No reported event of an attempt is lost or repeated: each is in the journal exactly once, in sequence from 1.
///
/// Takes events in the order of the journal, across restarts of the coordinator; the coordinator's own events (without
/// attempt) don't count.
#[derive(Clone, Debug, Default)]
pub struct Sequences(HashMap<(CellId, u32), u64>);

impl Sequences {
    /// Takes the next event of the journal.
    pub fn take(&mut self, event: &Event) -> Result<(), Violation> {
        let Some(attempt) = &event.attempt else {
            return Ok(());
        };
        let last = self
            .0
            .entry((attempt.cell.clone(), attempt.attempt))
            .or_default();
        follows(*last, event)?;
        *last = event.seq;
        Ok(())
    }
}

/// **I7** An event is the next one of its attempt.
pub fn follows(last: u64, event: &Event) -> Result<(), Violation> {
    let Some(attempt) = event.attempt.as_ref().filter(|_| event.seq != last + 1) else {
        return Ok(());
    };
    let (cell, number, seq) = (&attempt.cell, attempt.attempt, event.seq);
    violated(
        "I7",
        format!("attempt {number} of cell {cell}: event {seq} follows event {last}"),
    )
}

/// How an attempt was lost, as observed from outside.
#[derive(Clone, Debug)]
pub struct Loss<'a> {
    /// Cell of the attempt.
    pub cell: &'a CellId,
    /// Whether the coordinator was restarted since the offer.
    pub restarted: bool,
    /// Whether the agent process that ran the attempt is gone, or had ended the attempt by itself.
    pub ended_by_its_agent: bool,
    /// How long the coordinator had not heard from the agent.
    pub silent_for: Duration,
    /// Whether the attempt should already have ended, by its cell's timeout or by an order, including the time for
    /// clean-up.
    pub overdue: bool,
    /// Whether the agent sent events of the attempt that only a coordinator may make.
    pub lied: bool,
}

/// **I7, I8** An attempt is lost only if its agent died, gave it up, sent forbidden events, didn't end it in time, or
/// was away for at least `patience`. Neither a restart of the coordinator nor a short loss of connection costs an
/// attempt.
pub fn loss_has_a_cause(loss: &Loss<'_>, patience: Duration) -> Result<(), Violation> {
    if loss.ended_by_its_agent || loss.overdue || loss.lied || loss.silent_for >= patience {
        return Ok(());
    }
    let (cell, silent) = (loss.cell, loss.silent_for);
    let what = format!("cell {cell} was lost while its agent ran it, after {silent:?} of silence");
    violated(if loss.restarted { "I7" } else { "I8" }, what)
}

/// **I8** An attempt ends when its agent dies: a dead agent doesn't hold it for longer than `deadline` (the lease and
/// the reaction to its end).
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
