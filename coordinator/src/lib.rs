//! The coordinator: expands the matrix, schedules cells, keeps the journal, reports; and the `phalanx` command.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod api;
pub mod cli;
pub mod config;
pub mod dispatch;
mod health;
pub mod http;
pub mod incoming;
pub mod journal;
pub mod local;
pub mod metrics;
mod private;
pub mod registry;
pub mod report;
pub mod routing;
pub mod run;
pub mod schedule;
pub mod server;
#[cfg(test)]
mod sim;
pub mod spec_file;
pub mod submission;
pub mod supervisor;
pub mod telemetry;
pub mod trace;
pub mod workspace;

pub use phalanx_shared::clock;
