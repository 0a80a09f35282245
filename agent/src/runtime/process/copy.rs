//! Copies files and directories on the host for a member.

use crate::beneath::{Place, Root};
use crate::limits;
use crate::runtime::blocking::blocking;
use crate::runtime::contract::{Fault, RuntimeError};
use crate::runtime::tree;
use std::io;

/// Copies for a member without blocking the caller. `into` says that the target was written as a directory.
pub async fn copied(from: Place, to: Place, into: bool) -> Result<(), RuntimeError> {
    let description = format!("{} to {}", from.display(), to.display());
    blocking(move || -> io::Result<()> {
        let (source, target) = (Root::open(&from.root)?, Root::open(&to.root)?);
        tree::copy((&source, &from.path), (&target, &to.path), into)
    })
    .await
    .map_err(|error| {
        let fault = match limits::has_nothing_left(&error) {
            true => Fault::Machine,
            false => Fault::Path,
        };
        RuntimeError::new(fault, format!("can't copy {description}: {error}"))
    })
}
