//! The coordinator: plans submissions, schedules cells, keeps the journal, and serves clients and agents. It is only a
//! server: code that reads a user's files, settings or terminal belongs to the client.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod access;
pub mod dispatch;
pub mod identity;
pub mod incoming;
pub mod journal;
pub mod metrics;
pub mod private;
pub mod registry;
pub mod run;
pub mod schedule;
pub mod serve;
#[cfg(test)]
mod sim;
pub mod submission;
pub mod supervisor;
pub mod trace;
pub mod workspace;

pub use phalanx_shared::clock;
