//! One service of an attempt, from its definition to its exit.
//!
//! [`core`] decides, [`actor`] performs, and [`probe`] checks readiness.

pub mod actor;
pub mod core;
pub mod probe;
