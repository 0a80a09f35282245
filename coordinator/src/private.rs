//! Keeps files and directories private to their owner: the journal and logs contain what specs contain, and the output
//! of the systems under test.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

const DIRECTORY: u32 = 0o700;
const FILE: u32 = 0o600;

/// Creates a private directory. If it exists and others have access (from an earlier version), restricts it and
/// everything below it.
pub fn directory(path: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY)
        .create(path)?;
    let before = path.metadata()?.permissions().mode();
    if before & 0o077 != 0 {
        // First the directory itself, so that others can't reach what is created in the meantime.
        std::fs::set_permissions(path, Permissions::from_mode(DIRECTORY))?;
        below(path);
    }
    Ok(())
}

/// Keeps this process's memory, which holds secrets, out of core dumps and from other processes of its user.
pub fn memory() {
    use nix::sys::resource::{Resource, setrlimit};
    let kept = nix::sys::prctl::set_dumpable(false);
    // The process starts no other that could need a core dump.
    let kept = kept.and(setrlimit(Resource::RLIMIT_CORE, 0, 0));
    if let Err(error) = kept {
        tracing::debug!(%error, "the process's memory may be dumped");
    }
}

fn below(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        let path = entry.path();
        let mode = if kind.is_dir() {
            below(&path);
            DIRECTORY
        } else if kind.is_file() {
            FILE
        } else {
            continue;
        };
        if let Err(error) = std::fs::set_permissions(&path, Permissions::from_mode(mode)) {
            tracing::warn!(path = %path.display(), %error, "others may read it");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_an_earlier_version_made_is_tightened_with_all_that_is_in_it() {
        let place = tempfile::tempdir().unwrap();
        let own = place.path().join("coordinator");
        std::fs::create_dir_all(own.join("logs/run")).unwrap();
        std::fs::write(own.join("logs/run/index"), "").unwrap();
        for path in ["", "logs", "logs/run", "logs/run/index"] {
            let open = Permissions::from_mode(0o755);
            std::fs::set_permissions(own.join(path), open).unwrap();
        }
        directory(&own).unwrap();
        let mode = |path: &str| own.join(path).metadata().unwrap().permissions().mode() & 0o777;
        let modes = ["", "logs", "logs/run", "logs/run/index"].map(mode);
        assert_eq!(modes, [0o700, 0o700, 0o700, 0o600]);
        directory(&own.join("new")).unwrap();
        assert_eq!(mode("new"), 0o700);
    }
}
