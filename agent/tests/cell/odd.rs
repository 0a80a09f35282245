//! What the fake doesn't do: members that panic, and members that turn unhealthy in the middle.

use crate::rig::spec;
use async_trait::async_trait;
use phalanx_agent::beneath::Place;
use phalanx_agent::runtime::contract::{
    Addresses, AttemptScope, Closed, ExecOutput, ExecRequest, Exit, Member, Prepared, Runtime,
    RuntimeError, SignalName, Stack,
};
use phalanx_agent::sink::LogSink;
use phalanx_shared::event::{EventKind, LogStream};
use phalanx_shared::id::Token;
use phalanx_shared::language::service::ServiceConfig;
use phalanx_shared::outcome::Outcome;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// A runtime whose members are odd in one way.
#[derive(Clone)]
struct Odd {
    way: Way,
    closed: Arc<AtomicBool>,
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    PanicsOnStart,
    PanicsOnExec,
    TurnsUnhealthy,
}

#[async_trait]
impl Runtime for Odd {
    fn kind(&self) -> &'static str {
        "odd"
    }

    async fn open(&self, _: AttemptScope) -> Result<Arc<dyn Stack>, RuntimeError> {
        Ok(Arc::new(self.clone()))
    }

    async fn reap(&self, _: &HashSet<Token>) -> Result<Closed, RuntimeError> {
        Ok(Closed::default())
    }

    async fn shutdown(&self) {}
}

#[async_trait]
impl Stack for Odd {
    async fn prepare(&self, _: &ServiceConfig) -> Result<Option<Prepared>, RuntimeError> {
        Ok(None)
    }

    async fn create(
        &self,
        _: &ServiceConfig,
        logs: LogSink,
    ) -> Result<Arc<dyn Member>, RuntimeError> {
        Ok(Arc::new(OddMember {
            way: self.way,
            logs,
            health: Arc::new(watch::Sender::new(None)),
            exits: watch::Sender::new(None),
        }))
    }

    async fn close(&self, _: Duration, _: Option<Duration>) -> Closed {
        self.closed.store(true, Ordering::SeqCst);
        Closed {
            removed: 1,
            left: Vec::new(),
        }
    }
}

struct OddMember {
    way: Way,
    logs: LogSink,
    health: Arc<watch::Sender<Option<bool>>>,
    exits: watch::Sender<Option<Exit>>,
}

#[async_trait]
impl Member for OddMember {
    async fn start(&self) -> Result<Addresses, RuntimeError> {
        assert!(self.way != Way::PanicsOnStart, "a bug in the runtime");
        let (health, logs) = (Arc::clone(&self.health), self.logs.clone());
        tokio::spawn(async move {
            health.send_replace(Some(true));
            tokio::time::sleep(Duration::from_millis(100)).await;
            logs.write(LogStream::Stderr, b"I feel sick\n".to_vec())
                .await;
            health.send_replace(Some(false));
        });
        Ok(Addresses::default())
    }

    fn exits(&self) -> watch::Receiver<Option<Exit>> {
        self.exits.subscribe()
    }

    fn health(&self) -> watch::Receiver<Option<bool>> {
        self.health.subscribe()
    }

    fn has_healthcheck(&self) -> bool {
        self.way == Way::TurnsUnhealthy
    }

    async fn addresses(&self) -> Result<Addresses, RuntimeError> {
        Ok(Addresses::default())
    }

    async fn stop(&self, _: Option<Duration>) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn kill(&self, _: SignalName) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn pause(&self) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn unpause(&self) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn disconnect(&self) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn connect(&self) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn exec(&self, _: ExecRequest) -> Result<ExecOutput, RuntimeError> {
        assert!(self.way != Way::PanicsOnExec, "a bug in exec");
        Ok(ExecOutput::default())
    }

    async fn copy_in(&self, _: Place, _: String) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn copy_out(&self, _: String, _: Place) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn inspect(&self) -> Vec<String> {
        vec!["health: unhealthy".to_owned()]
    }
}

fn odd(way: Way, steps: &str) -> (crate::rig::Rig, Arc<AtomicBool>) {
    let closed = Arc::new(AtomicBool::new(false));
    let mut rig = spec(&format!(
        "services: {{ web: {{ image: web }} }}\nphases: {{ main: [{steps}] }}\n"
    ));
    rig.runtime = Some(Arc::new(Odd {
        way,
        closed: Arc::clone(&closed),
    }));
    (rig, closed)
}

#[tokio::test]
async fn a_panic_in_an_actor_ends_the_attempt_errored_with_its_text_and_torn_down() {
    let (rig, closed) = odd(Way::PanicsOnStart, "{ wait: { for: 30s } }");
    let ended = rig.run().await;
    let (outcome, reason) = ended.finished();
    assert_eq!(outcome, Outcome::Errored);
    assert!(
        reason.as_ref().unwrap().contains("a bug in the runtime"),
        "{reason:?}"
    );
    assert!(closed.load(Ordering::SeqCst));
    assert!(matches!(
        ended.events.last(),
        Some(EventKind::TornDown { removed: 1, .. })
    ));
}

#[tokio::test]
async fn a_panic_in_a_step_is_that_steps_error_and_always_steps_still_run() {
    let (rig, closed) = odd(
        Way::PanicsOnExec,
        "{ exec: { service: web, command: [x] } }, { always: true, run: 'true' }",
    );
    let ended = rig.run().await;
    assert_eq!(ended.outcome(), Outcome::Errored);
    assert!(
        ended.reason("main/0").contains("a bug in exec"),
        "{}",
        ended.reason("main/0")
    );
    assert_eq!(ended.step("main/1").outcome, Outcome::Passed);
    assert!(closed.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_service_that_turns_unhealthy_fails_the_step_in_progress_unless_a_step_holds_it() {
    let (rig, _) = odd(
        Way::TurnsUnhealthy,
        "{ wait: { service: web, until: ready } }, { wait: { for: 30s } }",
    );
    let ended = rig.run().await;
    assert_eq!(ended.outcome(), Outcome::Failed);
    assert_eq!(ended.reason("main/1"), "service web turned unhealthy");
    let failure = ended.step("main/1").failure.clone().unwrap();
    assert_eq!(failure.logs[0].lines, ["I feel sick"]);
    assert_eq!(failure.notes, ["health: unhealthy"]);

    let (rig, _) = odd(
        Way::TurnsUnhealthy,
        "{ container: { pause: web } }, { wait: { for: 300ms } }",
    );
    let ended = rig.run().await;
    assert_eq!(ended.outcome(), Outcome::Passed, "{:#?}", ended.detail());
}
