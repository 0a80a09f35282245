//! Whether services run with the files of a snapshot, as the services themselves need to know it: as long as they do, not
//! being able to run is the snapshot's fault.

use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;

/// The services of a snapshot.
pub struct Restored {
    named: Vec<String>,
    on: AtomicBool,
    broken: mpsc::UnboundedSender<String>,
}

impl Restored {
    /// Creates it for the services that a snapshot names. The receiver gets the reasons why one of them can't run.
    pub fn new(named: Vec<String>) -> (Restored, mpsc::UnboundedReceiver<String>) {
        let (broken, heard) = mpsc::unbounded_channel();
        let restored = Restored {
            named,
            on: AtomicBool::new(false),
            broken,
        };
        (restored, heard)
    }

    /// Sets whether they run with restored files that haven't proved themselves.
    pub fn set(&self, on: bool) {
        self.on.store(on, Ordering::Release);
    }

    /// Returns whether a service is to blame on the snapshot if it can't run.
    pub fn is_on(&self, service: &str) -> bool {
        self.on.load(Ordering::Acquire) && self.named.iter().any(|name| name == service)
    }

    /// Tells why a service can't run. Each start of a service tells it at most once.
    pub fn tell_broken(&self, why: &str) {
        let _ = self.broken.send(why.to_owned());
    }
}
