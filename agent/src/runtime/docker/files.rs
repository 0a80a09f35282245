//! Secrets and configs of a Compose file as read-only mounts: the file in the workspace itself, or a copy that belongs
//! to the attempt if its text is in the Compose file or an owner or mode is set.

use super::convert::{PlacedMount, Source};
use super::mounts;
use crate::runtime::contract::{AttemptScope, Fault, RuntimeError};
use phalanx_shared::language::service::{FileSource, PlacedFile};
use std::fs::{self, File, Permissions};
use std::io::{Error, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Maximum size of a file that is copied, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// Mode of a copy, unless one is set.
const USUAL_MODE: u32 = 0o444;

/// Returns the service's files as mounts.
pub(super) fn place(
    service: &str,
    files: &[PlacedFile],
    scope: &AttemptScope,
) -> Result<Vec<PlacedMount>, RuntimeError> {
    let placed = files.iter().enumerate().map(|(at, file)| {
        let failed = |why: String| {
            let why = format!("file {}: {why}", file.name);
            RuntimeError::of(service, Fault::Definition, why)
        };
        let own = file.uid.is_some() || file.gid.is_some() || file.mode.is_some();
        let path = match &file.source {
            FileSource::Path(path) => {
                let real = mounts::in_workspace(path, scope.workspace.as_deref(), &scope.policy)
                    .map_err(|why| why.of(service, &format!("file {}: {path}", file.name)))?;
                match own {
                    false => real,
                    true => scope
                        .policy
                        .read(scope.workspace.as_deref(), Path::new(path), MAX_BYTES)
                        .and_then(|text| copy(service, at, file, &text, &scope.scratch))
                        .map_err(|error| failed(format!("{path}: {error}")))?,
                }
            }
            FileSource::Text(text) => copy(service, at, file, text.as_bytes(), &scope.scratch)
                .map_err(|error| failed(error.to_string()))?,
        };
        Ok(PlacedMount {
            propagation: None,
            source: Source::Path(path),
            target: file.target.clone(),
            read_only: true,
        })
    });
    placed.collect()
}

/// Writes a copy below the attempt's scratch directory. Replaces the copy of an earlier container of the service.
fn copy(
    service: &str,
    at: usize,
    file: &PlacedFile,
    text: &[u8],
    scratch: &Path,
) -> Result<PathBuf, Error> {
    let folder = scratch.join("files");
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{service}-{at}"));
    if path.exists() {
        fs::remove_file(&path)?;
    }
    let mut written = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    written.write_all(text)?;
    if file.uid.is_some() || file.gid.is_some() {
        match std::os::unix::fs::chown(&path, file.uid, file.gid) {
            // Only root can give files away.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            other => other?,
        }
    }
    let mode = file.mode.unwrap_or(USUAL_MODE);
    fs::set_permissions(&path, Permissions::from_mode(mode))?;
    path.canonicalize()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_copy_has_the_mode_that_is_asked_for_and_may_be_made_again() {
        let scratch = tempfile::tempdir().unwrap();
        let mut file = PlacedFile {
            name: "motd".into(),
            target: "/etc/motd".into(),
            source: FileSource::Text(String::new()),
            secret: false,
            uid: None,
            gid: None,
            mode: None,
        };
        for (mode, right) in [(None, 0o444), (Some(0o400), 0o400)] {
            file.mode = mode;
            let path = copy("s", 0, &file, b"welcome", scratch.path()).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"welcome");
            assert_eq!(
                fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                right
            );
        }
    }
}
