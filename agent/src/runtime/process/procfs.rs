//! Reads `/proc`: which processes there are, below whom, and with which environment.
//!
//! A process may vanish at any moment; what can't be read is left out. A pid alone is no identity: it is reused.
//! To signal a process, it is opened first ([`open`]) and looked at again while the descriptor pins it.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::os::fd::{AsFd, OwnedFd};

/// A line of `/proc/PID/stat`, as far as it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The process.
    pub pid: i32,
    /// Its parent.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// Clock ticks after boot at which it began: with the pid an identity.
    pub began: u64,
    /// Whether it is dead and only waits to be reaped by its parent.
    pub zombie: bool,
}

/// All processes.
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

/// The children of a process of one thread. Only its own reading of them is reliable: nobody else takes one off the list meanwhile.
pub fn children(parent: i32) -> Vec<i32> {
    match std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")) {
        Ok(list) => list
            .split_ascii_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect(),
        // A kernel without that list.
        Err(_) => processes()
            .into_iter()
            .filter(|stat| stat.parent == parent && !stat.zombie)
            .map(|stat| stat.pid)
            .collect(),
    }
}

/// One process.
pub fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The block of its environment as it was when its program began; `None` if it is gone or somebody else's.
pub fn environment(pid: i32) -> Option<Vec<u8>> {
    std::fs::read(format!("/proc/{pid}/environ")).ok()
}

/// Its resident memory, for people (`1234 kB`).
pub fn resident(pid: i32) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().to_owned())
}

/// The second field, the program's name, may contain spaces and brackets: fields are counted after its last bracket.
fn parse_stat(line: &str) -> Option<Stat> {
    let (head, tail) = line.rsplit_once(')')?;
    let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
    Some(Stat {
        pid: head.split_once(' ')?.0.parse().ok()?,
        zombie: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        began: fields.get(19)?.parse().ok()?,
    })
}

/// The processes of the list that stand below `root`, at any depth, itself left out.
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

/// A process that can't be mistaken for another any more.
#[derive(Debug)]
pub struct Pinned {
    descriptor: OwnedFd,
}

/// Pins the process that was seen as `seen`; `None` if it is gone, even if its pid is in use again.
pub fn open(seen: Stat) -> Option<Pinned> {
    let pid = Pid::from_raw(seen.pid)?;
    let descriptor = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let now = stat(seen.pid)?;
    (now.began == seen.began).then_some(Pinned { descriptor })
}

impl Pinned {
    /// Sends a signal. One that is gone already has what it was meant to get.
    pub fn signal(&self, signal: Signal) -> Result<(), String> {
        match pidfd_send_signal(self.descriptor.as_fd(), signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Waits until it has ended (or is a zombie); false if it hasn't within the time.
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
        assert_eq!(stat.began, 12345);
        assert!(!stat.zombie);
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
