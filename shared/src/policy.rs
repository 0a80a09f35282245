//! What specs may ask of the machine that runs them. An agent's policy is a set of [`Rules`]; a definition has [`Need`]s;
//! the rules refuse a need or don't.
//!
//! The agent judges with its own rules, and the coordinator places cells with the rules that agents report, so both use
//! the code of this folder. It reads no file: [`mod@file`] parses a text.

pub mod address;
pub mod file;
pub mod need;
pub mod rule;
pub mod rules;

pub use need::{Need, of_service, of_spec};
pub use rule::Rule;
pub use rules::{Allow, Refusal, Rules, Ruling};
