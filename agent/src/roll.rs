//! A register of the agents that this user runs on this machine: one note per process, kept outside the state
//! directories.
//!
//! An agent that never returns may have left host processes, which no engine knows, and its state directory may be gone
//! too. Therefore each agent writes a note with its identity and its process to a directory that doesn't survive a
//! reboot. Another agent of the same user, which sees the same processes, reads the notes to find agents that no
//! process runs any more. It relies only on what it can see: the process of a note from another PID namespace counts as
//! alive, and an agent is gone only if the processes of all its notes are.

use crate::clock::Clock;
use crate::identity::{Home, Identity};
use crate::private;
use crate::procfs;
use phalanx_shared::id::AgentId;
use phalanx_shared::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Candidate locations for the notes; the first existing one is used. Either is emptied at boot, or the notes' boot ids
/// show that they are from an earlier boot.
const PLACES: [&str; 2] = ["/dev/shm", "/tmp"];
/// Extension of a note's file.
const NOTE: &str = "note";
/// Extension of the file that records when an agent was first found to be gone.
const SEEN: &str = "seen";
/// Extension of the file that records when nothing of a gone agent was found for the first time.
const EMPTY: &str = "empty";

/// The content of a note: an agent's process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    agent: AgentId,
    /// Location of its lock, in label form.
    home: String,
    process: Process,
}

/// Identifies a process uniquely, even across reboots and reused PIDs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    /// Boot id of the machine.
    boot: String,
    /// Inode of the PID namespace that `pid` belongs to.
    namespace: u64,
    pid: u32,
    /// Start time in clock ticks since boot.
    started: u64,
}

/// The notes of one user.
#[derive(Clone, Debug)]
pub struct Roll {
    directory: PathBuf,
}

/// This process's note. The file stays until [`Note::sign_off`], even if this value is dropped.
#[derive(Debug)]
pub struct Note(PathBuf);

/// An agent that no process runs any more.
#[derive(Debug)]
pub struct Gone {
    /// Id of the agent.
    pub agent: AgentId,
    /// Locations of the locks that its processes held.
    pub homes: Vec<Home>,
    notes: Vec<PathBuf>,
}

impl Process {
    fn this() -> Option<Process> {
        let pid = std::process::id();
        Some(Process {
            boot: procfs::boot()?,
            namespace: procfs::namespace()?,
            pid,
            started: started(pid)?,
        })
    }

    /// Returns whether the process has verifiably ended. Returns `false` if that can't be determined from here.
    fn is_over(&self) -> bool {
        let (Some(boot), Some(namespace)) = (procfs::boot(), procfs::namespace()) else {
            return false;
        };
        if self.boot != boot {
            return true;
        }
        // Without a readable `/proc` every process would seem to have ended.
        let can_see = started(std::process::id()).is_some();
        can_see && self.namespace == namespace && started(self.pid) != Some(self.started)
    }
}

/// Returns a process's start time in clock ticks since boot, or `None` if there is no such process or only a zombie.
fn started(pid: u32) -> Option<u64> {
    let stat = procfs::stat(i32::try_from(pid).ok()?)?;
    (!stat.is_over()).then_some(stat.began)
}

impl Roll {
    /// Opens this user's register. Returns `None` if there is no usable location.
    pub fn here() -> Option<Roll> {
        let name = format!("phalanx-agents-{}", nix::unistd::geteuid());
        let place = PLACES.iter().find(|place| Path::new(place).is_dir())?;
        Roll::at(Path::new(place).join(name))
    }

    /// Opens the register in a directory and creates that if needed. Returns `None` unless only this user can access
    /// the directory.
    pub fn at(directory: PathBuf) -> Option<Roll> {
        let made = fs::DirBuilder::new().mode(0o700).create(&directory);
        let meta = directory.symlink_metadata().ok()?;
        let own = meta.uid() == nix::unistd::geteuid().as_raw();
        if !(meta.is_dir() && own && meta.mode() & 0o077 == 0) {
            tracing::debug!(directory = %directory.display(), ?made, "not ours: no notes of agents");
            return None;
        }
        Some(Roll { directory })
    }

    /// Notes that this process runs the agent. Returns `None` if no note could be written.
    pub fn sign_on(&self, identity: &Identity) -> Option<Note> {
        let told = Told {
            agent: identity.agent().clone(),
            home: identity.home()?.to_label(),
            process: Process::this()?,
        };
        // The id becomes part of a file name.
        let name = told.agent.as_str();
        if name.contains('/') || name.starts_with('.') {
            return None;
        }
        let Process { pid, started, .. } = told.process;
        let stem = self.directory.join(format!("{name}.{pid}.{started}"));
        let (note, half) = (ending(&stem, NOTE), ending(&stem, "half"));
        let text = serde_json::to_vec(&told).ok()?;
        let written = private::write(&half, text).and_then(|()| fs::rename(&half, &note));
        if let Err(error) = written {
            tracing::debug!(%error, "no other agent will know what becomes of this one");
            return None;
        }
        Some(Note(note))
    }

    /// Returns the agents that no process runs any more.
    pub fn gone(&self) -> Vec<Gone> {
        let mut agents: BTreeMap<AgentId, Option<Gone>> = BTreeMap::new();
        for path in self.notes() {
            let Some(told) = read(&path) else { continue };
            let gone = agents.entry(told.agent.clone()).or_insert_with(|| {
                Some(Gone {
                    agent: told.agent.clone(),
                    homes: Vec::new(),
                    notes: Vec::new(),
                })
            });
            match (Home::from_label(&told.home), told.process.is_over()) {
                (Some(home), true) => {
                    if let Some(gone) = gone {
                        gone.homes.push(home);
                        gone.notes.push(path);
                    }
                }
                _ => *gone = None,
            }
        }
        agents.into_values().flatten().collect()
    }

    /// Returns whether the agent is still gone.
    pub fn is_gone(&self, agent: &AgentId) -> bool {
        self.gone().iter().any(|gone| gone.agent == *agent)
    }

    /// Removes the notes of an agent's earlier processes. Call it after the agent has cleaned up after them.
    pub fn forget_earlier(&self, agent: &AgentId) {
        for path in self.notes() {
            if read(&path).is_some_and(|told| told.agent == *agent && told.process.is_over()) {
                forget(&path);
            }
        }
    }

    fn notes(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten();
        let paths = entries.flatten().map(|entry| entry.path());
        paths
            .filter(|path| path.extension().is_some_and(|end| end == NOTE))
            .collect()
    }
}

fn ending(stem: &Path, end: &str) -> PathBuf {
    let mut path = stem.as_os_str().to_owned();
    path.push(".");
    path.push(end);
    path.into()
}

fn read(note: &Path) -> Option<Told> {
    serde_json::from_slice(&fs::read(note).ok()?).ok()
}

fn forget(note: &Path) {
    for end in [SEEN, EMPTY] {
        let _ = fs::remove_file(note.with_extension(end));
    }
    let _ = fs::remove_file(note);
}

impl Note {
    /// Removes the note. Call it when this process has left nothing of the agent behind.
    pub fn sign_off(self) {
        forget(&self.0);
    }
}

impl Gone {
    /// Returns how long ago the agent was first found to be gone, and records the time on the first call.
    pub fn seen_for(&self, clock: &dyn Clock) -> Duration {
        self.since(SEEN, clock).unwrap_or_else(|| {
            self.write(SEEN, clock);
            Duration::ZERO
        })
    }

    /// Returns how long ago nothing of the agent was found for the first time, or `None` if that has never happened.
    pub fn empty_for(&self, clock: &dyn Clock) -> Option<Duration> {
        self.since(EMPTY, clock)
    }

    /// Records that nothing of the agent was found. Removes its notes if that was already recorded at least `before`
    /// ago: until then the engine may still be executing the dead agent's last request.
    pub fn was_empty(&self, clock: &dyn Clock, before: Duration) {
        match self.empty_for(clock) {
            Some(since) if since >= before => self.notes.iter().for_each(|note| forget(note)),
            Some(_) => {}
            None => self.write(EMPTY, clock),
        }
    }

    /// Returns the age of the marker files with this extension, one beside each note; the youngest counts. `None` if
    /// one is missing.
    fn since(&self, end: &str, clock: &dyn Clock) -> Option<Duration> {
        let now = clock.wall();
        let of = |note: &PathBuf| {
            let text = fs::read_to_string(note.with_extension(end)).ok()?;
            Some(now.since(Timestamp(text.parse().ok()?)))
        };
        let all: Option<Vec<Duration>> = self.notes.iter().map(of).collect();
        all?.into_iter().min()
    }

    fn write(&self, end: &str, clock: &dyn Clock) {
        for note in &self.notes {
            // A failed write only costs one more check.
            let _ = private::write(&note.with_extension(end), clock.wall().0.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::clock::SystemClock;

    fn roll(place: &Path) -> Roll {
        Roll::at(place.join("roll")).unwrap()
    }

    /// A note as left behind by a process that has ended.
    fn left_behind(roll: &Roll, identity: &Identity, change: impl FnOnce(&mut Process)) {
        let Note(path) = roll.sign_on(identity).unwrap();
        let mut told = read(&path).unwrap();
        told.process.started += 1;
        change(&mut told.process);
        fs::remove_file(&path).unwrap();
        let path = path.with_file_name(format!("{}.left.{NOTE}", told.agent));
        fs::write(path, serde_json::to_vec(&told).unwrap()).unwrap();
    }

    #[test]
    fn an_agent_is_gone_when_each_of_its_processes_is_and_only_if_that_can_be_seen() {
        let place = tempfile::tempdir().unwrap();
        let roll = roll(place.path());
        let of = |name: &str| Identity::acquire(&place.path().join(name)).unwrap();
        let [lives, dead, twice, elsewhere, earlier] =
            ["lives", "dead", "twice", "elsewhere", "earlier"].map(of);
        let note = roll.sign_on(&lives).unwrap();
        left_behind(&roll, &dead, |_| {});
        left_behind(&roll, &twice, |_| {});
        let _copy = roll.sign_on(&twice).unwrap();
        left_behind(&roll, &elsewhere, |process| process.namespace += 1);
        left_behind(&roll, &earlier, |process| {
            process.boot.push('x');
            process.namespace += 1;
        });
        fs::write(roll.directory.join("broken.note"), "{").unwrap();
        let gone = roll.gone();
        let mut ids: Vec<&AgentId> = gone.iter().map(|gone| &gone.agent).collect();
        ids.sort();
        let mut expected = [dead.agent(), earlier.agent()];
        expected.sort();
        assert_eq!(ids, expected);
        assert!(roll.is_gone(dead.agent()) && !roll.is_gone(lives.agent()));
        assert_eq!(roll.gone()[0].homes.len(), 1);
        note.sign_off();
        roll.forget_earlier(dead.agent());
        roll.forget_earlier(twice.agent());
        assert_eq!(roll.gone().len(), 1);
    }

    #[test]
    fn notes_are_kept_until_nothing_was_found_twice() {
        let place = tempfile::tempdir().unwrap();
        let roll = roll(place.path());
        let dead = Identity::acquire(&place.path().join("dead")).unwrap();
        left_behind(&roll, &dead, |_| {});
        let clock = SystemClock::default();
        assert_eq!(roll.gone()[0].seen_for(&clock), Duration::ZERO);
        std::thread::sleep(Duration::from_millis(5));
        assert!(roll.gone()[0].seen_for(&clock) >= Duration::from_millis(5));
        assert_eq!(roll.gone()[0].empty_for(&clock), None);
        roll.gone()[0].was_empty(&clock, Duration::ZERO);
        assert!(roll.gone()[0].empty_for(&clock).is_some());
        roll.gone()[0].was_empty(&clock, Duration::from_secs(60));
        assert_eq!(roll.gone().len(), 1);
        roll.gone()[0].was_empty(&clock, Duration::ZERO);
        assert!(roll.gone().is_empty());
        assert_eq!(fs::read_dir(&roll.directory).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_others_can_write_is_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let open = place.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Roll::at(open.clone()).is_none());
        let link = place.path().join("link");
        std::os::unix::fs::symlink(place.path(), &link).unwrap();
        assert!(Roll::at(link).is_none());
    }

    #[test]
    fn a_process_is_over_when_it_ended_whether_its_parent_heard_of_it_or_not() {
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        let process = Process {
            pid: child.id(),
            started: started(child.id()).unwrap(),
            ..Process::this().unwrap()
        };
        assert!(!process.is_over());
        child.kill().unwrap();
        while !process.is_over() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(process.is_over());
    }
}
