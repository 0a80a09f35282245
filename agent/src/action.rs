//! The actions of steps, and what steps and readiness probes share: requests, commands, checks, answers, evidence.
//!
//! There is one file per action. An action returns an [`answer::Answer`], which expressions read, or an
//! [`answer::Fault`]. reqwest's types stay in [`http`], [`sse`] and [`crate::context::client`].

pub mod answer;
pub mod artifacts;
pub mod check;
pub mod container;
pub mod cp;
mod event_stream;
pub mod exec;
pub mod exhibit;
pub mod failure;
pub mod http;
pub mod page;
pub mod references;
pub mod results;
pub mod run;
pub mod sse;
pub mod wait;
