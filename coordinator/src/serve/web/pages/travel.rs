//! The bar for going back in time: a page as it was after any event of its run.

use super::frame::moment;
use maud::{Markup, html};
use phalanx_shared::time::Timestamp;

/// Returns the bar of a page: the event that it shows, of how many, and when that was if it isn't now.
pub fn bar(address: &str, seq: u64, newest: u64, at: Option<Timestamp>) -> Markup {
    let earlier = |by: u64| seq.saturating_sub(by).max(1);
    let later = |by: u64| seq.saturating_add(by).min(newest.max(1));
    let link = |to: u64, text: &str, title: &str| {
        html! { a.button href={ (address) "?at=" (to) } title=(title) { (text) } }
    };
    // On a live page, the script moves these links and the slider on with the run.
    let back = |by: u64, text: &str, title: &str| {
        html! { a.button href={ (address) "?at=" (earlier(by)) } data-back=(by) title=(title) { (text) } }
    };
    html! {
        nav #travel aria-label="Time travel" data-past[at.is_some()] {
            @if let Some(at) = at {
                strong { "As it was after event " (seq) " of " (newest) }
                " · " (moment(at)) " "
                a.button href=(address) { "Back to now" }
            } @else {
                span.quiet { "Event " span #seq { (seq) } }
            }
            " " (back(100, "−100", "A hundred events earlier"))
            (back(1, "−1", "One event earlier"))
            @if at.is_some() {
                (link(later(1), "+1", "One event later"))
                (link(later(100), "+100", "A hundred events later"))
            }
            form.travel method="get" action=(address) {
                label { span.sr { "Event" } input type="range" name="at" min="1" max=(newest.max(1)) value=(seq); }
                button type="submit" { "Go" }
            }
        }
    }
}
