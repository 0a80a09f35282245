//! Snapshots of a stack's services: what a group of setup steps has made of their files, kept on this agent's machine so
//! that later cells start with it.
//!
//! `key` (what a snapshot depends on) and `core` (whether one is used, waited for or made) are pure. `files` digests what
//! services and steps read. `store` keeps the files, and `seal` encrypts what may be secret. The runtime saves and restores
//! containers (`runtime/contract.rs`), and the stack decides when (`stack/snapshots.rs`).

pub mod core;
pub mod files;
pub mod key;
pub mod seal;
pub mod store;

pub use self::store::{Manifest, Store};

use crate::runtime::contract::RuntimeError;
use crate::runtime::docker::{Claims, DockerRuntime};

/// Removes the images of snapshots that the store doesn't keep any more, and what killed agents left half-made. Returns how
/// many there were.
pub async fn remove_images(docker: &DockerRuntime, store: &Store) -> Result<usize, RuntimeError> {
    let claims = Claims {
        store: store.id(),
        kept: &|key| store.find(key).is_some(),
        made: &|key| store.is_being_made(key),
    };
    docker.remove_snapshot_images(&claims).await
}
