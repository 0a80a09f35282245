//! Limits the number of offers in flight. Placing a thousand cells is one decision. Creating a thousand jobs, journal
//! entries and messages from it at once would make each wait for all others, and later decisions (a cancel, another
//! run's cell) wait behind them.

use phalanx_shared::id::{AgentId, Token};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

/// Maximum number of unanswered offers that hold up others: enough to keep both sides busy, few enough that each is
/// answered soon.
const WINDOW: usize = 32;
/// Longest time that an unanswered offer holds up others, so that an agent that doesn't answer blocks no other.
const PATIENCE: Duration = Duration::from_millis(100);

/// Assignments in the order decided, with at most a window of them unanswered.
#[derive(Debug)]
pub(super) struct Pace {
    window: usize,
    waiting: VecDeque<(Token, AgentId)>,
    open: HashMap<Token, Duration>,
    /// The open offers, ordered by the time when they stop holding up others.
    until: BTreeSet<(Duration, Token)>,
    /// Time of the wake-up that was last requested.
    asked: Option<Duration>,
}

impl Default for Pace {
    fn default() -> Self {
        Pace::of(WINDOW)
    }
}

impl Pace {
    pub fn of(window: usize) -> Self {
        Pace {
            window,
            waiting: VecDeque::new(),
            open: HashMap::new(),
            until: BTreeSet::new(),
            asked: None,
        }
    }

    /// Queues the offer of a placed cell.
    pub fn decided(&mut self, token: Token, agent: AgentId) {
        self.waiting.push_back((token, agent));
    }

    /// Removes an offer that was answered or whose reservation ended otherwise.
    pub fn answered(&mut self, token: &Token) {
        if let Some(until) = self.open.remove(token) {
            self.until.remove(&(until, token.clone()));
        }
    }

    /// Returns the next assignment that may be offered now. It may no longer be placed; then its run rejects it, since
    /// only the run can queue the cell again.
    pub fn next(&mut self, now: Duration) -> Option<(Token, AgentId)> {
        while let Some((until, _)) = self.until.first()
            && *until <= now
            && let Some((_, token)) = self.until.pop_first()
        {
            self.open.remove(&token);
        }
        if self.open.len() >= self.window {
            return None;
        }
        let (token, agent) = self.waiting.pop_front()?;
        let until = now + PATIENCE;
        if let Some(before) = self.open.insert(token.clone(), until) {
            self.until.remove(&(before, token.clone()));
        }
        self.until.insert((until, token.clone()));
        Some((token, agent))
    }

    /// Returns when to look again, if an offer waits and no wake-up at or before that time was requested.
    pub fn wake(&mut self) -> Option<Duration> {
        let (until, _) = self.until.first().filter(|_| !self.waiting.is_empty())?;
        let new = self.asked.is_none_or(|asked| *until < asked);
        new.then(|| *self.asked.insert(*until))
    }

    /// Notes that a requested wake-up came, so that the next one is requested again.
    pub fn ticked(&mut self) {
        self.asked = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(cell: &str) -> Token {
        Token {
            run: "r".into(),
            cell: cell.into(),
            attempt: 1,
            epoch: 1,
        }
    }

    fn offered(pace: &mut Pace, now: Duration) -> Vec<String> {
        let next = std::iter::from_fn(|| pace.next(now));
        next.map(|(token, _)| token.cell.to_string()).collect()
    }

    #[test]
    fn an_answer_makes_room_for_the_next_in_order() {
        let (mut pace, now) = (Pace::of(2), Duration::from_secs(1));
        for cell in ["a", "b", "c", "d"] {
            pace.decided(token(cell), "x".into());
        }
        assert_eq!(offered(&mut pace, now), ["a", "b"]);
        pace.answered(&token("stranger"));
        assert_eq!(offered(&mut pace, now), Vec::<String>::new());
        pace.answered(&token("b"));
        pace.answered(&token("b"));
        assert_eq!(offered(&mut pace, now), ["c"]);
        assert_eq!(pace.wake(), Some(now + PATIENCE));
    }

    #[test]
    fn nobody_waits_long_for_an_agent_that_does_not_answer() {
        let (mut pace, now) = (Pace::of(1), Duration::from_secs(1));
        assert_eq!(pace.wake(), None);
        pace.decided(token("deaf"), "x".into());
        assert_eq!(offered(&mut pace, now), ["deaf"]);
        assert_eq!(pace.wake(), None, "nothing waits");
        pace.decided(token("next"), "y".into());
        let later = pace.wake().unwrap_or_default();
        assert_eq!(pace.wake(), None, "asked for once");
        assert_eq!(
            offered(&mut pace, later - Duration::from_micros(1)),
            Vec::<String>::new()
        );
        pace.ticked();
        assert_eq!(pace.wake(), Some(later));
        assert_eq!(offered(&mut pace, later), ["next"]);
        // The late answer frees no second place in the window.
        pace.answered(&token("deaf"));
        pace.decided(token("last"), "y".into());
        assert_eq!(offered(&mut pace, later), Vec::<String>::new());
    }
}
