//! One attempt at a cell, from its assignment until it is completely torn down.
//!
//! [`spawn`] is the entry point. [`core`] decides how an attempt ends, [`actor`] holds stack and sequence together, and
//! [`attend`] outlives both and cleans up.
//!
//! stage: running: one attempt: stack, sequence, clean-up; `cell/core.rs` decides its end

pub mod actor;
pub mod attend;
pub mod core;
mod prepare;

pub use attend::{CellHandle, spawn};
