//! The workspaces an agent holds: unpacked once per digest, read-only, shared by all cells that name it.
//!
//! The archive comes from the coordinator (`link`), whose `workspace::receive` wrote it.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Why a workspace can't be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("workspace {digest}: the name is not a digest")]
    Digest { digest: String },
    #[error("workspace {digest}: the entry {} leads out of it", path.display())]
    Escape { digest: String, path: PathBuf },
    #[error("workspace {digest}: {source}")]
    Io { digest: String, source: io::Error },
}

/// The workspaces below one directory.
#[derive(Clone, Debug)]
pub struct Workspaces {
    root: PathBuf,
}

impl Workspaces {
    /// Those below `root`, which is made when the first is unpacked.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Workspaces { root: root.into() }
    }

    /// The directory of a workspace that is here already.
    pub fn get(&self, digest: &str) -> Option<PathBuf> {
        let path = self.root.join(digest);
        (is_digest(digest) && path.is_dir()).then_some(path)
    }

    /// Unpacks an archive under its digest. Done beside the final name and renamed, so that two cells which do it at once,
    /// or a kill in the middle, leave a whole workspace or none.
    ///
    /// # Errors
    /// A name that is no digest, an entry that leads outside, a full disk.
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
        fs::create_dir_all(&self.root).map_err(io)?;
        let path = self.root.join(digest);
        let partial = self.root.join(format!(".{}", uuid::Uuid::new_v4()));
        let done = fs::create_dir(&partial)
            .map_err(io)
            .and_then(|()| unpack_into(digest, archive, &partial));
        let renamed = done.and_then(|()| match fs::rename(&partial, &path) {
            Err(_) if path.is_dir() => Ok(()),
            other => other.map_err(io),
        });
        if partial.exists() {
            let _ = fs::remove_dir_all(&partial);
        }
        renamed.map(|()| path)
    }
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
        // `unpack_in` refuses `..` and writing through links; false means that it skipped the entry.
        if !entry.unpack_in(target).map_err(io)? {
            return Err(Error::Escape {
                digest: digest.to_owned(),
                path,
            });
        }
    }
    Ok(())
}

/// A link may only lead to something inside; the archive is somebody else's word.
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
        let digest = "a".repeat(64);
        assert_eq!(all.get(&digest), None);
        let path = all
            .unpack(&digest, &archive(&[("x/y", None), ("x/l", Some("y"))])[..])
            .unwrap();
        assert_eq!(fs::read_to_string(path.join("x/l")).unwrap(), "hi");
        assert_eq!(all.get(&digest), Some(path.clone()));
        assert_eq!(
            all.unpack(&digest, &archive(&[("x/y", None)])[..]).unwrap(),
            path
        );
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
}
