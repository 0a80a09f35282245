//! Sends files that match a path or a glob, one after the other in pieces, so that no file is in memory as a whole.
//!
//! Links found on the way aren't followed, a path without wildcards follows links that stay inside, and only regular
//! files are read. A file that is larger than allowed is named and not read.

use super::search::{Pattern, Visitor, visit_archive, visit_below};
use crate::beneath::Root;
use phalanx_shared::language::quantity::spelled_bytes;
use std::fs::File;
use std::io::{self, Read};
use tokio::sync::mpsc;

/// Maximum bytes of a piece.
const PIECE: usize = 64 << 10;
/// Maximum number of files.
pub const FILES: usize = 1_000;
/// Maximum bytes of an archive that is looked through for files: a container's files come in archives only.
pub const ARCHIVE: u64 = 4 << 30;

/// What to send, and to whom.
#[derive(Clone, Debug)]
pub struct Gather {
    /// Which files.
    pub pattern: Pattern,
    /// Maximum bytes of one file.
    pub max_file: u64,
    /// Receives the files.
    pub out: mpsc::Sender<Gathered>,
}

/// A part of what is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gathered {
    /// A file begins: its path as the pattern spells it, and its size.
    File { path: String, size: u64 },
    /// Its next bytes.
    Bytes(Vec<u8>),
    /// It is complete.
    End,
    /// A file that is larger than allowed.
    TooLarge { path: String, size: u64 },
}

/// Sends files below a directory. This blocks.
pub fn below(root: &Root, gather: &Gather) -> io::Result<()> {
    let mut sending = Sending::new(gather);
    visit_below(root, &gather.pattern, &mut sending)
}

/// Sends files in an archive of the pattern's base. This blocks.
pub fn from_archive(archive: impl Read, gather: &Gather) -> io::Result<()> {
    let mut sending = Sending::new(gather);
    visit_archive(archive, &gather.pattern, &mut sending)
}

struct Sending<'a> {
    gather: &'a Gather,
    files: usize,
}

impl<'a> Sending<'a> {
    fn new(gather: &'a Gather) -> Self {
        Sending { gather, files: 0 }
    }

    fn send(&self, part: Gathered) -> io::Result<()> {
        let sent = self.gather.out.blocking_send(part);
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody wants it any more"))
    }
}

impl Visitor for Sending<'_> {
    fn in_directory(&mut self, path: String, file: File) -> io::Result<()> {
        let size = file.metadata()?.len();
        self.in_archive(path, size, &mut &file)
    }

    fn pass(&self, size: u64) -> io::Result<()> {
        match size > ARCHIVE {
            true => Err(io::Error::other(format!(
                "a file there has {}, and an engine sends whole directories: write a narrower path",
                spelled_bytes(size)
            ))),
            false => Ok(()),
        }
    }

    fn in_archive(&mut self, path: String, size: u64, from: &mut dyn Read) -> io::Result<()> {
        self.files += 1;
        if self.files > FILES {
            return Err(io::Error::other(format!(
                "there are more than {FILES} matching files: write a narrower path"
            )));
        }
        if size > self.gather.max_file {
            return self.send(Gathered::TooLarge { path, size });
        }
        self.send(Gathered::File { path, size })?;
        // At most as many bytes as were announced, even if the file grows meanwhile.
        let mut from = from.take(size);
        loop {
            let mut piece = Vec::with_capacity(PIECE.min(usize::try_from(size).unwrap_or(PIECE)));
            (&mut from).take(PIECE as u64).read_to_end(&mut piece)?;
            if piece.is_empty() {
                return self.send(Gathered::End);
            }
            self.send(Gathered::Bytes(piece))?;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::symlink;

    fn gather(
        root: &std::path::Path,
        pattern: &str,
        max_file: u64,
    ) -> Result<Vec<Gathered>, String> {
        let (out, mut parts) = mpsc::channel(64);
        let gather = Gather {
            pattern: Pattern::new(pattern).unwrap(),
            max_file,
            out,
        };
        let sent = below(&Root::open(root).unwrap(), &gather);
        drop(gather);
        let mut all = Vec::new();
        while let Ok(part) = parts.try_recv() {
            all.push(part);
        }
        sent.map(|()| all).map_err(|error| error.to_string())
    }

    fn named(parts: &[Gathered]) -> Vec<String> {
        let name = |part: &Gathered| match part {
            Gathered::File { path, size } => Some(format!("{path} {size}")),
            Gathered::TooLarge { path, size } => Some(format!("{path} {size} too large")),
            _ => None,
        };
        parts.iter().filter_map(name).collect()
    }

    #[test]
    fn files_come_in_pieces_and_nothing_from_outside_or_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("out/deep")).unwrap();
        std::fs::write(dir.path().join("secret"), "outside").unwrap();
        std::fs::write(root.join("out/a"), vec![b'x'; PIECE + 1]).unwrap();
        std::fs::write(root.join("out/deep/b"), "").unwrap();
        symlink("../../secret", root.join("out/leads-out")).unwrap();
        symlink("/dev/zero", root.join("out/endless")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            root.join("out/pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        // A sparse file of a terabyte takes no space, and must take no time.
        let sparse = File::create(root.join("out/sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        let parts = gather(&root, "out/**", 1 << 20).unwrap();
        assert_eq!(
            named(&parts),
            [
                format!("out/a {}", PIECE + 1),
                "out/deep/b 0".to_owned(),
                format!("out/sparse {} too large", 1u64 << 40)
            ]
        );
        let bytes: usize = parts
            .iter()
            .map(|part| match part {
                Gathered::Bytes(bytes) => bytes.len(),
                _ => 0,
            })
            .sum();
        assert_eq!(bytes, PIECE + 1);
        for (path, reason) in [("out/leads-out", "leads out"), ("out/pipe", "regular")] {
            let error = gather(&root, path, 1 << 20).unwrap_err();
            assert!(error.contains(reason), "{path}: {error}");
        }
        assert!(gather(&root, "out/endless", 1 << 20).is_err());
        assert_eq!(gather(&root, "out/none", 1), Ok(Vec::new()));
    }

    #[test]
    fn more_files_than_allowed_are_an_error_after_the_first_ones() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..=FILES {
            std::fs::write(dir.path().join(format!("{number}")), "").unwrap();
        }
        let (out, mut parts) = mpsc::channel(4 * FILES);
        let gather = Gather {
            pattern: Pattern::new("*").unwrap(),
            max_file: 1,
            out,
        };
        let error = below(&Root::open(dir.path()).unwrap(), &gather).unwrap_err();
        assert!(error.to_string().contains("more than 1000"), "{error}");
        let mut files = 0;
        while let Ok(part) = parts.try_recv() {
            files += usize::from(matches!(part, Gathered::End));
        }
        assert_eq!(files, FILES);
    }
}
