//! Copies files and directory trees: into an archive, out of an archive, and from one directory to another. The rules
//! for the target are those of `docker cp`: a target that is a directory receives the source under the source's own
//! name; any other target is the new name.
//!
//! All access goes through descriptors ([`crate::beneath`]), since containers and processes write to the same
//! directories at the same time. Links within a tree are copied as links and never followed. All functions here block.

use crate::beneath::{self, Root};
use rustix::fs::{FileType, Mode, OFlags};
use std::ffi::{OsStr, OsString};
use std::fs::{File, FileTimes};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path};
use std::time::{Duration, UNIX_EPOCH};
use tar::HeaderMode;

/// Adds a file, or a directory with everything in it, to an archive under a name.
pub fn pack<W: Write>(
    archive: &mut tar::Builder<W>,
    root: &Root,
    path: &Path,
    name: &Path,
) -> io::Result<()> {
    match root.file(path) {
        Ok(file) => append_file(archive, file, name, HeaderMode::Complete),
        Err(error) if error.kind() == ErrorKind::IsADirectory => {
            let below = root.below(path)?;
            append_directory(archive, below.directory(), name, HeaderMode::Complete)?;
            pack_within(archive, below.directory(), name, 0)
        }
        Err(error) => Err(error),
    }
}

fn pack_within<W: Write>(
    archive: &mut tar::Builder<W>,
    directory: BorrowedFd<'_>,
    at: &Path,
    depth: usize,
) -> io::Result<()> {
    not_too_deep(depth)?;
    for name in beneath::names(directory)? {
        let path = at.join(&name);
        if let Some(below) = append(archive, directory, &name, &path, HeaderMode::Complete)? {
            pack_within(archive, below.as_fd(), &path, depth + 1)?;
        }
    }
    Ok(())
}

/// Adds one entry to an archive. A directory is added without its content, and its descriptor is returned. Sockets,
/// pipes and devices have no content to send and are skipped.
pub fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    directory: BorrowedFd<'_>,
    name: &OsStr,
    path: &Path,
    mode: HeaderMode,
) -> io::Result<Option<OwnedFd>> {
    match beneath::kind(&beneath::stat(directory, name)?) {
        FileType::RegularFile => {
            append_file(archive, beneath::open_file(directory, name)?, path, mode)?;
        }
        FileType::Directory => {
            let below = beneath::open_directory(directory, name)?;
            append_directory(archive, below.as_fd(), path, mode)?;
            return Ok(Some(below));
        }
        FileType::Symlink => {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let link = File::from(rustix::fs::openat(directory, name, flags, Mode::empty())?);
            let mut header = tar::Header::new_gnu();
            header.set_metadata_in_mode(&link.metadata()?, mode);
            let target = beneath::read_link(directory, name)?;
            archive.append_link(&mut header, path, target)?;
        }
        _ => {}
    }
    Ok(None)
}

fn append_file<W: Write>(
    archive: &mut tar::Builder<W>,
    file: File,
    path: &Path,
    mode: HeaderMode,
) -> io::Result<()> {
    let metadata = file.metadata()?;
    let mut header = tar::Header::new_gnu();
    header.set_metadata_in_mode(&metadata, mode);
    // Exactly as many bytes as the header says, even if the file is written to meanwhile.
    let content = file.chain(io::repeat(0)).take(metadata.len());
    archive.append_data(&mut header, path, content)
}

fn append_directory<W: Write>(
    archive: &mut tar::Builder<W>,
    directory: BorrowedFd<'_>,
    path: &Path,
    mode: HeaderMode,
) -> io::Result<()> {
    let metadata = File::from(directory.try_clone_to_owned()?).metadata()?;
    let mut header = tar::Header::new_gnu();
    header.set_metadata_in_mode(&metadata, mode);
    archive.append_data(&mut header, path, io::empty())
}

/// Extracts an archive, which holds a file or a tree below one name, to a path below `root`. The archive comes from a
/// container and is not trusted.
pub fn unpack(archive: impl Read, root: &Root, to: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(archive);
    let mut base: Option<Base> = None;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let parts = parts(&entry.path()?)?;
        let base = match &mut base {
            Some(base) => base,
            empty => empty.insert(Base::new(root, to, &parts)?),
        };
        let (directory, name) = base.find(&parts)?;
        let directory = directory.as_fd();
        match entry.header().entry_type() {
            tar::EntryType::Directory => {
                beneath::make_directory(directory, &name)?;
                let made = beneath::open_directory(directory, &name)?;
                // The agent must be able to remove its own files.
                let mode = entry.header().mode()? & 0o777 | 0o700;
                rustix::fs::fchmod(&made, Mode::from_raw_mode(mode))?;
            }
            tar::EntryType::Symlink => {
                let target = entry.link_name()?.unwrap_or_default();
                beneath::new_link(directory, &name, &target)?;
            }
            tar::EntryType::Link => {
                let target = parts_of_link(entry.link_name()?.as_deref())?;
                let (of, known) = base.find(&target)?;
                let mut source = beneath::open_file(of.as_fd(), &known)?;
                let mode = source.metadata()?.mode();
                io::copy(&mut source, &mut beneath::new_file(directory, &name, mode)?)?;
            }
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                let mut file = beneath::new_file(directory, &name, entry.header().mode()?)?;
                let modified = UNIX_EPOCH + Duration::from_secs(entry.header().mtime()?);
                io::copy(&mut entry, &mut file)?;
                file.set_times(FileTimes::new().set_modified(modified))?;
            }
            _ => {}
        }
    }
    match base {
        Some(_) => Ok(()),
        None => Err(io::Error::new(
            ErrorKind::NotFound,
            "the container sent an empty archive",
        )),
    }
}

/// The target of an extracted archive.
struct Base {
    directory: OwnedFd,
    name: OsString,
    /// Whether the paths in the archive begin with the name of the copied file or directory.
    named: bool,
}

impl Base {
    fn new(root: &Root, to: &Path, first: &[OsString]) -> io::Result<Base> {
        let own = first.first().map(OsString::as_os_str);
        let (directory, name) = place(root, to, false, own)?;
        Ok(Base {
            directory,
            name,
            named: own.is_some(),
        })
    }

    /// Returns the directory of an entry and the entry's name in it. Creates missing directories, never through a link.
    fn find(&self, parts: &[OsString]) -> io::Result<(OwnedFd, OsString)> {
        let rest = parts.get(usize::from(self.named)..).unwrap_or_default();
        let mut directory = self.directory.try_clone()?;
        let mut name = self.name.clone();
        for next in rest {
            beneath::make_directory(directory.as_fd(), &name)?;
            directory = beneath::open_directory(directory.as_fd(), &name)?;
            name.clone_from(next);
        }
        Ok((directory, name))
    }
}

fn parts(path: &Path) -> io::Result<Vec<OsString>> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name.to_owned()),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::new(
                    ErrorKind::PermissionDenied,
                    format!("the entry {} leads out", path.display()),
                ));
            }
        }
    }
    Ok(parts)
}

fn parts_of_link(target: Option<&Path>) -> io::Result<Vec<OsString>> {
    target.map_or_else(|| Ok(Vec::new()), parts)
}

/// Copies a file or a directory to another directory. `into` says that the target was written as a directory.
pub fn copy(from: (&Root, &Path), to: (&Root, &Path), into: bool) -> io::Result<()> {
    let own = from.1.file_name();
    match from.0.file(from.1) {
        Ok(file) => {
            let (directory, name) = place(to.0, to.1, into, own)?;
            copy_file(file, directory.as_fd(), &name)
        }
        Err(error) if error.kind() == ErrorKind::IsADirectory => {
            let source = from.0.below(from.1)?;
            let (directory, name) = place(to.0, to.1, into, own)?;
            beneath::make_directory(directory.as_fd(), &name)?;
            let target = beneath::open_directory(directory.as_fd(), &name)?;
            copy_within(source.directory(), target.as_fd(), target.as_fd(), 0)
        }
        Err(error) => Err(error),
    }
}

/// `top` is the copy, which may lie inside the source tree.
fn copy_within(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    top: BorrowedFd<'_>,
    depth: usize,
) -> io::Result<()> {
    not_too_deep(depth)?;
    for name in beneath::names(from)? {
        match beneath::kind(&beneath::stat(from, &name)?) {
            FileType::RegularFile => copy_file(beneath::open_file(from, &name)?, to, &name)?,
            FileType::Symlink => beneath::new_link(to, &name, &beneath::read_link(from, &name)?)?,
            FileType::Directory => {
                let source = beneath::open_directory(from, &name)?;
                if beneath::same(source.as_fd(), top)? {
                    continue;
                }
                beneath::make_directory(to, &name)?;
                let target = beneath::open_directory(to, &name)?;
                copy_within(source.as_fd(), target.as_fd(), top, depth + 1)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn copy_file(mut from: File, to: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let mode = from.metadata()?.mode();
    io::copy(&mut from, &mut beneath::new_file(to, name, mode)?)?;
    Ok(())
}

/// Returns the directory and the name for a copy to `to`.
fn place(
    root: &Root,
    to: &Path,
    into: bool,
    own: Option<&OsStr>,
) -> io::Result<(OwnedFd, OsString)> {
    let own = own.unwrap_or(OsStr::new(".")).to_owned();
    match root.below(to) {
        Ok(directory) => return Ok((directory.into_directory(), own)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
        Err(error) => return Err(error),
    }
    match to.file_name() {
        Some(name) if !into => {
            let parent = to.parent().unwrap_or(Path::new(""));
            Ok((root.make(parent)?, name.to_owned()))
        }
        _ => Ok((root.make(to)?, own)),
    }
}

fn not_too_deep(depth: usize) -> io::Result<()> {
    match depth < beneath::MAX_DEPTH {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "directories are nested deeper than {}",
            beneath::MAX_DEPTH
        ))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_copy_holds_nothing_of_the_host_and_writes_nothing_there_while_links_are_swapped() {
        use crate::swapper::Swapper;
        let swapper = Swapper::start();
        let host = swapper.host();
        let packed = |work: &Path, path: &str| {
            let mut archive = tar::Builder::new(Vec::new());
            let root = Root::open(work).unwrap();
            pack(&mut archive, &root, Path::new(path), Path::new("copy")).ok()?;
            archive.into_inner().ok()
        };
        for path in ["file", "dir", "dir/inner", "."] {
            swapper.race(|work| packed(work, path));
        }
        let source = tempfile::tempdir().unwrap();
        fs::write(source.path().join("payload"), "evil").unwrap();
        let archive = packed(source.path(), "payload").unwrap();
        for path in ["dir/written", "file"] {
            swapper.race(|work| {
                let root = Root::open(work).unwrap();
                unpack(archive.as_slice(), &root, Path::new(path)).ok()?;
                Some(Vec::new())
            });
        }
        assert_eq!(names_of(&host), ["dir", "dir/inner", "file"]);
        assert_eq!(
            fs::read_to_string(host.join("file")).unwrap(),
            crate::swapper::THEIRS
        );
    }

    fn names_of(host: &Path) -> Vec<String> {
        let names = |at: &str| -> Vec<String> {
            let entries = fs::read_dir(host.join(at)).unwrap();
            let entries = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            entries.map(|name| format!("{at}{name}")).collect()
        };
        let mut all = names("");
        all.extend(names("dir/"));
        all.sort();
        all
    }

    fn places() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root")).unwrap();
        fs::create_dir_all(dir.path().join("victim")).unwrap();
        fs::write(dir.path().join("victim/secret"), "host only").unwrap();
        let root = Root::open(&dir.path().join("root")).unwrap();
        (dir, root)
    }

    fn archive(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o4644);
            header.set_mtime(1000);
            match kind {
                tar::EntryType::Symlink | tar::EntryType::Link => {
                    header.set_size(0);
                    archive.append_link(&mut header, path, content).unwrap();
                }
                _ => {
                    header.set_size(content.len() as u64);
                    archive
                        .append_data(&mut header, path, content.as_bytes())
                        .unwrap();
                }
            }
        }
        archive.into_inner().unwrap()
    }

    #[test]
    fn files_and_trees_are_copied_to_a_name_or_into_a_directory() {
        let (dir, root) = places();
        let at = |path: &str| dir.path().join("root").join(path);
        fs::create_dir_all(at("tree/sub")).unwrap();
        fs::write(at("tree/sub/file"), "x").unwrap();
        symlink("..", at("tree/up")).unwrap();
        let copy = |from: &str, to: &str, into| {
            copy((&root, Path::new(from)), (&root, Path::new(to)), into)
        };
        copy("tree", "named/deep", false).unwrap();
        copy("tree/sub/file", "into", true).unwrap();
        copy("tree", "into", false).unwrap();
        copy("tree/sub/file", "tree/sub/file", false).unwrap();
        copy("tree", "tree/within", false).unwrap();
        let read = |path: &str| fs::read_to_string(at(path)).unwrap();
        assert_eq!(read("named/deep/sub/file"), "x");
        assert_eq!(read("into/file"), "x");
        assert_eq!(read("into/tree/sub/file"), "x");
        assert_eq!(read("tree/sub/file"), "x");
        assert_eq!(read("tree/within/sub/file"), "x");
        assert!(!at("tree/within/within").exists());
        assert!(
            fs::symlink_metadata(at("into/tree/up"))
                .unwrap()
                .is_symlink()
        );
        assert!(copy("absent", "y", false).is_err());
    }

    #[test]
    fn nothing_is_read_or_written_through_a_link_that_leads_out() {
        let (dir, root) = places();
        symlink(dir.path().join("victim"), dir.path().join("root/out")).unwrap();
        fs::write(dir.path().join("root/payload"), "evil").unwrap();
        let path = Path::new;
        for (from, to) in [
            ("out/secret", "stolen"),
            ("out", "stolen"),
            ("payload", "out/written"),
            ("payload", "out"),
        ] {
            let error = copy((&root, path(from)), (&root, path(to)), false).unwrap_err();
            assert!(
                error.to_string().contains("leads out"),
                "{from} to {to}: {error}"
            );
        }
        let mut packed = tar::Builder::new(Vec::new());
        assert!(pack(&mut packed, &root, path("out/secret"), path("x")).is_err());
        assert!(pack(&mut packed, &root, path("out"), path("x")).is_err());
        let bytes = archive(&[("payload", tar::EntryType::Regular, "evil")]);
        assert!(unpack(&bytes[..], &root, path("out/written")).is_err());
        assert!(unpack(&bytes[..], &root, path("out")).is_err());
        assert_eq!(fs::read_dir(dir.path().join("victim")).unwrap().count(), 1);
        assert!(!dir.path().join("root/stolen").exists());
    }

    #[test]
    fn an_archive_can_not_lead_out_by_its_own_links_and_names() {
        use tar::EntryType::{Directory, Link, Regular, Symlink};
        let (dir, root) = places();
        let victim = dir.path().join("victim");
        let out = victim.to_str().unwrap();
        let through = archive(&[
            ("t", Directory, ""),
            ("t/l", Symlink, out),
            ("t/l/x", Regular, "evil"),
        ]);
        assert!(unpack(&through[..], &root, Path::new("a")).is_err());
        let hard = archive(&[
            ("t", Directory, ""),
            ("t/l", Symlink, out),
            ("t/h", Link, "t/l/secret"),
        ]);
        assert!(unpack(&hard[..], &root, Path::new("b")).is_err());
        let twice = archive(&[
            ("f", Symlink, &format!("{out}/new")),
            ("f", Regular, "mine"),
        ]);
        unpack(&twice[..], &root, Path::new("c")).unwrap();
        assert_eq!(
            fs::read_to_string(dir.path().join("root/c")).unwrap(),
            "mine"
        );
        assert_eq!(fs::read_dir(&victim).unwrap().count(), 1);
    }

    #[test]
    fn an_archive_keeps_trees_links_hard_links_and_times_but_no_setuid() {
        use std::os::unix::fs::PermissionsExt;
        use tar::EntryType::{Directory, Link, Regular, Symlink};
        let (dir, root) = places();
        let bytes = archive(&[
            ("t/", Directory, ""),
            ("t/d/", Directory, ""),
            ("t/d/f", Regular, "text"),
            ("t/l", Symlink, "d/f"),
            ("t/h", Link, "t/d/f"),
        ]);
        unpack(&bytes[..], &root, Path::new("new/name")).unwrap();
        let at = |path: &str| dir.path().join("root").join(path);
        for path in ["new/name/d/f", "new/name/l", "new/name/h"] {
            assert_eq!(fs::read_to_string(at(path)).unwrap(), "text", "{path}");
        }
        let metadata = fs::metadata(at("new/name/d/f")).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o644);
        assert_eq!(
            metadata.modified().unwrap(),
            UNIX_EPOCH + Duration::from_secs(1000)
        );
        // Into an existing directory: under its own name.
        unpack(&bytes[..], &root, Path::new("new")).unwrap();
        assert_eq!(fs::read_to_string(at("new/t/d/f")).unwrap(), "text");
        assert!(unpack(&archive(&[])[..], &root, Path::new("x")).is_err());
        let mut packed = tar::Builder::new(Vec::new());
        pack(
            &mut packed,
            &root,
            Path::new("new/name"),
            Path::new("again"),
        )
        .unwrap();
        let packed = packed.into_inner().unwrap();
        unpack(&packed[..], &root, Path::new(".")).unwrap();
        assert_eq!(fs::read_to_string(at("again/l")).unwrap(), "text");
    }
}
