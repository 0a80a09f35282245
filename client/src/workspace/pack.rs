//! Finds the files that `workspace.include` names. Computes a digest that depends only on their paths, contents and
//! executable bits (I5). The client does this, since the files are on its machine; `send` sends them to the
//! coordinator.
//!
//! A `.gitignore` at the workspace's root or below is respected, one above is not: the workspace is the same wherever
//! it is checked out. A link that leads out of the workspace is an error and is never followed.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use phalanx_proto::limit::{PATH_BYTES, WORKSPACE_BYTES, WORKSPACE_LINKS, WORKSPACE_MEMBERS};
use phalanx_shared::workspace_name::Naming;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Why a workspace can't be packed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("workspace.include: {pattern:?} is not a glob: {reason}")]
    Pattern { pattern: String, reason: String },
    #[error("workspace.include: {pattern:?} leads out of the workspace; paths are relative to {}", root.display())]
    Outside { pattern: String, root: PathBuf },
    #[error("workspace: the link {} leads out of the workspace, to {}", link.display(), target.display())]
    Escape { link: PathBuf, target: PathBuf },
    #[error("workspace: {} is neither a file nor a link", path.display())]
    Special { path: PathBuf },
    #[error("workspace: more than {} MiB in {} (the largest: {}); narrow workspace.include", WORKSPACE_BYTES >> 20, root.display(), largest.display())]
    TooLarge { root: PathBuf, largest: PathBuf },
    #[error("workspace: more than {WORKSPACE_MEMBERS} files or {WORKSPACE_LINKS} links in {}; narrow workspace.include", root.display())]
    TooMany { root: PathBuf },
    #[error(
        "workspace: {path:?} can't travel: a name is UTF-8 without control characters, a path has at most {PATH_BYTES} bytes; rename it, or take it out of workspace.include"
    )]
    Name { path: PathBuf },
    #[error("workspace: {} became shorter while it was sent; run it again", path.display())]
    Changed { path: PathBuf },
    #[error("workspace: {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
    move |source| Error::Io {
        path: path.to_owned(),
        source,
    }
}

/// A workspace that is ready to send.
#[derive(Clone, Debug)]
pub struct Packed {
    /// SHA-256 over paths, modes and contents, in hexadecimal.
    pub digest: String,
    /// Total size of the files in bytes.
    pub bytes: u64,
    /// Patterns that matched nothing.
    pub unmatched: Vec<String>,
    pub(super) root: PathBuf,
    /// Files and links, by path in byte order.
    pub(super) members: Vec<Member>,
}

impl Packed {
    /// Returns the number of files and links.
    pub fn files(&self) -> usize {
        self.members.len()
    }

    /// Returns whether a file, link or directory at a tidy path is part of it.
    pub(super) fn holds(&self, path: &str) -> bool {
        if path.is_empty() {
            return !self.members.is_empty();
        }
        let from = self
            .members
            .partition_point(|member| member.path.as_str() < path);
        let here = self.members.get(from..).unwrap_or_default().iter();
        // Between a directory and what is in it, other names may stand: `a`, `a.txt`, `a/b`.
        let mut here = here.take_while(|member| member.path.starts_with(path));
        let below = |member: &Member| {
            let rest = member.path.get(path.len()..).unwrap_or_default();
            rest.is_empty() || rest.starts_with('/')
        };
        here.any(below) || self.leads_through_a_link(path)
    }

    /// Returns whether a directory on the way is a link, so that only the file system knows what is there.
    fn leads_through_a_link(&self, path: &str) -> bool {
        let mut ends = path.match_indices('/').filter_map(|(at, _)| path.get(..at));
        ends.any(|folder| {
            let found = self
                .members
                .binary_search_by(|member| member.path.as_str().cmp(folder));
            let member = found.ok().and_then(|at| self.members.get(at));
            member.is_some_and(|member| matches!(member.kind, Kind::Link { .. }))
        })
    }
}

/// A file or link of the workspace.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// Path relative to the root, with `/`.
    pub path: String,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    File {
        executable: bool,
        size: u64,
        sha256: String,
    },
    Link {
        target: String,
    },
}

/// Finds the files below `root` that a pattern of `include` matches, except those matched by a pattern that begins with
/// `!`.
///
/// # Errors
/// Returns an error for an invalid pattern, a link that leads out of the workspace, a file that can't be read, and a
/// workspace that is too large.
pub fn pack(root: &Path, include: &[String]) -> Result<Packed, Error> {
    let root = fs::canonicalize(root).map_err(at(root))?;
    let globs = compile(&root, include)?;
    let (members, unmatched) = collect(&root, include, &globs)?;
    let sizes = members.iter().map(|member| match member.kind {
        Kind::File { size, .. } => size,
        Kind::Link { .. } => 0,
    });
    Ok(Packed {
        digest: digest(&members),
        bytes: sizes.sum(),
        unmatched,
        root,
        members,
    })
}

fn compile(root: &Path, include: &[String]) -> Result<GlobSet, Error> {
    let mut set = GlobSetBuilder::new();
    for pattern in include {
        let glob = pattern.strip_prefix('!').unwrap_or(pattern);
        if glob.starts_with('/') || glob.split('/').any(|part| part == "..") {
            return Err(Error::Outside {
                pattern: pattern.clone(),
                root: root.to_owned(),
            });
        }
        let glob = GlobBuilder::new(glob.trim_start_matches("./"))
            .literal_separator(true)
            .build()
            .map_err(|e| Error::Pattern {
                pattern: pattern.clone(),
                reason: e.kind().to_string(),
            })?;
        set.add(glob);
    }
    set.build().map_err(|e| Error::Pattern {
        pattern: include.join(", "),
        reason: e.to_string(),
    })
}

/// Walks the tree. Returns the files and links by path in byte order, and the patterns that matched nothing.
fn collect(
    root: &Path,
    include: &[String],
    globs: &GlobSet,
) -> Result<(Vec<Member>, Vec<String>), Error> {
    let mut used = vec![false; include.len()];
    let mut members = Vec::new();
    let mut bound = Bound::of(root);
    let walk = ignore::WalkBuilder::new(root)
        .hidden(false)
        .parents(false)
        .git_global(false)
        .git_exclude(false)
        .require_git(false)
        .ignore(false)
        .filter_entry(|entry| entry.file_name() != ".git")
        .build();
    for entry in walk {
        let entry = entry.map_err(|e| Error::Io {
            path: root.to_owned(),
            source: io::Error::other(e),
        })?;
        let Ok(relative) = entry.path().strip_prefix(root) else {
            continue;
        };
        let Some(kind) = entry.file_type() else {
            continue;
        };
        let matched = globs.matches(relative);
        if kind.is_dir() || matched.is_empty() {
            continue;
        }
        // A pattern with `!` excludes files, wherever it is in the list.
        let mut taken_out = false;
        for index in matched {
            used[index] = true;
            taken_out |= include[index].starts_with('!');
        }
        if taken_out {
            continue;
        }
        // Check before reading: the file may be a disk image.
        let announced = entry.metadata().map_or(0, |meta| meta.len());
        if kind.is_file() {
            bound.check(entry.path(), announced)?;
        }
        let member = member(root, entry.path(), relative)?;
        bound.add(entry.path(), &member.kind)?;
        members.push(member);
    }
    members.sort_by(|a, b| a.path.cmp(&b.path));
    let unmatched = include
        .iter()
        .zip(used)
        .filter(|(_, used)| !used)
        .map(|(p, _)| p.clone())
        .collect();
    Ok((members, unmatched))
}

/// The size of the workspace so far.
struct Bound<'r> {
    root: &'r Path,
    bytes: u64,
    members: usize,
    links: usize,
    largest: (u64, PathBuf),
}

impl<'r> Bound<'r> {
    fn of(root: &'r Path) -> Self {
        Bound {
            root,
            bytes: 0,
            members: 0,
            links: 0,
            largest: (0, root.to_owned()),
        }
    }

    /// Returns an error if there is no room for a file.
    fn check(&mut self, path: &Path, size: u64) -> Result<(), Error> {
        if size > self.largest.0 {
            self.largest = (size, path.to_owned());
        }
        if self.bytes.saturating_add(size) > WORKSPACE_BYTES {
            return Err(Error::TooLarge {
                root: self.root.to_owned(),
                largest: self.largest.1.clone(),
            });
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, kind: &Kind) -> Result<(), Error> {
        self.members += 1;
        match kind {
            Kind::File { size, .. } => {
                self.check(path, *size)?;
                self.bytes += size;
            }
            Kind::Link { .. } => self.links += 1,
        }
        if self.members > WORKSPACE_MEMBERS || self.links > WORKSPACE_LINKS {
            return Err(Error::TooMany {
                root: self.root.to_owned(),
            });
        }
        Ok(())
    }
}

/// Returns the name under which a file travels.
fn name(relative: &Path) -> Result<String, Error> {
    let text = relative.to_str().filter(|text| text.len() <= PATH_BYTES);
    let text = text.filter(|text| !text.contains(char::is_control));
    text.map(str::to_owned).ok_or_else(|| Error::Name {
        path: relative.to_owned(),
    })
}

fn member(root: &Path, path: &Path, relative: &Path) -> Result<Member, Error> {
    let meta = fs::symlink_metadata(path).map_err(at(path))?;
    let kind = if meta.is_symlink() {
        let target = fs::read_link(path).map_err(at(path))?;
        // A dangling link leads nowhere in particular. It is refused like one that leads out of the workspace.
        let inside = fs::canonicalize(path).is_ok_and(|real| real.starts_with(root));
        if target.is_absolute() || !inside {
            return Err(Error::Escape {
                link: relative.to_owned(),
                target,
            });
        }
        Kind::Link {
            target: name(&target)?,
        }
    } else if meta.is_file() {
        let executable = meta.permissions().mode() & 0o111 != 0;
        let (size, sha256) = hash(path)?;
        Kind::File {
            executable,
            size,
            sha256,
        }
    } else {
        return Err(Error::Special {
            path: relative.to_owned(),
        });
    };
    Ok(Member {
        path: name(relative)?,
        kind,
    })
}

fn hash(path: &Path) -> Result<(u64, String), Error> {
    let mut file = File::open(path).map_err(at(path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    let mut size = 0;
    loop {
        let n = file.read(&mut buffer).map_err(at(path))?;
        if n == 0 {
            return Ok((size, hex::encode(hasher.finalize())));
        }
        hasher.update(&buffer[..n]);
        size += n as u64;
    }
}

fn digest(members: &[Member]) -> String {
    let mut naming = Naming::default();
    for Member { path, kind } in members {
        match kind {
            Kind::File {
                executable, sha256, ..
            } => naming.file(path, *executable, sha256),
            Kind::Link { target } => naming.link(path, target),
        }
    }
    naming.finish()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn names(packed: &Packed) -> Vec<&str> {
        packed.members.iter().map(|m| m.path.as_str()).collect()
    }

    fn globs(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_what_is_included_and_not_ignored_is_packed_in_the_order_of_paths() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "src/b.txt", "b");
        put(dir.path(), "src/deep/a.txt", "a");
        put(dir.path(), "src/junk.log", "x");
        put(dir.path(), "other.txt", "o");
        put(dir.path(), ".gitignore", "*.log\n");
        let packed = pack(dir.path(), &globs(&["src/**", "nothing/*"])).unwrap();
        assert_eq!(names(&packed), ["src/b.txt", "src/deep/a.txt"]);
        assert_eq!(packed.unmatched, ["nothing/*"]);
        assert_eq!((packed.files(), packed.bytes), (2, 2));
    }

    #[test]
    fn a_pattern_with_an_exclamation_mark_takes_out() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["a/x", "a/y", "a/b/z"] {
            put(dir.path(), file, "");
        }
        let packed = pack(dir.path(), &globs(&["!a/b/**", "a/**", "!a/y"])).unwrap();
        let paths: Vec<_> = packed.members.iter().map(|m| m.path.as_str()).collect();
        assert_eq!(paths, ["a/x"]);
        assert!(packed.unmatched.is_empty(), "{:?}", packed.unmatched);
        assert!(matches!(
            pack(dir.path(), &globs(&["!../x"])),
            Err(Error::Outside { .. })
        ));
    }

    #[test]
    fn a_gitignore_above_the_workspace_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), ".gitignore", "/inner\n");
        put(dir.path(), "inner/a", "a");
        assert_eq!(
            pack(&dir.path().join("inner"), &globs(&["*"]))
                .unwrap()
                .files(),
            1
        );
    }

    #[test]
    fn the_digest_depends_on_contents_and_modes_and_not_on_the_place_or_the_time() {
        let make = |text: &str, mode: u32| {
            let dir = tempfile::tempdir().unwrap();
            put(dir.path(), "a", text);
            fs::set_permissions(dir.path().join("a"), fs::Permissions::from_mode(mode)).unwrap();
            pack(dir.path(), &globs(&["*"])).unwrap().digest
        };
        assert_eq!(make("x", 0o644), make("x", 0o600));
        assert_ne!(make("x", 0o644), make("x", 0o755));
        assert_ne!(make("x", 0o644), make("y", 0o644));
    }

    #[test]
    fn a_link_inside_is_kept_and_one_that_leads_outside_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "a", "x");
        std::os::unix::fs::symlink("a", dir.path().join("inside")).unwrap();
        assert_eq!(pack(dir.path(), &globs(&["*"])).unwrap().files(), 2);
        std::os::unix::fs::symlink("../../etc/passwd", dir.path().join("outside")).unwrap();
        assert!(matches!(
            pack(dir.path(), &globs(&["*"])),
            Err(Error::Escape { .. })
        ));
    }

    #[test]
    fn a_pattern_that_leads_out_is_refused_with_the_root() {
        let dir = tempfile::tempdir().unwrap();
        for pattern in ["../x", "/etc/*", "a/../../b"] {
            assert!(
                matches!(
                    pack(dir.path(), &globs(&[pattern])),
                    Err(Error::Outside { .. })
                ),
                "{pattern}"
            );
        }
        assert!(matches!(
            pack(dir.path(), &globs(&["a[",])),
            Err(Error::Pattern { .. })
        ));
    }

    #[test]
    fn two_workspaces_never_have_one_digest() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "x", "");
        put(dir.path(), "x y", "");
        let digest = |link: &str, target: &str| {
            let link = dir.path().join(link);
            std::os::unix::fs::symlink(target, &link).unwrap();
            let packed = pack(dir.path(), &globs(&["*z"])).unwrap();
            fs::remove_file(link).unwrap();
            packed.digest
        };
        assert_ne!(digest("y z", "x"), digest("z", "x y"));
        // A line break could look like the end of a member.
        put(dir.path(), "a\nf 0 00 bz", "");
        assert!(matches!(
            pack(dir.path(), &globs(&["*z"])),
            Err(Error::Name { .. })
        ));
    }

    #[test]
    fn a_file_that_is_too_large_is_refused_before_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let sparse = File::create(dir.path().join("disk.img")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        let error = pack(dir.path(), &globs(&["*"])).unwrap_err().to_string();
        assert!(error.contains("disk.img"), "{error}");
    }
}
