//! The agent: accepts cells from a coordinator, stands up their stacks, drives their sequences and reports events.
//!
//! It doesn't depend on the coordinator's crate; both share only `phalanx-proto` and `phalanx-shared`.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod action;
pub mod beneath;
pub mod cell;
pub mod cell_contract;
pub mod clock;
pub mod command;
pub mod context;
pub mod duration;
pub mod entry;
pub mod gc;
pub mod identity;
mod images;
pub mod keeper;
pub mod limits;
pub mod link;
pub mod machine;
pub mod mourner;
pub mod private;
mod procfs;
pub mod reaper;
pub mod roll;
pub mod runtime;
pub mod sequence;
pub mod sink;
pub mod stack;
pub mod step;
pub mod supervisor;
pub mod workspace;
