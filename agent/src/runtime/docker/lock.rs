//! Locks a mutex.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks it, even if a thread panicked while it held the lock: no update under these locks stops half-way.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
