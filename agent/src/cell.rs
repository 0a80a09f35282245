//! One attempt at a cell, from its assignment until it is completely torn down.
//!
//! [`spawn`] is the entry point. [`core`] decides what happens to an attempt and how it ends. [`attend`] performs that: it
//! is a task that outlives the [`actors`] of stack and sequence, and cleans up.
//!
//! stage: running: one attempt: stack, sequence, clean-up; `cell/core.rs` decides its end

mod actors;
mod attend;
mod collect;
pub mod core;
mod prepare;

pub use attend::{CellHandle, spawn};
