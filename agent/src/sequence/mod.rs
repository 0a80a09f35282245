//! The sequence of one attempt: its phases and steps, in order, each with exactly one outcome.
//!
//! [`core`] decides (pure: inputs in, effects out), [`actor`] performs. What a single step *does* is in [`crate::step`];
//! this folder knows a step only as something that is asked, opened, acts and ends.

pub mod actor;
pub mod core;
pub mod effect;
pub mod frame;
mod interrupt;
pub mod key;
pub mod limit;
mod node;
mod outcome;
pub mod skip;
mod skipping;
mod tree;

#[cfg(test)]
mod tests;
