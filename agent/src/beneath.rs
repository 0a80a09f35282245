//! Access to files below a directory that others write to as well: a workspace, a build context, a service's directory.
//!
//! Containers and processes may create links there at any moment, so checking a path before opening it proves nothing.
//! Every open goes through a descriptor of the directory and is resolved by the kernel (`openat2` with
//! `RESOLVE_BENEATH`). If the kernel or its system call filter doesn't support that, the path is resolved name by name
//! without letting the kernel follow links. A link is followed as long as it stays inside. The path above the directory
//! belongs to the agent and is trusted.
//!
//! All functions here block.

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// Maximum depth of nested directories that are read. Each level costs descriptors.
pub const MAX_DEPTH: usize = 64;
/// Maximum links that one path may lead through, as in the kernel.
const MAX_LINKS: usize = 40;
/// How often the kernel call is retried because names changed during the lookup.
const MAX_RACES: usize = 64;

/// An open directory that confines all paths to itself.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    path: PathBuf,
}

/// A path below a directory: the workspace side of a `cp` step, or the directory where a command runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The directory that confines the path.
    pub root: PathBuf,
    /// The path relative to `root`.
    pub path: PathBuf,
}

impl Place {
    /// Creates a place from a directory and a path in it.
    pub fn new(root: impl Into<PathBuf>, path: impl Into<PathBuf>) -> Self {
        Place {
            root: root.into(),
            path: path.into(),
        }
    }

    /// Joins a path: a relative path stays within the root, an absolute path becomes a new root.
    #[must_use]
    pub fn join(&self, path: &str) -> Place {
        match Path::new(path).is_absolute() {
            true => Place::new(path, ""),
            false => Place::new(&self.root, self.path.join(path)),
        }
    }

    /// Opens it as a directory that paths can't leave.
    pub fn open(&self) -> io::Result<Root> {
        Root::open(&self.root)?.below(&self.path)
    }

    /// Returns the full path, for display.
    pub fn display(&self) -> String {
        match self.path.as_os_str().is_empty() {
            true => self.root.display().to_string(),
            false => self.root.join(&self.path).display().to_string(),
        }
    }
}

impl Root {
    /// Opens a directory that the agent chose. Links in its own path are followed.
    pub fn open(path: &Path) -> io::Result<Root> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Root {
            directory,
            path: path.to_owned(),
        })
    }

    /// Returns the path at which it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns its descriptor and consumes the root.
    pub fn into_directory(self) -> OwnedFd {
        self.directory
    }

    /// Borrows its descriptor.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Opens a subdirectory as its own root: paths in it can't lead back into this one.
    pub fn below(&self, path: &Path) -> io::Result<Root> {
        Ok(Root {
            directory: self.at(path, OFlags::RDONLY | OFlags::DIRECTORY)?,
            path: self.path.join(path),
        })
    }

    /// Opens a regular file for reading. Devices and pipes, whose content may never end, are rejected.
    pub fn file(&self, path: &Path) -> io::Result<File> {
        regular(self.at(path, OFlags::RDONLY | OFlags::NONBLOCK)?)
    }

    /// Reads a file. Returns an error if it is longer than `limit` bytes.
    pub fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        bounded(self.file(path)?, limit)
    }

    /// Locates a file of any type without opening it (`O_PATH`).
    pub fn find(&self, path: &Path) -> io::Result<OwnedFd> {
        self.at(path, OFlags::PATH)
    }

    /// Opens a subdirectory; creates it and its parents if they don't exist.
    pub fn make(&self, path: &Path) -> io::Result<OwnedFd> {
        let mut made = PathBuf::from(".");
        let mut directory = self.at(&made, OFlags::RDONLY | OFlags::DIRECTORY)?;
        for part in path.components() {
            made.push(part);
            let next = match self.at(&made, OFlags::RDONLY | OFlags::DIRECTORY) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let Component::Normal(name) = part else {
                        return Err(error);
                    };
                    make_directory(directory.as_fd(), name)?;
                    self.at(&made, OFlags::RDONLY | OFlags::DIRECTORY)?
                }
                other => other?,
            };
            directory = next;
        }
        Ok(directory)
    }

    fn at(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let path = match path.as_os_str().is_empty() {
            true => Path::new("."),
            false => path,
        };
        let flags = flags | OFlags::CLOEXEC;
        let opened = match by_kernel(self.directory.as_fd(), path, flags) {
            // No such system call, or a system call filter that doesn't know it.
            Err(Errno::NOSYS | Errno::PERM) => by_name(self.directory.as_fd(), path, flags),
            other => other,
        };
        opened.map_err(explained)
    }
}

/// Reads a regular file named by an absolute path, which the agent's policy allows. Returns an
/// error if it is longer than `limit` bytes.
pub fn read_absolute(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty())?;
    bounded(regular(opened)?, limit)
}

fn bounded(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("it has more than {limit} bytes")));
    }
    Ok(bytes)
}

fn regular(opened: OwnedFd) -> io::Result<File> {
    match kind(&rustix::fs::fstat(&opened)?) {
        FileType::RegularFile => Ok(File::from(opened)),
        FileType::Directory => Err(io::ErrorKind::IsADirectory.into()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no regular file",
        )),
    }
}

/// Returns the file type.
pub fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Returns the names in a directory, sorted.
pub fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort();
    Ok(names)
}

/// Returns the metadata of a name in a directory. Doesn't follow a link.
pub fn stat(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<Stat> {
    Ok(rustix::fs::statat(
        directory,
        name,
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

/// Opens a directory in a directory. Returns an error if the name is a link.
pub fn open_directory(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty()).map_err(explained)
}

/// Opens a regular file in a directory. Returns an error if the name is a link.
pub fn open_file(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    regular(rustix::fs::openat(directory, name, flags, Mode::empty()).map_err(explained)?)
}

/// Returns the target of a link.
pub fn read_link(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<PathBuf> {
    let target = rustix::fs::readlinkat(directory, name, Vec::new())?;
    Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
}

/// Creates a directory unless the name exists.
pub fn make_directory(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Creates a file and replaces whatever had the name, unless that is a directory.
pub fn new_file(directory: BorrowedFd<'_>, name: &OsStr, mode: u32) -> io::Result<File> {
    remove(directory, name)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o600))?;
    // Set explicitly, since the umask doesn't apply to `fchmod`: a copy of a program that others may run must stay
    // executable for them.
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o777))?;
    Ok(File::from(file))
}

/// Creates a link and replaces whatever had the name, unless that is a directory. Nothing in this module follows a link
/// that leads out.
pub fn new_link(directory: BorrowedFd<'_>, name: &OsStr, target: &Path) -> io::Result<()> {
    remove(directory, name)?;
    Ok(rustix::fs::symlinkat(target, directory, name)?)
}

fn remove(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Returns the path of an open descriptor, as the kernel reports it.
pub fn real_path(found: BorrowedFd<'_>) -> io::Result<PathBuf> {
    use std::os::fd::AsRawFd;
    std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd()))
}

/// Returns whether two descriptors refer to the same file.
pub fn same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<bool> {
    let (one, other) = (rustix::fs::fstat(one)?, rustix::fs::fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

fn explained(error: Errno) -> io::Error {
    match error {
        Errno::XDEV => io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it leads out by a link or `..`",
        ),
        Errno::LOOP => io::Error::new(
            io::ErrorKind::PermissionDenied,
            "a link stands where none may be followed",
        ),
        other => other.into(),
    }
}

fn by_kernel(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut races = 0;
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) if races < MAX_RACES => races += 1,
            other => return other,
        }
    }
}

/// Resolves a path without `openat2`: opens each name in the directory held so far, and reads links instead of
/// following them.
fn by_name(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut above: Vec<OwnedFd> = Vec::new();
    let mut here = rustix::io::fcntl_dupfd_cloexec(root, 0)?;
    let mut left: VecDeque<OsString> = parts(path)?;
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name == ".." {
            here = above.pop().ok_or(Errno::XDEV)?;
            continue;
        }
        let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = rustix::fs::openat(&here, &name, look, Mode::empty())?;
        if kind(&rustix::fs::fstat(&found)?) == FileType::Symlink {
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::LOOP);
            }
            let target = rustix::fs::readlinkat(&found, "", Vec::new())?;
            let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
            for part in parts(&target)?.into_iter().rev() {
                left.push_front(part);
            }
            continue;
        }
        if left.is_empty() {
            // Rejects a link that was created in the meantime.
            return rustix::fs::openat(&here, &name, flags | OFlags::NOFOLLOW, Mode::empty());
        }
        above.push(std::mem::replace(&mut here, found));
    }
    rustix::fs::openat(&here, ".", flags, Mode::empty())
}

fn parts(path: &Path) -> Result<VecDeque<OsString>, Errno> {
    let mut parts = VecDeque::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push_back(name.to_owned()),
            Component::ParentDir => parts.push_back(OsString::from("..")),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return Err(Errno::XDEV),
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::symlink;

    type Opens = fn(BorrowedFd<'_>, &Path, OFlags) -> Result<OwnedFd, Errno>;

    fn each_way(judge: impl Fn(&dyn Fn(&str) -> Result<String, Errno>)) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/file"), "inside").unwrap();
        std::fs::write(dir.path().join("outside"), "outside").unwrap();
        symlink("a/file", root.join("in")).unwrap();
        symlink("../file", root.join("a/b/up")).unwrap();
        symlink("in", root.join("twice")).unwrap();
        symlink("a", root.join("dir")).unwrap();
        symlink(dir.path().join("outside"), root.join("absolute")).unwrap();
        symlink("../outside", root.join("relative")).unwrap();
        symlink("../../../outside", root.join("a/b/climbs")).unwrap();
        symlink("..", root.join("parent")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
        let opened = Root::open(&root).unwrap();
        for open in [by_kernel as Opens, by_name] {
            judge(&|path| {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                let found = open(opened.directory(), Path::new(path), flags)?;
                let mut text = String::new();
                File::from(found).read_to_string(&mut text).unwrap();
                Ok(text)
            });
        }
    }

    #[test]
    fn links_are_followed_as_long_as_they_stay_inside() {
        each_way(|read| {
            for path in [
                "a/file",
                "./a/../a/file",
                "in",
                "twice",
                "a/b/up",
                "dir/file",
                "dir/b/up",
                "dir/b/../file",
            ] {
                assert_eq!(read(path).as_deref(), Ok("inside"), "{path}");
            }
        });
    }

    #[test]
    fn what_leads_out_is_refused_by_the_kernel_and_without_it() {
        each_way(|read| {
            for path in [
                "absolute",
                "relative",
                "a/b/climbs",
                "../outside",
                "parent/outside",
                "a/../../outside",
                "dir/../../outside",
                "/etc/passwd",
                "magic/etc/passwd",
            ] {
                assert_eq!(read(path), Err(Errno::XDEV), "{path}");
            }
            assert_eq!(read("loop"), Err(Errno::LOOP));
            assert_eq!(read("missing"), Err(Errno::NOENT));
        });
    }

    #[test]
    fn directories_are_made_only_inside() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("real")).unwrap();
        symlink("real", root.join("link")).unwrap();
        symlink(dir.path(), root.join("out")).unwrap();
        let opened = Root::open(&root).unwrap();
        opened.make(Path::new("link/x/y")).unwrap();
        assert!(root.join("real/x/y").is_dir());
        let error = opened.make(Path::new("out/x")).unwrap_err();
        assert!(error.to_string().contains("leads out"), "{error}");
        assert!(!dir.path().join("x").exists());
    }

    #[test]
    fn what_may_never_end_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        std::fs::write(dir.path().join("long"), "12345").unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert!(root.read(Path::new("pipe"), 4).is_err());
        assert!(read_absolute(Path::new("/dev/zero"), 4).is_err());
        let error = root.read(Path::new("long"), 4).unwrap_err();
        assert!(error.to_string().contains("more than 4 bytes"), "{error}");
        assert_eq!(root.read(Path::new("long"), 5).unwrap(), b"12345");
    }

    #[test]
    fn a_new_file_replaces_a_link_and_not_what_it_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("victim"), "kept").unwrap();
        symlink("victim", dir.path().join("name")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        drop(new_file(root.directory(), OsStr::new("name"), 0o4755).unwrap());
        assert_eq!(std::fs::read(dir.path().join("victim")).unwrap(), b"kept");
        let made = std::fs::symlink_metadata(dir.path().join("name")).unwrap();
        use std::os::unix::fs::PermissionsExt;
        assert!(made.is_file());
        assert_eq!(made.permissions().mode() & 0o7777, 0o755);
    }
}
