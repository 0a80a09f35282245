//! The client: the `phalanx` command. It reads specs and settings, plans before it submits, packs and sends workspaces,
//! and shows and reports runs. In single-machine mode it starts its own coordinator and agents. It is the only crate
//! that uses both the agent's and the coordinator's crate.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod cli;
pub mod config;
pub mod credential;
pub mod demo;
pub mod entry;
pub mod init;
mod leftover;
pub mod local;
pub mod prepare;
pub mod spec_file;
pub mod telemetry;
pub mod workspace;
