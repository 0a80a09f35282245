//! A spec travels once in a session, and both sides agree on which ones are still known.
#![allow(clippy::unwrap_used)]

use phalanx_proto::convert::InvalidToAgent;
use phalanx_proto::link::{Offer, ToAgent};
use phalanx_proto::specs::{SpecsHeld, SpecsSent};
use phalanx_proto::v1;
use phalanx_shared::diagnostic::Source;
use phalanx_shared::id::Token;
use phalanx_shared::plan::{CellJob, Keep, PlannedCell, Resources, SpecSource};
use phalanx_shared::time::Timestamp;
use serde_json::Map;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use v1::to_agent::Message as Down;

fn source(number: usize) -> Arc<SpecSource> {
    let main = Source {
        name: "a.yaml".to_owned(),
        text: format!("name: spec-{number}\nphases:\n  check:\n    - expect: ['1 == 1']\n"),
    };
    let loaded = phalanx_shared::language::load(main, &mut |path| Err(format!("no file {path}")));
    Arc::new(SpecSource::new(
        Arc::new(loaded.spec.unwrap()),
        loaded.sources,
    ))
}

fn offer(source: &Arc<SpecSource>, cell: &str) -> ToAgent {
    ToAgent::Offer(Offer {
        token: Token {
            run: "run".into(),
            cell: cell.into(),
            attempt: 1,
            epoch: 1,
        },
        job: Arc::new(CellJob {
            source: Arc::clone(source),
            cell: PlannedCell {
                id: cell.into(),
                name: format!("the cell {cell}"),
                matrix: Default::default(),
                runs_on: Vec::new(),
                experimental: false,
                resources: Resources::default(),
                timeout_ms: 1000,
                attempts: 1,
                retries: 0,
            },
            inputs: Map::from_iter([("a".to_owned(), 1.into())]),
            matrix: Map::new(),
            vars: Map::from_iter([("v".to_owned(), "w".into())]),
            workspace: Map::new(),
            keep: Keep::Always { ttl_s: 3 },
            submitted: Some(Timestamp(7)),
            snapshots: Default::default(),
            snapshot_family: Some("fa".to_owned()),
            images: BTreeMap::from([("db".to_owned(), "db@sha256:aa".to_owned())]),
        }),
        secrets: Arc::new(BTreeMap::from([("s".to_owned(), "t".to_owned())])),
        accept_within: Duration::from_secs(5),
        traceparent: Some("00-trace".to_owned()),
    })
}

/// Sends a message, and gives what arrives and how many specs travelled with it.
fn carry(sent: &mut SpecsSent, held: &mut SpecsHeld, message: ToAgent) -> (Vec<ToAgent>, usize) {
    let messages = sent.wire(message);
    let is_spec = |wire: &&v1::ToAgent| matches!(wire.message, Some(Down::Spec(_)));
    let specs = messages.iter().filter(is_spec).count();
    let arrived = messages
        .into_iter()
        .filter_map(|wire| held.domain(wire).unwrap());
    (arrived.collect(), specs)
}

#[test]
fn the_second_offer_of_a_run_brings_no_spec_and_is_the_same_job() {
    let (mut sent, mut held) = (SpecsSent::new(2), SpecsHeld::default());
    let spec = source(0);
    for (cell, specs) in [("a", 1), ("b", 0), ("c", 0)] {
        let expected = offer(&spec, cell);
        let arrived = carry(&mut sent, &mut held, expected.clone());
        assert!(arrived == (vec![expected], specs), "{cell}");
    }
}

#[test]
fn both_sides_forget_the_same_spec() {
    let (mut sent, mut held) = (SpecsSent::new(2), SpecsHeld::default());
    let specs: Vec<_> = (0..40).map(source).collect();
    // Number 0 is named again and again, so that it stays; the others come, go and come again.
    for round in 0..3 {
        for (number, spec) in specs.iter().enumerate() {
            for spec in [spec, &specs[0]] {
                let expected = offer(spec, "a");
                let (arrived, _) = carry(&mut sent, &mut held, expected.clone());
                assert!(arrived == [expected], "round {round}, spec {number}");
            }
            let (_, specs) = carry(&mut sent, &mut held, offer(&specs[0], "b"));
            assert_eq!(specs, 0, "round {round}, spec {number}");
        }
    }
    let (_, again) = carry(&mut sent, &mut held, offer(&specs[1], "a"));
    assert_eq!(again, 1, "forty specs are more than are kept");
}

#[test]
fn an_agent_of_protocol_1_gets_whole_jobs() {
    let mut sent = SpecsSent::new(1);
    let spec = source(0);
    for cell in ["a", "b"] {
        let expected = offer(&spec, cell);
        let messages = sent.wire(expected.clone());
        assert_eq!(messages.len(), 1);
        let arrived = ToAgent::try_from(messages.into_iter().next().unwrap());
        assert!(arrived.unwrap() == expected);
    }
}

#[test]
fn an_offer_whose_spec_is_missing_or_unreadable_can_be_declined() {
    let mut held = SpecsHeld::default();
    let mut messages = SpecsSent::new(2).wire(offer(&source(0), "a")).into_iter();
    let spec = messages.next().unwrap();
    let offer = messages.next().unwrap();
    let refused = |held: &mut SpecsHeld| match held.domain(offer.clone()) {
        Err(InvalidToAgent::Job { token, error }) => (token.cell.to_string(), error),
        _ => panic!("it was taken"),
    };
    let (cell, error) = refused(&mut held);
    assert_eq!(cell, "a");
    assert!(error.contains("spec"), "{error}");
    let Some(Down::Spec(spec)) = spec.message else {
        panic!("the spec comes first")
    };
    let broken = v1::Spec {
        source_json: b"{".to_vec(),
        ..spec
    };
    let wire = v1::ToAgent {
        message: Some(Down::Spec(broken)),
    };
    assert!(matches!(held.domain(wire), Ok(None)));
    assert!(refused(&mut held).1.contains("spec"));
}
