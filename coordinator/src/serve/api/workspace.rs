//! Workspaces that clients send: looked up by digest, received in parts.
//!
//! This module checks each part by itself. `workspace::receive` puts the parts together and writes them in a thread of
//! its own. If the client goes away, both end and leave nothing behind.

use super::status::of_store;
use crate::access::Caller;
use crate::journal::{Store, StoreError};
use crate::supervisor::Handle;
use crate::workspace::{Refused, Turn, Workspaces};
use phalanx_proto::convert::{InvalidPart, workspace_digest};
use phalanx_proto::v1;
use phalanx_proto::workspace::Part;
use phalanx_shared::clock::Stopwatch;
use phalanx_shared::namespace::Namespace;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Status};

/// Parts that may wait to be written; beyond that, the client waits.
const WAITING: usize = 8;
/// Time within which a client must send the digest; otherwise it gets no turn.
const NAME_WITHIN: Duration = Duration::from_secs(10);
/// Interval at which a client's speed is checked.
const LOOK: Duration = Duration::from_millis(500);
/// Minimum speed of a client, per time spent waiting for it. Time that the coordinator's disk takes doesn't count.
const AT_LEAST: Rate = Rate {
    bytes: 256 << 10,
    within: Duration::from_secs(60),
};
/// Minimum speed while others wait for a turn.
const WHILE_OTHERS_WAIT: Rate = Rate {
    bytes: 1 << 20,
    within: Duration::from_secs(5),
};

#[derive(Clone, Copy)]
pub(super) struct Rate {
    bytes: u64,
    within: Duration,
}

/// Measures how fast a client sends.
pub(super) struct Pace {
    what: &'static str,
    bytes: u64,
    /// Time spent waiting for the client.
    waited: Duration,
}

impl Pace {
    /// Starts to measure; `what` names the upload in errors.
    pub(super) fn of(what: &'static str) -> Self {
        Pace {
            what,
            bytes: 0,
            waited: Duration::ZERO,
        }
    }

    /// Returns the minimum speed, depending on whether others wait for a turn.
    pub(super) fn wanted(by_others: bool) -> Rate {
        match by_others {
            true => WHILE_OTHERS_WAIT,
            false => AT_LEAST,
        }
    }

    /// Adds time waited and bytes received. Returns an error if the client is too slow.
    pub(super) fn check(
        &mut self,
        waited: Duration,
        bytes: usize,
        rate: Rate,
    ) -> Result<(), Status> {
        self.waited += waited;
        self.bytes += bytes as u64;
        if self.waited < rate.within {
            return Ok(());
        }
        if self.bytes < rate.bytes {
            return Err(Status::deadline_exceeded(format!(
                "{} comes too slowly: {} bytes in {} s, at least {} are needed",
                self.what,
                self.bytes,
                self.waited.as_secs(),
                rate.bytes
            )));
        }
        *self = Pace::of(self.what);
        Ok(())
    }
}

/// How long a namespace may use a workspace that it sent: as long as the coordinator keeps it without a run.
const CLAIMED_FOR: Duration = Duration::from_secs(3_600);
/// Claims that are remembered. Beyond that, the oldest are forgotten, and their clients send the files again.
const CLAIMS: usize = 10_000;

/// The workspaces that each namespace sent lately. Others can't use them, although files with the same content are stored
/// only once.
#[derive(Clone, Default)]
pub(super) struct Claims(Arc<Mutex<HashMap<(Namespace, String), Duration>>>);

impl Claims {
    /// Notes that a caller sent a workspace.
    pub(super) fn add(&self, caller: &Caller, digest: String, now: Duration) {
        // Nothing panics while it is locked.
        let mut claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if claims.len() >= CLAIMS {
            claims.retain(|_, since| now.saturating_sub(*since) < CLAIMED_FOR);
            let oldest = claims.iter().min_by_key(|(_, since)| **since);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone())
                && claims.len() >= CLAIMS
            {
                claims.remove(&oldest);
            }
        }
        claims.insert((caller.home(), digest), now);
    }

    /// Returns whether a caller may use a workspace: its namespace sent it, or has a run with it.
    pub(super) async fn has(
        &self,
        store: &dyn Store,
        caller: &Caller,
        digest: &str,
        now: Duration,
    ) -> Result<bool, StoreError> {
        let Some(namespace) = caller.only() else {
            return Ok(true);
        };
        let key = (namespace.clone(), digest.to_owned());
        let since = {
            let claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            claims.get(&key).copied()
        };
        match since {
            Some(since) if now.saturating_sub(since) < CLAIMED_FOR => Ok(true),
            _ => store.has_workspace(digest, namespace).await,
        }
    }
}

/// Returns whether the coordinator has a workspace that the caller may use. If so, it keeps it for a while.
pub(super) async fn has(
    handle: &Handle,
    caller: &Caller,
    claims: &Claims,
    workspaces: &Workspaces,
    request: v1::HasWorkspaceRequest,
) -> Result<v1::HasWorkspaceResponse, Status> {
    let v1::HasWorkspaceRequest { digest } = request;
    let digest = workspace_digest(digest).map_err(invalid)?;
    let now = handle.clock.monotonic();
    let known = claims.has(&**handle.journal.store(), caller, &digest, now);
    let held = known.await.map_err(of_store)? && held(workspaces, digest.clone()).await?;
    if held {
        // It is kept from now on, so it may be used from now on.
        claims.add(caller, digest, now);
    }
    Ok(v1::HasWorkspaceResponse { held })
}

async fn held(workspaces: &Workspaces, digest: String) -> Result<bool, Status> {
    let workspaces = workspaces.clone();
    let held = tokio::task::spawn_blocking(move || workspaces.hold(&digest)).await;
    let held = held.map_err(|error| Status::internal(error.to_string()))?;
    held.map_err(|error| refusal(Refused::Io(error)))
}

/// Receives a workspace, and returns its digest.
pub(super) async fn put(
    workspaces: &Workspaces,
    peer: Option<IpAddr>,
    mut parts: impl Stream<Item = Result<v1::WorkspacePart, Status>> + Unpin,
) -> Result<String, Status> {
    let first = tokio::time::timeout(NAME_WITHIN, parts.next()).await;
    let late = |_| Status::deadline_exceeded("no digest of a workspace came");
    let first = first.map_err(late)?.transpose()?;
    let Some(Part::Digest(digest)) = first.map(Part::try_from).transpose().map_err(invalid)? else {
        return Err(Status::invalid_argument(
            "the first message of a workspace isn't its digest",
        ));
    };
    let turn = workspaces.turn(peer).await;
    let (wire, mut received) = mpsc::channel(WAITING);
    let (store, named) = (workspaces.clone(), digest.clone());
    let taking =
        tokio::task::spawn_blocking(move || store.take(&named, &mut || received.blocking_recv()));
    let fed = feed(&mut parts, wire, &turn).await;
    let taken = taking
        .await
        .map_err(|error| Status::internal(format!("taking in a workspace failed: {error}")))?;
    // A broken stream is the cause; an incomplete workspace only follows from it.
    fed?;
    taken.map_err(refusal)?;
    tracing::info!(digest, "a workspace came");
    Ok(digest)
}

/// Passes on all parts while the receiver wants them.
async fn feed(
    parts: &mut (impl Stream<Item = Result<v1::WorkspacePart, Status>> + Unpin),
    wire: mpsc::Sender<Part>,
    turn: &Turn,
) -> Result<(), Status> {
    let mut pace = Pace::of("the workspace");
    loop {
        let rate = Pace::wanted(turn.is_wanted());
        let waiting = Stopwatch::start();
        let came = tokio::time::timeout(LOOK, parts.next()).await;
        let waited = waiting.elapsed();
        let part = match came {
            Err(_) => {
                pace.check(waited, 0, rate)?;
                continue;
            }
            Ok(None) => return Ok(()),
            Ok(Some(part)) => Part::try_from(part?).map_err(invalid)?,
        };
        let bytes = match &part {
            Part::Data(data) => data.len(),
            // Each member costs the client a disk access.
            _ => MEMBER_BYTES,
        };
        pace.check(waited, bytes, rate)?;
        if wire.send(part).await.is_err() {
            return Ok(());
        }
    }
}

/// Bytes that a file or link counts in addition to its content.
const MEMBER_BYTES: usize = 4 << 10;

fn invalid(error: InvalidPart) -> Status {
    Status::invalid_argument(error.to_string())
}

fn refusal(refused: Refused) -> Status {
    let code = match &refused {
        Refused::Io(error) => match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::ResourceExhausted,
            _ => Code::Unavailable,
        },
        Refused::OtherDigest { .. } => Code::Aborted,
        _ => Code::InvalidArgument,
    };
    let message = match &refused {
        Refused::Io(error) => format!("the coordinator can't keep the workspace: {error}"),
        other => other.to_string(),
    };
    Status::new(code, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn part(part: Part) -> Result<v1::WorkspacePart, Status> {
        Ok(part.into())
    }

    #[tokio::test]
    async fn a_call_that_breaks_leaves_nothing_and_says_what_broke() {
        let folder = tempfile::tempdir().unwrap();
        let workspaces = Workspaces::new(folder.path());
        let digest = || part(Part::Digest("0".repeat(64)));
        let file = || {
            part(Part::File {
                path: "a".to_owned(),
                executable: false,
                size: 2,
            })
        };
        for (parts, code, said) in [
            (vec![], Code::InvalidArgument, "isn't its digest"),
            (vec![file()], Code::InvalidArgument, "isn't its digest"),
            (
                vec![digest(), file(), Err(Status::unavailable("cut"))],
                Code::Unavailable,
                "cut",
            ),
            (vec![digest(), file()], Code::InvalidArgument, "not whole"),
            (
                vec![digest(), Ok(v1::WorkspacePart { part: None })],
                Code::InvalidArgument,
                "no part",
            ),
            (vec![digest()], Code::Aborted, "have the digest"),
        ] {
            let stream = tokio_stream::iter(parts);
            let status = put(&workspaces, None, stream).await.unwrap_err();
            assert_eq!(status.code(), code, "{status}");
            assert!(status.message().contains(said), "{status}");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_client_that_trickles_is_given_up_sooner_while_others_wait() {
        let trickle = |rate| {
            let mut pace = Pace::of("it");
            let second = Duration::from_secs(1);
            let mut seconds = 0..600;
            seconds.find_map(|n| Some((n + 1, pace.check(second, 1_000, rate).err()?)))
        };
        let (seconds, status) = trickle(AT_LEAST).unwrap();
        assert_eq!((seconds, status.code()), (60, Code::DeadlineExceeded));
        assert_eq!(trickle(WHILE_OTHERS_WAIT).unwrap().0, 5);
        let mut pace = Pace::of("it");
        for _ in 0..600 {
            let piece = Duration::from_secs(1);
            pace.check(piece, 300 << 10, WHILE_OTHERS_WAIT).unwrap();
        }
        // Silence is tolerated for a while if no other client waits.
        pace.check(Duration::from_secs(30), 0, AT_LEAST).unwrap();
    }

    #[tokio::test]
    async fn turns_are_shared_by_peers_and_who_has_one_hears_that_it_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let workspaces = Workspaces::new(folder.path());
        let peer = |n: u8| Some(IpAddr::from([127, 0, 0, n]));
        let mut turns = Vec::new();
        loop {
            let next = workspaces.turn(peer(1));
            match tokio::time::timeout(Duration::from_millis(50), next).await {
                Ok(turn) => turns.push(turn),
                Err(_) => break,
            }
        }
        assert!(!turns[0].is_wanted());
        let other = workspaces.turn(peer(2)).await;
        assert!(!other.is_wanted(), "another peer has its own");
        let waits = tokio::spawn({
            let workspaces = workspaces.clone();
            async move { workspaces.turn(peer(1)).await }
        });
        while !other.is_wanted() {
            tokio::task::yield_now().await;
        }
        turns.clear();
        let turn = waits.await.unwrap();
        assert!(!turn.is_wanted());
    }

    #[test]
    fn a_full_disk_is_told_from_other_trouble() {
        let full = Refused::Io(io::ErrorKind::StorageFull.into());
        assert_eq!(refusal(full).code(), Code::ResourceExhausted);
        let other = Refused::Io(io::ErrorKind::PermissionDenied.into());
        assert_eq!(refusal(other).code(), Code::Unavailable);
    }
}
