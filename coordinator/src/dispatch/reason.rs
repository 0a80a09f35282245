//! Why offers fail and why attempts are lost. Code decides by these values; only reports read their text.

use super::gate::Lie;
use std::time::Duration;

/// Why an offer failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeclineReason {
    /// The agent declined it, with this explanation.
    #[error("{0}")]
    ByAgent(String),
    /// The agent is lost.
    #[error("the agent is lost")]
    AgentLost,
    /// The agent has no connection at the moment.
    #[error("the agent isn't connected")]
    NotConnected,
    /// The connection broke before the offer arrived.
    #[error("the offer was lost with the connection")]
    LostOffer,
    /// The agent didn't answer within this time.
    #[error("the agent didn't answer within {0:?}")]
    Unanswered(Duration),
}

/// Why an attempt ends without a result from its agent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LossCause {
    /// The agent is gone.
    #[error("{0}")]
    Agent(AgentGone),
    /// The agent sent an event that it may not send.
    #[error("{0}")]
    Lie(Lie),
    /// It didn't end, long after its cell's timeout or a cancel order.
    #[error("its agent didn't end it, long after {}", if *.cancelled { "it was told to end" } else { "its cell's timeout was over" })]
    Overdue {
        /// Whether it was cancelled.
        cancelled: bool,
    },
    /// The agent's attempts together sent too many bytes of events, this one the most.
    #[error(
        "its agent sent more than {mib} MiB of events over all attempts that it holds, most of them of this one"
    )]
    AgentBudget {
        /// The limit.
        mib: u64,
    },
    /// The attempt sent too many events.
    #[error("its agent sent more than {limit} events of it")]
    TooManyEvents {
        /// The limit.
        limit: u64,
    },
    /// The attempt sent too many bytes of events.
    #[error("its agent sent more than {mib} MiB of events of it")]
    TooManyBytes {
        /// The limit.
        mib: u64,
    },
    /// The agent connected again and doesn't hold it any more.
    #[error("its agent came back without it")]
    Forgotten,
    /// The agent reported the end of its clean-up, but no outcome.
    #[error("its agent cleaned up without a verdict")]
    NoVerdict,
}

/// Why an agent is lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentGone {
    /// It said Goodbye, with this explanation.
    #[error("it left: {0}")]
    Left(String),
    /// It sent nothing for longer than its lease.
    #[error("it fell silent")]
    Silent,
    /// Its connection broke, and it didn't come back in time.
    #[error("it didn't come back after its connection broke")]
    NotBack,
    /// Its process was reported dead.
    #[error("its process died")]
    Died,
    /// It held attempts before a restart of the coordinator and didn't come back.
    #[error("its agent didn't come back after the coordinator's restart")]
    NotBackAfterRestart,
    /// Its session crashed.
    #[error("the coordinator's session with it died: a bug of the coordinator")]
    SessionDied,
}
