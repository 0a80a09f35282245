//! Ends what `--keep` kept when its time is over, also when no agent lives then: a process of its own that waits.
//!
//! The note in an identity's directory says when the last of what it kept expires. A hidden subcommand of both binaries
//! ([`COMMAND`]) waits for that time and cleans up like any successor would. One per identity; an agent that lives does it itself.
//! It is a convenience that may die, too: whoever starts next reaps what has expired.

use crate::clock::{Clock, SystemClock};
use crate::identity::{Identity, IdentityError};
use crate::private;
use crate::runtime::docker::DockerSettings;
use crate::supervisor;
use phalanx_shared::time::Timestamp;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// The subcommand: the identity's directory and the Docker settings as JSON follow.
pub const COMMAND: &str = "__keeper";
/// In the identity's directory: when the last of what is kept expires, in microseconds since 1970.
const NOTE: &str = "kept-until";
/// In the identity's directory: held by the one keeper.
const LOCK: &str = "keeper.lock";
/// How often it is looked whether the identity still exists, while nothing has expired.
const LOOK: Duration = Duration::from_secs(60);
/// Between tries to clean up.
const RETRY: Duration = Duration::from_secs(15);
/// After the time, an engine that doesn't come back is left to the next start.
const GIVE_UP: Duration = Duration::from_secs(24 * 3600);

/// Notes that something is kept from now on for so long.
pub fn note(state_dir: &Path, now: Timestamp, ttl: Duration) {
    let until = later(now, ttl).max(noted(state_dir).unwrap_or(Timestamp(0)));
    if let Err(error) = private::write(&state_dir.join(NOTE), until.0.to_string()) {
        tracing::warn!(%error, "what is kept will be removed by the next start only");
    }
}

/// Until when something is kept, if anything is.
pub fn noted(state_dir: &Path) -> Option<Timestamp> {
    let text = std::fs::read_to_string(state_dir.join(NOTE)).ok()?;
    text.trim().parse().ok().map(Timestamp)
}

/// Nothing is kept any more.
pub fn forget(state_dir: &Path) {
    // It may never have been there.
    let _ = std::fs::remove_file(state_dir.join(NOTE));
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
    Timestamp(now.0.saturating_add(by))
}

/// Starts a keeper for an identity, in a session of its own. A second one ends at once.
pub fn start(state_dir: &Path, docker: &DockerSettings) -> io::Result<()> {
    let mut command = Command::new("/proc/self/exe");
    // This very program, also if its file was replaced since.
    command
        .arg0("phalanx-keeper")
        .arg(COMMAND)
        .arg(state_dir)
        .arg(serde_json::to_string(docker)?)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        // Ctrl-C on the terminal isn't meant for it.
        .process_group(0);
    let mut child = command.spawn()?;
    // So that it is no zombie if it ends before us.
    std::thread::spawn(move || child.wait());
    Ok(())
}

/// The subcommand itself.
pub fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    // The terminal may go, and with it the session.
    let _ = nix::unistd::setsid();
    let (Some(state_dir), Some(docker)) = (arguments.next(), arguments.next()) else {
        return ExitCode::FAILURE;
    };
    let docker = docker
        .to_str()
        .and_then(|text| serde_json::from_str(text).ok());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let (Some(docker), Ok(runtime)) = (docker, runtime) else {
        return ExitCode::FAILURE;
    };
    runtime.block_on(keep(PathBuf::from(state_dir), docker));
    ExitCode::SUCCESS
}

async fn keep(state_dir: PathBuf, docker: DockerSettings) {
    let mut options = private::file();
    let lock = options.create(true).truncate(false).write(true);
    let lock = lock.open(state_dir.join(LOCK));
    if !lock.as_ref().is_ok_and(|lock| lock.try_lock().is_ok()) {
        return;
    }
    let clock = SystemClock::default();
    loop {
        // Gone with the directory, or cleaned up by somebody else.
        let Some(until) = noted(&state_dir) else {
            return;
        };
        let now = clock.wall();
        if until > now {
            let left = u64::try_from(until.0 - now.0).unwrap_or(0);
            // A marker in the engine counts in whole seconds.
            let left = Duration::from_micros(left) + Duration::from_secs(1);
            tokio::time::sleep(left.min(LOOK)).await;
            continue;
        }
        if later(until, GIVE_UP) < now {
            return;
        }
        match Identity::acquire(&state_dir) {
            Ok(identity) => {
                let reaped = supervisor::reap_dead(&identity, &docker).await;
                if reaped.is_over() {
                    identity.retire();
                    return;
                }
            }
            // The agent that lives looks for what has expired, too.
            Err(IdentityError::InUse(_)) => {}
            Err(IdentityError::Unusable { .. }) => return,
        }
        tokio::time::sleep(RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_note_says_when_the_last_of_what_is_kept_expires() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(noted(place.path()), None);
        let now = Timestamp(1_000_000);
        note(place.path(), now, Duration::from_secs(10));
        note(place.path(), now, Duration::from_secs(5));
        assert_eq!(noted(place.path()), Some(Timestamp(11_000_000)));
        note(place.path(), now, Duration::from_secs(20));
        assert_eq!(noted(place.path()), Some(Timestamp(21_000_000)));
        forget(place.path());
        assert_eq!(noted(place.path()), None);
    }

    #[tokio::test]
    async fn a_keeper_of_an_identity_that_is_gone_or_keeps_nothing_ends_at_once() {
        let place = tempfile::tempdir().unwrap();
        let docker = DockerSettings::default();
        keep(place.path().to_owned(), docker.clone()).await;
        keep(place.path().join("gone"), docker).await;
    }
}
