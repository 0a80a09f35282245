//! Files and directories that exist only as long as this process needs them. Each is removed when its owner is dropped;
//! a process that can't drop its owners removes all of them before it ends.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What exists now.
static ALL: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn all() -> MutexGuard<'static, Vec<PathBuf>> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file or directory that is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Leftover(PathBuf);

impl Leftover {
    /// Takes over a path, whether something is there already or not.
    pub(crate) fn new(path: PathBuf) -> Leftover {
        all().push(path.clone());
        Leftover(path)
    }

    /// Returns the path.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        all().retain(|path| *path != self.0);
        remove(&self.0);
    }
}

/// Removes everything that has an owner, for a process that ends without dropping them.
pub(crate) fn remove_all() {
    for path in all().drain(..) {
        remove(&path);
    }
}

fn remove(path: &Path) {
    let removed = match path.is_dir() {
        true => std::fs::remove_dir_all(path),
        false => std::fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "can't remove a temporary file");
        }
        _ => {}
    }
}
