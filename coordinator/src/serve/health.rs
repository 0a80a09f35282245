//! Problems that keep a coordinator from working, as text. `/healthz` and waiting clients show them.

use crate::dispatch::logs::store::LogStore;
use crate::supervisor::Handle;

/// Returns all current problems; empty if there are none.
pub fn problems(handle: &Handle, logs: &LogStore) -> Vec<String> {
    let journal = handle.journal.health().borrow().clone();
    let journal = journal.map(|reason| format!("the journal can't be written: {reason}"));
    let damage = handle.journal.damage();
    let damage = damage.map(|found| format!("the journal is damaged: {found}"));
    let logs = logs.problem();
    let logs = logs.map(|reason| format!("logs can't be stored: {reason}"));
    [journal, damage, logs].into_iter().flatten().collect()
}
