//! Tracks the wardens that an attempt started until each has reported that nothing below it lives.
//!
//! Clean-up then knows whether anything can be left. A warden's report is proof, since the warden is the parent of
//! every orphan below it. So the machine's processes are scanned only if a warden was killed from outside or doesn't
//! answer.

use super::wire::{Ending, Report};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::unix::OwnedReadHalf;

/// The wardens of one attempt. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Wardens(Arc<Mutex<Open>>);

#[derive(Debug, Default)]
struct Open {
    /// Number of wardens that were started and are not known to have ended.
    number: usize,
    /// Whether a warden ended without a report: processes below it may still live.
    lost: bool,
    /// Wardens whose calls were dropped. They end everything and then report.
    abandoned: Vec<Below>,
}

impl Wardens {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more started warden.
    pub fn started(&self) {
        self.lock().number += 1;
    }

    /// Counts an ended warden. `clean` says that it reported that nothing is left below it.
    pub fn ended(&self, clean: bool) {
        let mut open = self.lock();
        open.number = open.number.saturating_sub(1);
        open.lost |= !clean;
    }

    /// Takes over a warden that no call waits for any more.
    pub fn abandoned(&self, below: Below) {
        self.lock().abandoned.push(below);
    }

    /// Waits for the wardens whose calls were dropped. Returns false if a process may live whose end no warden has
    /// reported.
    pub async fn all_ended(&self, at_most: Duration) -> bool {
        let abandoned = std::mem::take(&mut self.lock().abandoned);
        let waiting = abandoned.into_iter().map(|mut below| async move {
            let told = tokio::time::timeout(at_most, below.wait()).await;
            self.ended(matches!(told, Ok(Some(_))));
        });
        futures::future::join_all(waiting).await;
        let open = self.lock();
        open.number == 0 && !open.lost
    }
}

/// Reads the reports of one warden.
#[derive(Debug)]
pub struct Below {
    reports: Lines<BufReader<OwnedReadHalf>>,
}

impl Below {
    /// Reads the reports that the warden sends over its socket.
    pub fn new(reports: OwnedReadHalf) -> Below {
        Below {
            reports: BufReader::new(reports).lines(),
        }
    }

    /// Returns the next line of its reports, or `None` if the warden is gone.
    pub async fn next_line(&mut self) -> io::Result<Option<String>> {
        self.reports.next_line().await
    }

    /// Waits for the last report of the warden, which says that nothing below it lives. `None` if it exited without one.
    pub async fn wait(&mut self) -> Option<Ending> {
        let mut ending = None;
        while let Ok(Some(line)) = self.reports.next_line().await {
            if let Ok(Report::Ended(report)) = serde_json::from_str(&line) {
                ending = Some(report);
            }
        }
        ending
    }
}
