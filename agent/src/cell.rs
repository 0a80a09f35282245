//! One attempt at a cell, from its assignment until it is completely torn down.
//!
//! [`spawn`] is the entry point. [`core`] decides how an attempt ends, [`actor`] holds stack and sequence together, and
//! [`attend`] outlives both and cleans up. [`context`] evaluates the expressions of steps, probes and definitions.

pub mod actor;
pub mod attend;
pub mod context;
pub mod core;
pub mod masks;
mod prepare;

pub use attend::{CellHandle, spawn};
