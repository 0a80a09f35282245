//! The sequence of one attempt: its phases and steps, in order, each with exactly one outcome.
//!
//! [`core`] decides (pure: inputs in, effects out) and [`actor`] performs. The actions of single steps are in
//! [`crate::step`]; this folder only asks, opens, runs and ends steps.

pub mod actor;
pub mod core;
mod describe;
pub mod effect;
pub mod key;
pub mod skip;

#[cfg(test)]
mod tests;
