//! Decides which cell goes to which agent, and when. `README.md` beside this file states the problem and the solution.
//!
//! The scheduler knows agents, capacity and waiting cells. It doesn't know outcomes of attempts, the journal or
//! connections. Runs queue cells ([`core::Input::Queued`]) and learn where each goes ([`core::Effect::Assign`]); agents
//! come from `dispatch`.

pub mod actor;
mod ahead;
pub mod core;
mod demand;
pub mod expected;
mod fleet;
mod hopes;
mod ledger;
mod pace;
mod prepared;
mod queue;
pub mod replay;
mod request;
mod snapshots;
mod why;

pub use ahead::Preparing;
pub use demand::Wanted;
pub use fleet::AgentView;
pub use snapshots::Wish;
pub use why::{Constraint, Waiting};

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
