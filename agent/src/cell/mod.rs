//! One attempt at a cell, from its assignment to the word that nothing of it is left.
//!
//! [`spawn`] is the way in. [`core`] decides what an end means, [`actor`] holds stack and sequence together, [`attend`] outlives
//! both and cleans up. [`context`] is what steps, probes and definitions are evaluated in.

pub mod actor;
pub mod attend;
pub mod context;
pub mod core;
pub mod masks;
mod prepare;

pub use attend::{CellHandle, spawn};
