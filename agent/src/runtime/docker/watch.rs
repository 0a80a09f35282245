//! The engine's event stream: tells members when to look at their container, and what its health is.
//!
//! Events are hints: a member that is told looks for itself, so a lost or repeated event can't make it wrong. After
//! a break the stream goes on from the last event's time and every member looks.

use super::client::Engine;
use super::labels;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures::StreamExt;
use phalanx_shared::id::AgentId;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::watch;

/// What a member hears of its container.
pub(super) struct Signals {
    /// Changes whenever the member should look.
    pub look: watch::Sender<u64>,
    /// The engine's verdict on its health.
    pub health: watch::Sender<Option<bool>>,
    /// Whether the kernel killed something in it for want of memory since its start.
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

/// The listener of one engine.
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

    /// Tells `signals` of the container's events from now on.
    pub fn register(&self, container: &str, signals: &Arc<Signals>) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|_, held| held.strong_count() > 0);
        members.insert(container.to_owned(), Arc::downgrade(signals));
    }

    /// How often the stream has broken: a byte stream that ended while this didn't change ended for good.
    pub fn breaks(&self) -> u64 {
        self.breaks.load(Ordering::Acquire)
    }

    /// Listens until dropped.
    pub async fn listen(self: Arc<Self>) {
        let mut last = Last::default();
        let mut pause = Duration::from_millis(20);
        // The first subscription begins where the engine's clock stands, to the second.
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
                if last.is_new(&event) {
                    self.dispatch(&event);
                }
            }
            self.breaks.fetch_add(1, Ordering::AcqRel);
            let docker = &self.engine.docker;
            while self.engine.ask(|| docker.ping()).await.is_err() {}
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
            if let Some(time) = last.since() {
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
        // Only what decides anything: every probe of every health check would emit three exec events more.
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
            "die" => signals.look.send_modify(|n| *n += 1),
            "oom" => signals.oom.store(true, Ordering::Release),
            "health_status: healthy" => {
                signals.health.send_replace(Some(true));
            }
            "health_status: unhealthy" => {
                signals.health.send_replace(Some(false));
            }
            // Podman says `health_status` alone, the verdict in an attribute.
            "health_status" => {
                let attributes = event.actor.as_ref().and_then(|a| a.attributes.as_ref());
                let verdict = attributes.and_then(|a| a.get("health_status"));
                if let Some(verdict @ ("healthy" | "unhealthy")) = verdict.map(String::as_str) {
                    signals.health.send_replace(Some(verdict == "healthy"));
                }
            }
            _ => {}
        }
    }

    fn everybody_looks(&self) {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        for signals in members.values().filter_map(Weak::upgrade) {
            signals.look.send_modify(|n| *n += 1);
        }
    }
}

/// The newest event seen; the engine repeats those of the second it resumes in.
#[derive(Default)]
struct Last {
    nanos: i64,
    second: i64,
}

impl Last {
    fn is_new(&mut self, event: &EventMessage) -> bool {
        let nanos = event.time_nano.unwrap_or(0);
        let new = nanos == 0 || nanos > self.nanos;
        self.nanos = self.nanos.max(nanos);
        self.second = self.second.max(event.time.unwrap_or(0));
        new
    }

    fn since(&self) -> Option<String> {
        (self.second > 0).then(|| self.second.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_repeated_after_a_break_is_not_new() {
        let mut last = Last::default();
        let event = |nanos| EventMessage {
            time: Some(nanos / 1_000_000_000),
            time_nano: Some(nanos),
            ..EventMessage::default()
        };
        assert!(last.is_new(&event(5_000_000_001)));
        assert!(last.is_new(&event(5_000_000_002)));
        assert!(!last.is_new(&event(5_000_000_001)));
        assert_eq!(last.since().as_deref(), Some("5"));
    }
}
