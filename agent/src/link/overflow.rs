//! Where events and log bytes go that have no room in memory. Nothing here outlives the agent's process: attempts die with it,
//! so a new process starts with an empty directory.

use crate::private;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Bytes kept by an [`Overflow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Position in the file.
    pub offset: u64,
    /// Their number.
    pub len: usize,
}

/// Append-only files by name, removed as a whole. Calls are small and synchronous.
pub trait Overflow: Send {
    /// Appends bytes to a file, which begins to exist with its first bytes. An error leaves what was there readable.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<Place>;
    /// Reads what was appended.
    fn read(&mut self, name: &str, place: Place) -> io::Result<Vec<u8>>;
    /// Removes a file; one that doesn't exist is fine.
    fn remove(&mut self, name: &str);
}

/// Files in a directory that is the process's own.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    open: BTreeMap<String, (File, u64)>,
}

impl Directory {
    /// An empty directory at this path; what a killed process left there goes.
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
        // At a position: what a failed write left half done is overwritten by the next one.
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
