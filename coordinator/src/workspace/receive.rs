//! Turns the parts of a workspace into an archive. The sender isn't trusted: order, sizes, links and digest are
//! checked. The archive is created here, so that its bytes depend only on what the digest covers.

use super::links::Links;
use phalanx_proto::limit::{WORKSPACE_BYTES, WORKSPACE_LINKS, WORKSPACE_MEMBERS};
use phalanx_proto::workspace::Part;
use phalanx_shared::workspace_name::Naming;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};

/// Why a workspace is rejected.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Refused {
    #[error("{path:?} comes after {after:?}: each path comes once, in byte order")]
    Order { path: String, after: String },
    #[error("{0:?} is not whole: fewer bytes came than were announced")]
    Short(String),
    #[error("{0:?} has more bytes than were announced")]
    Long(String),
    #[error("bytes came that belong to no file")]
    Loose,
    #[error("a second digest came")]
    SecondDigest,
    #[error(
        "the workspace has more than {} MiB; narrow workspace.include",
        WORKSPACE_BYTES >> 20
    )]
    TooLarge,
    #[error(
        "the workspace has more than {WORKSPACE_MEMBERS} files, or {WORKSPACE_LINKS} links; narrow workspace.include"
    )]
    TooMany,
    #[error("{path:?} lies behind the link {link:?}")]
    BehindLink { path: String, link: String },
    #[error("the link {link:?} to {target:?} leads out of the workspace, or in a circle")]
    Astray { link: String, target: String },
    #[error(
        "the files have the digest {found}, not {said}: one of them changed while they were sent; run it again"
    )]
    OtherDigest { said: String, found: String },
    #[error("the workspace can't be written: {0}")]
    Io(#[from] io::Error),
}

/// Returns the next part; `None` after the last one.
pub type Next<'n> = &'n mut dyn FnMut() -> Option<Part>;

/// Writes an archive of the received members, syncs it, and returns their digest.
pub(super) fn receive(archive: File, next: Next<'_>) -> Result<String, Refused> {
    let mut receiving = Receiving::new(archive);
    while let Some(part) = next() {
        match part {
            Part::Digest(_) => return Err(Refused::SecondDigest),
            Part::Data(_) => return Err(Refused::Loose),
            Part::Link { path, target } => receiving.link(path, target)?,
            Part::File {
                path,
                executable,
                size,
            } => receiving.file(path, executable, size, next)?,
        }
    }
    receiving.finish()
}

struct Receiving {
    tar: tar::Builder<BufWriter<File>>,
    naming: Naming,
    links: Links,
    /// Path of the previous member.
    last: String,
    members: usize,
    bytes: u64,
}

impl Receiving {
    fn new(archive: File) -> Self {
        Receiving {
            tar: tar::Builder::new(BufWriter::new(archive)),
            naming: Naming::default(),
            links: Links::default(),
            last: String::new(),
            members: 0,
            bytes: 0,
        }
    }

    /// Performs the checks that apply to all members.
    fn admit(&mut self, path: &str) -> Result<(), Refused> {
        if self.members > 0 && path <= self.last.as_str() {
            return Err(Refused::Order {
                path: path.to_owned(),
                after: self.last.clone(),
            });
        }
        if let Some(link) = self.links.above(path) {
            return Err(Refused::BehindLink {
                path: path.to_owned(),
                link: link.to_owned(),
            });
        }
        self.members += 1;
        if self.members > WORKSPACE_MEMBERS {
            return Err(Refused::TooMany);
        }
        path.clone_into(&mut self.last);
        Ok(())
    }

    fn file(
        &mut self,
        path: String,
        executable: bool,
        size: u64,
        next: Next<'_>,
    ) -> Result<(), Refused> {
        self.admit(&path)?;
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > WORKSPACE_BYTES {
            return Err(Refused::TooLarge);
        }
        let mut header = tar::Header::new_gnu();
        header.set_mtime(0);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(if executable { 0o755 } else { 0o644 });
        header.set_size(size);
        let mut body = Body {
            path: &path,
            left: size,
            piece: io::Cursor::default(),
            next,
            hasher: Sha256::new(),
            refused: None,
        };
        let written = self.tar.append_data(&mut header, &path, &mut body);
        let Body {
            hasher, refused, ..
        } = body;
        if let Some(refused) = refused {
            return Err(refused);
        }
        written?;
        let sha256 = hex::encode(hasher.finalize());
        self.naming.file(&path, executable, &sha256);
        Ok(())
    }

    fn link(&mut self, path: String, target: String) -> Result<(), Refused> {
        self.admit(&path)?;
        let mut header = tar::Header::new_gnu();
        header.set_mtime(0);
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        self.tar.append_link(&mut header, &path, &target)?;
        self.naming.link(&path, &target);
        self.links.add(path, target);
        if self.links.len() > WORKSPACE_LINKS {
            return Err(Refused::TooMany);
        }
        Ok(())
    }

    fn finish(self) -> Result<String, Refused> {
        if let Some((link, target)) = self.links.astray() {
            return Err(Refused::Astray {
                link: link.to_owned(),
                target: target.to_owned(),
            });
        }
        let mut out = self.tar.into_inner()?;
        out.flush()?;
        out.get_ref().sync_all()?;
        Ok(self.naming.finish())
    }
}

/// Reads the content of one file from its parts.
struct Body<'n> {
    path: &'n str,
    left: u64,
    piece: io::Cursor<Vec<u8>>,
    next: Next<'n>,
    hasher: Sha256,
    /// Why reading failed, if it did.
    refused: Option<Refused>,
}

impl Body<'_> {
    fn refuse(&mut self, refused: Refused) -> io::Error {
        self.refused = Some(refused);
        io::Error::other("refused")
    }
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.piece.read(buffer)?;
            if read > 0 || self.left == 0 {
                return Ok(read);
            }
            let path = || self.path.to_owned();
            let Some(Part::Data(piece)) = (self.next)() else {
                let short = Refused::Short(path());
                return Err(self.refuse(short));
            };
            let Some(left) = self.left.checked_sub(piece.len() as u64) else {
                let long = Refused::Long(path());
                return Err(self.refuse(long));
            };
            self.left = left;
            self.hasher.update(&piece);
            self.piece = io::Cursor::new(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file(path: &str, size: u64) -> Part {
        Part::File {
            path: path.to_owned(),
            executable: false,
            size,
        }
    }

    fn link(path: &str, target: &str) -> Part {
        Part::Link {
            path: path.to_owned(),
            target: target.to_owned(),
        }
    }

    fn data(text: &str) -> Part {
        Part::Data(text.as_bytes().to_vec())
    }

    fn refusal(parts: Vec<Part>) -> String {
        let mut parts = parts.into_iter();
        let archive = tempfile::tempfile().unwrap();
        receive(archive, &mut || parts.next())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn what_isnt_a_tidy_workspace_is_refused_with_a_reason() {
        for (parts, said) in [
            (vec![data("x")], "belong to no file"),
            (vec![file("a", 0), data("x")], "belong to no file"),
            (vec![Part::Digest("0".repeat(64))], "a second digest"),
            (vec![file("a", 3), data("xx")], "\"a\" is not whole"),
            (vec![file("a", 3), file("b", 0)], "\"a\" is not whole"),
            (vec![file("a", 3), data("xxxx")], "\"a\" has more bytes"),
            (vec![file("b", 0), file("a", 0)], "in byte order"),
            (vec![file("a", 0), link("a", "b")], "in byte order"),
            (
                vec![link("a", "b"), file("a/c", 0)],
                "behind the link \"a\"",
            ),
            (vec![link("a", "../x")], "leads out of the workspace"),
            (vec![file("a", WORKSPACE_BYTES + 1)], "more than 2048 MiB"),
            (
                (0..=WORKSPACE_LINKS)
                    .map(|n| link(&format!("{n:09}"), "x"))
                    .collect(),
                "10000 links",
            ),
        ] {
            let refused = refusal(parts);
            assert!(refused.contains(said), "{refused}");
        }
    }

    #[test]
    fn a_full_disk_is_said() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut parts = vec![file("a", 4), data("text")].into_iter();
        let refused = receive(full, &mut || parts.next()).unwrap_err();
        assert!(
            matches!(&refused, Refused::Io(error) if error.kind() == io::ErrorKind::StorageFull),
            "{refused}"
        );
    }

    #[test]
    fn empty_files_are_counted_too() {
        let mut receiving = Receiving::new(tempfile::tempfile().unwrap());
        receiving.members = WORKSPACE_MEMBERS - 1;
        receiving.admit("a").unwrap();
        assert!(matches!(receiving.admit("b"), Err(Refused::TooMany)));
    }
}
