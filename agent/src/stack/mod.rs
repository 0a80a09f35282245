//! The stack of one attempt: its services from definition to exit.
//!
//! [`core`] decides what starts when, [`actor`] has one [`container`] actor per service do it, [`board`] is where everybody
//! sees where each service is, [`probe`] asks whether it is ready, [`logs`] takes what it prints.

pub mod actor;
pub mod board;
pub mod container;
pub mod core;
pub mod definition;
mod end;
mod expected;
pub mod logs;
pub mod probe;
mod secrets;
mod start;
