//! How far the output of a container was forwarded, over all its starts.

use super::position::{Last, Position};
use phalanx_shared::event::LogStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Output forwarded so far, over all starts, so that a broken stream resumes where it stopped.
#[derive(Default)]
pub(super) struct Carried {
    outputs: Mutex<[Output; 2]>,
    /// Number of frames received, including already known ones.
    frames: AtomicU64,
    /// Whether forwarding waits for the receiver.
    waiting: AtomicBool,
}

/// How far one output stream was forwarded.
#[derive(Clone, Default)]
struct Output {
    bytes: u64,
    position: Position,
    last: Last,
}

impl Carried {
    fn outputs(&self) -> MutexGuard<'_, [Output; 2]> {
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a received frame.
    pub fn received(&self) {
        self.frames.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts bytes that are forwarded now.
    pub fn pass(&self, stream: LogStream, bytes: &[u8]) {
        let output = &mut self.outputs()[index(stream)];
        output.bytes += bytes.len() as u64;
        output.position.pass(bytes);
        output.last.push(bytes);
    }

    /// Notes whether forwarding waits for the receiver.
    pub fn set_waiting(&self, waits: bool) {
        self.waiting.store(waits, Ordering::Release);
    }

    /// Returns whether forwarding waits for the receiver.
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    /// Returns the number of received frames.
    pub fn frames(&self) -> u64 {
        self.frames.load(Ordering::Acquire)
    }

    /// Returns the number of forwarded bytes.
    pub fn total(&self) -> u64 {
        self.outputs().iter().map(|output| output.bytes).sum()
    }

    /// Returns the position in each output stream up to which everything was forwarded.
    pub fn positions(&self) -> [Position; 2] {
        let outputs = self.outputs();
        [outputs[0].position, outputs[1].position]
    }

    /// Returns whether each output stream ends as in `lasts`.
    pub fn ends_like(&self, lasts: &[Last; 2]) -> bool {
        let outputs = self.outputs();
        (0..2).all(|at| outputs[at].last.ends_like(&lasts[at]))
    }
}

/// Returns the place of a stream in arrays with one element for each stream.
pub(super) fn index(stream: LogStream) -> usize {
    match stream {
        LogStream::Stdout => 0,
        LogStream::Stderr => 1,
    }
}
