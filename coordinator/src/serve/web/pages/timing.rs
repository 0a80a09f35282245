//! The times of a run: figures, critical path, waits, slots, and attempts by agent.

use super::super::board::Region;
use super::super::fold::Folded;
use super::cell::title;
use super::run::links;
use maud::{Markup, html};
use phalanx_report::html::timeline;
use phalanx_report::timing::{lanes, timing};
use phalanx_shared::id::CellId;

/// Returns the regions of the page; none if there was no result after an event.
pub fn regions(folded: &Folded, since: Option<u64>) -> Vec<Region> {
    if since.is_some_and(|since| folded.judged <= since) {
        return Vec::new();
    }
    let (state, links) = (&folded.state, links(folded));
    let times = timing(state, folded.at);
    let lanes = lanes(state, folded.at);
    let name = |id: &CellId| title(folded, id);
    let part = |id: &str, html: Markup| Region::part(id, "page", html);
    vec![
        part("figures", timeline::figures(&times)),
        part(
            "critical-path",
            timeline::critical_path(&times, &links, name),
        ),
        part("waited", timeline::waits(&times)),
        part("slots", timeline::slots(&times.slots, times.wall_us)),
        part("lanes", timeline::lanes(&lanes, times.wall_us, &links)),
        Region::frame(
            "legend",
            "page",
            html! { div #legend { (timeline::legend()) } },
        ),
    ]
}
