//! `phalanx init`: makes a first spec of what a project already has. Pure: texts come in, a [`draft::Draft`] goes out;
//! [`crate::cli::init`] reads and writes the files.
//!
//! `starter` needs nothing · `compose` takes a Compose file · `workflow` takes a job of a GitHub workflow · `yaml` writes
//! the spec's text.

pub mod compose;
pub mod draft;
pub mod starter;
pub mod workflow;
pub mod yaml;
