//! What any storage must do.

use crate::{Both, Place};
use phalanx_coordinator::journal::{
    Journal, NewRun, Past, PastSnapshot, RunEnd, Store, StoreError, Submission, Write,
};
use phalanx_shared::event::{AttemptRef, Event, EventKind, Recorded};
use phalanx_shared::id::RunId;
use phalanx_shared::namespace::Namespace;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::Counts;
use phalanx_shared::time::Timestamp;
use serde_json::json;
use std::sync::Arc;

pub const NOW: Timestamp = Timestamp(1_000_000);

crate::cases!(Both:
    what_was_appended_is_read_back_after_a_restart_in_a_later_term,
    lists_and_look_ups_find_runs_by_time_and_by_the_beginning_of_their_id,
    a_namespace_has_its_own_runs_and_workspaces,
    a_finished_run_leaves_the_list_of_open_ones_once_settled_and_can_be_forgotten,
    durations_are_kept_per_cell_newest_only,
    times_with_and_without_a_snapshot_are_kept_apart,
    a_position_written_twice_is_refused_without_harm_to_its_neighbours,
    large_events_are_read_in_parts_and_a_missing_one_is_an_error,
    every_character_is_read_back,
    many_appenders_share_commits,
);

pub fn new_run(run: &str) -> Write {
    Write::Run(Box::new(NewRun {
        run: run.into(),
        submitted: NOW,
        spec: "shop".into(),
        digest: "d".into(),
        cells: 3,
        submission: Submission::default(),
        namespace: Namespace::default(),
        owner: String::new(),
    }))
}

pub fn event(run: &str, position: u64) -> Write {
    note(run, position, format!("note {position}"))
}

fn note(run: &str, position: u64, message: String) -> Write {
    Write::Event(Recorded {
        position,
        event: Event {
            run: run.into(),
            attempt: position.is_multiple_of(2).then(|| AttemptRef {
                cell: "c".into(),
                attempt: 2,
            }),
            seq: position,
            at: NOW,
            mono_us: 7,
            kind: EventKind::Note { message },
        },
    })
}

async fn journal(place: &Place) -> Journal {
    Journal::start(place.open().await, NOW).await.unwrap().0
}

async fn what_was_appended_is_read_back_after_a_restart_in_a_later_term(place: Place) {
    let (journal, writer) = Journal::start(place.open().await, NOW).await.unwrap();
    let first = journal.epoch();
    let writes = vec![new_run("r"), event("r", 1), event("r", 2)];
    journal.append(writes).await.await.unwrap();
    drop(journal);
    writer.await.unwrap();
    let journal = self::journal(&place).await;
    assert!(journal.epoch() > first);
    let events = journal.store().events(&"r".into(), 2, 10).await.unwrap();
    let events: Vec<Write> = events.into_iter().map(Write::Event).collect();
    assert_eq!(vec![event("r", 2)], events);
    let runs = journal.store().runs(10, true, None).await.unwrap();
    assert_eq!(runs.len(), 1);
    assert_eq!((runs[0].spec.as_str(), &runs[0].end), ("shop", &None));
}

async fn lists_and_look_ups_find_runs_by_time_and_by_the_beginning_of_their_id(place: Place) {
    let journal = journal(&place).await;
    let long = Submission {
        files: vec![phalanx_shared::diagnostic::Source {
            name: "spec.yaml".to_owned(),
            text: "x".repeat(1 << 20),
        }],
        workspace_digest: Some("d1".to_owned()),
        ..Submission::default()
    };
    let new = |run: &str, second: i64| {
        Write::Run(Box::new(NewRun {
            run: run.into(),
            submitted: Timestamp(second * 1_000_000),
            spec: "shop".into(),
            digest: "d".into(),
            cells: 3,
            submission: long.clone(),
            namespace: Namespace::default(),
            owner: String::new(),
        }))
    };
    let writes = vec![new("abc1", 1), new("abc2", 3), new("abd", 2), new("ab%", 2)];
    journal.append(writes).await.await.unwrap();
    let store = journal.store();
    let found = |text: &'static str| store.beginning_with(text, 9, None);
    assert_eq!(found("abc").await.unwrap(), ["abc1".into(), "abc2".into()]);
    assert_eq!(found("abd").await.unwrap(), ["abd".into()]);
    assert_eq!(found("ab%").await.unwrap(), ["ab%".into()]);
    assert_eq!(store.beginning_with("ab", 2, None).await.unwrap().len(), 2);
    assert!(found("x").await.unwrap().is_empty());
    assert!(found("a\0").await.unwrap().is_empty());
    assert_eq!(store.workspaces().await.unwrap(), ["d1".to_owned()].into());
    let whole = store.run(&"abd".into()).await.unwrap().unwrap();
    assert_eq!(whole.new.submission, long);
    assert_eq!(store.run(&"abx".into()).await.unwrap(), None);
    let listed = store.runs(3, false, None).await.unwrap();
    let listed: Vec<&str> = listed.iter().map(|head| head.run.as_str()).collect();
    assert_eq!(listed, ["abc2", "abd", "ab%"]);
}

async fn a_namespace_has_its_own_runs_and_workspaces(place: Place) {
    let journal = journal(&place).await;
    let namespace = |name: &str| name.parse::<Namespace>().unwrap();
    let new = |run: &str, name: &str| {
        let Write::Run(mut new) = new_run(run) else {
            unreachable!("it is a run");
        };
        new.namespace = namespace(name);
        new.owner = format!("token:{name}");
        new.submission.workspace_digest = Some(format!("of {name}"));
        Write::Run(new)
    };
    let writes = vec![new("abc1", "a"), new("abc2", "b"), new_run("abc3")];
    journal.append(writes).await.await.unwrap();
    let store = journal.store();
    let (a, b) = (namespace("a"), namespace("b"));
    for (within, expected) in [
        (Some(&a), vec!["abc1"]),
        (Some(&b), vec!["abc2"]),
        (None, vec!["abc3", "abc2", "abc1"]),
    ] {
        let heads = store.runs(9, true, within).await.unwrap();
        let listed: Vec<&str> = heads.iter().map(|head| head.run.as_str()).collect();
        assert_eq!(listed, expected);
        let found = store.beginning_with("abc", 9, within).await.unwrap();
        assert_eq!(found.len(), expected.len());
    }
    let row = store.run(&"abc1".into()).await.unwrap().unwrap();
    assert_eq!(
        (row.new.namespace, row.new.owner),
        (a.clone(), "token:a".to_owned())
    );
    let row = store.run(&"abc3".into()).await.unwrap().unwrap();
    assert_eq!(row.new.namespace, Namespace::default());
    assert!(store.has_workspace("of a", &a).await.unwrap());
    assert!(!store.has_workspace("of a", &b).await.unwrap());
}

async fn a_finished_run_leaves_the_list_of_open_ones_once_settled_and_can_be_forgotten(
    place: Place,
) {
    let journal = journal(&place).await;
    let run: RunId = "r".into();
    let end = RunEnd {
        finished: Timestamp(5),
        outcome: Outcome::Flaky,
        counts: Counts {
            total: 3,
            flaky: 3,
            ..Counts::default()
        },
        cancel: Some("enough".into()),
    };
    let finished = Write::Finished {
        run: run.clone(),
        end: end.clone(),
    };
    let writes = vec![new_run("r"), event("r", 1), finished];
    journal.append(writes).await.await.unwrap();
    let store = journal.store().clone();
    assert_eq!(store.runs(9, true, None).await.unwrap().len(), 1);
    let settled = vec![Write::Settled { run: run.clone() }];
    journal.append(settled).await.await.unwrap();
    assert!(store.runs(9, true, None).await.unwrap().is_empty());
    assert_eq!(
        store.runs(9, false, None).await.unwrap()[0].end,
        Some(end.clone())
    );
    assert_eq!(store.run(&run).await.unwrap().unwrap().end, Some(end));
    let old = store.settled_before(Timestamp(6)).await.unwrap();
    assert_eq!(old, std::slice::from_ref(&run));
    assert!(store.settled_before(Timestamp(5)).await.unwrap().is_empty());
    let forget = vec![Write::Forget { run: run.clone() }];
    journal.append(forget).await.await.unwrap();
    assert_eq!(store.run(&run).await.unwrap(), None);
    assert!(store.events(&run, 1, 9).await.unwrap().is_empty());
}

async fn durations_are_kept_per_cell_newest_only(place: Place) {
    let journal = journal(&place).await;
    let took = |cell: &str, elapsed_ms, second: i64| Write::Duration {
        spec: "shop".into(),
        past: Past {
            cell: cell.into(),
            matrix: vec![("db".into(), json!("pg"))],
            elapsed_ms,
            snapshot: None,
        },
        at: Timestamp(second),
    };
    let writes = vec![took("c", 10, 1), took("c", 20, 2), took("b", 5, 3)];
    journal.append(writes).await.await.unwrap();
    journal.append(vec![took("b", 7, 4)]).await.await.unwrap();
    let history = journal.store().history("shop").await.unwrap();
    let history: Vec<(&str, u64)> = history
        .iter()
        .map(|past| (past.cell.as_str(), past.elapsed_ms))
        .collect();
    assert_eq!(history, [("c", 20), ("b", 7)]);
    assert!(journal.store().history("other").await.unwrap().is_empty());
}

async fn times_with_and_without_a_snapshot_are_kept_apart(place: Place) {
    let journal = journal(&place).await;
    let took = |elapsed_ms, snapshot, at| Write::Duration {
        spec: "shop".into(),
        past: Past {
            cell: "c".into(),
            matrix: vec![("db".into(), json!("pg"))],
            elapsed_ms,
            snapshot,
        },
        at: Timestamp(at),
    };
    let missed = |making_ms| Some(PastSnapshot::Missed { making_ms });
    let restored = Some(PastSnapshot::Restored);
    let writes = vec![
        took(20, None, 2),
        took(900, missed(Some(800)), 3),
        took(90, restored, 4),
        took(950, missed(None), 5),
        took(95, restored, 6),
    ];
    journal.append(writes).await.await.unwrap();
    let known = |history: Vec<Past>| -> Vec<_> {
        let times = history.iter().map(|past| (past.elapsed_ms, past.snapshot));
        times.collect()
    };
    // The first is from a time before the spec had a snapshot.
    let history = journal.store().history("shop").await.unwrap();
    let expected = vec![(20, None), (950, missed(None)), (95, restored)];
    assert_eq!(known(history), expected);
    let again = took(1_000, missed(Some(850)), 7);
    journal.append(vec![again]).await.await.unwrap();
    let history = journal.store().history("shop").await.unwrap();
    let expected = vec![(20, None), (95, restored), (1_000, missed(Some(850)))];
    assert_eq!(known(history), expected);
}

async fn a_position_written_twice_is_refused_without_harm_to_its_neighbours(place: Place) {
    let journal = journal(&place).await;
    journal.append(vec![event("r", 1)]).await.await.unwrap();
    let twice = journal.append(vec![event("r", 1)]).await;
    let good = journal.append(vec![event("r", 2)]).await;
    assert!(matches!(twice.await, Err(StoreError::Refused(_))));
    good.await.unwrap();
}

async fn large_events_are_read_in_parts_and_a_missing_one_is_an_error(place: Place) {
    let journal = journal(&place).await;
    let large = |position| note("r", position, "x".repeat(3 << 20));
    journal
        .append((1..=6).map(large).collect())
        .await
        .await
        .unwrap();
    let store = journal.store();
    let (mut from, mut parts) = (1, 0);
    loop {
        let part = store.events(&"r".into(), from, 1_000).await.unwrap();
        if part.is_empty() {
            break;
        }
        assert!(part.len() <= 3);
        from += part.len() as u64;
        parts += 1;
    }
    assert_eq!((from, parts), (7, 3));
    let gap = vec![event("gap", 1), event("gap", 3)];
    journal.append(gap).await.await.unwrap();
    let error = store.events(&"gap".into(), 1, 9).await.unwrap_err();
    assert!(
        error.to_string().contains("event 2 of run gap is missing"),
        "{error}"
    );
    assert!(store.events(&"gap".into(), 2, 9).await.is_err());
}

async fn every_character_is_read_back(place: Place) {
    let journal = journal(&place).await;
    let text = "nul \0, bell \u{7}, \u{1f600}, \u{10ffff}, quotes '\" \\ $1 ?";
    let cancel = Write::Finished {
        run: "r".into(),
        end: RunEnd {
            finished: NOW,
            outcome: Outcome::Cancelled,
            counts: Counts::default(),
            cancel: Some(text.into()),
        },
    };
    let writes = vec![new_run("r"), note("r", 1, text.into()), cancel];
    journal.append(writes).await.await.unwrap();
    let events = journal.store().events(&"r".into(), 1, 9).await.unwrap();
    let message = text.to_owned();
    assert_eq!(events[0].event.kind, EventKind::Note { message });
    let end = journal.store().run(&"r".into()).await.unwrap().unwrap().end;
    // The column is for lists; the event is what counts.
    let said = end.unwrap().cancel.unwrap().replace('\u{fffd}', "\0");
    assert_eq!(said, text);
}

async fn many_appenders_share_commits(place: Place) {
    let journal = journal(&place).await;
    let began = std::time::Instant::now();
    let appenders = (0..64).map(|n| {
        let journal = journal.clone();
        tokio::spawn(async move {
            for position in 1..=50 {
                let writes = vec![event(&format!("r{n}"), position)];
                journal.append(writes).await.await.unwrap();
            }
        })
    });
    for appender in appenders.collect::<Vec<_>>() {
        appender.await.unwrap();
    }
    println!("3,200 events by 64 appenders in {:?}", began.elapsed());
    let store: Arc<dyn Store> = journal.store().clone();
    for n in 0..64 {
        let run = RunId(format!("r{n}"));
        assert_eq!(store.events(&run, 1, 99).await.unwrap().len(), 50);
    }
}
