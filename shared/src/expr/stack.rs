//! Provides enough stack for recursion over an expression.
//!
//! In a debug build the parser takes about 250 KB per bracket and the evaluator 90 KB per level, while a thread of an
//! async runtime has 2 MiB. So deep expressions run on a thread of their own, with a stack that suffices for their
//! depth.

use super::meter;
use std::io;

/// Maximum depth that is evaluated on the current thread.
const SHALLOW: usize = 6;

/// Bytes of stack per level, with a good margin; memory that isn't touched costs nothing.
const PER_LEVEL: usize = 512 << 10;

/// Runs `work` with stack for `depth` levels.
pub(super) fn with_room<T: Send>(depth: usize, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    if depth <= SHALLOW && !meter::is_nested() {
        return Ok(work());
    }
    on_own_stack(depth, work)
}

/// Runs `work` on a thread of its own. The meter's counts are carried there and back.
pub(super) fn on_own_stack<T: Send>(
    depth: usize,
    work: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    let before = meter::Count::now();
    let (result, after) = std::thread::scope(|threads| {
        let metered = move || {
            before.set();
            (work(), meter::Count::now())
        };
        let thread = std::thread::Builder::new()
            .name("expression".to_owned())
            .stack_size((depth + SHALLOW) * PER_LEVEL)
            .spawn_scoped(threads, metered)?;
        match thread.join() {
            Ok(done) => io::Result::Ok(done),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    after.set();
    Ok(result)
}
