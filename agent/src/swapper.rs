//! For tests: a thread that replaces files and directories with links that lead out, as fast as it can.

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// What only the host has.
pub const THEIRS: &str = "HOST-ONLY";
/// What the workspace has.
pub const OURS: &str = "ours";
/// How often names change before a test may end.
const ENOUGH: u64 = 2_000;

/// A workspace with the file `file` and the directory `dir`, which has `inner`. All of them are now and then links to
/// the same names beside the workspace.
pub struct Swapper {
    place: tempfile::TempDir,
    stop: Arc<AtomicBool>,
    swaps: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Swapper {
    /// Starts the thread.
    pub fn start() -> Swapper {
        let place = tempfile::tempdir().unwrap();
        let work = place.path().join("work");
        for (directory, text) in [(&work, OURS), (&place.path().join("host"), THEIRS)] {
            std::fs::create_dir_all(directory.join("dir")).unwrap();
            std::fs::write(directory.join("file"), text).unwrap();
            std::fs::write(directory.join("dir/inner"), text).unwrap();
        }
        let pairs = ["file", "dir"].map(|name| {
            // Beside the workspace, so that a reader of the whole of it doesn't meet it under its other name.
            let link = place.path().join(format!("link-{name}"));
            symlink(place.path().join("host").join(name), &link).unwrap();
            (work.join(name), link)
        });
        let (stop, swaps) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&swaps));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for (one, other) in &pairs {
                    match renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE) {
                        // A writer has just taken the name away, to make it anew.
                        Ok(()) | Err(Errno::NOENT) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Swapper {
            place,
            stop,
            swaps,
            thread: Some(thread),
        }
    }

    /// Returns the workspace.
    pub fn workspace(&self) -> PathBuf {
        self.place.path().join("work")
    }

    /// Returns the directory that the links lead to.
    pub fn host(&self) -> PathBuf {
        self.place.path().join("host")
    }

    /// Reads until names have changed often. Returns how often a read gave something; it must never give what only the
    /// host has.
    pub fn race(&self, mut read: impl FnMut(&Path) -> Option<Vec<u8>>) -> u64 {
        let (mut given, until) = (0, self.swaps.load(Ordering::Relaxed) + ENOUGH);
        let is_over = || self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        while self.swaps.load(Ordering::Relaxed) < until || given == 0 {
            assert!(!is_over(), "nobody swaps any more");
            let Some(bytes) = read(&self.workspace()) else {
                continue;
            };
            given += 1;
            let leaked = bytes
                .windows(THEIRS.len())
                .any(|part| part == THEIRS.as_bytes());
            assert!(!leaked, "{}", String::from_utf8_lossy(&bytes));
        }
        given
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn the_race_is_won_against_a_reader_that_checks_before_it_opens() {
    let swapper = Swapper::start();
    let mut leaked = false;
    while !leaked {
        let path = swapper.workspace().join("file");
        let link = std::fs::symlink_metadata(&path).unwrap().is_symlink();
        let text = std::fs::read_to_string(&path).unwrap();
        leaked = !link && text == THEIRS;
    }
}
