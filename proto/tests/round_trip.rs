//! What goes over the wire comes back as it was, for every type; what isn't one is refused and never panics.

#![allow(clippy::unwrap_used)]

mod strategy;

use phalanx_proto::convert::{
    Refusal, outcome_from_wire, outcome_to_wire, stream_from_wire, stream_to_wire,
};
use phalanx_proto::link::{FromAgent, ToAgent};
use phalanx_proto::log::{LogDown, LogUp};
use phalanx_proto::v1;
use phalanx_proto::workspace::Part as WorkspacePart;
use phalanx_shared::event::{Event, EventKind, Recorded};
use phalanx_shared::id::Token;
use phalanx_shared::plan::{Keep, Resources};
use proptest::prelude::*;
use prost::Message;
use std::fmt::Debug;

/// Over the wire as bytes, and back.
fn travel<D, W>(domain: D) -> D
where
    D: TryFrom<W>,
    W: From<D> + Message + Default,
    <D as TryFrom<W>>::Error: Debug,
{
    let bytes = W::from(domain).encode_to_vec();
    D::try_from(W::decode(&*bytes).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_token_survives(value in strategy::token()) {
        prop_assert_eq!(travel::<Token, v1::Token>(value.clone()), value);
    }

    #[test]
    fn resources_survive(value in strategy::resources()) {
        prop_assert_eq!(travel::<Resources, v1::Resources>(value), value);
    }

    #[test]
    fn a_keep_rule_survives(value in strategy::keep()) {
        prop_assert_eq!(travel::<Keep, v1::Keep>(value), value);
    }

    #[test]
    fn an_outcome_and_a_stream_survive(outcome in strategy::outcome(), stream in strategy::stream()) {
        prop_assert_eq!(outcome_from_wire(outcome_to_wire(Some(outcome)).into()), Ok(Some(outcome)));
        prop_assert_eq!(stream_from_wire(stream_to_wire(Some(stream)).into()), Ok(Some(stream)));
    }

    #[test]
    fn an_event_survives(value in strategy::event()) {
        prop_assert_eq!(travel::<Event, v1::Event>(value.clone()), value);
    }

    #[test]
    fn a_journal_entry_survives(value in strategy::recorded()) {
        prop_assert_eq!(travel::<Recorded, v1::Recorded>(value.clone()), value);
    }

    #[test]
    fn a_message_from_an_agent_survives(value in strategy::from_agent()) {
        prop_assert_eq!(travel::<FromAgent, v1::FromAgent>(value.clone()), value);
    }

    #[test]
    fn a_message_to_an_agent_survives(value in strategy::to_agent()) {
        prop_assert_eq!(travel::<ToAgent, v1::ToAgent>(value.clone()), value);
    }

    #[test]
    fn a_log_message_up_survives(value in strategy::log_up()) {
        prop_assert_eq!(travel::<LogUp, v1::LogUp>(value.clone()), value);
    }

    #[test]
    fn a_log_message_down_survives(value in strategy::log_down()) {
        prop_assert_eq!(travel::<LogDown, v1::LogDown>(value.clone()), value);
    }

    #[test]
    fn a_part_of_a_workspace_survives(value in strategy::workspace_part()) {
        prop_assert_eq!(travel::<WorkspacePart, v1::WorkspacePart>(value.clone()), value);
    }

    #[test]
    fn a_refusal_survives_and_travels_in_a_status(value in strategy::refusal()) {
        prop_assert_eq!(travel::<Refusal, v1::Refusal>(value.clone()), value.clone());
        let status = value.clone().into_status();
        prop_assert!(status.details().len() <= phalanx_proto::limit::STATUS_DETAILS_BYTES);
        if v1::Refusal::from(value.clone()).encoded_len() <= phalanx_proto::limit::STATUS_DETAILS_BYTES {
            prop_assert_eq!(Refusal::from_status(&status).unwrap_or_default(), value);
        }
    }

    #[test]
    fn the_name_of_a_kind_is_the_one_in_its_json(kind in strategy::kind()) {
        let json = serde_json::to_value(&kind).unwrap();
        prop_assert_eq!(json["kind"].as_str(), Some(kind.name()));
    }

    #[test]
    fn arbitrary_bytes_are_refused_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(wire) = v1::FromAgent::decode(&*bytes) {
            let _ = FromAgent::try_from(wire);
        }
        if let Ok(wire) = v1::ToAgent::decode(&*bytes) {
            let _ = ToAgent::try_from(wire);
        }
        if let Ok(wire) = v1::LogUp::decode(&*bytes) {
            let _ = LogUp::try_from(wire);
        }
        if let Ok(wire) = v1::WorkspacePart::decode(&*bytes) {
            let _ = WorkspacePart::try_from(wire);
        }
    }

    #[test]
    fn a_damaged_message_is_refused_or_read_and_never_panics(
        value in strategy::from_agent(), at in any::<prop::sample::Index>(), bit in 0..8u8,
    ) {
        let mut bytes = v1::FromAgent::from(value).encode_to_vec();
        if !bytes.is_empty() {
            let index = at.index(bytes.len());
            bytes[index] ^= 1 << bit;
        }
        if let Ok(wire) = v1::FromAgent::decode(&*bytes) {
            let _ = FromAgent::try_from(wire);
        }
    }
}

fn wire_event(payload: &str) -> v1::Event {
    v1::Event {
        run: "run".to_owned(),
        kind: "later".to_owned(),
        payload_json: payload.as_bytes().to_vec(),
        ..v1::Event::default()
    }
}

#[test]
fn an_event_of_a_later_version_is_kept_as_unknown() {
    let event = Event::try_from(wire_event(r#"{"kind":"teleported","to":"mars"}"#)).unwrap();
    assert!(matches!(event.kind, EventKind::Unknown(_)));
    let back = v1::Event::from(event);
    assert_eq!(back.kind, "teleported");
    assert_eq!(back.payload_json, br#"{"kind":"teleported","to":"mars"}"#);
}

#[test]
fn an_event_with_a_field_of_a_later_version_is_read() {
    let event = Event::try_from(wire_event(
        r#"{"kind":"note","message":"m","colour":"red"}"#,
    ));
    let message = "m".to_owned();
    assert_eq!(event.unwrap().kind, EventKind::Note { message });
}

#[test]
fn a_payload_that_is_not_its_kind_is_refused_with_its_name() {
    let error = Event::try_from(wire_event(r#"{"kind":"note"}"#)).unwrap_err();
    assert!(error.to_string().contains("\"later\""), "{error}");
}

#[test]
fn a_batch_with_a_hole_or_of_another_attempt_is_refused() {
    let token = Token {
        run: "run".into(),
        cell: "cell".into(),
        attempt: 1,
        epoch: 1,
    };
    let event = |cell: &str, seq| v1::Event {
        attempt: Some(v1::AttemptRef {
            cell: cell.to_owned(),
            attempt: 1,
        }),
        seq,
        ..wire_event(r#"{"kind":"note","message":"m"}"#)
    };
    let batch = |first_seq, events| v1::FromAgent {
        message: Some(v1::from_agent::Message::Events(v1::Events {
            token: Some(token.clone().into()),
            first_seq,
            events,
        })),
    };
    assert!(FromAgent::try_from(batch(3, vec![event("cell", 3), event("cell", 4)])).is_ok());
    for bad in [
        batch(3, vec![event("cell", 3), event("cell", 5)]),
        batch(3, vec![event("other", 3)]),
        batch(0, vec![event("cell", 0)]),
        batch(1, vec![]),
    ] {
        assert!(FromAgent::try_from(bad).is_err());
    }
}

#[test]
fn a_secret_value_is_in_no_debug_text() {
    let secrets = [("password".to_owned(), "hunter2".to_owned())];
    let submit = v1::SubmitRequest {
        secrets: secrets.clone().into(),
        ..Default::default()
    };
    let rerun = v1::RerunRequest {
        secrets: secrets.clone().into(),
        ..Default::default()
    };
    let offer = v1::Offer {
        secrets: secrets.into(),
        ..Default::default()
    };
    let down = v1::ToAgent {
        message: Some(v1::to_agent::Message::Offer(offer)),
    };
    let text = format!("{submit:?} {rerun:?} {down:?}");
    assert!(
        text.contains("password") && !text.contains("hunter2"),
        "{text}"
    );
}
