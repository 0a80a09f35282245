//! What keeps a coordinator from doing its work, in words for people: `/healthz` and waiting clients show it.

use crate::dispatch::logs::store::LogStore;
use crate::supervisor::Handle;

/// Everything that is wrong at the moment; nothing while all is well.
pub fn problems(handle: &Handle, logs: &LogStore) -> Vec<String> {
    let journal = handle.journal.health().borrow().clone();
    let journal = journal.map(|reason| format!("the journal can't be written: {reason}"));
    let damage = handle.journal.damage();
    let damage = damage.map(|found| format!("the journal is damaged: {found}"));
    let logs = logs.problem();
    let logs = logs.map(|reason| format!("logs can't be stored: {reason}"));
    [journal, damage, logs].into_iter().flatten().collect()
}
