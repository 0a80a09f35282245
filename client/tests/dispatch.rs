//! Both ends of a session over real sockets, with scripted cells and a scripted rest of the coordinator.

#![allow(clippy::unwrap_used)]

mod dispatch_rig;

use dispatch_rig::{Fact, Rig, Script, job, token};
use phalanx_coordinator::dispatch::contract::ToAgents;
use phalanx_coordinator::dispatch::logs::read::{Piece, Query, read};
use phalanx_shared::cancel::CancelOrder;
use phalanx_shared::event::EventKind;
use phalanx_shared::outcome::Outcome;
use std::time::Duration;
use tokio_stream::StreamExt;

#[tokio::test]
async fn an_attempt_is_offered_taken_told_and_its_logs_stored() {
    for tcp in [false, true] {
        let mut rig = Rig::start(tcp, Script::passing()).await;
        let agent = rig.connected(vec![]).await;
        rig.offer(&agent, token(1));
        let kinds = rig.until_torn_down(&token(1)).await;
        let names: Vec<&str> = kinds.iter().map(EventKind::name).collect();
        assert_eq!(
            names,
            ["attempt_started", "note", "attempt_finished", "torn_down"]
        );
        assert_eq!(rig.log(&token(1)).await, b"hello\nworld\n");
        rig.command(ToAgents::Retire { token: token(1) });
        rig.leave().await;
    }
}

#[tokio::test]
async fn a_cut_connection_loses_and_repeats_nothing() {
    let mut rig = Rig::start(true, Script::steps(40)).await;
    let agent = rig.connected(vec![]).await;
    rig.offer(&agent, token(1));
    for _ in 0..3 {
        rig.some_events(5).await;
        rig.proxy().cut();
        rig.reconnected(&token(1)).await;
    }
    let kinds = rig.until_torn_down(&token(1)).await;
    let notes = kinds
        .iter()
        .filter(|kind| matches!(kind, EventKind::Note { .. }));
    let notes: Vec<String> = notes
        .map(|kind| match kind {
            EventKind::Note { message } => message.clone(),
            _ => String::new(),
        })
        .collect();
    let expected: Vec<String> = (0..40).map(|n| format!("step {n}")).collect();
    assert_eq!(notes, expected);
    let lines: String = (0..40).map(|n| format!("line {n}\n")).collect();
    assert_eq!(rig.log(&token(1)).await, lines.as_bytes());
    rig.leave().await;
}

#[tokio::test]
async fn an_attempt_that_says_too_much_is_ended_as_errored_by_its_agent() {
    let mut rig = Rig::start(false, Script::notes_without_end(3 << 20)).await;
    let agent = rig.connected(vec![]).await;
    rig.offer(&agent, token(1));
    rig.script().wait_cancelled().await;
    let kinds = rig.until_torn_down(&token(1)).await;
    let sizes = kinds
        .iter()
        .map(|kind| serde_json::to_vec(kind).unwrap().len());
    assert!(sizes.sum::<usize>() < 100_000, "none of it was sent");
    let verdict = kinds.iter().find_map(|kind| match kind {
        EventKind::AttemptFinished {
            outcome, reason, ..
        } => Some((*outcome, reason.clone())),
        _ => None,
    });
    let (outcome, reason) = verdict.unwrap();
    assert_eq!(outcome, Outcome::Errored);
    assert!(
        reason.as_ref().unwrap().contains("one event of"),
        "{reason:?}"
    );
    rig.leave().await;
}

#[tokio::test]
async fn nothing_is_acknowledged_before_it_is_durable() {
    let mut rig = Rig::start(false, Script::passing()).await;
    let agent = rig.connected(vec![]).await;
    rig.hold_durable(true);
    rig.offer(&agent, token(1));
    rig.until_torn_down(&token(1)).await;
    // The agent drains, but may not leave while it holds events that aren't on disk.
    rig.command(ToAgents::Drain { agent });
    let left = tokio::time::timeout(Duration::from_millis(300), rig.agent().left()).await;
    assert!(left.is_err(), "the agent left with unacknowledged events");
    rig.hold_durable(false);
    rig.agent().left().await;
}

#[tokio::test]
async fn a_retired_attempt_is_ended_by_its_agent_and_its_late_word_refused() {
    let mut rig = Rig::start(false, Script::until_cancelled()).await;
    let agent = rig.connected(vec![]).await;
    rig.offer(&agent, token(1));
    rig.some_events(1).await;
    rig.command(ToAgents::Retire { token: token(1) });
    rig.script().wait_cancelled().await;
    // The slot is free again, and no event of the old attempt comes in between.
    rig.offer(&agent, token(2));
    rig.some_events(1).await;
    rig.command(ToAgents::Cancel {
        token: token(2),
        order: CancelOrder {
            grace: Duration::from_millis(1),
            reason: "test".to_owned(),
            force: false,
        },
    });
    let kinds = rig.until_torn_down(&token(2)).await;
    let outcome = kinds.iter().find_map(|kind| match kind {
        EventKind::AttemptFinished { outcome, .. } => Some(*outcome),
        _ => None,
    });
    assert_eq!(outcome, Some(Outcome::Cancelled));
    assert!(
        rig.events_of(&token(1))
            .iter()
            .all(|kind| kind.name() != "torn_down")
    );
}

#[tokio::test]
async fn an_agent_without_a_free_slot_declines() {
    let mut rig = Rig::start(false, Script::until_cancelled()).await;
    let agent = rig.connected(vec![]).await;
    for n in 1..=2 {
        rig.offer(&agent, token(n));
        rig.some_events(1).await;
    }
    rig.offer(&agent, token(3));
    let declined = rig
        .fact(|fact| match fact {
            Fact::Declined { token, reason } => Some((token.clone(), reason.to_string())),
            _ => None,
        })
        .await;
    assert_eq!(declined.0, token(3));
    assert!(declined.1.contains("slots"), "{}", declined.1);
}

#[tokio::test]
async fn an_agent_that_is_gone_is_lost_after_its_grace() {
    let mut rig = Rig::start(false, Script::until_cancelled()).await;
    let agent = rig.connected(vec![]).await;
    rig.offer(&agent, token(1));
    rig.some_events(1).await;
    rig.agent().stop().await;
    rig.fact(|fact| matches!(fact, Fact::Disconnected).then_some(()))
        .await;
    let lost = rig
        .fact(|fact| match fact {
            Fact::Lost { agent } => Some(agent.clone()),
            _ => None,
        })
        .await;
    assert_eq!(lost, agent);
}

#[tokio::test]
async fn a_reader_follows_logs_while_they_are_written_and_ends_with_them() {
    let mut rig = Rig::start(false, Script::steps(30)).await;
    let agent = rig.connected(vec![]).await;
    rig.offer(&agent, token(1));
    rig.some_events(2).await;
    let query = |from_record, offset, follow| Query {
        run: token(1).run,
        cell: token(1).cell,
        attempt: 1,
        service: Some("db".to_owned()),
        stream: None,
        offset,
        from_record,
        follow,
    };
    let mut following = read(rig.logs(), query(0, 0, true));
    rig.until_torn_down(&token(1)).await;
    let mut text = Vec::new();
    while let Some(entry) = following.next().await {
        match entry.unwrap().piece {
            Piece::Bytes(bytes) => text.extend(bytes),
            Piece::Gap { .. } => panic!("a gap"),
        }
    }
    let whole: String = (0..30).map(|n| format!("line {n}\n")).collect();
    assert_eq!(text, whole.as_bytes());
    let tail: Vec<_> = read(rig.logs(), query(0, 50, false)).collect().await;
    let tail: Vec<u8> = tail
        .into_iter()
        .flat_map(|entry| match entry.unwrap().piece {
            Piece::Bytes(bytes) => bytes,
            Piece::Gap { .. } => vec![],
        })
        .collect();
    assert_eq!(tail, whole.as_bytes()[50..]);
}

#[tokio::test]
async fn a_workspace_is_fetched_by_digest_and_a_missing_one_is_said() {
    let mut rig = Rig::start(false, Script::passing()).await;
    let agent = rig.connected(vec![]).await;
    let digest = rig.pack_workspace();
    rig.offer_job(&agent, token(1), job(Some(&digest)));
    rig.until_torn_down(&token(1)).await;
    assert_eq!(
        rig.script().workspace_text(),
        Some("in the workspace".to_owned())
    );
    rig.offer_job(&agent, token(2), job(Some(&"0".repeat(64))));
    let kinds = rig.until_torn_down(&token(2)).await;
    let reason = kinds.iter().find_map(|kind| match kind {
        EventKind::AttemptFinished {
            outcome: Outcome::Errored,
            reason,
            ..
        } => reason.clone(),
        _ => None,
    });
    assert!(reason.unwrap().contains("workspace 000"));
}

#[tokio::test]
async fn a_peer_that_talks_nonsense_is_refused_with_a_reason_and_the_others_go_on() {
    use phalanx_proto::v1;
    use v1::agent_link_client::AgentLinkClient;
    let mut rig = Rig::start(true, Script::passing()).await;
    let agent = rig.connected(vec![]).await;
    let mut client = AgentLinkClient::connect(rig.url()).await.unwrap();
    let hello = |min_protocol, max_protocol| v1::FromAgent {
        message: Some(v1::from_agent::Message::Hello(v1::Hello {
            agent_id: "other".to_owned(),
            min_protocol,
            max_protocol,
            resources: Some(v1::Resources::default()),
            ..Default::default()
        })),
    };
    let beat = v1::FromAgent {
        message: Some(v1::from_agent::Message::Heartbeat(v1::Heartbeat::default())),
    };
    for (first, expected) in [
        (hello(7, 9), "upgrade the coordinator"),
        (hello(0, 0), "upgrade the agent"),
        (beat, "isn't a Hello"),
        (v1::FromAgent::default(), "empty message"),
    ] {
        let answer = client.session(tokio_stream::iter([first])).await;
        let status = answer.map(|_| ()).unwrap_err();
        assert!(status.message().contains(expected), "{status}");
    }
    // Garbage on the port.
    rig.send_garbage().await;
    rig.offer(&agent, token(1));
    rig.until_torn_down(&token(1)).await;
}
