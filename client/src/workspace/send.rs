//! Reads the parts of a workspace from its files, one after the other.

use super::pack::{Error, Kind, Member, Packed, at};
use phalanx_proto::limit::CHUNK_BYTES;
use phalanx_proto::workspace::Part;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Receives a part. Returns false if no more parts are wanted.
pub type Give<'g> = &'g mut dyn FnMut(Part) -> bool;

impl Packed {
    /// Reads the files again and passes on all parts, the digest first. If a file has changed, its contents don't match
    /// the digest, and the receiver notices.
    ///
    /// # Errors
    /// Returns an error if a file can no longer be read or has become shorter.
    pub fn send(&self, give: Give<'_>) -> Result<(), Error> {
        if !give(Part::Digest(self.digest.clone())) {
            return Ok(());
        }
        for Member { path, kind } in &self.members {
            let part = match kind {
                Kind::Link { target } => Part::Link {
                    path: path.clone(),
                    target: target.clone(),
                },
                Kind::File {
                    executable, size, ..
                } => Part::File {
                    path: path.clone(),
                    executable: *executable,
                    size: *size,
                },
            };
            if !give(part) {
                return Ok(());
            }
            if let Kind::File { size, .. } = kind
                && !send_file(&self.root.join(path), *size, give)?
            {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Passes on `size` bytes of a file. Returns whether more parts are wanted.
fn send_file(path: &Path, size: u64, give: Give<'_>) -> Result<bool, Error> {
    if size == 0 {
        return Ok(true);
    }
    let mut file = File::open(path).map_err(at(path))?;
    let mut left = size;
    while left > 0 {
        let wanted = left.min(CHUNK_BYTES as u64);
        let mut piece = Vec::new();
        let read = (&mut file).take(wanted).read_to_end(&mut piece);
        if (read.map_err(at(path))? as u64) < wanted {
            return Err(Error::Changed {
                path: path.to_owned(),
            });
        }
        left -= wanted;
        if !give(Part::Data(piece)) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::workspace::pack;
    use phalanx_coordinator::workspace::Workspaces;
    use std::fs;
    use std::io::Cursor;

    #[test]
    fn what_was_sent_is_what_is_taken_and_the_archive_is_always_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        let deep = "deep/".repeat(60);
        fs::create_dir_all(root.join(&deep)).unwrap();
        let large = "0123456789".repeat(60_000);
        fs::write(root.join(&deep).join("large"), &large).unwrap();
        fs::write(root.join("empty"), "").unwrap();
        let target = format!("{deep}large");
        std::os::unix::fs::symlink(&target, root.join("link")).unwrap();
        let archives = ["one", "two"].map(|name| {
            let store = Workspaces::new(folder.path().join(name));
            let packed = pack(&root, &["**".to_owned()]).unwrap();
            let mut parts = Vec::new();
            packed
                .send(&mut |part| {
                    parts.push(part);
                    true
                })
                .unwrap();
            let mut parts = parts.into_iter().skip(1);
            store.take(&packed.digest, &mut || parts.next()).unwrap();
            fs::read(store.path(&packed.digest)).unwrap()
        });
        assert!(archives[0] == archives[1]);
        let mut tar = tar::Archive::new(Cursor::new(&archives[0]));
        let mut read = Vec::new();
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let link = entry
                .link_name()
                .unwrap()
                .map(|to| to.display().to_string());
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            read.push((path, text, link));
        }
        let expected = [
            (target.clone(), large, None),
            ("empty".to_owned(), String::new(), None),
            ("link".to_owned(), String::new(), Some(target)),
        ];
        assert!(read == expected);
    }

    #[test]
    fn a_file_that_became_shorter_is_said_and_nobody_is_given_more_than_wanted() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "text").unwrap();
        let packed = pack(folder.path(), &["*".to_owned()]).unwrap();
        let mut given = 0;
        packed
            .send(&mut |_| {
                given += 1;
                given < 2
            })
            .unwrap();
        assert_eq!(given, 2);
        fs::write(folder.path().join("a"), "t").unwrap();
        let error = packed.send(&mut |_| true).unwrap_err();
        assert!(matches!(error, Error::Changed { .. }), "{error}");
    }
}
