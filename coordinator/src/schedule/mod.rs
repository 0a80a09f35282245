//! Which cell goes to which agent, and when. The problem and its solution are stated in `README.md` beside this file.
//!
//! Knows agents, capacity and waiting cells; doesn't know attempts' outcomes, the journal or connections. Runs put cells in
//! ([`core::Input::Queued`]) and are told where each goes ([`core::Effect::Assign`]); agents come from `dispatch`.

pub mod actor;
pub mod core;
pub mod expected;
mod fleet;
mod pace;
mod queue;
mod why;

pub use fleet::AgentView;
pub use why::{Constraint, Waiting};

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
