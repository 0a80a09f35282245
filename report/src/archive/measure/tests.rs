//! A journal below a limit is read, and one event more is refused with the limit's name.
#![allow(clippy::unwrap_used)]

use super::*;
use phalanx_shared::event::{CheckResult, ServiceState};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::time::Timestamp;

fn of_attempt(kind: EventKind) -> Event {
    Event {
        run: "r".into(),
        attempt: Some(AttemptRef {
            cell: "c".into(),
            attempt: 1,
        }),
        seq: 1,
        at: Timestamp(0),
        mono_us: 0,
        kind,
    }
}

fn changed(service: String) -> EventKind {
    EventKind::ServiceChanged {
        service,
        state: ServiceState::Ready,
        began: Timestamp(0),
        detail: None,
        image: None,
        queued_us: 0,
        reference: None,
    }
}

fn offered(cell: &str, attempt: u32) -> Event {
    let kind = serde_json::json!({
        "kind": "cell_offered", "agent": "a", "agent_name": "a",
        "token": { "run": "r", "cell": cell, "attempt": attempt, "epoch": 1 },
    });
    Event {
        attempt: None,
        ..of_attempt(serde_json::from_value(kind).unwrap())
    }
}

fn step(path: String, checks: usize) -> EventKind {
    let check = CheckResult {
        expression: "a".to_owned(),
        passed: true,
        parts: Vec::new(),
        error: None,
    };
    EventKind::StepFinished(Box::new(StepResult {
        path,
        name: String::new(),
        id: None,
        action: "http".to_owned(),
        outcome: Outcome::Passed,
        reason: None,
        unreached: false,
        timed_out: false,
        culprit: None,
        tries: 1,
        polls: 0,
        began: Timestamp(0),
        elapsed_us: 0,
        waits: Vec::new(),
        verifies: Vec::new(),
        checks: vec![check; checks],
        output: None,
        captured: Vec::new(),
        failure: None,
        restored: None,
    }))
}

fn refused(events: impl IntoIterator<Item = Event>) -> Option<String> {
    let mut measure = Measure::default();
    let refused = events
        .into_iter()
        .find_map(|event| measure.add(&event).err());
    refused.map(|error| error.to_string())
}

#[test]
fn each_limit_is_the_last_that_fits() {
    let services = |most: usize| (0..most).map(|n| of_attempt(changed(format!("s{n}"))));
    let states = |most: usize| (0..most).map(|_| of_attempt(changed("s".to_owned())));
    let steps = |most: usize| {
        (0..most).map(|n| {
            of_attempt(EventKind::StepStarted {
                path: format!("a/{n}"),
                name: String::new(),
                action: String::new(),
            })
        })
    };
    let offers = |most: usize| (0..most).map(|n| offered("c", u32::try_from(n).unwrap()));
    let said = |found: Option<String>| found.unwrap_or_default();
    assert_eq!(refused(services(SERVICES.most)), None);
    assert!(said(refused(services(SERVICES.most + 1))).contains("1000 services"));
    assert_eq!(refused(states(STATES.most)), None);
    assert!(said(refused(states(STATES.most + 1))).contains("states of services"));
    assert_eq!(refused(steps(STEPS.most)), None);
    assert!(said(refused(steps(STEPS.most + 1))).contains("steps in one attempt"));
    assert_eq!(refused(offers(OFFERS.most)), None);
    assert!(said(refused(offers(OFFERS.most + 1))).contains("attempts at one cell"));
    let one = |path: String, checks: usize| refused([of_attempt(step(path, checks))]);
    assert_eq!(one("a".to_owned(), CHECKS.most), None);
    assert!(said(one("a".to_owned(), CHECKS.most + 1)).contains("checks of one step"));
    assert_eq!(one("a/".repeat(DEPTH.most), 0), None);
    assert!(said(one("a/".repeat(DEPTH.most + 1), 0)).contains("levels"));
}
