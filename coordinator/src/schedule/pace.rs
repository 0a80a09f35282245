//! How many offers are under way at once. Placing a thousand cells is one decision; making a thousand jobs, journal entries and messages of it in
//! the same moment would let each wait for all others, and what is decided next (a cancel, another run's cell) behind them.

use phalanx_shared::id::{AgentId, Token};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

/// Offers without an answer that others wait for: enough to keep both sides busy, few enough that each is answered soon.
const WINDOW: usize = 32;
/// Others wait for no answer longer than this: an agent that doesn't answer holds up nobody else.
const PATIENCE: Duration = Duration::from_millis(100);

/// Assignments in the order decided, at most a window of them unanswered.
#[derive(Debug)]
pub(super) struct Pace {
    window: usize,
    waiting: VecDeque<(Token, AgentId)>,
    open: HashMap<Token, Duration>,
    /// The same by the time when nobody waits for them any more.
    until: BTreeSet<(Duration, Token)>,
    /// The time that was asked for.
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

    /// A cell was placed.
    pub fn decided(&mut self, token: Token, agent: AgentId) {
        self.waiting.push_back((token, agent));
    }

    /// An offer was answered, or its reservation ended otherwise.
    pub fn answered(&mut self, token: &Token) {
        if let Some(until) = self.open.remove(token) {
            self.until.remove(&(until, token.clone()));
        }
    }

    /// What may be offered now. Also what is no longer placed: only its run can put it into the queue again.
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

    /// When to look again, if something waits and that wasn't asked for before.
    pub fn wake(&mut self) -> Option<Duration> {
        let (until, _) = self.until.first().filter(|_| !self.waiting.is_empty())?;
        let new = self.asked.is_none_or(|asked| *until < asked);
        new.then(|| *self.asked.insert(*until))
    }

    /// A time that somebody asked for has come, so the next is to be asked for anew.
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
        // The late answer opens nothing twice.
        pace.answered(&token("deaf"));
        pace.decided(token("last"), "y".into());
        assert_eq!(offered(&mut pace, later), Vec::<String>::new());
    }
}
