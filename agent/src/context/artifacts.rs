//! What an attempt knows of its artifacts: names and numbers given so far, how much may still be kept, and which steps
//! were ended before their artifacts were kept.

use crate::sink::{ArtifactPart, ArtifactPiece, EventSink};
use phalanx_shared::event::{Artifact, EventKind};
use phalanx_shared::expr::Scope;
use phalanx_shared::id::Token;
use phalanx_shared::language::model::{FileNames, Step};
use phalanx_shared::outcome::Outcome;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Maximum bytes of the artifacts of one attempt.
pub const ATTEMPT_BYTES: u64 = 1 << 30;
/// Maximum number of artifacts of one attempt, kept or not.
pub const ATTEMPT_FILES: u32 = 1_000;

/// Maximum number of files that are sent at the same time.
const AT_ONCE: usize = 16;

/// The artifacts of an attempt.
pub struct Artifacts {
    token: Token,
    events: EventSink,
    /// `None` once no more may be sent.
    out: Mutex<Option<mpsc::Sender<ArtifactPiece>>>,
    turns: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Number of the newest artifact, kept or not.
    id: u32,
    /// Number of artifacts so far; a file that an earlier try left is none.
    count: u32,
    names: FileNames,
    /// Bytes kept so far.
    bytes: u64,
    /// Whether a note says that there are too many.
    told: bool,
    /// What each step has kept: pairs of a file and its digest, or why it isn't kept.
    kept: HashMap<String, HashSet<(String, String)>>,
    owed: Vec<Owed>,
}

/// A step that was ended from outside before its artifacts were kept.
pub struct Owed {
    /// The step in the spec.
    pub step: Arc<Step>,
    /// The names that the step saw.
    pub scope: Scope,
    /// Its outcome, if it had one.
    pub outcome: Option<Outcome>,
    /// Its path.
    pub path: String,
}

impl Artifacts {
    /// Creates the artifacts of an attempt.
    pub fn new(token: Token, events: EventSink, out: mpsc::Sender<ArtifactPiece>) -> Self {
        Artifacts {
            token,
            events,
            out: Mutex::new(Some(out)),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            state: Mutex::default(),
        }
    }

    /// Returns the number of the next artifact, or `None` if there are too many.
    pub fn next_id(&self) -> Option<u32> {
        let mut state = self.lock();
        if state.count >= ATTEMPT_FILES {
            return None;
        }
        state.count += 1;
        state.id += 1;
        Some(state.id)
    }

    /// Takes back an artifact with the bytes that were counted for it: it is the same as an earlier one, or was never sent
    /// to its end. Its number stays used.
    pub fn take_back(&self, bytes: u64) {
        let mut state = self.lock();
        state.count = state.count.saturating_sub(1);
        state.bytes = state.bytes.saturating_sub(bytes);
    }

    /// Waits until one more file may be sent: the coordinator takes few at the same time.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        Arc::clone(&self.turns).acquire_owned().await.ok()
    }

    /// Returns whether this is the first time that there are too many.
    pub fn first_excess(&self) -> bool {
        !std::mem::replace(&mut self.lock().told, true)
    }

    /// Counts bytes, and returns whether the attempt may keep them.
    pub fn may_keep(&self, bytes: u64) -> bool {
        let mut state = self.lock();
        let sum = state.bytes.saturating_add(bytes);
        let fits = sum <= ATTEMPT_BYTES;
        if fits {
            state.bytes = sum;
        }
        fits
    }

    /// Returns how many bytes the attempt may still keep.
    pub fn left(&self) -> u64 {
        ATTEMPT_BYTES.saturating_sub(self.lock().bytes)
    }

    /// Returns a name that no other artifact of the attempt has.
    pub fn unique(&self, name: &str) -> String {
        self.lock().names.free(name)
    }

    /// Remembers what a step keeps, by its digest, or why it doesn't. Returns false if an earlier try of it told the same
    /// of the same file.
    pub fn is_news(&self, step: &str, from: &str, what: &str) -> bool {
        let mut state = self.lock();
        let kept = state.kept.entry(step.to_owned()).or_default();
        kept.insert((from.to_owned(), what.to_owned()))
    }

    /// Remembers a step whose artifacts are kept at the end of the attempt.
    pub fn owe(&self, owed: Owed) {
        self.lock().owed.push(owed);
    }

    /// Takes the steps whose artifacts are still to be kept.
    pub fn take_owed(&self) -> Vec<Owed> {
        std::mem::take(&mut self.lock().owed)
    }

    /// Sends a part of an artifact. Waits while the link is behind.
    pub async fn send(&self, id: u32, part: ArtifactPart) {
        let token = self.token.clone();
        if let Some(out) = self.way_out() {
            // A closed channel means that the agent is shutting down.
            let _ = out.send(ArtifactPiece { token, id, part }).await;
        }
    }

    fn way_out(&self) -> Option<mpsc::Sender<ArtifactPiece>> {
        let out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.clone()
    }

    /// Sends nothing more, so that the receiver learns that all artifacts have been sent.
    pub fn close(&self) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        *out = None;
    }

    /// Emits the fact of an artifact.
    pub async fn tell(&self, artifact: Artifact) {
        let kind = EventKind::ArtifactCollected(Box::new(artifact));
        self.events.emit(kind).await;
    }

    /// Emits a note.
    pub async fn note(&self, message: String) {
        self.events.emit(EventKind::Note { message }).await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::context::masks::Masks;

    #[test]
    fn what_is_taken_back_counts_no_more_and_its_number_is_not_given_again() {
        let (events, _) = mpsc::channel(1);
        let (out, _) = mpsc::channel(1);
        let token = Token {
            run: "r".into(),
            cell: "c".into(),
            attempt: 1,
            epoch: 1,
        };
        let masks = Arc::new(Masks::default());
        let events = EventSink::new(
            token.clone(),
            Arc::new(SystemClock::default()),
            masks,
            events,
        );
        let artifacts = Artifacts::new(token, events, out);
        for number in 1..=3 * ATTEMPT_FILES {
            assert!(artifacts.may_keep(ATTEMPT_BYTES / 2));
            assert_eq!(artifacts.next_id(), Some(number));
            artifacts.take_back(ATTEMPT_BYTES / 2);
        }
        for _ in 0..ATTEMPT_FILES {
            assert!(artifacts.next_id().is_some());
        }
        assert_eq!(artifacts.next_id(), None);
    }
}
