//! The domain of Phalanx: specs, plans, and the events of a run.
//!
//! The crate is pure: no I/O, no tokio, no clock. Time is a parameter, and files come in as text. [`clock`] is the one
//! exception: it reads the clocks for other packages.
//! Read the modules in the direction of the data: [`language`] → [`expr`] → [`matrix`] → [`plan`] → [`event`] →
//! [`run_state`].

#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod cancel;
pub mod clock;
pub mod diagnostic;
pub mod error_code;
pub mod event;
pub mod expr;
pub mod id;
pub mod identity;
pub mod input;
pub mod invariant;
pub mod language;
pub mod mask;
pub mod matrix;
pub mod namespace;
pub mod node;
pub mod outcome;
pub mod plan;
pub mod policy;
pub mod reference;
pub mod run_state;
pub mod time;
pub mod trace;
pub mod wait;
pub mod workspace_name;
