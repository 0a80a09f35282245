//! A run's life: which cell is tried (again) when, when it has its outcome, when the run is over.
//!
//! [`core`] decides over the fold of the run's events (attempts in `attempt`, what becomes of a cell in `verdict`); [`actor`] journals
//! each decision, and `courier` carries it out once it is durable. Doesn't know where a cell runs best (`schedule`) or how an agent is
//! reached (`dispatch`).

pub mod actor;
mod attempt;
pub mod core;
mod courier;
mod patience;
mod verdict;

#[cfg(test)]
mod tests;
