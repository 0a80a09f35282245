//! Allows one coordinator per database, by a file lock beside it. The kernel releases the lock however its holder ends.

use super::store::StoreError;
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Holds the lock until dropped.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    pub fn acquire(database: &Path) -> Result<Lock, StoreError> {
        let mut path = database.as_os_str().to_owned();
        path.push(".lock");
        let unusable = |error: std::io::Error| StoreError::Unusable {
            path: database.to_owned(),
            reason: format!("its lock file: {error}"),
        };
        let mut options = File::options();
        options.create(true).truncate(false).read(true).write(true);
        let mut file = options.mode(0o600).open(&path).map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.take(32).read_to_string(&mut holder);
                let holder = holder.trim().to_owned();
                return Err(StoreError::InUse {
                    path: database.to_owned(),
                    holder: (!holder.is_empty()).then_some(holder),
                });
            }
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        // The process id is for the error message of the next process that tries. Failing to write it is harmless.
        let _ = file.set_len(0);
        let _ = file.rewind();
        let _ = write!(file, "{}", std::process::id());
        Ok(Lock { _file: file })
    }
}
