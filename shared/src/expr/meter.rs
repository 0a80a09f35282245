//! Bounds what one evaluation may cost.
//!
//! The `cel` crate has no step limit, so every element that a macro visits is counted ([`super::functions`] wraps what
//! macros iterate over), and nested calls of defined functions are bounded. An expression without macros is bounded
//! by its own size. The count lives in a thread-local, because functions of a CEL environment carry no state
//! and an evaluation never leaves its thread.

use cel::ExecutionError;
use std::cell::Cell;

/// Elements that macros may visit in one evaluation.
pub const MAX_STEPS: u64 = 5_000_000;

/// Defined functions that may call each other, one inside the other.
pub const MAX_CALLS: u32 = 8;

thread_local! {
    static SPENT: Cell<u64> = const { Cell::new(0) };
    static NESTED: Cell<u32> = const { Cell::new(0) };
}

/// An evaluation in progress; the outermost one starts the count.
pub(super) struct Meter(());

impl Meter {
    /// Begins an evaluation, or says that defined functions are nested too deeply.
    pub(super) fn start() -> Result<Self, String> {
        let nested = NESTED.get();
        if nested > MAX_CALLS {
            return Err(format!(
                "defined functions call each other more than {MAX_CALLS} levels deep"
            ));
        }
        if nested == 0 {
            SPENT.set(0);
        }
        NESTED.set(nested + 1);
        Ok(Meter(()))
    }

    /// Starts the count anew, to look for the cause of a failure.
    pub(super) fn restart(&self) {
        SPENT.set(0);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        NESTED.set(NESTED.get().saturating_sub(1));
    }
}

/// The count of a thread, to be carried to another one.
#[derive(Clone, Copy)]
pub(super) struct Count {
    spent: u64,
    nested: u32,
}

impl Count {
    pub(super) fn now() -> Self {
        Count {
            spent: SPENT.get(),
            nested: NESTED.get(),
        }
    }

    pub(super) fn set(self) {
        SPENT.set(self.spent);
        NESTED.set(self.nested);
    }
}

/// Whether a defined function is being evaluated within another expression.
pub(super) fn is_nested() -> bool {
    NESTED.get() > 1
}

pub(super) fn spend(steps: u64) -> Result<(), ExecutionError> {
    let spent = SPENT.get().saturating_add(steps);
    SPENT.set(spent);
    if spent > MAX_STEPS {
        return Err(ExecutionError::function_error(
            "macro",
            format!("too expensive: macros visited more than {MAX_STEPS} elements"),
        ));
    }
    Ok(())
}
