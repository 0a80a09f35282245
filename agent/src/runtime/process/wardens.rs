//! The wardens that an attempt started, until each has told that nothing lives below it any more.
//!
//! Clean-up then knows whether anything can be left: a warden's word is proof (it is the parent of every orphan below it), so the machine's
//! processes are looked through only if a warden was killed from outside or doesn't answer.

use super::guarded::Below;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Those of one attempt. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Wardens(Arc<Mutex<Open>>);

#[derive(Debug, Default)]
struct Open {
    /// Started, and not known to have ended.
    number: usize,
    /// Ended without a word: what was below may live.
    lost: bool,
    /// Their calls were dropped; they are ending everything, and will tell.
    abandoned: Vec<Below>,
}

impl Wardens {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more was started.
    pub fn started(&self) {
        self.lock().number += 1;
    }

    /// One has ended; `clean` if it said that nothing is left below it.
    pub fn ended(&self, clean: bool) {
        let mut open = self.lock();
        open.number = open.number.saturating_sub(1);
        open.lost |= !clean;
    }

    /// Nobody waits for this one any more.
    pub fn abandoned(&self, below: Below) {
        self.lock().abandoned.push(below);
    }

    /// Waits for those whose calls were dropped. False if something may live that no warden has told the end of.
    pub async fn all_ended(&self, at_most: Duration) -> bool {
        let abandoned = std::mem::take(&mut self.lock().abandoned);
        let waiting = abandoned.into_iter().map(|mut below| async move {
            let told = tokio::time::timeout(at_most, below.wait()).await;
            self.ended(matches!(told, Ok(Some(_))));
        });
        futures::future::join_all(waiting).await;
        let open = self.lock();
        open.number == 0 && !open.lost
    }
}
