//! Finds processes by their mark and ends them (I3): those left when a warden was killed, or an agent and its wardens
//! together.
//!
//! Processes of another agent identity, and those of live or kept attempts, are never touched. A process is pinned
//! before its mark is read, so that a reused pid can't be hit. Everything here blocks: call it on a blocking thread.

use super::marker::{self, Marker};
use crate::procfs::{self, Pinned, Stat};
use crate::runtime::contract::Closed;
use rustix::io::Errno;
use rustix::process::Signal;
use std::fmt;
use std::time::Duration;

/// Time for a warden to end everything below it, which it does more reliably than this module can.
pub(super) const WARDEN_TIME: Duration = Duration::from_secs(5);
/// Time from SIGKILL to the end of a process, unless it hangs in the kernel.
const KILL_TIME: Duration = Duration::from_secs(5);
/// Maximum number of scans. Processes may fork during a scan; each scan kills everything it finds.
const LOOKS: usize = 20;

/// Ends all processes whose mark is `condemned`. Blocks until they are gone.
pub fn end_marked(condemned: impl Fn(&Marker) -> bool) -> Closed {
    let mut closed = Closed::default();
    let mut stuck: Vec<i32> = Vec::new();
    for _ in 0..LOOKS {
        let found: Vec<Found> = procfs::processes()
            .into_iter()
            .filter(|stat| !stat.zombie && !stuck.contains(&stat.pid))
            .filter_map(|stat| Found::look(stat, &condemned))
            .collect();
        if found.is_empty() {
            break;
        }
        // Wardens first: processes that they have adopted may have no mark any more (`env -i`).
        let (wardens, others): (Vec<Found>, Vec<Found>) =
            found.into_iter().partition(|found| found.warden);
        let now = if wardens.is_empty() { others } else { wardens };
        for result in end_all(&now) {
            match result {
                Ok(()) => closed.removed += 1,
                Err((pid, why)) => {
                    stuck.push(pid);
                    closed.left.push(why);
                }
            }
        }
    }
    closed
}

struct Found {
    stat: Stat,
    pinned: Pinned,
    warden: bool,
    service: String,
}

impl Found {
    /// Pins the process, then reads its mark, so that the mark belongs to the pinned process.
    fn look(stat: Stat, condemned: &impl Fn(&Marker) -> bool) -> Option<Found> {
        // Most processes don't belong to Phalanx: a cheap check first.
        Marker::find(&procfs::environment(stat.pid)?)?;
        let pinned = procfs::open(stat)?;
        let environment = procfs::environment(stat.pid)?;
        let marker = Marker::find(&environment)?;
        let alive = !pinned.wait(Duration::ZERO);
        let own = i32::try_from(std::process::id()).is_ok_and(|own| own == stat.pid);
        (alive && !own && condemned(&marker)).then(|| Found {
            stat,
            pinned,
            warden: marker::is_warden(&environment),
            service: marker.service,
        })
    }
}

/// Signals all processes, then waits for each.
fn end_all(found: &[Found]) -> Vec<Result<(), (i32, String)>> {
    let signalled: Vec<Result<(), Errno>> = found
        .iter()
        .map(|found| {
            found.pinned.signal(if found.warden {
                Signal::TERM
            } else {
                Signal::KILL
            })
        })
        .collect();
    found
        .iter()
        .zip(signalled)
        .map(|(found, signalled)| {
            let pid = found.stat.pid;
            let left = |why: &dyn fmt::Display| {
                (pid, format!("process {pid} of {}: {why}", found.service))
            };
            signalled.map_err(|error| left(&error))?;
            if found.warden && found.pinned.wait(WARDEN_TIME) {
                return Ok(());
            }
            found
                .pinned
                .signal(Signal::KILL)
                .map_err(|error| left(&error))?;
            if found.pinned.wait(KILL_TIME) {
                Ok(())
            } else {
                Err(left(&"does not die of SIGKILL (hangs in the kernel?)"))
            }
        })
        .collect()
}
