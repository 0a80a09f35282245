//! Snapshots of a stack's services: what a group of setup steps has made of their files, kept on this agent's machine so
//! that later cells start with it.
//!
//! `key` (what a snapshot depends on), `core` (whether one is used, waited for or made) and `bounds` (which ones are given up)
//! are pure. `files` digests what services and steps read. `store` keeps the files, and `seal` encrypts what may be secret.
//! `tidy` removes what is given up, with its images, and `janitor` does so while the agent runs. The runtime saves and
//! restores containers (`runtime/contract.rs`), and the stack decides when (`stack/snapshots.rs`).

pub mod bounds;
pub mod core;
pub mod files;
pub mod janitor;
pub mod key;
pub mod seal;
pub mod store;
pub mod tidy;

pub use self::bounds::Bounds;
pub use self::store::{Manifest, Removal, Store};
pub use self::tidy::{remove, remove_images};

use std::path::PathBuf;

/// Where an agent keeps snapshots.
#[derive(Clone, Debug)]
pub struct Place {
    /// The store's directory, shared by all agents that name it.
    pub directory: PathBuf,
    /// What it may hold.
    pub bounds: Bounds,
}
