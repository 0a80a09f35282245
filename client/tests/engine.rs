//! The coordinator with a fake session in place of agents. Journal, scheduling, runs and the control service are real.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod engine_support;

use engine_support::{Bench, Script, asked, submit_request};
use phalanx_coordinator::dispatch::contract::ToAgents;
use phalanx_proto::v1;
use phalanx_proto::v1::control_server::Control;
use phalanx_shared::event::EventKind;
use phalanx_shared::invariant;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::CellStatus;

#[tokio::test]
async fn a_run_goes_from_submission_to_settled_and_its_watcher_sees_every_event() {
    let bench = Bench::start(tempfile::tempdir().unwrap()).await;
    bench.connect("a", 4).await;
    let run = bench.submit(20).await;
    let events = bench.watch_to_end(&run).await;
    let state = invariant::one_outcome(&run.as_str().into(), &events).unwrap();
    assert_eq!(state.outcome, Some(Outcome::Passed), "{:?}", state.cells[0]);
    assert_eq!(state.counts().passed, 20);
    assert!(state.is_settled());
    assert!(bench.most_at_once("a") <= 4);
}

#[tokio::test]
async fn a_watcher_can_begin_anywhere_also_after_the_end() {
    let bench = Bench::start(tempfile::tempdir().unwrap()).await;
    bench.connect("a", 4).await;
    let run = bench.submit(3).await;
    let all = bench.watch_to_end(&run).await;
    let tail = bench.watch(&run, 5).await;
    assert_eq!(all[4..], tail[..]);
}

#[tokio::test]
async fn offers_are_journaled_before_an_agent_hears_of_them() {
    let bench = Bench::start(tempfile::tempdir().unwrap()).await;
    bench.script(Script::Hold);
    bench.connect("a", 1).await;
    let run = bench.submit(1).await;
    let token = bench.offered().await;
    let events = bench.present(&run).await;
    assert!(
        events
            .iter()
            .any(|e| matches!(&e.kind, EventKind::CellOffered { token: t, .. } if *t == token))
    );
}

#[tokio::test]
async fn after_a_restart_the_run_goes_on_where_it_was_without_repeating_a_finished_cell() {
    let place = tempfile::tempdir().unwrap();
    let bench = Bench::start(place).await;
    bench.script(Script::FinishThenHold(2));
    bench.connect("a", 2).await;
    let run = bench.submit(5).await;
    bench
        .wait_for(&run, |s| {
            s.counts().passed == 2
                && s.cells
                    .values()
                    .filter(|c| c.status == CellStatus::Running)
                    .count()
                    == 2
        })
        .await;
    let bench = bench.restart().await;
    bench.script(Script::Pass);
    bench.reconnect("a", 2).await;
    let events = bench.watch_to_end(&run).await;
    let state = invariant::one_outcome(&run.as_str().into(), &events).unwrap();
    assert_eq!(state.counts().passed, 5);
    assert!(
        state.cells.values().all(|c| c.tries() == 1),
        "nothing ran twice"
    );
}

#[tokio::test]
async fn attempts_whose_agent_does_not_come_back_after_a_restart_run_elsewhere() {
    let bench = Bench::start(tempfile::tempdir().unwrap()).await;
    bench.script(Script::FinishThenHold(0));
    bench.connect("a", 1).await;
    let run = bench.submit(1).await;
    bench
        .wait_for(&run, |s| s.cells[0].status == CellStatus::Running)
        .await;
    let bench = bench.restart().await;
    bench.script(Script::Pass);
    bench.forget_agent("a");
    bench.connect("b", 1).await;
    let events = bench.watch_to_end(&run).await;
    let state = invariant::one_outcome(&run.as_str().into(), &events).unwrap();
    assert_eq!(state.outcome, Some(Outcome::Passed));
    assert_eq!((state.cells[0].tries(), state.cells[0].lost()), (2, 1));
}

#[tokio::test]
async fn a_cancelled_run_tells_its_agents_and_ends_cancelled() {
    let bench = Bench::start(tempfile::tempdir().unwrap()).await;
    bench.script(Script::FinishThenHold(0));
    bench.connect("a", 1).await;
    let run = bench.submit(3).await;
    bench.wait_for(&run, |s| s.counts().running == 1).await;
    let request = v1::CancelRequest {
        run_id: run.clone(),
        reason: "Ctrl-C".into(),
        force: false,
    };
    let answer = bench
        .api()
        .cancel(asked(request))
        .await
        .unwrap()
        .into_inner();
    assert!(!answer.finished);
    let events = bench.watch_to_end(&run).await;
    let state = invariant::one_outcome(&run.as_str().into(), &events).unwrap();
    assert_eq!(state.outcome, Some(Outcome::Cancelled));
    assert_eq!(state.cancel.as_deref(), Some("Ctrl-C"));
    assert!(
        bench.heard(|c| matches!(c, ToAgents::Cancel { order, .. } if order.reason == "Ctrl-C"))
    );
}

#[tokio::test]
async fn runs_are_listed_with_their_counts_and_found_by_the_beginning_of_their_id() {
    let bench = Bench::start(tempfile::tempdir().unwrap()).await;
    bench.connect("a", 4).await;
    let run = bench.submit(3).await;
    bench.watch_to_end(&run).await;
    let runs = bench
        .api()
        .list_runs(asked(v1::ListRunsRequest::default()))
        .await;
    let runs = runs.unwrap().into_inner().runs;
    assert_eq!(runs.len(), 1);
    assert_eq!(
        runs[0].counts,
        [v1::OutcomeCount {
            outcome: v1::Outcome::Passed.into(),
            cells: 3
        }]
    );
    assert!(runs[0].finished_us.is_some());
    let events = bench.watch(&run[..13], 1).await;
    assert!(!events.is_empty());
}

#[tokio::test]
async fn only_the_failed_cells_run_again() {
    let bench = Bench::start(tempfile::tempdir().unwrap()).await;
    bench.script(Script::Fail("c1".into()));
    bench.connect("a", 4).await;
    let run = bench.submit(3).await;
    bench.watch_to_end(&run).await;
    bench.script(Script::Pass);
    let request = v1::RerunRequest {
        run_id: run.clone(),
        failed: true,
        ..Default::default()
    };
    let again = bench
        .api()
        .rerun(asked(request))
        .await
        .unwrap()
        .into_inner()
        .run_id;
    let events = bench.watch_to_end(&again).await;
    let state = invariant::one_outcome(&again.as_str().into(), &events).unwrap();
    assert_eq!(
        state.cells.keys().map(|c| c.as_str()).collect::<Vec<_>>(),
        ["c1"]
    );
    assert_eq!(
        state.origin.get("rerun_of").and_then(|v| v.as_str()),
        Some(run.as_str())
    );
    let request = v1::RerunRequest {
        run_id: again,
        failed: true,
        ..Default::default()
    };
    let refused = bench.api().rerun(asked(request)).await.unwrap_err();
    assert!(
        refused.message().contains("nothing to run again"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_waiting_cell_says_why_and_agents_are_listed_and_drained() {
    let bench = Bench::start(tempfile::tempdir().unwrap()).await;
    let run = bench.submit(2).await;
    let why = |cell: &str| {
        asked(v1::WhyRequest {
            run_id: run.clone(),
            cell: cell.into(),
        })
    };
    let answer = bench.api().why(why("c0")).await.unwrap().into_inner();
    assert_eq!(
        (answer.status.as_str(), &answer.reasons[..]),
        ("queued", &["no agent is connected".to_owned()][..])
    );
    bench.script(Script::FinishThenHold(0));
    bench.connect("a", 1).await;
    bench.wait_for(&run, |s| s.counts().running == 1).await;
    let answer = bench.api().why(why("cell 1")).await.unwrap().into_inner();
    assert_eq!(answer.reasons, ["agent a: its only slot is taken"]);
    let agents = bench
        .api()
        .list_agents(asked(v1::ListAgentsRequest {}))
        .await;
    let agents = agents.unwrap().into_inner().agents;
    assert_eq!((agents.len(), agents[0].attempts.len()), (1, 1));
    let drain = v1::DrainAgentRequest { agent: "a".into() };
    let drained = bench
        .api()
        .drain_agent(asked(drain))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(drained.attempts, 1);
    let unknown = bench.api().why(why("cel 1")).await.unwrap_err();
    assert!(unknown.message().contains("did you mean"), "{unknown}");
}

#[tokio::test]
async fn a_submission_brings_its_secrets_and_an_agent_gets_those_alone() {
    let bench = Bench::start(tempfile::tempdir().unwrap()).await;
    bench.connect("a", 1).await;
    let mut request = submit_request(1);
    request.inputs_json = br#"{"secret": "license_key", "cells": 1}"#.to_vec();
    let refused = |request: &v1::SubmitRequest| {
        let submitted = asked(request.clone());
        async { bench.api().submit(submitted).await.unwrap_err() }
    };
    let missing = refused(&request).await;
    assert_eq!(missing.code(), tonic::Code::FailedPrecondition);
    for part in ["`license_key`", "--secret-env", "--secret-file"] {
        assert!(missing.message().contains(part), "{missing}");
    }
    request.secrets.insert("license_key".into(), "short".into());
    let short = refused(&request).await;
    assert_eq!(short.code(), tonic::Code::InvalidArgument, "{short}");
    assert!(!short.message().contains("short"), "{short}");
    request
        .secrets
        .insert("license_key".into(), "canary-value".into());
    request
        .secrets
        .insert("other".into(), "not-even-named".into());
    let run = bench
        .api()
        .submit(asked(request))
        .await
        .unwrap()
        .into_inner()
        .run_id;
    let events = bench.watch_to_end(&run).await;
    assert!(
        !serde_json::to_string(&events)
            .unwrap()
            .contains("canary-value")
    );
    let offered = |name: &str| {
        bench.heard(|command| {
            matches!(command, ToAgents::Offer { secrets, .. } if secrets.contains_key(name))
        })
    };
    assert!(offered("license_key") && !offered("other"));
}

#[tokio::test]
async fn gc_forgets_old_runs_and_files_that_belong_to_none() {
    let bench = Bench::start(tempfile::tempdir().unwrap()).await;
    bench.connect("a", 4).await;
    let run = bench.submit(1).await;
    bench.watch_to_end(&run).await;
    std::fs::create_dir_all(bench.path().join("logs/nobody")).unwrap();
    std::fs::create_dir_all(bench.path().join("logs").join(&run)).unwrap();
    std::fs::write(bench.path().join("logs/nobody/x"), "12345").unwrap();
    let gc = |older_than_s, dry_run| {
        asked(v1::GcRequest {
            older_than_s,
            dry_run,
        })
    };
    let answer = bench.api().gc(gc(0, true)).await.unwrap().into_inner();
    assert_eq!(answer.removed.len(), 1, "{:?}", answer.removed);
    assert!(bench.path().join("logs/nobody").exists());
    bench.api().gc(gc(0, false)).await.unwrap();
    assert!(!bench.path().join("logs/nobody").exists());
    assert!(bench.path().join("logs").join(&run).exists());
}
