//! Reads `/proc`: which processes exist, their parents and their environment, and facts about the machine.
//!
//! A process may vanish at any moment; entries that can't be read are skipped. A pid alone doesn't identify a process,
//! since pids are reused. To signal a process, open it first ([`open`]); its identity is checked again while the
//! descriptor pins it.

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

/// The needed fields of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Pid of the process.
    pub pid: i32,
    /// Pid of its parent.
    pub parent: i32,
    /// Id of its process group.
    pub group: i32,
    /// Start time in clock ticks after boot. Together with the pid it identifies the process.
    pub began: u64,
    /// Whether its first thread is dead. The process waits to be reaped by its parent, unless other threads live.
    pub zombie: bool,
    /// Number of its threads.
    pub threads: u32,
}

impl Stat {
    /// Returns whether no thread of it lives.
    pub fn is_over(&self) -> bool {
        self.zombie && self.threads <= 1
    }
}

/// Returns all processes.
pub fn processes() -> Vec<Stat> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(stat)
        .collect()
}

/// Returns the children of a single-threaded process. The list is only reliable if the parent itself reads it, since
/// then no child is removed from it meanwhile.
pub fn children(parent: i32) -> Vec<i32> {
    match std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")) {
        Ok(list) => list
            .split_ascii_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect(),
        // The kernel doesn't provide that list.
        Err(_) => processes()
            .into_iter()
            .filter(|stat| stat.parent == parent && !stat.zombie)
            .map(|stat| stat.pid)
            .collect(),
    }
}

/// Returns the status of one process, or `None` if it doesn't exist.
pub fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Returns the process's environment block as it is in its memory; `None` if the process is gone or belongs to another
/// user.
pub fn environment(pid: i32) -> Option<Vec<u8>> {
    std::fs::read(format!("/proc/{pid}/environ")).ok()
}

/// Returns its resident memory, for display (`1234 kB`).
pub fn resident(pid: i32) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().to_owned())
}

/// Returns the id of this boot of the machine.
pub fn boot() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

/// Returns the inode of this process's PID namespace.
pub fn namespace() -> Option<u64> {
    std::fs::metadata("/proc/self/ns/pid")
        .ok()
        .map(|meta| meta.ino())
}

/// Returns the size of the machine's memory in bytes.
pub fn memory() -> Option<u64> {
    memory_total(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib.saturating_mul(1024))
}

/// Returns the machine's hostname.
pub fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// The second field, the program's name, may contain spaces and brackets, so fields are counted after the last bracket.
fn parse_stat(line: &str) -> Option<Stat> {
    let (head, tail) = line.rsplit_once(')')?;
    let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
    Some(Stat {
        pid: head.split_once(' ')?.0.parse().ok()?,
        zombie: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        threads: fields.get(17)?.parse().ok()?,
        began: fields.get(19)?.parse().ok()?,
    })
}

/// Returns the processes of the list that are descendants of `root`, at any depth, without `root` itself.
pub fn below(processes: &[Stat], root: i32) -> Vec<Stat> {
    let mut found: Vec<Stat> = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for child in processes.iter().filter(|stat| stat.parent == parent) {
            if !found.iter().any(|known| known.pid == child.pid) {
                parents.push(child.pid);
                found.push(*child);
            }
        }
    }
    found
}

/// A process pinned by a descriptor, so that it can't be mistaken for another one.
#[derive(Debug)]
pub struct Pinned {
    descriptor: OwnedFd,
}

/// Pins the process that was seen as `seen`. Returns `None` if it is gone, even if its pid is in use again.
pub fn open(seen: Stat) -> Option<Pinned> {
    let pid = Pid::from_raw(seen.pid)?;
    let descriptor = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let now = stat(seen.pid)?;
    (now.began == seen.began).then_some(Pinned { descriptor })
}

impl Pinned {
    /// Sends a signal. Succeeds if the process is already gone.
    pub fn signal(&self, signal: Signal) -> Result<(), Errno> {
        match pidfd_send_signal(self.descriptor.as_fd(), signal) {
            Err(Errno::SRCH) => Ok(()),
            sent => sent,
        }
    }

    /// Waits until it has ended (or is a zombie). Returns false if it hasn't within `at_most`.
    pub fn wait(&self, at_most: std::time::Duration) -> bool {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let timeout = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut fds, timeout), Ok(ready) if ready > 0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_moves_no_field() {
        let line = "42 (a) (b c)) S 7 40 40 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 1000 77 18446744073709551615";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.pid, stat.parent, stat.group), (42, 7, 40));
        assert_eq!((stat.began, stat.threads), (12345, 1));
        assert!(!stat.zombie);
    }

    #[test]
    fn memory_is_read_from_meminfo() {
        let text = "MemFree: 1 kB\nMemTotal:       24608120 kB\n";
        assert_eq!(memory_total(text), Some(24_608_120 * 1024));
        assert_eq!(memory_total("garbage"), None);
    }

    #[test]
    fn a_cut_line_is_no_process() {
        assert_eq!(parse_stat("42 (a) S 7"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn this_test_is_a_process_with_an_environment() {
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(processes().iter().any(|stat| stat.pid == me));
        assert!(environment(me).is_some());
        assert!(open(stat(me).unwrap()).is_some());
    }

    #[test]
    fn a_reused_pid_is_not_pinned() {
        let me = i32::try_from(std::process::id()).unwrap();
        let mut seen = stat(me).unwrap();
        seen.began += 1;
        assert!(open(seen).is_none());
    }

    #[test]
    fn descendants_are_found_at_any_depth() {
        let process = |pid, parent| Stat {
            pid,
            parent,
            group: pid,
            began: 1,
            zombie: false,
            threads: 1,
        };
        let list = [
            process(2, 1),
            process(3, 2),
            process(4, 3),
            process(9, 1),
            process(5, 4),
        ];
        let mut found: Vec<i32> = below(&list, 2).iter().map(|stat| stat.pid).collect();
        found.sort_unstable();
        assert_eq!(found, [3, 4, 5]);
    }
}
