//! The domain of Phalanx: what a spec says, what a plan holds, what happened in a run.
//!
//! Pure: no I/O, no tokio, no clock ([`clock`] alone reads it, for others). Time is a parameter, files come in as text.
//! Read in the order of the one direction: [`spec`] → [`expr`] → [`matrix`] → [`plan`] → [`event`] → [`run_state`].

#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod clock;
pub mod diagnostic;
pub mod event;
pub mod expr;
pub mod id;
pub mod input;
pub mod invariant;
pub mod mask;
pub mod matrix;
pub mod outcome;
pub mod plan;
pub mod reference;
pub mod run_state;
pub mod spec;
pub mod time;
pub mod trace;
pub mod workspace_name;
