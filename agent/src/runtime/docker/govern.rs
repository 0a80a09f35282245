//! The governor of one engine: costly operations wait here for their turn. `core` decides the order.

pub(super) mod core;

use self::core::{Core, Ticket};
use crate::clock::runtime_now;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

pub(super) use self::core::Work;

/// How long a clean-up waits at most before it goes ahead of starts. Its deadline is a minute.
const PATIENCE: Duration = Duration::from_secs(5);

/// Grants turns.
pub(super) struct Governor(Mutex<State>);

struct State {
    core: Core,
    waiting: HashMap<Ticket, oneshot::Sender<()>>,
}

/// A turn, or the wait for one. Dropping it ends either.
pub(super) struct Turn<'a> {
    governor: &'a Governor,
    ticket: Ticket,
    /// How long it was waited for.
    waited: Duration,
}

impl Turn<'_> {
    /// Returns how long it was waited for.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

impl Governor {
    /// Creates a governor that serves this many operations at once.
    pub fn new(at_once: usize) -> Governor {
        Governor(Mutex::new(State {
            core: Core::new(at_once),
            waiting: HashMap::new(),
        }))
    }

    /// Waits for a turn.
    pub async fn turn(&self, work: Work) -> Turn<'_> {
        let asked = runtime_now();
        let (send, mut granted) = oneshot::channel();
        let mut turn = {
            let mut state = self.state();
            let ticket = state.core.ask(work);
            state.waiting.insert(ticket, send);
            state.grant();
            Turn {
                governor: self,
                ticket,
                waited: Duration::ZERO,
            }
        };
        // The sender is only dropped together with this turn, so an error can't occur.
        let in_time = match work {
            Work::CleanUp => tokio::time::timeout(PATIENCE, &mut granted).await.is_ok(),
            _ => (&mut granted).await.is_ok(),
        };
        if work == Work::CleanUp && !in_time {
            self.hurry(&turn);
            let _ = granted.await;
        }
        turn.waited = asked.elapsed();
        turn
    }

    /// Lets a clean-up that has waited long enough go ahead.
    fn hurry(&self, turn: &Turn<'_>) {
        let mut state = self.state();
        state.core.overdue(turn.ticket);
        state.grant();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn grant(&mut self) {
        for ticket in self.core.grant() {
            if let Some(waiting) = self.waiting.remove(&ticket) {
                // A receiver that has stopped waiting gives up its turn when it is dropped.
                let _ = waiting.send(());
            }
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.governor.state();
        state.waiting.remove(&self.ticket);
        state.core.leave(self.ticket);
        state.grant();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clean_up_behind_a_start_that_hangs_gets_its_turn_when_it_has_waited_long_enough() {
        let governor = Governor::new(1);
        let _hangs = governor.turn(Work::Start).await;
        let began = crate::clock::runtime_now();
        let turn = governor.turn(Work::CleanUp).await;
        let waited = began.elapsed();
        assert_eq!(turn.waited(), waited);
        let bound = PATIENCE..PATIENCE + Duration::from_secs(1);
        assert!(bound.contains(&waited), "{waited:?}");
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_holds_no_place() {
        let governor = Governor::new(1);
        let held = governor.turn(Work::Start).await;
        {
            let waiting = governor.turn(Work::Start);
            tokio::pin!(waiting);
            assert!(futures::poll!(&mut waiting).is_pending());
        }
        drop(held);
        drop(governor.turn(Work::Network).await);
    }
}
