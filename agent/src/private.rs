//! Files and directories that only their owner can access: identities, spools and notes contain data from specs.
//!
//! Inside an identity's directory, which no other user can enter, the files of cells keep the modes they were given:
//! containers read them as other users.

use crate::limits;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

const DIRECTORY: u32 = 0o700;
const FILE: u32 = 0o600;
/// Directories whose content belongs to cells.
const OF_CELLS: [&str; 2] = ["attempts", "workspaces"];

/// Creates a directory, or restricts an existing one that an earlier version left open to others.
pub fn directory(path: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY)
        .create(path)?;
    tighten(path, DIRECTORY)
}

/// Returns open options that create a file which others can't read.
pub fn file() -> OpenOptions {
    let mut options = File::options();
    options.mode(FILE);
    options
}

/// Writes a file that others can't read.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    let mut options = file();
    let options = options.create(true).truncate(true).write(true);
    options.open(path)?.write_all(bytes.as_ref())
}

/// Revokes the permissions that earlier versions gave to others in an identity's directory.
pub fn tighten_all(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        let path = entry.path();
        let tightened = if kind.is_dir() {
            if !OF_CELLS.iter().any(|name| entry.file_name() == *name) {
                tighten_all(&path);
            }
            tighten(&path, DIRECTORY)
        } else if kind.is_file() {
            tighten(&path, FILE)
        } else {
            Ok(())
        };
        if let Err(error) = tightened {
            tracing::warn!(path = %path.display(), %error, "others may read it");
        }
    }
}

fn tighten(path: &Path, mode: u32) -> io::Result<()> {
    let before = path.symlink_metadata()?.permissions().mode();
    if before & 0o077 == 0 {
        return Ok(());
    }
    std::fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Keeps this process's memory, which holds secrets, out of core dumps and away from other processes of its user.
/// Programs that it starts aren't affected.
pub fn memory() {
    limits::forbid_core_files();
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        tracing::debug!(%error, "the process's memory may be dumped");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_an_earlier_version_made_is_tightened_and_cells_files_keep_their_modes() {
        let place = tempfile::tempdir().unwrap();
        let own = place.path().join("agent");
        for name in ["spool", "workspaces/w"] {
            std::fs::create_dir_all(own.join(name)).unwrap();
        }
        for name in ["id", "spool/a", "workspaces/w/script"] {
            let path = own.join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        }
        directory(&own).unwrap();
        tighten_all(&own);
        let modes = [
            "",
            "spool",
            "workspaces",
            "id",
            "spool/a",
            "workspaces/w/script",
        ];
        let modes = modes.map(|name| mode(&own.join(name)));
        assert_eq!(modes, [0o700, 0o700, 0o700, 0o600, 0o600, 0o755]);
        write(&own.join("new"), "x").unwrap();
        assert_eq!(mode(&own.join("new")), 0o600);
    }
}
