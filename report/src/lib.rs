//! What people and other programs are told of a run.
//!
//! Everything starts from one serialisable view of a [`RunState`](phalanx_shared::run_state::RunState) ([`view`]), made
//! without I/O. Each renderer is one file: [`junit`], [`json`] and [`markdown`] write files, [`github`] annotates a
//! workflow, [`terminal`] tells the end of a run, [`plain`] and [`live`] its course. Nothing here reads a clock or
//! a terminal: time, width and colours are parameters.

pub mod coverage;
pub mod finding;
pub mod github;
pub mod json;
pub mod junit;
pub mod live;
pub mod markdown;
pub mod plain;
pub mod still;
pub mod style;
pub mod table;
pub mod terminal;
pub mod text;
pub mod timing;
pub mod tree;
pub mod view;
