//! Cells on specs: each sentence of the language about steps and outcomes, from YAML to events.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod artifacts;
mod ends;
mod http;
mod language;
mod odd;
mod policy;
mod rig;
mod server;
mod services;
mod snapshots;
mod sse;
