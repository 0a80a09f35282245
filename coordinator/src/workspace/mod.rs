//! The workspace: the files beside a spec that its cells need, packed once per run and named by their digest.
//!
//! `pack` decides what belongs to it and writes one archive; agents fetch that by digest and unpack it (`agent/src/workspace.rs`).

mod pack;

pub use pack::{Error, Packed, pack};
