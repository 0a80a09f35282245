//! Reports about a run, for people and for other programs.
//!
//! All of them are made from a serializable view of a [`RunState`](phalanx_shared::run_state::RunState) ([`view`]),
//! which is made without I/O. Each renderer is one file: [`junit`], [`json`] and [`markdown`] write files, [`github`]
//! annotates a workflow, [`terminal`] shows the summary of a run, [`plain`] and [`live`] show its progress. Nothing
//! here reads a clock or a terminal: time, width and colours are parameters.

pub mod archive;
pub mod artifacts;
pub mod compare;
pub mod ctrf;
pub mod finding;
pub mod github;
pub mod history;
pub mod html;
pub mod json;
pub mod junit;
pub mod live;
pub mod logs;
pub mod markdown;
mod odds;
pub mod plain;
pub mod profile;
pub mod slack;
pub mod still;
pub mod style;
pub mod table;
pub mod terminal;
pub mod text;
pub mod timing;
pub mod tree;
pub mod view;
