//! One service of an attempt, from its definition to its exit.
//!
//! [`core`] decides, [`actor`] performs, [`probe`] checks readiness, and [`restart`] decides about starts after an exit.

pub mod actor;
pub mod core;
pub mod probe;
pub mod restart;
