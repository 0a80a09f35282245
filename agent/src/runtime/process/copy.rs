//! Copies files and directories on the host for a member, and finds and sends files there.

use crate::beneath::{Place, Root};
use crate::limits;
use crate::runtime::blocking::blocking;
use crate::runtime::contract::{Fault, RuntimeError};
use crate::runtime::gather::{self, Gather};
use crate::runtime::search::{self, FoundFile, Search};
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

/// Finds files below a directory without blocking the caller. A directory that doesn't exist holds none.
pub async fn found(place: Place, search: Search) -> Result<Vec<FoundFile>, RuntimeError> {
    let what = search.pattern.as_str().to_owned();
    blocking(move || match place.open() {
        Ok(root) => search::below(&root, &search),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    })
    .await
    .map_err(|error| unreadable(&what, &error))
}

/// Sends files below a directory without blocking the caller. A directory that doesn't exist holds none.
pub async fn gathered(place: Place, gather: Gather) -> Result<(), RuntimeError> {
    let what = gather.pattern.as_str().to_owned();
    blocking(move || match place.open() {
        Ok(root) => gather::below(&root, &gather),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    })
    .await
    .map_err(|error| unreadable(&what, &error))
}

fn unreadable(what: &str, error: &io::Error) -> RuntimeError {
    let fault = match limits::has_nothing_left(error) {
        true => Fault::Machine,
        false => Fault::Path,
    };
    RuntimeError::new(fault, format!("can't read {what}: {error}"))
}
