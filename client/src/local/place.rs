//! Directories of local runs: `STATE/runs/RUN/{journal.db, logs, workspaces, socket}` and `STATE/agents/…`.

use super::Error;
use crate::leftover::Leftover;
use phalanx_coordinator::journal::{RunHead, SqliteStore, Store};
use phalanx_coordinator::serve::api::gc::WORKSPACES;
use phalanx_coordinator::serve::server::{self, Listener, Server, StartError, journal_path};
use phalanx_coordinator::workspace::Workspaces;
use phalanx_proto::channel;
use phalanx_shared::id::RunId;
use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixListener;
use tonic::transport::Channel;

/// Limit for the path of a Unix socket; the system's is 108 bytes on Linux and 104 on macOS.
const SOCKET_PATH: usize = 100;
/// Name of the directory with the identities of all local agents.
pub(super) const AGENTS: &str = "agents";
/// Name of the directory with snapshots, which all local agents share.
pub(super) const SNAPSHOTS: &str = "snapshots";
/// Maximum number of runs to read from a journal: one run and its reruns.
const RUNS: u32 = 1_000;

/// The directory of a local coordinator.
#[derive(Clone, Debug)]
pub struct Place {
    state_dir: PathBuf,
    directory: PathBuf,
}

impl Place {
    pub(super) fn of_run(state_dir: &Path, run: &RunId) -> Place {
        Place {
            state_dir: state_dir.to_owned(),
            directory: runs_dir(state_dir).join(run.as_str()),
        }
    }

    /// Returns the directory with journal, logs and workspaces.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the directory's name: the id of its first run.
    pub(super) fn name(&self) -> String {
        let name = self.directory.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Returns the time of its creation according to its name, in Unix microseconds.
    pub(super) fn begun_us(&self) -> i64 {
        let id = uuid::Uuid::parse_str(&self.name()).ok();
        let at = id.and_then(|id| id.get_timestamp());
        at.map_or(0, |at| {
            let (seconds, nanos) = at.to_unix();
            let micros = seconds * 1_000_000 + u64::from(nanos) / 1_000;
            i64::try_from(micros).unwrap_or(0)
        })
    }

    /// Returns the directory with the identities of all local agents.
    pub(super) fn agents(&self) -> PathBuf {
        self.state_dir.join(AGENTS)
    }

    /// Returns the directory in which local agents keep snapshots.
    pub(super) fn snapshots(&self) -> PathBuf {
        self.state_dir.join(SNAPSHOTS)
    }

    pub(super) fn make(&self) -> Result<(), Error> {
        // Journals contain the contents of specs, which other users must not read.
        let (own, agents) = (&self.directory, &self.agents());
        phalanx_coordinator::private::directory(own).map_err(at(own))?;
        // Each identity protects its own files.
        phalanx_agent::private::directory(agents).map_err(at(agents))
    }

    /// Returns the path of the socket; it is in the system's temporary directory if the path here would be too long.
    pub(super) fn socket(&self) -> PathBuf {
        let own = self.directory.join("socket");
        if own.as_os_str().len() <= SOCKET_PATH {
            return own;
        }
        let name = self.directory.file_name().unwrap_or_default();
        std::env::temp_dir()
            .join(format!("phalanx-{}", nix::unistd::getuid()))
            .join(name)
    }

    /// Starts a coordinator here.
    pub(super) async fn serve(&self, options: server::Options) -> Result<Server, Error> {
        let socket = self.socket();
        if let Some(parent) = socket.parent() {
            let mut builder = std::fs::DirBuilder::new();
            let made = builder.recursive(true).mode(0o700).create(parent);
            made.map_err(at(parent))?;
        }
        // Bind under another name and rename once this process holds the journal's lock. So the socket of a live
        // coordinator is never replaced.
        let mut unnamed = socket.clone().into_os_string();
        unnamed.push(format!(".{}", std::process::id()));
        let unnamed = PathBuf::from(unnamed);
        let _ = std::fs::remove_file(&unnamed);
        let listener = UnixListener::bind(&unnamed).map_err(at(&unnamed))?;
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&unnamed, private).map_err(at(&unnamed))?;
        match server::start(options, Listener::Unix(listener)).await {
            Ok(server) => {
                std::fs::rename(&unnamed, &socket).map_err(at(&socket))?;
                Ok(server)
            }
            Err(error) => {
                let _ = std::fs::remove_file(&unnamed);
                Err(match error {
                    StartError::Journal(error) => error.into(),
                    // A local run has no TLS.
                    error => Error::Connect(error.to_string()),
                })
            }
        }
    }

    /// Connects to the coordinator that runs here.
    pub(super) async fn connect(&self) -> Result<Channel, String> {
        let connected = channel::connect_unix(channel::nowhere(), self.socket()).await;
        connected.map_err(|error| error.to_string())
    }

    /// Returns the address for agents.
    pub(super) fn address(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    /// Removes the socket.
    pub(super) fn leave(&self) {
        // It may be gone already.
        let _ = std::fs::remove_file(self.socket());
    }
}

/// Beginning of the names of directories for exported runs.
const UNPACKED: &str = "phalanx-file-";
/// Age from which a directory without an owner is stale: its owner may not have locked it yet.
const STALE_AFTER: Duration = Duration::from_secs(60);

/// A private directory for an exported run. It is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Temporary {
    directory: Leftover,
    /// Locked as long as its owner lives.
    _lock: File,
}

impl Temporary {
    /// Creates a directory with a name that is used once. Removes those of owners that were killed.
    pub(super) fn make() -> Result<Temporary, Error> {
        let all = std::env::temp_dir();
        remove_stale(&all, STALE_AFTER);
        Self::make_in(&all)
    }

    fn make_in(all: &Path) -> Result<Temporary, Error> {
        let directory = all.join(format!("{UNPACKED}{}", uuid::Uuid::new_v4()));
        phalanx_coordinator::private::directory(&directory).map_err(at(&directory))?;
        let directory = Leftover::new(directory);
        let lock = File::open(directory.path()).map_err(at(directory.path()))?;
        // Some network file systems have no locks. There it may be taken for stale later.
        let _ = lock.try_lock();
        Ok(Temporary {
            directory,
            _lock: lock,
        })
    }

    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// Removes this user's directories of exported runs that nobody has locked and that are at least as old as `age`.
fn remove_stale(all: &Path, age: Duration) {
    let entries = std::fs::read_dir(all).into_iter().flatten().flatten();
    for entry in entries {
        if !entry.file_name().to_string_lossy().starts_with(UNPACKED) {
            continue;
        }
        let directory = entry.path();
        // Doesn't follow a link, which another user may have put here.
        let own = std::fs::symlink_metadata(&directory).is_ok_and(|found| {
            let old = found.modified().ok().and_then(|at| at.elapsed().ok());
            found.is_dir()
                && found.uid() == nix::unistd::getuid().as_raw()
                && old.is_some_and(|old| old >= age)
        });
        let lock = own.then(|| File::open(&directory).ok()).flatten();
        if lock.is_some_and(|lock| lock.try_lock().is_ok()) {
            // Another process may remove it at the same time.
            let _ = std::fs::remove_dir_all(&directory);
        }
    }
}

pub(super) fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |error| Error::Place { path, error }
}

fn runs_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("runs")
}

/// A local run and its directory.
#[derive(Clone, Debug)]
pub struct Found {
    /// The run's id.
    pub run: RunId,
    /// The directory of its coordinator.
    pub place: Place,
}

/// Returns the places of all local coordinators, newest first.
pub(super) fn all(state_dir: &Path) -> Vec<Place> {
    let entries = std::fs::read_dir(runs_dir(state_dir));
    let mut directories: Vec<PathBuf> = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| journal_path(path).is_file())
        .collect();
    // Names are UUIDs of version 7, which sort by time.
    directories.sort_unstable_by(|a, b| b.file_name().cmp(&a.file_name()));
    let place = |directory| Place {
        state_dir: state_dir.to_owned(),
        directory,
    };
    directories.into_iter().map(place).collect()
}

/// Returns the runs in a place's journal.
pub(super) async fn rows(place: &Place) -> Vec<RunHead> {
    let store = SqliteStore::open_for_reading(&journal_path(&place.directory)).await;
    let rows = match store {
        Ok(store) => store.runs(RUNS, false, None).await,
        Err(error) => Err(error),
    };
    rows.unwrap_or_else(|error| {
        tracing::warn!(place = %place.directory.display(), %error, "can't read a run's journal");
        Vec::new()
    })
}

/// Finds a run by its id, or by the unique beginning of one.
pub async fn find(state_dir: &Path, text: &str) -> Option<Found> {
    let exact = Place::of_run(state_dir, &text.into());
    if journal_path(&exact.directory).is_file() {
        let run = RunId::from(text);
        return Some(Found { run, place: exact });
    }
    let mut found = Vec::new();
    for place in all(state_dir) {
        for row in rows(&place).await {
            if row.run.as_str() == text {
                let run = row.run;
                return Some(Found { run, place });
            }
            if !text.is_empty() && row.run.as_str().starts_with(text) {
                let (run, place) = (row.run, place.clone());
                found.push(Found { run, place });
            }
        }
    }
    if found.len() == 1 { found.pop() } else { None }
}

/// Returns the archive of a workspace that a local run used, if it is still here.
pub async fn workspace_of(state_dir: &Path, run: &RunId, digest: &str) -> Option<PathBuf> {
    let found = find(state_dir, run.as_str()).await?;
    let archive = Workspaces::new(found.place.directory.join(WORKSPACES)).path(digest);
    archive.is_file().then_some(archive)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_directories_without_an_owner_are_stale() {
        let all = tempfile::tempdir().unwrap();
        let live = Temporary::make_in(all.path()).unwrap();
        let dead = all.path().join(format!("{UNPACKED}dead"));
        std::fs::create_dir(&dead).unwrap();
        let link = all.path().join(format!("{UNPACKED}link"));
        std::os::unix::fs::symlink(all.path(), &link).unwrap();
        remove_stale(all.path(), STALE_AFTER);
        assert!(dead.is_dir());
        remove_stale(all.path(), Duration::ZERO);
        assert!(!dead.exists() && link.exists() && live.directory().is_dir());
    }
}
