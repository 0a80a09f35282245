//! Decides which costly engine operation runs next. Pure.
//!
//! An engine performs these operations more slowly the more of them run at once, and if all cells advance a little at a
//! time, all of them finish late. So only a few run at a time, and among those that wait, the one nearest to its cell's
//! first step goes first: of cells that arrive together, the first are done while the last have not begun. Clean-up
//! comes after all starts, since no cell waits for it, until it is overdue. Then it goes before them, even if hanging
//! starts hold every place; but while other work waits, clean-ups never take more than half of the places.

use std::collections::{BTreeSet, HashMap};

/// Kinds of work, in order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Work {
    /// Start a container.
    Start,
    /// Create a container.
    Create,
    /// Create a cell's network.
    Network,
    /// Remove an attempt's objects.
    CleanUp,
    /// Create a spare network that no cell waits for yet.
    Spare,
}

impl Work {
    /// Returns whether a cell's steps wait for it.
    fn is_waited_for(self) -> bool {
        matches!(self, Work::Start | Work::Create | Work::Network)
    }
}

/// A request, numbered in order of arrival.
pub type Ticket = u64;

/// The requests that wait and those that are being served.
#[derive(Debug)]
pub struct Core {
    at_once: usize,
    next: Ticket,
    waiting: BTreeSet<(Work, Ticket)>,
    /// Clean-ups that have waited long enough; no longer in `waiting`.
    overdue: BTreeSet<Ticket>,
    served: HashMap<Ticket, Work>,
}

impl Core {
    /// Creates a core that serves `at_once` requests at a time; at least one.
    pub fn new(at_once: usize) -> Core {
        Core {
            at_once: at_once.max(1),
            next: 0,
            waiting: BTreeSet::new(),
            overdue: BTreeSet::new(),
            served: HashMap::new(),
        }
    }

    /// Adds a request. [`Core::grant`] returns it when it is its turn.
    pub fn ask(&mut self, work: Work) -> Ticket {
        self.next += 1;
        self.waiting.insert((work, self.next));
        self.next
    }

    /// Marks a clean-up as overdue.
    pub fn overdue(&mut self, ticket: Ticket) {
        if self.waiting.remove(&(Work::CleanUp, ticket)) {
            self.overdue.insert(ticket);
        }
    }

    /// Removes a request that is done or no longer waits.
    pub fn leave(&mut self, ticket: Ticket) {
        if self.served.remove(&ticket).is_none() && !self.overdue.remove(&ticket) {
            self.waiting.retain(|(_, waiting)| *waiting != ticket);
        }
    }

    /// Returns the requests whose turn it is now. Call it after every change.
    pub fn grant(&mut self) -> Vec<Ticket> {
        std::iter::from_fn(|| {
            let (work, ticket) = self.pick()?;
            self.served.insert(ticket, work);
            Some(ticket)
        })
        .collect()
    }

    fn pick(&mut self) -> Option<(Work, Ticket)> {
        let full = self.served.len() >= self.at_once;
        let first = self.waiting.first().copied();
        let contended = full || first.is_some_and(|(work, _)| work.is_waited_for());
        let cleaning = self.served.values().filter(|w| **w == Work::CleanUp);
        if (!contended || cleaning.count() < self.share())
            && let Some(ticket) = self.overdue.pop_first()
        {
            return Some((Work::CleanUp, ticket));
        }
        if full {
            return None;
        }
        self.waiting.pop_first()
    }

    /// Returns how many overdue clean-ups are served regardless of other work, beyond the places if they are all taken.
    fn share(&self) -> usize {
        (self.at_once / 2).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asked(core: &mut Core, works: &[Work]) -> Vec<Ticket> {
        works.iter().map(|work| core.ask(*work)).collect()
    }

    #[test]
    fn whoever_is_nearest_to_its_first_step_goes_first() {
        let mut core = Core::new(1);
        let tickets = asked(
            &mut core,
            &[
                Work::Spare,
                Work::CleanUp,
                Work::Network,
                Work::Create,
                Work::Start,
                Work::Start,
            ],
        );
        let mut order = Vec::new();
        while let [ticket] = core.grant()[..] {
            order.push(ticket);
            core.leave(ticket);
        }
        let [spare, clean, network, create, first, second] = tickets[..] else {
            unreachable!("six were asked for")
        };
        assert_eq!(order, [first, second, create, network, clean, spare]);
    }

    #[test]
    fn clean_up_uses_every_place_when_nobody_waits_to_start() {
        let mut core = Core::new(4);
        asked(&mut core, &[Work::CleanUp; 6]);
        assert_eq!(core.grant().len(), 4);
    }

    #[test]
    fn an_overdue_clean_up_goes_before_starts_but_leaves_them_half_of_the_places() {
        let mut core = Core::new(4);
        let cleans = asked(&mut core, &[Work::CleanUp; 6]);
        let starts = asked(&mut core, &[Work::Start; 6]);
        for ticket in &cleans {
            core.overdue(*ticket);
        }
        let granted = core.grant();
        assert_eq!(granted, [&cleans[..2], &starts[..2]].concat());
        core.leave(starts[0]);
        assert_eq!(core.grant(), [starts[2]]);
        core.leave(cleans[0]);
        assert_eq!(core.grant(), [cleans[2]]);
    }

    #[test]
    fn on_a_single_place_overdue_clean_up_still_gets_its_turn() {
        let mut core = Core::new(1);
        let clean = core.ask(Work::CleanUp);
        core.ask(Work::Start);
        core.overdue(clean);
        assert_eq!(core.grant(), [clean]);
    }

    #[test]
    fn starts_that_hang_in_every_place_hold_up_no_overdue_clean_up() {
        let mut core = Core::new(2);
        asked(&mut core, &[Work::Start; 5]);
        assert_eq!(core.grant().len(), 2);
        let cleans = asked(&mut core, &[Work::CleanUp; 2]);
        assert!(core.grant().is_empty());
        cleans.iter().for_each(|ticket| core.overdue(*ticket));
        assert_eq!(core.grant(), [cleans[0]]);
        core.leave(cleans[0]);
        assert_eq!(core.grant(), [cleans[1]]);
    }

    #[test]
    fn who_waits_no_more_is_forgotten() {
        let mut core = Core::new(1);
        let [first, second, third] = asked(&mut core, &[Work::Start; 3])[..] else {
            unreachable!("three were asked for")
        };
        assert_eq!(core.grant(), [first]);
        core.leave(second);
        core.leave(first);
        assert_eq!(core.grant(), [third]);
    }

    fn any_work() -> impl Strategy<Value = Work> {
        prop_oneof![
            Just(Work::Start),
            Just(Work::Create),
            Just(Work::Network),
            Just(Work::CleanUp),
            Just(Work::Spare),
        ]
    }

    proptest! {
        /// Whatever requests arrive, leave and become overdue: the places plus the clean-up share are never exceeded,
        /// no place is empty while a request waits, and every request is served in the end.
        #[test]
        fn places_are_never_exceeded_nor_wasted_and_everybody_is_served(
            at_once in 1usize..6,
            changes in proptest::collection::vec((0u8..3, any_work(), any::<proptest::sample::Index>()), 1..80),
        ) {
            let mut core = Core::new(at_once);
            let mut asked = BTreeSet::new();
            let mut served: BTreeSet<Ticket> = BTreeSet::new();
            let mut done = BTreeSet::new();
            for (change, work, which) in changes {
                match change {
                    0 => { asked.insert(core.ask(work)); }
                    1 if !served.is_empty() => {
                        let all: Vec<_> = served.iter().copied().collect();
                        let ticket = *which.get(&all);
                        served.remove(&ticket);
                        done.insert(ticket);
                        core.leave(ticket);
                    }
                    2 if !asked.is_empty() => {
                        let all: Vec<_> = asked.iter().copied().collect();
                        core.overdue(*which.get(&all));
                    }
                    _ => {}
                }
                served.extend(core.grant());
                prop_assert!(served.len() <= at_once + core.share());
                let waiting = asked.len() - served.len() - done.len();
                prop_assert!(waiting == 0 || served.len() >= at_once);
            }
            while let Some(ticket) = served.pop_first() {
                done.insert(ticket);
                core.leave(ticket);
                served.extend(core.grant());
            }
            prop_assert_eq!(done, asked);
        }
    }
}
