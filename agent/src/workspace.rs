//! The workspaces that an agent holds: each is unpacked once per digest and shared by all cells that use it.
//!
//! The archive comes from the coordinator (`link`), where `workspace::receive` wrote it. A cell's host commands run as
//! the agent's user and may have changed the files here. Therefore each use begins with a check: if every file has the
//! same inode, size and times as before, nothing is read again; otherwise the digest decides. Workspaces that haven't
//! been used for a long time are removed.

use phalanx_shared::time::Timestamp;
use phalanx_shared::workspace_name::Naming;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A workspace that no cell has used for this long is removed.
const UNUSED_FOR: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Maximum size of all workspaces in bytes; beyond it the least recently used ones are removed.
const ALL_BYTES: u64 = 8 << 30;
/// A cell may still be copying a workspace that was last used within this time.
const IN_USE: Duration = Duration::from_secs(600);

/// Reasons why a workspace is unavailable.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("workspace {digest}: the name is not a digest")]
    Digest { digest: String },
    #[error("workspace {digest}: the entry {} leads out of it", path.display())]
    Escape { digest: String, path: PathBuf },
    #[error("workspace {digest}: what came has the digest {found}")]
    Other { digest: String, found: String },
    #[error("workspace {digest}: {source}")]
    Io { digest: String, source: io::Error },
}

/// The workspaces below one directory. Clones share the same state.
#[derive(Clone, Debug)]
pub struct Workspaces {
    root: PathBuf,
    /// Fingerprint of each workspace's metadata when its digest was last verified.
    seen: Arc<Mutex<HashMap<String, [u8; 32]>>>,
}

impl Workspaces {
    /// Manages the workspaces below `root`, which is created when the first one is unpacked.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Workspaces {
            root: root.into(),
            seen: Arc::default(),
        }
    }

    /// Returns the directory of a workspace if it is present and matches its digest. Removes it if it was changed.
    /// Reads the disk.
    pub fn get(&self, digest: &str, now: Timestamp) -> Option<PathBuf> {
        let path = self.root.join(digest);
        if !is_digest(digest) || !path.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            return None;
        }
        match self.is_whole(digest, &path) {
            Ok(true) => {
                // If the time can't be updated, the workspace is only removed earlier.
                let _ = File::open(&path).and_then(|directory| directory.set_modified(system(now)));
                Some(path)
            }
            other => {
                tracing::warn!(
                    workspace = digest,
                    ?other,
                    "it was changed on this machine: it is fetched again"
                );
                self.remove(digest);
                None
            }
        }
    }

    fn is_whole(&self, digest: &str, path: &Path) -> io::Result<bool> {
        let looks = looks(path)?;
        if self.seen().get(digest) == Some(&looks) {
            return Ok(true);
        }
        if name(path)? != digest {
            return Ok(false);
        }
        self.seen().insert(digest.to_owned(), looks);
        Ok(true)
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<String, [u8; 32]>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self, digest: &str) {
        self.seen().remove(digest);
        // Rename it first, so that no reader finds a partly removed workspace.
        let gone = self.root.join(format!(".{}", uuid::Uuid::new_v4()));
        if fs::rename(self.root.join(digest), &gone).is_ok()
            && let Err(error) = fs::remove_dir_all(&gone)
        {
            tracing::warn!(path = %gone.display(), %error, "can't remove a workspace");
        }
    }

    /// Unpacks an archive under its digest. Unpacks beside the final name and then renames, so that two concurrent
    /// calls, or a kill in the middle, leave a complete workspace or none.
    ///
    /// # Errors
    /// The name is not a digest, an entry leads outside, the digest differs, or the disk fails.
    pub fn unpack(&self, digest: &str, archive: impl Read) -> Result<PathBuf, Error> {
        if !is_digest(digest) {
            return Err(Error::Digest {
                digest: digest.to_owned(),
            });
        }
        let io = |source| Error::Io {
            digest: digest.to_owned(),
            source,
        };
        let private = |path: &Path, recursive| {
            let mut builder = DirBuilder::new();
            builder.recursive(recursive).mode(0o700).create(path)
        };
        private(&self.root, true).map_err(io)?;
        let path = self.root.join(digest);
        let partial = self.root.join(format!(".{}", uuid::Uuid::new_v4()));
        let done = private(&partial, false)
            .map_err(io)
            .and_then(|()| unpack_into(digest, archive, &partial))
            .and_then(|()| match name(&partial).map_err(io)? {
                found if found == digest => Ok(()),
                found => Err(Error::Other {
                    digest: digest.to_owned(),
                    found,
                }),
            });
        let renamed = done.and_then(|()| match fs::rename(&partial, &path) {
            Err(_) if path.is_dir() => Ok(()),
            other => other.map_err(io),
        });
        if partial.exists() {
            let _ = fs::remove_dir_all(&partial);
        }
        renamed.map(|()| path)
    }

    /// Removes workspaces that haven't been used for a long time, and the least recently used ones if all together are
    /// too large.
    pub fn prune(&self, now: Timestamp) {
        self.prune_to(now, ALL_BYTES);
    }

    fn prune_to(&self, now: Timestamp, all_bytes: u64) {
        let Ok(entries) = fs::read_dir(&self.root) else {
            return;
        };
        let now = system(now);
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let used = entry.metadata().and_then(|meta| meta.modified());
            let age = used.ok().and_then(|used| now.duration_since(used).ok());
            let age = age.unwrap_or_default();
            if !is_digest(&name) {
                // A killed process left it while unpacking or removing a workspace.
                if age > IN_USE {
                    let _ = fs::remove_dir_all(entry.path());
                }
                continue;
            }
            found.push((age, size(&entry.path()), name));
        }
        found.sort_unstable();
        let mut bytes = 0;
        for (age, size, name) in found {
            bytes += size;
            if age > IN_USE && (age > UNUSED_FOR || bytes > all_bytes) {
                tracing::info!(
                    workspace = name,
                    "removing a workspace that isn't used any more"
                );
                self.remove(&name);
                bytes -= size;
            }
        }
    }
}

fn system(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(u64::try_from(at.0).unwrap_or(0))
}

/// Returns each file and link of a tree with its path, in byte order of the paths.
fn members(root: &Path) -> io::Result<Vec<(String, PathBuf, fs::Metadata)>> {
    fn walk(
        directory: &Path,
        before: &str,
        found: &mut Vec<(String, PathBuf, fs::Metadata)>,
    ) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name
                .to_str()
                .ok_or_else(|| io::Error::other("a name that is no text"))?;
            let path = format!("{before}{name}");
            let meta = entry.path().symlink_metadata()?;
            if meta.is_dir() {
                walk(&entry.path(), &format!("{path}/"), found)?;
            } else {
                found.push((path, entry.path(), meta));
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    walk(root, "", &mut found)?;
    found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// Computes the digest that names a tree.
fn name(root: &Path) -> io::Result<String> {
    let mut naming = Naming::default();
    for (name, path, meta) in members(root)? {
        if meta.is_symlink() {
            let target = fs::read_link(&path)?;
            naming.link(&name, &target.to_string_lossy());
        } else if meta.is_file() {
            let (mut file, mut hash) = (File::open(&path)?, Sha256::new());
            let mut buffer = vec![0; 64 << 10];
            loop {
                let read = file.read(&mut buffer)?;
                if read == 0 {
                    break;
                }
                hash.update(buffer.get(..read).unwrap_or_default());
            }
            let executable = meta.permissions().mode() & 0o111 != 0;
            naming.file(&name, executable, &hex::encode(hash.finalize()));
        } else {
            return Err(io::Error::other(format!("{name} is no file")));
        }
    }
    Ok(naming.finish())
}

/// Returns a fingerprint of the tree's metadata, which changes whenever a member does: a program can't set a file's
/// ctime.
fn looks(root: &Path) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    for (name, _, meta) in members(root)? {
        let line = format!(
            "{} {} {} {}.{} {name}\n",
            meta.ino(),
            meta.mode(),
            meta.size(),
            meta.ctime(),
            meta.ctime_nsec()
        );
        hash.update(line.as_bytes());
    }
    Ok(hash.finalize().into())
}

fn size(path: &Path) -> u64 {
    let members = members(path).unwrap_or_default();
    members.iter().map(|(_, _, meta)| meta.size()).sum()
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn unpack_into(digest: &str, archive: impl Read, target: &Path) -> Result<(), Error> {
    let io = |source| Error::Io {
        digest: digest.to_owned(),
        source,
    };
    let mut archive = tar::Archive::new(archive);
    archive.set_preserve_mtime(false);
    for entry in archive.entries().map_err(io)? {
        let mut entry = entry.map_err(io)?;
        let path = entry.path().map_err(io)?.into_owned();
        if let Some(link) = entry.link_name().map_err(io)? {
            refuse_escape(digest, &path, &link)?;
        }
        // `unpack_in` refuses `..` and writing through links; `false` means that it skipped the entry.
        if !entry.unpack_in(target).map_err(io)? {
            return Err(Error::Escape {
                digest: digest.to_owned(),
                path,
            });
        }
    }
    Ok(())
}

/// Rejects a link that leads out of the workspace. The archive is untrusted input.
fn refuse_escape(digest: &str, path: &Path, link: &Path) -> Result<(), Error> {
    let escape = || Error::Escape {
        digest: digest.to_owned(),
        path: path.to_owned(),
    };
    let mut depth = path.components().count().saturating_sub(1);
    for part in link.components() {
        match part {
            std::path::Component::Normal(_) => depth += 1,
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => depth = depth.checked_sub(1).ok_or_else(escape)?,
            _ => return Err(escape()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

    /// Returns the digest of a tree of these files.
    fn named(files: &[(&str, &str)]) -> String {
        let mut naming = Naming::default();
        for (path, text) in files {
            match text.strip_prefix("-> ") {
                Some(target) => naming.link(path, target),
                None => naming.file(path, false, &hex::encode(Sha256::digest(text))),
            }
        }
        naming.finish()
    }

    fn archive(entries: &[(&str, Option<&str>)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, link) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            let name = header.as_old_mut();
            name.name[..path.len()].copy_from_slice(path.as_bytes());
            match link {
                Some(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_link_name(target).unwrap();
                    header.set_size(0);
                    header.set_cksum();
                    tar.append(&header, io::empty()).unwrap();
                }
                None => {
                    header.set_size(2);
                    header.set_cksum();
                    tar.append(&header, &b"hi"[..]).unwrap();
                }
            }
        }
        tar.into_inner().unwrap()
    }

    #[test]
    fn a_workspace_is_unpacked_once_and_found_by_its_digest() {
        let dir = tempfile::tempdir().unwrap();
        let all = Workspaces::new(dir.path().join("w"));
        let digest = named(&[("x/l", "-> y"), ("x/y", "hi")]);
        assert_eq!(all.get(&digest, NOW), None);
        let path = all
            .unpack(&digest, &archive(&[("x/y", None), ("x/l", Some("y"))])[..])
            .unwrap();
        assert_eq!(fs::read_to_string(path.join("x/l")).unwrap(), "hi");
        assert_eq!(all.get(&digest, NOW), Some(path.clone()));
        let again = archive(&[("x/y", None), ("x/l", Some("y"))]);
        assert_eq!(all.unpack(&digest, &again[..]).unwrap(), path);
        assert_eq!(
            fs::read_dir(dir.path().join("w")).unwrap().count(),
            1,
            "nothing partial stays"
        );
    }

    #[test]
    fn entries_and_links_that_lead_outside_are_refused_and_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let all = Workspaces::new(dir.path().join("w"));
        let digest = "b".repeat(64);
        for bad in [
            archive(&[("../evil", None)]),
            archive(&[("l", Some("../../etc"))]),
            archive(&[("l", Some("/etc"))]),
        ] {
            assert!(matches!(
                all.unpack(&digest, &bad[..]),
                Err(Error::Escape { .. })
            ));
            assert_eq!(fs::read_dir(dir.path().join("w")).unwrap().count(), 0);
        }
        assert!(!dir.path().join("evil").exists());
        assert!(matches!(
            all.unpack("../x", &[][..]),
            Err(Error::Digest { .. })
        ));
    }

    #[test]
    fn another_tree_than_the_digest_says_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let all = Workspaces::new(dir.path().join("w"));
        let digest = named(&[("x", "ho")]);
        let error = all
            .unpack(&digest, &archive(&[("x", None)])[..])
            .unwrap_err();
        assert!(matches!(error, Error::Other { .. }), "{error}");
        assert_eq!(all.get(&digest, NOW), None);
    }

    #[test]
    fn a_workspace_that_a_cell_changed_is_not_given_to_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("w");
        let digest = named(&[("x", "hi")]);
        type Change = fn(&Path);
        let changes: [Change; 4] = [
            |w| fs::write(w.join("x"), "ho").unwrap(),
            |w| fs::write(w.join("new"), "hi").unwrap(),
            |w| fs::remove_file(w.join("x")).unwrap(),
            |w| fs::set_permissions(w.join("x"), fs::Permissions::from_mode(0o755)).unwrap(),
        ];
        for change in changes {
            for restarted in [false, true] {
                let all = Workspaces::new(&root);
                let path = all.unpack(&digest, &archive(&[("x", None)])[..]).unwrap();
                assert!(all.get(&digest, NOW).is_some());
                change(&path);
                let all = if restarted {
                    Workspaces::new(&root)
                } else {
                    all
                };
                assert_eq!(all.get(&digest, NOW), None);
                assert!(!path.exists());
            }
        }
    }

    #[test]
    fn what_was_not_used_for_long_goes_and_the_oldest_first_when_all_take_too_much() {
        let dir = tempfile::tempdir().unwrap();
        let all = Workspaces::new(dir.path().join("w"));
        let later = |of: Duration| Timestamp(NOW.0 + i64::try_from(of.as_micros()).unwrap());
        let names = ["x", "y", "z"].map(|name| {
            let digest = named(&[(name, "hi")]);
            all.unpack(&digest, &archive(&[(name, None)])[..]).unwrap();
            digest
        });
        let minute = Duration::from_secs(60);
        for (digest, minutes) in names.iter().zip([0, 1, 20]) {
            assert!(all.get(digest, later(minute * minutes)).is_some());
        }
        let here = || {
            names
                .clone()
                .map(|digest| dir.path().join("w").join(digest).exists())
        };
        all.prune_to(later(minute * 21), 4);
        assert_eq!(here(), [false, true, true], "two of two bytes each fit");
        all.prune_to(later(minute * 21), 0);
        assert_eq!(here(), [false, false, true], "one may be in use");
        all.prune(later(UNUSED_FOR + minute * 21));
        assert_eq!(here(), [false; 3]);
    }
}
