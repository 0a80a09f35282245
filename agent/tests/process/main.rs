//! The process runtime on real processes: nothing it starts outlives what it should, and no byte of output is lost.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod bench;
mod contract;
mod death;
mod output;
