//! The engine's event stream: notifies members when to inspect their container.
//!
//! Events are only hints: a notified member inspects its container itself, so a late or repeated event does no harm.
//! Events arrive in the order in which the engine publishes them, which is not the order of their times: if two
//! containers become healthy at once, the earlier one may be reported second. After a break, the stream resumes a
//! little before the time of the last event, and every member inspects its container.

use super::client::Engine;
use super::labels;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures::StreamExt;
use phalanx_shared::id::AgentId;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::watch;

/// Signals that a member receives about its container.
pub(super) struct Signals {
    /// Changes whenever the member should inspect its container.
    pub look: watch::Sender<u64>,
    /// The engine's health verdict, as of the last inspection.
    pub health: watch::Sender<Option<bool>>,
    /// Whether the kernel killed one of its processes for lack of memory since its start.
    pub oom: AtomicBool,
}

impl Signals {
    pub fn new() -> Arc<Signals> {
        Arc::new(Signals {
            look: watch::Sender::new(0),
            health: watch::Sender::new(None),
            oom: AtomicBool::new(false),
        })
    }
}

/// Listener for the events of one engine.
pub(super) struct Watch {
    engine: Engine,
    agent: AgentId,
    members: Mutex<HashMap<String, Weak<Signals>>>,
    breaks: AtomicU64,
}

impl Watch {
    pub fn new(engine: Engine, agent: AgentId) -> Arc<Watch> {
        Arc::new(Watch {
            engine,
            agent,
            members: Mutex::default(),
            breaks: AtomicU64::new(0),
        })
    }

    /// Notifies `signals` of the container's events from now on.
    pub fn register(&self, container: &str, signals: &Arc<Signals>) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|_, held| held.strong_count() > 0);
        members.insert(container.to_owned(), Arc::downgrade(signals));
    }

    /// Returns how often the stream has broken. Other streams may break without it, and it notices its own break later
    /// than they do.
    pub fn breaks(&self) -> u64 {
        self.breaks.load(Ordering::Acquire)
    }

    /// Listens until dropped.
    pub async fn listen(self: Arc<Self>) {
        let mut seen = Seen::default();
        let mut pause = Duration::from_millis(20);
        // The first subscription begins at the engine's current time, in whole seconds.
        let mut since = self.engine_time().await;
        loop {
            let options = EventsOptionsBuilder::default()
                .since(&since)
                .filters(&self.filters())
                .build();
            let stream = self.engine.docker.events(Some(options));
            let mut stream = std::pin::pin!(stream);
            while let Some(Ok(event)) = stream.next().await {
                pause = Duration::from_millis(20);
                if seen.is_new(&event) {
                    self.dispatch(&event);
                }
            }
            self.breaks.fetch_add(1, Ordering::AcqRel);
            let docker = &self.engine.docker;
            while self.engine.ask(|| docker.ping()).await.is_err() {}
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
            if let Some(time) = seen.since() {
                since = time;
            }
            self.everybody_looks();
        }
    }

    async fn engine_time(&self) -> String {
        let docker = &self.engine.docker;
        let time = self.engine.ask(|| docker.info()).await;
        time.ok()
            .and_then(|info| info.system_time)
            .and_then(|text| text.parse::<jiff::Timestamp>().ok())
            .map_or_else(|| "0".to_owned(), |at| at.as_second().to_string())
    }

    fn filters(&self) -> HashMap<String, Vec<String>> {
        // Only events that matter: otherwise every health probe would emit three more exec events.
        let mut filters = labels::filter_agent(&self.agent);
        filters.insert("type".to_owned(), vec!["container".to_owned()]);
        filters.insert(
            "event".to_owned(),
            ["die", "oom", "health_status"].map(str::to_owned).to_vec(),
        );
        filters
    }

    fn dispatch(&self, event: &EventMessage) {
        let id = event.actor.as_ref().and_then(|actor| actor.id.as_deref());
        let (Some(id), Some(action)) = (id, event.action.as_deref()) else {
            return;
        };
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(signals) = members.get(id).and_then(Weak::upgrade) else {
            return;
        };
        match action {
            "oom" => signals.oom.store(true, Ordering::Release),
            // An exit or a change of health. The verdict is in Docker's event but not in Podman's.
            _ => signals.look.send_modify(|n| *n += 1),
        }
    }

    fn everybody_looks(&self) {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        for signals in members.values().filter_map(Weak::upgrade) {
            signals.look.send_modify(|n| *n += 1);
        }
    }
}

/// How many seconds older an event may be than one that was published before it.
const LATE: i64 = 2;

/// Events of the last seconds: after a break the engine repeats the events since the requested time.
#[derive(Default)]
struct Seen {
    events: HashSet<(i64, String, String)>,
    newest: i64,
}

impl Seen {
    fn is_new(&mut self, event: &EventMessage) -> bool {
        let id = event.actor.as_ref().and_then(|actor| actor.id.clone());
        let key = (
            event.time_nano.unwrap_or(0),
            id.unwrap_or_default(),
            event.action.clone().unwrap_or_default(),
        );
        self.newest = self.newest.max(event.time.unwrap_or(0));
        let oldest = (self.newest - LATE).saturating_mul(1_000_000_000);
        self.events.retain(|(at, ..)| *at >= oldest);
        self.events.insert(key)
    }

    fn since(&self) -> Option<String> {
        (self.newest > LATE).then(|| (self.newest - LATE).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::EventActor;

    fn event(container: &str, nanos: i64) -> EventMessage {
        EventMessage {
            action: Some("health_status: healthy".to_owned()),
            actor: Some(EventActor {
                id: Some(container.to_owned()),
                ..EventActor::default()
            }),
            time: Some(nanos / 1_000_000_000),
            time_nano: Some(nanos),
            ..EventMessage::default()
        }
    }

    #[test]
    fn an_event_repeated_after_a_break_is_not_new() {
        let mut seen = Seen::default();
        assert!(seen.is_new(&event("a", 5_000_000_001)));
        assert!(seen.is_new(&event("a", 5_000_000_002)));
        assert!(!seen.is_new(&event("a", 5_000_000_001)));
        assert_eq!(seen.since().as_deref(), Some("3"));
    }

    #[test]
    fn an_event_told_after_a_younger_one_is_new() {
        let mut seen = Seen::default();
        assert!(seen.is_new(&event("a", 5_000_000_002)));
        assert!(seen.is_new(&event("b", 5_000_000_001)));
        assert!(seen.is_new(&event("c", 5_000_000_001)));
    }

    #[test]
    fn only_the_last_seconds_are_kept() {
        let mut seen = Seen::default();
        for second in 10..1_000 {
            assert!(seen.is_new(&event("a", second * 1_000_000_000)));
        }
        assert!(seen.events.len() <= 3, "{}", seen.events.len());
    }
}
