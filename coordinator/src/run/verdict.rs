//! Decides about a cell whose attempt ended: its outcome, or another attempt.

use phalanx_shared::id::AgentId;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::plan::PlannedCell;
use phalanx_shared::run_state::CellState;
use std::collections::BTreeSet;

/// A cell that this many agents were running when they were lost isn't given to another.
pub const QUARANTINE: usize = 2;
/// A cell whose attempts were lost this often, on any agents, isn't tried again either: something is wrong, and it must
/// not be retried forever.
pub const LOSSES: usize = 4;

/// Decision about a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Try the cell again.
    Again,
    /// Finish the cell with this outcome and reason.
    Finish(Outcome, Option<String>),
}

/// Judges a cell whose newest attempt ended; `None` while it hasn't.
///
/// Losing the agent says nothing about the cell's outcome: the cell runs again (I8), until a second agent is lost while
/// running it or attempts were lost [`LOSSES`] times. The same agent lost twice (a machine that keeps restarting)
/// counts as one agent. A cell gets `attempts` attempts in total if they are `errored`, and `retries` more after a
/// failed one; passing after a failure is flaky.
pub fn verdict(
    planned: &PlannedCell,
    cell: &CellState,
    epoch: u64,
    cancelled: Option<&str>,
) -> Option<Verdict> {
    let newest = cell.newest()?;
    let outcome = newest.outcome?;
    let reason = newest.reason.clone();
    if newest.lost {
        // Attempts lost in an earlier term don't count: agents that went down together with their coordinator say
        // nothing about the cell.
        let lost = || cell.attempts.iter().filter(|a| a.lost && a.epoch == epoch);
        let agents: BTreeSet<&AgentId> = lost().map(|attempt| &attempt.agent).collect();
        if let Some(why) = cancelled {
            return Some(finish(
                Outcome::Cancelled,
                format!("{why}; its agent was lost meanwhile"),
            ));
        }
        let (agents, times) = (agents.len(), lost().count());
        let last = reason.unwrap_or_default();
        let why = if agents >= QUARANTINE {
            format!("quarantined: {agents} agents were lost while they ran it, the last: {last}")
        } else if times >= LOSSES {
            format!(
                "quarantined: its agent was lost {times} times while it ran it, the last: {last}"
            )
        } else {
            return Some(Verdict::Again);
        };
        return Some(finish(Outcome::Errored, why));
    }
    let tries = |wanted: Outcome| {
        let judged = cell.attempts.iter().filter(|a| !a.returned && !a.lost);
        u32::try_from(judged.filter(|a| a.outcome == Some(wanted)).count()).unwrap_or(u32::MAX)
    };
    let again = match outcome {
        Outcome::Errored => tries(Outcome::Errored) < planned.attempts.max(1),
        Outcome::Failed => tries(Outcome::Failed) <= planned.retries,
        _ => false,
    };
    if again && cancelled.is_none() {
        return Some(Verdict::Again);
    }
    let failed_before = tries(Outcome::Failed);
    Some(match outcome {
        Outcome::Passed if failed_before > 0 => {
            let times = if failed_before == 1 {
                "once"
            } else {
                "more than once"
            };
            finish(Outcome::Flaky, format!("failed {times}, then passed"))
        }
        _ => Verdict::Finish(outcome, reason),
    })
}

fn finish(outcome: Outcome, reason: String) -> Verdict {
    Verdict::Finish(outcome, Some(reason))
}
