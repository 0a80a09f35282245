//! Packs the files that `workspace.include` names into a tar archive whose bytes depend on nothing but their paths,
//! contents and executable bits (I5).
//!
//! A `.gitignore` at the workspace's root or below it is respected, one above it isn't: the workspace is the same
//! wherever it is checked out. A link that leads out of the workspace is an error, never followed.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// More bytes than this are refused: such data belongs into an image.
const MAX_BYTES: u64 = 2 << 30;

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
    #[error("workspace: more than {} MiB in {} (the largest: {}); narrow workspace.include", MAX_BYTES >> 20, root.display(), largest.display())]
    TooLarge { root: PathBuf, largest: PathBuf },
    #[error("workspace: {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
    move |source| Error::Io {
        path: path.to_owned(),
        source,
    }
}

/// A packed workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// SHA-256 over paths, modes and contents, in hexadecimal.
    pub digest: String,
    /// The archive.
    pub archive: PathBuf,
    /// Files and links in it.
    pub files: usize,
    /// Bytes of their contents.
    pub bytes: u64,
    /// Patterns that matched nothing.
    pub unmatched: Vec<String>,
}

/// A file or link of the workspace.
struct Member {
    /// Relative to the root, with `/`.
    path: String,
    kind: Kind,
}

enum Kind {
    File {
        executable: bool,
        size: u64,
        sha256: String,
    },
    Link {
        target: String,
    },
}

/// Packs what `include` names below `root` into `store/DIGEST.tar`, unless that is there already.
///
/// # Errors
/// A bad pattern, a link that leads outside, a file that can't be read.
pub fn pack(root: &Path, include: &[String], store: &Path) -> Result<Packed, Error> {
    let root = fs::canonicalize(root).map_err(at(root))?;
    let globs = compile(&root, include)?;
    let (members, unmatched) = collect(&root, include, &globs)?;
    let digest = digest(&members);
    fs::create_dir_all(store).map_err(at(store))?;
    let archive = store.join(format!("{digest}.tar"));
    if !archive.exists() {
        write(&root, &members, store, &archive)?;
    }
    let bytes = members
        .iter()
        .map(|m| {
            if let Kind::File { size, .. } = m.kind {
                size
            } else {
                0
            }
        })
        .sum();
    Ok(Packed {
        digest,
        archive,
        files: members.len(),
        bytes,
        unmatched,
    })
}

fn compile(root: &Path, include: &[String]) -> Result<GlobSet, Error> {
    let mut set = GlobSetBuilder::new();
    for pattern in include {
        if pattern.starts_with('/') || pattern.split('/').any(|part| part == "..") {
            return Err(Error::Outside {
                pattern: pattern.clone(),
                root: root.to_owned(),
            });
        }
        let glob = GlobBuilder::new(pattern.trim_start_matches("./"))
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

/// Walks the tree in byte order of the paths; says which patterns matched nothing.
fn collect(
    root: &Path,
    include: &[String],
    globs: &GlobSet,
) -> Result<(Vec<Member>, Vec<String>), Error> {
    let mut used = vec![false; include.len()];
    let mut members = Vec::new();
    let mut total = 0;
    let mut largest = (0, root.to_owned());
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
        for index in matched {
            used[index] = true;
        }
        let member = member(root, entry.path(), relative)?;
        if let Kind::File { size, .. } = member.kind {
            total += size;
            if size > largest.0 {
                largest = (size, entry.path().to_owned());
            }
            if total > MAX_BYTES {
                return Err(Error::TooLarge {
                    root: root.to_owned(),
                    largest: largest.1,
                });
            }
        }
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

fn member(root: &Path, path: &Path, relative: &Path) -> Result<Member, Error> {
    let meta = fs::symlink_metadata(path).map_err(at(path))?;
    let kind = if meta.is_symlink() {
        let target = fs::read_link(path).map_err(at(path))?;
        // A dangling link leads nowhere in particular; it is refused like one that leads outside.
        let inside = fs::canonicalize(path).is_ok_and(|real| real.starts_with(root));
        if target.is_absolute() || !inside {
            return Err(Error::Escape {
                link: relative.to_owned(),
                target,
            });
        }
        Kind::Link {
            target: target.to_string_lossy().into_owned(),
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
        path: relative.to_string_lossy().into_owned(),
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
    let mut hasher = Sha256::new();
    for member in members {
        let line = match &member.kind {
            Kind::File {
                executable, sha256, ..
            } => format!("f {} {sha256} {}\n", u8::from(*executable), member.path),
            Kind::Link { target } => format!("l {target} {}\n", member.path),
        };
        hasher.update(line.as_bytes());
    }
    hex::encode(hasher.finalize())
}

/// Writes beside the final name first, so that a killed run leaves no half archive under a digest's name.
fn write(root: &Path, members: &[Member], store: &Path, archive: &Path) -> Result<(), Error> {
    let partial = store.join(format!(".{}.partial", uuid::Uuid::new_v4()));
    let done = write_partial(root, members, &partial)
        .and_then(|()| fs::rename(&partial, archive).map_err(at(archive)));
    if done.is_err() {
        let _ = fs::remove_file(&partial);
    }
    done
}

fn write_partial(root: &Path, members: &[Member], partial: &Path) -> Result<(), Error> {
    let mut tar = tar::Builder::new(io::BufWriter::new(
        File::create(partial).map_err(at(partial))?,
    ));
    for member in members {
        let mut header = tar::Header::new_gnu();
        header.set_mtime(0);
        match &member.kind {
            Kind::File {
                executable, size, ..
            } => {
                header.set_entry_type(tar::EntryType::Regular);
                header.set_mode(if *executable { 0o755 } else { 0o644 });
                header.set_size(*size);
                let path = root.join(&member.path);
                // A file that grew meanwhile must not shift the archive.
                let file = File::open(&path).map_err(at(&path))?.take(*size);
                tar.append_data(&mut header, &member.path, file)
                    .map_err(at(&path))?;
            }
            Kind::Link { target } => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                header.set_size(0);
                tar.append_link(&mut header, &member.path, target)
                    .map_err(at(partial))?;
            }
        }
    }
    let mut out = tar.into_inner().map_err(at(partial))?;
    out.flush().map_err(at(partial))?;
    out.get_ref().sync_all().map_err(at(partial))
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

    fn names(archive: &Path) -> Vec<String> {
        let mut tar = tar::Archive::new(File::open(archive).unwrap());
        tar.entries()
            .unwrap()
            .map(|e| e.unwrap().path().unwrap().to_string_lossy().into_owned())
            .collect()
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
        let store = tempfile::tempdir().unwrap();
        let packed = pack(dir.path(), &globs(&["src/**", "nothing/*"]), store.path()).unwrap();
        assert_eq!(names(&packed.archive), ["src/b.txt", "src/deep/a.txt"]);
        assert_eq!(packed.unmatched, ["nothing/*"]);
        assert_eq!((packed.files, packed.bytes), (2, 2));
    }

    #[test]
    fn a_gitignore_above_the_workspace_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), ".gitignore", "/inner\n");
        put(dir.path(), "inner/a", "a");
        let store = tempfile::tempdir().unwrap();
        assert_eq!(
            pack(&dir.path().join("inner"), &globs(&["*"]), store.path())
                .unwrap()
                .files,
            1
        );
    }

    #[test]
    fn the_digest_depends_on_contents_and_modes_and_not_on_the_place_or_the_time() {
        let store = tempfile::tempdir().unwrap();
        let make = |text: &str, mode: u32| {
            let dir = tempfile::tempdir().unwrap();
            put(dir.path(), "a", text);
            fs::set_permissions(dir.path().join("a"), fs::Permissions::from_mode(mode)).unwrap();
            pack(dir.path(), &globs(&["*"]), store.path())
                .unwrap()
                .digest
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
        let store = tempfile::tempdir().unwrap();
        assert_eq!(
            pack(dir.path(), &globs(&["*"]), store.path())
                .unwrap()
                .files,
            2
        );
        std::os::unix::fs::symlink("../../etc/passwd", dir.path().join("outside")).unwrap();
        assert!(matches!(
            pack(dir.path(), &globs(&["*"]), store.path()),
            Err(Error::Escape { .. })
        ));
    }

    #[test]
    fn a_pattern_that_leads_out_is_refused_with_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let store = tempfile::tempdir().unwrap();
        for pattern in ["../x", "/etc/*", "a/../../b"] {
            assert!(
                matches!(
                    pack(dir.path(), &globs(&[pattern]), store.path()),
                    Err(Error::Outside { .. })
                ),
                "{pattern}"
            );
        }
        assert!(matches!(
            pack(dir.path(), &globs(&["a[",]), store.path()),
            Err(Error::Pattern { .. })
        ));
    }
}
