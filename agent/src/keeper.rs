//! The keeper: a separate process that removes what `--keep` kept when its TTL expires, even if no agent is alive then.
//!
//! A note in the identity's directory says when the last kept object expires. A hidden subcommand of both binaries
//! ([`COMMAND`]) waits for that time and then cleans up as a successor of the agent would. There is one keeper per
//! identity. A live agent removes expired objects itself. The keeper is a convenience and may be killed: the next agent
//! that starts reaps whatever has expired.

use crate::clock::{Clock, SystemClock};
use crate::identity::{Identity, IdentityError};
use crate::private;
use crate::reaper;
use crate::runtime::docker::DockerSettings;
use phalanx_shared::time::Timestamp;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// Name of the hidden subcommand. Its arguments are the identity's directory and the Docker settings as JSON.
pub const COMMAND: &str = "__keeper";
/// File in the identity's directory: when the last kept object expires, in microseconds since 1970.
const NOTE: &str = "kept-until";
/// File in the identity's directory that the one keeper locks.
const LOCK: &str = "keeper.lock";
/// Interval of the checks whether the identity still exists, while nothing has expired.
const LOOK: Duration = Duration::from_secs(60);
/// Pause between two attempts to clean up.
const RETRY: Duration = Duration::from_secs(15);
/// Time after the expiry when the keeper gives up, for example because the engine never came back. The next agent
/// cleans up then.
const GIVE_UP: Duration = Duration::from_secs(24 * 3600);

/// Notes that something is kept for `ttl` from `now` on.
pub fn note(state_dir: &Path, now: Timestamp, ttl: Duration) {
    let until = later(now, ttl).max(noted(state_dir).unwrap_or(Timestamp(0)));
    if let Err(error) = private::write(&state_dir.join(NOTE), until.0.to_string()) {
        tracing::warn!(%error, "what is kept will be removed by the next start only");
    }
}

/// Returns when the last kept object expires, or `None` if nothing is kept.
pub fn noted(state_dir: &Path) -> Option<Timestamp> {
    let text = std::fs::read_to_string(state_dir.join(NOTE)).ok()?;
    text.trim().parse().ok().map(Timestamp)
}

/// Removes the note, because nothing is kept any more.
pub fn forget(state_dir: &Path) {
    // The note may not exist.
    let _ = std::fs::remove_file(state_dir.join(NOTE));
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
    Timestamp(now.0.saturating_add(by))
}

/// Starts a keeper for an identity. It runs in its own session. If a keeper already runs, the new one exits at once.
pub fn start(state_dir: &Path, docker: &DockerSettings) -> io::Result<()> {
    let mut command = Command::new("/proc/self/exe");
    // `/proc/self/exe` is this program even if its file has been replaced.
    command
        .arg0("phalanx-keeper")
        .arg(COMMAND)
        .arg(state_dir)
        .arg(serde_json::to_string(docker)?)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        // Ctrl-C on the terminal must not reach the keeper.
        .process_group(0);
    let mut child = command.spawn()?;
    // Wait for the child so that it doesn't become a zombie if it ends before this process.
    std::thread::spawn(move || child.wait());
    Ok(())
}

/// Runs the keeper: the body of the hidden subcommand.
pub fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    // Leave the session: the terminal may be closed.
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
        // The directory has been removed, or another process has cleaned up.
        let Some(until) = noted(&state_dir) else {
            return;
        };
        let now = clock.wall();
        if until > now {
            let left = u64::try_from(until.0 - now.0).unwrap_or(0);
            // The engine's expiry labels count in whole seconds.
            let left = Duration::from_micros(left) + Duration::from_secs(1);
            tokio::time::sleep(left.min(LOOK)).await;
            continue;
        }
        if later(until, GIVE_UP) < now {
            return;
        }
        match Identity::acquire(&state_dir) {
            Ok(identity) => {
                let reaped = reaper::reap_dead(&identity, &docker).await;
                if reaped.is_over() {
                    identity.retire();
                    return;
                }
            }
            // A live agent removes expired objects itself.
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
