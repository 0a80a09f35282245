//! A build context as a tar archive: the files of a directory that `.dockerignore` doesn't exclude, in a fixed order
//! and without times, so that the same content gives the same digest.

use crate::beneath::{self, Root};
use crate::runtime::tree;
use globset::{GlobBuilder, GlobMatcher};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// Maximum size of a `.dockerignore`, in bytes.
const MAX_IGNORE: u64 = 1024 * 1024;

/// A packed context.
pub(super) struct Packed {
    /// The archive, positioned at its beginning. The file has no name and vanishes with its handle.
    pub archive: File,
    /// SHA-256 digest of the archive, in hex.
    pub digest: String,
}

/// Why a context could not be packed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ContextError {
    #[error(".dockerignore: {0}")]
    Unreadable(io::Error),
    /// The line of a wrong pattern.
    #[error(".dockerignore:{0}: {1}")]
    Pattern(usize, globset::Error),
    #[error("reading {}: {error}", directory.display())]
    Read {
        directory: PathBuf,
        error: io::Error,
    },
    #[error("packing {}: {error}", directory.display())]
    Pack {
        directory: PathBuf,
        error: io::Error,
    },
}

/// Packs `directory`, as the directory `below` of the archive unless that is empty. The paths in `always` are never excluded; `extra` adds files (path, content) that no pattern
/// excludes.
pub(super) fn pack(
    directory: &Root,
    below: &str,
    always: &[&str],
    extra: &[(&str, &str)],
) -> Result<Packed, ContextError> {
    let ignore = match directory.read(Path::new(".dockerignore"), MAX_IGNORE) {
        Ok(bytes) => Ignore::parse(&String::from_utf8_lossy(&bytes))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ignore::default(),
        Err(error) => return Err(ContextError::Unreadable(error)),
    };
    let mut walk = Walk {
        ignore: &ignore,
        always,
        paths: Vec::new(),
    };
    walk.within(directory.directory(), Path::new(""), 0)
        .map_err(|error| ContextError::Read {
            directory: directory.path().to_owned(),
            error,
        })?;
    let mut paths = walk.paths;
    paths.sort();
    write((directory, below), &paths, extra).map_err(|error| ContextError::Pack {
        directory: directory.path().to_owned(),
        error,
    })
}

/// Collects the paths that are sent.
struct Walk<'a> {
    ignore: &'a Ignore,
    always: &'a [&'a str],
    paths: Vec<PathBuf>,
}

impl Walk<'_> {
    fn within(&mut self, directory: BorrowedFd<'_>, below: &Path, depth: usize) -> io::Result<()> {
        if depth >= beneath::MAX_DEPTH {
            return Err(io::Error::other(format!("{} is too deep", below.display())));
        }
        for name in beneath::names(directory)? {
            let path = below.join(&name);
            let kind = beneath::kind(&beneath::stat(directory, &name)?);
            let is_directory = kind == rustix::fs::FileType::Directory;
            let needed = self.always.iter().any(|a| Path::new(a).starts_with(&path));
            let left_out = self.ignore.leaves_out(&path) && !needed;
            // An excluded directory may still contain files that a later `!pattern` includes again.
            if is_directory && (!left_out || self.ignore.has_exceptions) {
                let inner = beneath::open_directory(directory, &name)?;
                self.within(inner.as_fd(), &path, depth + 1)?;
            }
            if !left_out {
                self.paths.push(path);
            }
        }
        Ok(())
    }
}

/// A writer that also computes the digest.
struct Hashing {
    file: File,
    digest: Sha256,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.digest.update(bytes.get(..written).unwrap_or(bytes));
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn write(
    (root, below): (&Root, &str),
    paths: &[PathBuf],
    extra: &[(&str, &str)],
) -> io::Result<Packed> {
    let file = crate::runtime::docker::copy::unnamed_file()?;
    let mut archive = tar::Builder::new(Hashing {
        file,
        digest: Sha256::new(),
    });
    if !below.is_empty() {
        // The directory itself, which may be empty.
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        archive.append_data(&mut header, below, io::empty())?;
    }
    for path in paths {
        let parent = root.below(path.parent().unwrap_or(Path::new("")))?;
        let name = path.file_name().unwrap_or_default();
        // Without times, owners and umask: only content, kind and the executable bit.
        let mode = tar::HeaderMode::Deterministic;
        let at = Path::new(below).join(path);
        tree::append(&mut archive, parent.directory(), name, &at, mode)?;
    }
    for (path, content) in extra {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append_data(&mut header, path, content.as_bytes())?;
    }
    let mut written = archive.into_inner()?;
    written.flush()?;
    written.file.rewind()?;
    Ok(Packed {
        archive: written.file,
        digest: hex::encode(written.digest.finalize()),
    })
}

/// The patterns of a `.dockerignore`, in order; the last match decides.
#[derive(Default)]
struct Ignore {
    rules: Vec<(GlobMatcher, bool)>,
    has_exceptions: bool,
}

impl Ignore {
    fn parse(text: &str) -> Result<Ignore, ContextError> {
        let mut ignore = Ignore::default();
        for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (pattern, leaves_out) = match line.strip_prefix('!') {
                Some(rest) => (rest.trim(), false),
                None => (line, true),
            };
            let pattern = pattern.trim_start_matches("./").trim_matches('/');
            if pattern.is_empty() || pattern == "." {
                continue;
            }
            let glob = GlobBuilder::new(pattern)
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(|error| ContextError::Pattern(number + 1, error))?;
            ignore.has_exceptions |= !leaves_out;
            ignore.rules.push((glob.compile_matcher(), leaves_out));
        }
        Ok(ignore)
    }

    /// Returns whether a path is excluded. A pattern matches a path itself or any directory above it.
    fn leaves_out(&self, path: &Path) -> bool {
        let matches = |glob: &GlobMatcher| {
            path.ancestors()
                .filter(|above| !above.as_os_str().is_empty())
                .any(|above| glob.is_match(above))
        };
        self.rules
            .iter()
            .rev()
            .find(|(glob, _)| matches(glob))
            .is_some_and(|(_, leaves_out)| *leaves_out)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn left_out(rules: &str, path: &str) -> bool {
        Ignore::parse(rules).unwrap().leaves_out(Path::new(path))
    }

    #[test]
    fn patterns_mean_what_docker_means() {
        assert!(left_out("*.md", "a.md"));
        assert!(!left_out("*.md", "d/a.md"));
        assert!(left_out("**/*.md", "d/e/a.md"));
        assert!(left_out("/target", "target/debug/x"));
        assert!(left_out("target/", "target"));
        assert!(left_out("*\n!keep", "other/file"));
        assert!(!left_out("*\n!keep", "keep/file"));
        assert!(left_out("!keep\nkeep", "keep"));
        assert!(!left_out("# a\n\n", "a"));
    }

    #[test]
    fn the_same_content_has_the_same_digest_and_ignored_files_dont_count() {
        let make = || {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("src")).unwrap();
            std::fs::write(dir.path().join("src/a"), "1").unwrap();
            std::fs::write(dir.path().join(".dockerignore"), "*.log").unwrap();
            dir
        };
        let (one, two) = (make(), make());
        std::fs::write(two.path().join("x.log"), "noise").unwrap();
        let digest = |dir: &tempfile::TempDir| {
            pack(&Root::open(dir.path()).unwrap(), "", &[], &[])
                .unwrap()
                .digest
        };
        assert_eq!(digest(&one), digest(&two));
        std::fs::write(two.path().join("src/a"), "2").unwrap();
        assert_ne!(digest(&one), digest(&two));
    }

    #[test]
    fn a_context_holds_nothing_of_the_host_while_links_are_swapped() {
        use std::io::Read;
        crate::swapper::Swapper::start().race(|work| {
            let mut packed = pack(&Root::open(work).unwrap(), "", &["dir/inner"], &[]).ok()?;
            let mut bytes = Vec::new();
            packed.archive.read_to_end(&mut bytes).unwrap();
            Some(bytes)
        });
    }

    #[test]
    fn an_excepted_file_in_an_ignored_directory_and_the_dockerfile_are_sent() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        for name in ["d/keep", "d/drop", "Dockerfile", "other"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        std::fs::write(dir.path().join(".dockerignore"), "*\n!d/keep\n").unwrap();
        let packed = pack(
            &Root::open(dir.path()).unwrap(),
            "",
            &["Dockerfile"],
            &[("extra", "y")],
        )
        .unwrap();
        let mut names: Vec<String> = tar::Archive::new(packed.archive)
            .entries()
            .unwrap()
            .map(|e| e.unwrap().path().unwrap().display().to_string())
            .collect();
        names.sort();
        assert_eq!(names, ["Dockerfile", "d/keep", "extra"]);
    }

    #[test]
    fn a_directory_can_be_packed_as_one_beside_the_dockerfile() {
        let dir = tempfile::tempdir().unwrap();
        let names = || {
            let root = Root::open(dir.path()).unwrap();
            let packed = pack(&root, "context", &[], &[("D", "FROM x")]).unwrap();
            let mut archive = tar::Archive::new(packed.archive);
            let entries = archive.entries().unwrap();
            entries
                .map(|e| e.unwrap().path().unwrap().display().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(), ["context", "D"]);
        std::fs::write(dir.path().join("a"), "x").unwrap();
        assert_eq!(names(), ["context", "context/a", "D"]);
    }
}
