//! The life of a run: when each cell is tried or retried, when it gets its outcome, and when the run is over.
//!
//! [`core`] decides from the fold of the run's events (`verdict` judges cells). [`actor`]
//! journals each decision, and `courier` carries it out once it is durable. This module doesn't know where a cell runs
//! best (`schedule`) or how to reach an agent (`dispatch`).

pub mod actor;
pub mod core;
mod courier;
pub mod index;
pub mod patience;
mod verdict;

#[cfg(test)]
mod tests;
