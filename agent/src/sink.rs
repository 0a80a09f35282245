//! The sinks for an attempt's events and logs: events are stamped and masked here, log bytes are labelled with service
//! and stream.
//!
//! A full channel makes producers wait; nothing is dropped. The receiving ends are the link's spool (events) and the
//! cell's log pump, which masks the bytes and forwards them to the link's log store.
//!
//! stage: a fact: an event is stamped and masked

use phalanx_shared::event::{EventKind, LogStream};
use phalanx_shared::id::Token;
use phalanx_shared::time::Timestamp;
use std::sync::Arc;
use tokio::sync::mpsc;

/// An event on its way to the spool, which numbers events in order of arrival.
#[derive(Clone, Debug)]
pub struct Stamped {
    /// Token of the attempt.
    pub token: Token,
    /// Wall-clock time of the event.
    pub at: Timestamp,
    /// Microseconds since the start of the attempt.
    pub mono_us: u64,
    /// The event itself.
    pub kind: EventKind,
}

/// Masked bytes of a service's log, in the order they were written.
#[derive(Clone, Debug)]
pub struct LogChunk {
    /// Token of the attempt.
    pub token: Token,
    /// Name of the service; `agent` for the agent's own notes.
    pub service: String,
    /// Stream that the bytes were written to.
    pub stream: LogStream,
    /// Wall-clock time when the first byte arrived.
    pub at: Timestamp,
    /// The masked bytes.
    pub bytes: Vec<u8>,
}

/// A part of an artifact on its way to the coordinator.
#[derive(Clone, Debug)]
pub struct ArtifactPiece {
    /// Token of the attempt.
    pub token: Token,
    /// Number of the artifact within the attempt, from 1.
    pub id: u32,
    /// Bytes, or the end.
    pub part: ArtifactPart,
}

/// Bytes of an artifact in order, masked if it is text, or its end.
#[derive(Clone, Debug)]
pub enum ArtifactPart {
    /// The next bytes.
    Bytes(Vec<u8>),
    /// All bytes have been sent. Without a digest, they are dropped.
    End {
        /// SHA-256 in hexadecimal.
        digest: Option<String>,
        /// Number of the bytes.
        size: u64,
    },
}

/// Masks text and bytes before they leave the cell (I4).
pub trait Mask: Send + Sync {
    /// Returns the text with all secrets masked.
    fn text(&self, text: &str) -> String;
    /// Returns the event with all secrets masked.
    fn event(&self, kind: EventKind) -> EventKind;
}

/// Stamps, masks and forwards the events of one attempt. Cheap to clone.
#[derive(Clone)]
pub struct EventSink {
    token: Token,
    clock: Arc<dyn crate::clock::Clock>,
    started: std::time::Duration,
    mask: Arc<dyn Mask>,
    out: mpsc::Sender<Stamped>,
}

impl EventSink {
    /// Creates a sink for an attempt that starts now.
    pub fn new(
        token: Token,
        clock: Arc<dyn crate::clock::Clock>,
        mask: Arc<dyn Mask>,
        out: mpsc::Sender<Stamped>,
    ) -> Self {
        let started = clock.monotonic();
        EventSink {
            token,
            clock,
            started,
            mask,
            out,
        }
    }

    /// Emits an event and waits while the spool is behind. Drops the event if the spool is closed, because the agent is
    /// shutting down.
    pub async fn emit(&self, kind: EventKind) {
        let at = self.clock.wall();
        let mono = self.clock.monotonic().saturating_sub(self.started);
        let stamped = Stamped {
            token: self.token.clone(),
            at,
            mono_us: u64::try_from(mono.as_micros()).unwrap_or(u64::MAX),
            kind: self.mask.event(kind),
        };
        let _ = self.out.send(stamped).await;
    }

    /// Returns the wall-clock time, for the `began` field of events.
    pub fn now(&self) -> Timestamp {
        self.clock.wall()
    }
}

/// Takes the output of one service. Cheap to clone; both streams of a service may write concurrently.
#[derive(Clone)]
pub struct LogSink {
    out: mpsc::Sender<(String, LogStream, Vec<u8>)>,
    service: String,
}

impl LogSink {
    /// Creates a sink for a service. The receiving end masks the bytes, keeps the tail and forwards them.
    pub fn new(
        service: impl Into<String>,
        out: mpsc::Sender<(String, LogStream, Vec<u8>)>,
    ) -> Self {
        LogSink {
            out,
            service: service.into(),
        }
    }

    /// Sends bytes unchanged; waits while the receiver is behind.
    pub async fn write(&self, stream: LogStream, bytes: Vec<u8>) {
        let _ = self.out.send((self.service.clone(), stream, bytes)).await;
    }
}
