//! Tracks when the engine could not be reached. An exit in that time says nothing about the system under test.

use crate::clock::{Clock, SystemClock};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The newest period without a connection. Uses wall time, since the engine reports exit times in it.
#[derive(Default)]
pub(super) struct Away {
    span: Mutex<Option<Span>>,
    clock: SystemClock,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    from_s: i64,
    /// `None` while the engine is still away.
    to_s: Option<i64>,
}

impl Span {
    /// Allows one second of slack, since clocks are compared in whole seconds.
    fn covers(self, at_s: i64) -> bool {
        at_s >= self.from_s - 1 && self.to_s.is_none_or(|to| at_s <= to + 1)
    }
}

impl Away {
    /// Records that no connection could be made.
    pub fn begin(&self) {
        let now = self.now_s();
        let mut span = self.lock();
        if span.is_none_or(|known| known.to_s.is_some()) {
            tracing::warn!("the engine is away");
            *span = Some(Span {
                from_s: now,
                to_s: None,
            });
        }
    }

    /// Records that the engine answered.
    pub fn end(&self) {
        let now = self.now_s();
        if let Some(open) = self.lock().as_mut().filter(|span| span.to_s.is_none()) {
            open.to_s = Some(now);
        }
    }

    /// Returns the reason for an exit at that second (Unix time), if the engine was away then.
    pub fn at(&self, at_s: i64) -> Option<String> {
        let span = (*self.lock())?;
        span.covers(at_s).then(|| match span.to_s {
            Some(to) => format!("the engine went away for {} s", (to - span.from_s).max(1)),
            None => "the engine went away".to_owned(),
        })
    }

    fn now_s(&self) -> i64 {
        self.clock.wall().0 / 1_000_000
    }

    fn lock(&self) -> MutexGuard<'_, Option<Span>> {
        self.span.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_while_the_engine_was_away_ended_with_it() {
        let span = Span {
            from_s: 100,
            to_s: None,
        };
        assert!(span.covers(100) && span.covers(500) && !span.covers(90));
        let back = Span {
            to_s: Some(110),
            ..span
        };
        assert!(back.covers(110) && !back.covers(115));
    }

    #[test]
    fn an_answer_ends_it() {
        let away = Away::default();
        let now = away.now_s();
        assert_eq!(away.at(now), None);
        away.begin();
        away.begin();
        assert_eq!(away.at(now).as_deref(), Some("the engine went away"));
        away.end();
        assert_eq!(
            away.at(now).as_deref(),
            Some("the engine went away for 1 s")
        );
        assert_eq!(away.at(now + 100), None);
    }
}
