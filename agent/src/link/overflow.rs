//! Storage for events and log bytes that don't fit into memory. It doesn't outlive the agent's process: attempts end
//! with the process, so a new one starts with an empty directory.

use crate::private;
use phalanx_shared::language::quantity::spelled_bytes;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Maximum number of bytes of the disk that large files leave free.
const RESERVE: u64 = 1 << 30;

/// Location of bytes in an [`Overflow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Position in the file.
    pub offset: u64,
    /// Number of bytes.
    pub len: usize,
}

/// Append-only files, identified by name and removed as a whole. Calls are small and synchronous.
pub trait Overflow: Send {
    /// Appends bytes to a file, which is created on the first call. After an error the earlier bytes stay readable.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<Place>;
    /// Reads bytes that were appended.
    fn read(&mut self, name: &str, place: Place) -> io::Result<Vec<u8>>;
    /// Removes a file, if it exists.
    fn remove(&mut self, name: &str);
    /// Returns why nothing large should be appended, if the disk is nearly full.
    fn below_reserve(&self) -> Option<String> {
        None
    }
}

/// Files in a directory that belongs to this process.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    open: BTreeMap<String, (File, u64)>,
}

impl Directory {
    /// Creates an empty directory at this path. Removes the files that a killed process left there.
    pub fn create(path: PathBuf) -> io::Result<Directory> {
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        private::directory(&path)?;
        Ok(Directory {
            path,
            open: BTreeMap::new(),
        })
    }
}

impl Overflow for Directory {
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<Place> {
        if !self.open.contains_key(name) {
            let file = private::file()
                .create(true)
                .truncate(true)
                .read(true)
                .write(true)
                .open(self.path.join(name))?;
            self.open.insert(name.to_owned(), (file, 0));
        }
        let (file, end) = self
            .open
            .get_mut(name)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        // Write at a fixed position, so that the next write overwrites the remains of a failed one.
        file.write_all_at(bytes, *end)?;
        let place = Place {
            offset: *end,
            len: bytes.len(),
        };
        *end += bytes.len() as u64;
        Ok(place)
    }

    fn read(&mut self, name: &str, place: Place) -> io::Result<Vec<u8>> {
        let (file, _) = self
            .open
            .get(name)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let mut bytes = vec![0; place.len];
        file.read_exact_at(&mut bytes, place.offset)?;
        Ok(bytes)
    }

    fn remove(&mut self, name: &str) {
        if self.open.remove(name).is_some() {
            let _ = std::fs::remove_file(self.path.join(name));
        }
    }

    /// Keeps 1 GiB free, or a tenth of the disk if that is less: events, workspaces and often the engine need it.
    fn below_reserve(&self) -> Option<String> {
        let disk = nix::sys::statvfs::statvfs(&self.path).ok()?;
        let block = disk.fragment_size();
        let reserve = (disk.blocks() * block / 10).min(RESERVE);
        (disk.blocks_available() * block < reserve).then(|| {
            format!(
                "the agent's disk is nearly full: less than {} are left",
                spelled_bytes(reserve)
            )
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bytes_come_back_until_their_file_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let mut files = Directory::create(place.path().join("spool")).unwrap();
        let first = files.append("a", b"one").unwrap();
        let second = files.append("a", b"twoo").unwrap();
        assert_eq!(files.read("a", second).unwrap(), b"twoo");
        assert_eq!(files.read("a", first).unwrap(), b"one");
        files.remove("a");
        assert!(files.read("a", first).is_err());
        assert_eq!(files.append("a", b"x").unwrap().offset, 0);
    }

    #[test]
    fn what_a_killed_process_left_is_gone_at_the_next_start() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("spool");
        Directory::create(path.clone())
            .unwrap()
            .append("a", b"one")
            .unwrap();
        Directory::create(path.clone()).unwrap();
        assert_eq!(std::fs::read_dir(path).unwrap().count(), 0);
    }
}
