//! What becomes of a cell whose attempt ended: its outcome, or another try.

use phalanx_shared::id::AgentId;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::plan::PlannedCell;
use phalanx_shared::run_state::CellState;
use std::collections::BTreeSet;

/// A cell that was on this many agents when they were lost isn't given to another.
pub const QUARANTINE: usize = 2;
/// Nor is one that was lost so often, on whatever agent: something is wrong there, and it isn't tried for ever.
pub const LOSSES: usize = 4;

/// What becomes of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is tried again.
    Again,
    /// It has its outcome.
    Finish(Outcome, Option<String>),
}

/// Judges a cell whose newest attempt ended; `None` while it hasn't.
///
/// A lost agent is no word about the cell: it runs again (I8) until a second one is lost under it. The same agent lost twice (a machine that starts again and
/// again) is one agent. An `errored` attempt is tried
/// `attempts` times in all, a failed one `retries` times more, and passing then is flaky.
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
        // Agents that went together with their coordinator say nothing about the cell.
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
