//! The agent: accepts cells from a coordinator, stands up their stacks, drives their sequences and reports events.
//!
//! It doesn't depend on the coordinator's crate; both share only `phalanx-proto` and `phalanx-shared`.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod access;
pub mod action;
pub mod ahead;
pub mod beneath;
pub mod cell;
pub mod cell_contract;
mod charset;
pub mod checkup;
pub mod clock;
pub mod command;
pub mod context;
pub mod duration;
pub mod enrolment;
pub mod entry;
pub mod gc;
pub mod held;
pub mod identity;
mod images;
pub mod keeper;
pub mod kept_snapshots;
pub mod limits;
pub mod link;
pub mod machine;
pub mod mourner;
pub mod policy;
pub mod private;
mod procfs;
pub mod reaper;
pub mod results;
pub mod roll;
pub mod runtime;
pub mod sequence;
pub mod sink;
pub mod snapshot;
pub mod stack;
pub mod step;
pub mod supervisor;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod swapper;
pub mod workspace;
