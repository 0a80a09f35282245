//! An agent's machine: the real link and spool, a small disk that is sometimes full, a clock that jumps, and a process
//! that freezes.

use super::cell::Cell;
use super::random::Random;
use crate::dispatch::core::ConnectionId;
use phalanx_agent::ahead::core::Queue;
use phalanx_agent::link::core::{About, Link};
use phalanx_agent::link::overflow::{Overflow, Place};
use phalanx_agent::link::spool::{Limits, Spool};
use phalanx_proto::link::Hello;
use phalanx_shared::id::{AgentId, Token};
use phalanx_shared::invariant::{self, Violation};
use phalanx_shared::plan::Resources;
use phalanx_shared::plan::WantedImage;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Controls and observes a disk.
#[derive(Clone, Debug, Default)]
pub struct Drive {
    full: Arc<AtomicBool>,
    /// The secrets that must not be written (I4), and the first violation.
    secrets: Arc<Mutex<(Vec<String>, Option<Violation>)>>,
    refused: Arc<AtomicBool>,
}

impl Drive {
    pub fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// Returns whether a write was refused since the last call.
    pub fn refused(&self) -> bool {
        self.refused.swap(false, Ordering::Relaxed)
    }

    pub fn must_not_hold(&self, secret: &str) {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.0.push(secret.to_owned());
    }

    /// **I4** Checks that no secret was written to this disk.
    pub fn check(&self) -> Result<(), Violation> {
        let secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.1.clone().map_or(Ok(()), Err)
    }
}

/// A disk with its files in memory.
#[derive(Debug, Default)]
pub struct Disk {
    files: BTreeMap<String, Vec<u8>>,
    drive: Drive,
    pub written: u64,
}

impl Overflow for Disk {
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<Place> {
        if self.drive.full.load(Ordering::Relaxed) {
            self.drive.refused.store(true, Ordering::Relaxed);
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let mut secrets = self
            .drive
            .secrets
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let values = secrets.0.iter().map(String::as_str);
        if let Err(broken) = invariant::no_secret("an agent's spool", bytes, values) {
            secrets.1 = Some(broken);
        }
        drop(secrets);
        self.written += 1;
        let file = self.files.entry(name.to_owned()).or_default();
        let place = Place {
            offset: file.len() as u64,
            len: bytes.len(),
        };
        file.extend_from_slice(bytes);
        Ok(place)
    }

    fn read(&mut self, name: &str, place: Place) -> io::Result<Vec<u8>> {
        let from = usize::try_from(place.offset).unwrap_or(usize::MAX);
        let bytes = self
            .files
            .get(name)
            .and_then(|f| f.get(from..from + place.len));
        bytes
            .map(<[u8]>::to_vec)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn remove(&mut self, name: &str) {
        self.files.remove(name);
    }
}

/// A machine, with an agent on it if its process is alive.
pub struct Machine {
    pub about: About,
    pub link: Option<Link<Disk>>,
    /// Number of the current process. Agenda entries of an earlier process don't count.
    pub life: u64,
    pub connection: Option<ConnectionId>,
    /// The last Hello of the current process, and the term of the coordinator that it was for.
    pub said: Option<(u64, Hello)>,
    pub cells: BTreeMap<Token, Cell>,
    pub failed_connects: u32,
    /// Index of the engine that it uses; two agents may share one.
    pub engine: usize,
    pub drive: Drive,
    /// Until when the process is frozen.
    pub frozen_until: Duration,
    /// Offset of its wall clock, in microseconds.
    pub clock_off: i64,
    /// Attempts that this process began.
    pub began: BTreeSet<Token>,
    /// Images that it prepares ahead, and the work in progress by number.
    pub ahead: Queue,
    pub preparing: BTreeMap<u64, WantedImage>,
}

impl Machine {
    pub fn new(number: usize, random: &mut Random) -> Machine {
        let about = About {
            agent: AgentId(format!("agent-{number}")),
            name: format!("agent {number}"),
            version: "simulated".to_owned(),
            // Two agents take big cells, so that one of them may be lost; they share an engine.
            labels: if number < 2 {
                vec!["big".to_owned()]
            } else {
                vec![]
            },
            slots: 2 + u32::try_from(random.below(3)).unwrap_or(0),
            resources: Resources {
                millicpus: 4_000,
                memory_bytes: 8 << 30,
                subnets: 4,
            },
            images: vec![],
            policy: None,
            ahead: u32::try_from(random.below(3)).unwrap_or(0),
            snapshots: None,
        };
        Machine {
            about,
            link: None,
            life: 0,
            connection: None,
            said: None,
            cells: BTreeMap::new(),
            failed_connects: 0,
            engine: number.saturating_sub(1),
            drive: Drive::default(),
            frozen_until: Duration::ZERO,
            clock_off: 0,
            began: BTreeSet::new(),
            ahead: Queue::new(0),
            preparing: BTreeMap::new(),
        }
    }

    pub fn is_frozen(&self, now: Duration) -> bool {
        now < self.frozen_until
    }

    /// Starts a new process.
    pub fn start(&mut self) {
        let disk = Disk {
            files: BTreeMap::new(),
            drive: self.drive.clone(),
            written: 0,
        };
        let limits = Limits {
            memory_bytes: 1_500,
            overflow_bytes: 6_000,
        };
        self.life += 1;
        self.began.clear();
        self.ahead = Queue::new(self.about.ahead);
        self.link = Some(Link::new(self.about.clone(), Spool::new(disk, limits)));
        self.failed_connects = 0;
    }

    /// Simulates `kill -9`: the process, its cells and everything in memory are gone.
    pub fn kill(&mut self) {
        self.link = None;
        self.connection = None;
        self.said = None;
        self.cells.clear();
        self.preparing.clear();
        self.frozen_until = Duration::ZERO;
    }
}
