//! What the pages show and may do: the coordinator, its logs, and the actions that it offers.

use super::feed::Feeds;
use super::guard::{ActionToken, Actions};
use super::lists::Lists;
use super::sessions::Sessions;
use crate::access::Access;
use crate::dispatch::logs::store::LogStore;
use crate::supervisor::Handle;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Time between two looks for what nobody watches any more.
const SWEEP: Duration = Duration::from_secs(10);

/// What the caller decides about the pages.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The actions that pages offer.
    pub actions: Actions,
    /// The pages of error codes: each code with its text in Markdown.
    pub explained: &'static [(&'static str, &'static str)],
}

/// Everything that pages are made from.
pub struct Site {
    /// The coordinator.
    pub handle: Handle,
    /// Logs of all attempts.
    pub logs: LogStore,
    /// The runs that are being watched.
    pub feeds: Feeds,
    /// The lists that are being watched.
    pub lists: Lists,
    /// The secret that actions need.
    pub token: ActionToken,
    /// Who may come in.
    pub access: Access,
    /// Who logged in.
    pub sessions: Arc<Sessions>,
    /// What the caller decides.
    pub options: Options,
    /// Ends event streams, which would keep the coordinator from stopping.
    pub stop: CancellationToken,
}

impl Site {
    /// Creates the site of a coordinator.
    pub fn new(
        handle: Handle,
        logs: LogStore,
        (access, sessions): (Access, Arc<Sessions>),
        options: Options,
        stop: CancellationToken,
    ) -> Arc<Site> {
        let site = Arc::new(Site {
            feeds: Feeds::new(handle.clone(), logs.clone()),
            lists: Lists::new(handle.clone()),
            handle,
            logs,
            token: ActionToken::random(),
            access,
            sessions,
            options,
            stop,
        });
        tokio::spawn(keep_sweeping(Arc::downgrade(&site)));
        site
    }
}

async fn keep_sweeping(site: Weak<Site>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(site) = site.upgrade() else { return };
        site.feeds.sweep();
        site.lists.sweep();
    }
}
