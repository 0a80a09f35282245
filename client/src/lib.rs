//! The client: the `phalanx` command. It reads specs, settings and terminals, plans before it submits, packs and sends workspaces, shows and reports
//! runs; in single-machine mode it brings up a coordinator and agents of its own. The only crate that knows both sides.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod cli;
pub mod config;
pub mod local;
pub mod prepare;
pub mod spec_file;
pub mod telemetry;
pub mod workspace;
