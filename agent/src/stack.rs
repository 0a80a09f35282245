//! The stack of one attempt: its services, from definition to exit.
//!
//! [`core`] decides which services start when, [`actor`] has one [`container`] actor per service start them, [`board`]
//! shows the state of each service, [`probe`] checks readiness, and [`logs`] takes the output. Steps use all of it through
//! [`services`].

pub mod actor;
pub mod board;
pub mod container;
pub mod core;
pub mod definition;
mod end;
mod evidence;
mod expected;
pub mod logs;
pub mod probe;
mod secrets;
pub mod services;
mod start;
