//! All activities of a run as comma-separated values (RFC 4180): one line per activity of a cell. Activities of services
//! and of parallel steps overlap.

use crate::timing::activities;
use phalanx_shared::id::CellId;
use phalanx_shared::run_state::RunState;
use phalanx_shared::time::Timestamp;
use std::borrow::Cow;
use std::fmt::Write;

const TITLES: &str =
    "cell,name,attempt,kind,wait,phase,step,service,what,began_us,elapsed_us,critical,potential_us";

/// Returns the activities of all cells, or of one. Times are in microseconds, beginnings since the submission.
pub fn render(state: &RunState, cell: Option<&CellId>, now: Timestamp) -> String {
    let mut out = format!("{TITLES}\r\n");
    let wanted = |id: &&CellId| cell.is_none_or(|cell| cell == *id);
    for id in state.cells.keys().filter(wanted) {
        let name = state.planned(id).map_or(id.as_str(), |cell| &cell.name);
        for activity in activities(state, id, now) {
            let segment = &activity.segment;
            let potential = match activity.critical {
                true => segment.potential_us.to_string(),
                false => String::new(),
            };
            let _ = write!(
                out,
                "{},{},{},{},{},{},{},{},{},{},{},{},{potential}\r\n",
                quoted(id.as_str()),
                quoted(name),
                activity.attempt,
                segment.kind.as_str(),
                segment.wait.map_or("", |wait| wait.as_str()),
                quoted(segment.phase.as_deref().unwrap_or_default()),
                quoted(segment.step.as_deref().unwrap_or_default()),
                quoted(segment.service.as_deref().unwrap_or_default()),
                quoted(&segment.what),
                segment.began_us,
                segment.elapsed_us,
                activity.critical,
            );
        }
    }
    out
}

/// Returns a field, in quotes if it holds a separator.
fn quoted(text: &str) -> Cow<'_, str> {
    if text.contains([',', '"', '\n', '\r']) {
        Cow::Owned(format!("\"{}\"", text.replace('"', "\"\"")))
    } else {
        Cow::Borrowed(text)
    }
}
