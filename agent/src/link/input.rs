//! What the agent's actor is told, by its connection, its cells, its logs and its handle.

use super::logs::spool::Over;
use crate::sink::Stamped;
use phalanx_proto::link::{Ahead, FromAgent, Snapshots, ToAgent};
use phalanx_proto::v1;
use phalanx_shared::cancel::CancelOrder;
use phalanx_shared::id::Token;
use phalanx_shared::time::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Inputs of the agent's actor. A generation is the number of a connection.
// Nearly all are events and messages of cells; a box for each would cost an allocation and save nothing.
#[allow(clippy::large_enum_variant)]
pub(super) enum Input {
    Connected {
        generation: u64,
        wire: Wire,
    },
    Received {
        generation: u64,
        message: Box<ToAgent>,
    },
    Say {
        generation: u64,
        message: FromAgent,
    },
    Broken {
        generation: u64,
    },
    Emitted(Stamped),
    CellGone {
        token: Token,
        at: Timestamp,
    },
    LogsOver(Over),
    Images(Vec<String>),
    Ahead(Vec<Ahead>),
    Snapshots(Snapshots),
    CancelAll(CancelOrder),
    Drain,
    Tick,
}

/// One connection, as the actor holds it.
pub(super) struct Wire {
    /// Sends to the coordinator. Dropping it ends the stream after the queued messages.
    pub sender: mpsc::Sender<v1::FromAgent>,
    /// Ends the connection at once.
    pub cut: CancellationToken,
}
