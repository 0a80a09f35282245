//! Decides which image is prepared next: those of the coordinator's newest list in its order, a few at a time. What is no
//! longer in the list is given up.
//!
//! It is pure: `ahead.rs` performs the effects.

use phalanx_proto::limit::{AHEAD, DOING_BYTES};
use phalanx_proto::link::{Ahead, AheadState};
use phalanx_shared::plan::WantedImage;

/// Input of the core.
#[derive(Debug)]
pub enum Input {
    /// The coordinator's newest list.
    Wanted(Vec<WantedImage>),
    /// The preparation with this number ended.
    Ended { number: u64, ready: bool },
    /// How far the preparation with this number is.
    Progress { number: u64, doing: String },
}

/// What the caller does.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Pull or build an image.
    Begin { number: u64, image: WantedImage },
    /// End the preparation with this number. It may still be needed by a cell, which goes on with it.
    GiveUp { number: u64 },
    /// Tell the coordinator how far all images are.
    Report(Vec<Ahead>),
}

#[derive(Debug)]
enum State {
    Waiting,
    Doing { number: u64, doing: String },
    Ready,
    Failed,
}

/// The list and its state.
#[derive(Debug)]
pub struct Queue {
    at_once: usize,
    images: Vec<(WantedImage, State)>,
    last: u64,
}

impl Queue {
    /// Creates an empty list. At most `at_once` images are prepared at the same time.
    pub fn new(at_once: u32) -> Self {
        Queue {
            at_once: at_once as usize,
            images: Vec::new(),
            last: 0,
        }
    }

    /// Returns the numbers of the preparations in progress.
    pub fn in_progress(&self) -> impl Iterator<Item = u64> {
        let number = |(_, state): &(_, State)| match state {
            State::Doing { number, .. } => Some(*number),
            _ => None,
        };
        self.images.iter().filter_map(number)
    }

    /// Handles one input and returns what follows from it.
    pub fn handle(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        let changed = match input {
            Input::Wanted(images) => {
                self.wanted(images, &mut effects);
                true
            }
            Input::Ended { number, ready } => self.set(number, |_| match ready {
                true => State::Ready,
                false => State::Failed,
            }),
            Input::Progress { number, doing } => {
                let doing = shown(&doing);
                self.set(number, |_| State::Doing { number, doing })
            }
        };
        self.begin(&mut effects);
        if changed {
            effects.push(Effect::Report(self.report()));
        }
        effects
    }

    fn wanted(&mut self, images: Vec<WantedImage>, effects: &mut Vec<Effect>) {
        let mut known = std::mem::take(&mut self.images);
        for image in images.into_iter().take(AHEAD) {
            if self.images.iter().any(|(other, _)| *other == image) {
                continue;
            }
            let at = known.iter().position(|(other, _)| *other == image);
            let state = at.map_or(State::Waiting, |at| known.swap_remove(at).1);
            self.images.push((image, state));
        }
        for (_, state) in known {
            if let State::Doing { number, .. } = state {
                effects.push(Effect::GiveUp { number });
            }
        }
    }

    /// Changes the state of a preparation in progress. Returns whether there is one with this number and it changed.
    fn set(&mut self, wanted: u64, to: impl FnOnce(&State) -> State) -> bool {
        let found = self
            .images
            .iter_mut()
            .find(|(_, state)| matches!(state, State::Doing { number, .. } if *number == wanted));
        let Some((_, state)) = found else {
            return false;
        };
        let before = std::mem::replace(state, State::Waiting);
        *state = to(&before);
        let same = match (&before, &*state) {
            (State::Doing { doing: a, .. }, State::Doing { doing: b, .. }) => a == b,
            _ => false,
        };
        !same
    }

    fn begin(&mut self, effects: &mut Vec<Effect>) {
        let mut free = self.at_once.saturating_sub(self.in_progress().count());
        for (image, state) in &mut self.images {
            if free == 0 {
                return;
            }
            if let State::Waiting = state {
                free -= 1;
                self.last += 1;
                let number = self.last;
                *state = State::Doing {
                    number,
                    doing: String::new(),
                };
                let image = image.clone();
                effects.push(Effect::Begin { number, image });
            }
        }
    }

    fn report(&self) -> Vec<Ahead> {
        let ahead = |(image, state): &(WantedImage, State)| Ahead {
            id: image.id().to_owned(),
            state: match state {
                State::Waiting => AheadState::Waiting,
                State::Doing { doing, .. } => AheadState::Doing(doing.clone()),
                State::Ready => AheadState::Ready,
                State::Failed => AheadState::Failed,
            },
        };
        self.images.iter().map(ahead).collect()
    }
}

/// Returns a progress as the wire takes it.
fn shown(doing: &str) -> String {
    let printable = doing.chars().filter(|c| !c.is_control());
    let mut text = String::new();
    for c in printable {
        if text.len() + c.len_utf8() > DOING_BYTES {
            break;
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use super::*;

    fn wanted(names: &[&str]) -> Input {
        Input::Wanted(names.iter().map(|name| WantedImage::from(*name)).collect())
    }

    fn ended(number: u64, ready: bool) -> Input {
        Input::Ended { number, ready }
    }

    /// Returns the effects in short form: `+1 a` begins, `-1` gives up, `a:ready` reports.
    fn told(effects: Vec<Effect>) -> Vec<String> {
        let short = |effect| match effect {
            Effect::Begin { number, image } => format!("+{number} {}", image.id()),
            Effect::GiveUp { number } => format!("-{number}"),
            Effect::Report(images) => {
                let images = images.into_iter().map(|image| match image.state {
                    AheadState::Waiting => format!("{}:waits", image.id),
                    AheadState::Doing(doing) => format!("{}:{doing}", image.id),
                    AheadState::Ready => format!("{}:ready", image.id),
                    AheadState::Failed => format!("{}:failed", image.id),
                });
                images.collect::<Vec<_>>().join(" ")
            }
        };
        effects.into_iter().map(short).collect()
    }

    #[test]
    fn a_few_are_prepared_at_a_time_in_the_order_of_the_list() {
        let mut queue = Queue::new(2);
        let first = told(queue.handle(wanted(&["a", "b", "c", "d"])));
        assert_eq!(first, ["+1 a", "+2 b", "a: b: c:waits d:waits"]);
        let next = told(queue.handle(ended(2, true)));
        assert_eq!(next, ["+3 c", "a: b:ready c: d:waits"]);
        // A failure is told as one, and isn't repeated while it stays in the list.
        let next = told(queue.handle(ended(1, false)));
        assert_eq!(next, ["+4 d", "a:failed b:ready c: d:"]);
        let again = told(queue.handle(wanted(&["a", "b", "c", "d"])));
        assert_eq!(again, ["a:failed b:ready c: d:"]);
    }

    #[test]
    fn what_nobody_wants_any_more_is_given_up_and_its_place_is_free() {
        let mut queue = Queue::new(1);
        queue.handle(wanted(&["a", "b"]));
        let effects = told(queue.handle(wanted(&["b"])));
        assert_eq!(effects, ["-1", "+2 b", "b:"]);
        // The end of what was given up changes nothing.
        assert_eq!(told(queue.handle(ended(1, true))), Vec::<String>::new());
        assert_eq!(told(queue.handle(wanted(&[]))), ["-2", ""]);
        assert_eq!(queue.in_progress().count(), 0);
        // Wanted again, it begins anew.
        assert_eq!(told(queue.handle(wanted(&["a"]))), ["+3 a", "a:"]);
    }

    #[test]
    fn an_urgent_one_goes_ahead_of_those_that_wait() {
        let mut queue = Queue::new(1);
        queue.handle(wanted(&["a", "b"]));
        queue.handle(wanted(&["c", "a", "b"]));
        let next = told(queue.handle(ended(1, true)));
        assert_eq!(next, ["+2 c", "c: a:ready b:waits"]);
    }

    #[test]
    fn progress_is_reported_when_it_changed_and_never_too_long() {
        let mut queue = Queue::new(1);
        queue.handle(wanted(&["a"]));
        let doing = |doing: &str| Input::Progress {
            number: 1,
            doing: doing.to_owned(),
        };
        assert_eq!(told(queue.handle(doing("1 of 2"))), ["a:1 of 2"]);
        assert_eq!(told(queue.handle(doing("1 of 2"))), Vec::<String>::new());
        let long = told(queue.handle(doing(&"é\n".repeat(4_000))));
        assert_eq!(long[0].len(), "a:".len() + DOING_BYTES);
    }

    #[test]
    fn a_list_is_bounded_and_holds_each_image_once() {
        let mut queue = Queue::new(1);
        let many: Vec<String> = (0..3 * AHEAD).map(|n| (n / 2).to_string()).collect();
        let many = many.iter().map(|name| WantedImage::from(name.as_str()));
        let effects = queue.handle(Input::Wanted(many.collect()));
        let Some(Effect::Report(report)) = effects.last() else {
            panic!("{effects:?}");
        };
        assert_eq!(report.len(), AHEAD / 2);
    }

    #[test]
    fn nothing_is_prepared_where_nothing_may_be() {
        let mut queue = Queue::new(0);
        assert_eq!(told(queue.handle(wanted(&["a"]))), ["a:waits"]);
    }
}
