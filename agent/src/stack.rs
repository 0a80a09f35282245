//! The stack of one attempt: its services, from definition to exit.
//!
//! [`core`] decides which services start when, and [`actor`] tells them. Each service has a state machine and an actor
//! ([`service`]). [`board`] shows the state of each, and [`logs`] takes the output. Steps use all of it through
//! [`services`].

pub mod actor;
mod allowed;
pub mod board;
pub mod core;
pub mod definition;
pub mod dependencies;
mod evidence;
mod expected;
pub mod logs;
mod replicas;
pub mod restored;
mod secrets;
pub mod service;
pub mod services;
pub mod snapshots;
pub mod status;
