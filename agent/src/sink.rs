//! Where an attempt's facts and bytes go: events are stamped, masked and numbered here, logs masked and chunked.
//!
//! Producers see a full channel as waiting, never as loss. The receiving ends are the link's spool (events)
//! and log store (bytes).

use phalanx_shared::event::{EventKind, LogStream};
use phalanx_shared::id::Token;
use phalanx_shared::time::Timestamp;
use std::sync::Arc;
use tokio::sync::mpsc;

/// An event on its way to the spool, not numbered yet: the spool numbers in the order of arrival.
#[derive(Clone, Debug)]
pub struct Stamped {
    /// Which attempt.
    pub token: Token,
    /// Wall time.
    pub at: Timestamp,
    /// Microseconds since the attempt began.
    pub mono_us: u64,
    /// What happened.
    pub kind: EventKind,
}

/// Bytes of a service's log, masked, in the order written.
#[derive(Clone, Debug)]
pub struct LogChunk {
    /// Which attempt.
    pub token: Token,
    /// Which service (`agent` for our own notes).
    pub service: String,
    /// Which output.
    pub stream: LogStream,
    /// Wall time of the first byte's arrival.
    pub at: Timestamp,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Masks text and bytes before they leave the cell (I4).
pub trait Mask: Send + Sync {
    /// The text without any secret.
    fn text(&self, text: &str) -> String;
    /// The event without any secret.
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
    /// A sink whose attempt begins now.
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

    /// Emits a fact; waits while the spool is behind. A closed spool (the agent is going away) swallows it.
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

    /// The wall time, for the `began` of events.
    pub fn now(&self) -> Timestamp {
        self.clock.wall()
    }
}

/// Takes the output of one service. Cheap to clone; both streams of a service may write at once.
#[derive(Clone)]
pub struct LogSink {
    out: mpsc::Sender<(String, LogStream, Vec<u8>)>,
    service: String,
}

impl LogSink {
    /// A sink of a service; the receiving end masks, keeps the tail and forwards.
    pub fn new(
        service: impl Into<String>,
        out: mpsc::Sender<(String, LogStream, Vec<u8>)>,
    ) -> Self {
        LogSink {
            out,
            service: service.into(),
        }
    }

    /// Hands bytes over as they came; waits while the receiver is behind.
    pub async fn write(&self, stream: LogStream, bytes: Vec<u8>) {
        let _ = self.out.send((self.service.clone(), stream, bytes)).await;
    }
}
