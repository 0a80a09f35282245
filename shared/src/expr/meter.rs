//! Bounds the time and memory of one evaluation.
//!
//! The `cel` crate has no limits. Every element that a macro visits is a step ([`super::functions`] wraps the range of
//! each macro), and so is every 256 bytes that an operation reads. The size of each new value is counted before the
//! value is made: the operands of `+`, the parts of lists and maps, the arguments of functions that return new values.
//! So no evaluation grows without limit, however its parts multiply. The depth of nested calls of defined functions is
//! bounded too.
//!
//! A [`Group`] counts several evaluations together (all texts of one tree). An [`Allowance`] bounds the steps of
//! everything that a thread evaluates, such as a whole plan. The counts are thread-locals, because functions of a CEL
//! environment have no state and an evaluation stays on its thread. The exception is [`super::stack`], which carries
//! the counts to another thread.

use cel::ExecutionError;
use std::cell::Cell;

/// Tests of this crate use a fraction of both limits: they show the same behaviour, and full limits take minutes
/// without optimization.
const PART: u64 = if cfg!(test) { 16 } else { 1 };

/// Maximum steps of one evaluation.
pub const MAX_STEPS: u64 = 5_000_000 / PART;

/// Maximum bytes of all values that one evaluation makes, including those that it drops.
pub const MAX_BYTES: u64 = (128 << 20) / PART;

/// Maximum nesting depth of calls of defined functions.
pub const MAX_CALLS: u32 = 8;

/// Bytes whose reading costs one step.
const BYTES_PER_STEP: u64 = 256;

thread_local! {
    static SPENT: Cell<u64> = const { Cell::new(0) };
    static MADE: Cell<u64> = const { Cell::new(0) };
    static NESTED: Cell<u32> = const { Cell::new(0) };
    static GROUPS: Cell<u32> = const { Cell::new(0) };
    static ALLOWED: Cell<u64> = const { Cell::new(u64::MAX) };
    static INCOMPLETE: Cell<bool> = const { Cell::new(false) };
}

fn begin() {
    if NESTED.get() == 0 && GROUPS.get() == 0 {
        SPENT.set(0);
        MADE.set(0);
    }
}

/// An evaluation in progress. The outermost one resets the counts.
pub(super) struct Meter(());

impl Meter {
    /// Begins an evaluation, or returns an error if defined functions are nested too deeply.
    pub(super) fn start() -> Result<Self, String> {
        let nested = NESTED.get();
        if nested == 0 {
            INCOMPLETE.set(false);
        }
        if nested > MAX_CALLS {
            return Err(format!(
                "defined functions call each other more than {MAX_CALLS} levels deep"
            ));
        }
        begin();
        NESTED.set(nested + 1);
        take(1)
            .map(|()| Meter(()))
            .inspect_err(|_| NESTED.set(nested))
    }

    /// Resets the counts to search for the cause of a failure. Does nothing within another evaluation, because that
    /// would lift its limit.
    pub(super) fn restart(&self) {
        if !is_nested() {
            SPENT.set(0);
            MADE.set(0);
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        NESTED.set(NESTED.get().saturating_sub(1));
    }
}

/// Several evaluations that are counted as one.
pub(super) struct Group(());

impl Group {
    pub(super) fn start() -> Self {
        begin();
        GROUPS.set(GROUPS.get() + 1);
        Group(())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        GROUPS.set(GROUPS.get().saturating_sub(1));
    }
}

/// Bounds the steps that this thread may take, whatever it evaluates, until the value is dropped.
#[must_use]
pub struct Allowance {
    before: u64,
}

impl Allowance {
    /// Allows at most `steps` steps from now on, and never more than an enclosing allowance has left.
    pub fn of(steps: u64) -> Self {
        let before = ALLOWED.get();
        ALLOWED.set(before.min(steps));
        Allowance { before }
    }
}

impl Drop for Allowance {
    fn drop(&mut self) {
        ALLOWED.set(self.before);
    }
}

/// The counts of a thread, to be carried to another thread.
#[derive(Clone, Copy)]
pub(super) struct Count {
    spent: u64,
    made: u64,
    nested: u32,
    groups: u32,
    allowed: u64,
    incomplete: bool,
}

impl Count {
    pub(super) fn now() -> Self {
        Count {
            spent: SPENT.get(),
            made: MADE.get(),
            nested: NESTED.get(),
            groups: GROUPS.get(),
            allowed: ALLOWED.get(),
            incomplete: INCOMPLETE.get(),
        }
    }

    pub(super) fn set(self) {
        SPENT.set(self.spent);
        MADE.set(self.made);
        NESTED.set(self.nested);
        GROUPS.set(self.groups);
        ALLOWED.set(self.allowed);
        INCOMPLETE.set(self.incomplete);
    }
}

/// Records that the evaluation read a name of which only a part is known.
pub(super) fn note_incomplete() {
    INCOMPLETE.set(true);
}

/// Returns whether the evaluation read a name of which only a part is known.
pub(super) fn read_incomplete() -> bool {
    INCOMPLETE.get()
}

/// Returns whether a defined function is being evaluated within another expression.
pub(super) fn is_nested() -> bool {
    NESTED.get() > 1
}

/// Takes steps from the allowance only.
fn take(steps: u64) -> Result<(), String> {
    let allowed = ALLOWED.get();
    if allowed == u64::MAX {
        return Ok(());
    }
    ALLOWED.set(allowed.saturating_sub(steps));
    match steps <= allowed {
        true => Ok(()),
        false => Err(
            "too expensive: all expressions of the plan together take too long (cells × expressions × what each goes through)"
                .to_owned(),
        ),
    }
}

fn failed(message: String) -> ExecutionError {
    ExecutionError::function_error("macro", message)
}

/// Takes steps from the evaluation and the allowance.
pub(super) fn spend(steps: u64) -> Result<(), ExecutionError> {
    let spent = SPENT.get().saturating_add(steps);
    SPENT.set(spent);
    take(steps).map_err(failed)?;
    if spent > MAX_STEPS {
        return Err(failed(format!(
            "too expensive: more than {MAX_STEPS} elements visited, or {BYTES_PER_STEP} bytes read for each"
        )));
    }
    Ok(())
}

/// Takes the steps for reading `bytes` bytes.
pub(super) fn read(bytes: u64) -> Result<(), ExecutionError> {
    spend(bytes / BYTES_PER_STEP)
}

/// Counts bytes that are about to be made, or returns an error if there are too many.
pub(super) fn make(bytes: u64) -> Result<(), String> {
    let made = MADE.get().saturating_add(bytes);
    MADE.set(made);
    take(bytes / BYTES_PER_STEP)?;
    match made > MAX_BYTES {
        true => Err(format!(
            "too large: the values that this makes hold more than {} MiB",
            MAX_BYTES >> 20
        )),
        false => Ok(()),
    }
}

/// Takes the steps for copying `bytes` bytes outside of any evaluation.
pub fn charge(bytes: u64) -> Result<(), String> {
    take(bytes / BYTES_PER_STEP)
}

/// Does the same as [`make`], within an evaluation.
pub(super) fn hold(bytes: u64) -> Result<(), ExecutionError> {
    make(bytes).map_err(failed)
}
