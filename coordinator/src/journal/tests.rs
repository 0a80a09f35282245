#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use crate::journal::Past;
use async_trait::async_trait;
use phalanx_shared::event::{AttemptRef, Event, EventKind, Recorded};
use phalanx_shared::id::RunId;
use phalanx_shared::namespace::Namespace;
use phalanx_shared::time::Timestamp;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const NOW: Timestamp = Timestamp(1_000_000);

fn event(run: &str, position: u64) -> Write {
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
            kind: EventKind::Note {
                message: format!("note {position}"),
            },
        },
    })
}

async fn open(directory: &std::path::Path) -> Journal {
    let store = SqliteStore::open(&directory.join("journal.db"))
        .await
        .unwrap();
    Journal::start(Arc::new(store), NOW).await.unwrap().0
}

#[tokio::test]
async fn a_journal_of_the_first_schema_is_brought_up_to_date_with_all_its_events() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("journal.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true);
    let old = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let mut first = sqlx::migrate!("src/journal/migrations");
    first.migrations.to_mut().truncate(1);
    first.run(&old).await.unwrap();
    for (run, position) in [("b", 1), ("a", 1), ("a", 2)] {
        let kind = r#"{"kind":"note","message":"kept"}"#;
        sqlx::query("INSERT INTO events VALUES (?, ?, 'c', 1, ?, 5, 6, ?)")
            .bind(run)
            .bind(position)
            .bind(position)
            .bind(kind)
            .execute(&old)
            .await
            .unwrap();
    }
    old.close().await;
    let store = SqliteStore::open(&path).await.unwrap();
    let events = store.events(&"a".into(), 1, 10).await.unwrap();
    let positions: Vec<u64> = events.iter().map(|e| e.position).collect();
    assert_eq!(positions, [1, 2]);
    assert_eq!(
        (events[1].event.at, events[1].event.mono_us),
        (Timestamp(5), 6)
    );
    let message = "kept".to_owned();
    assert_eq!(events[1].event.kind, EventKind::Note { message });
    assert_eq!(store.events(&"b".into(), 1, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn lists_look_ups_and_clean_up_read_no_submission() {
    let place = tempfile::tempdir().unwrap();
    let journal = open(place.path()).await;
    let long = Submission {
        files: vec![phalanx_shared::diagnostic::Source {
            name: "spec.yaml".to_owned(),
            text: "x".repeat(1 << 20),
        }],
        workspace_digest: Some("d1".to_owned()),
        ..Submission::default()
    };
    let new = |run: &str| {
        Write::Run(Box::new(NewRun {
            run: run.into(),
            submitted: NOW,
            spec: "shop".into(),
            digest: "d".into(),
            cells: 3,
            submission: long.clone(),
            namespace: Namespace::default(),
            owner: String::new(),
        }))
    };
    let writes = vec![new("abc1"), new("abc2"), new("abd"), new("ab%")];
    journal.append(writes).await.await.unwrap();
    let store = journal.store();
    let found = |text: &'static str| store.beginning_with(text, 9, None);
    assert_eq!(found("abc").await.unwrap(), ["abc1".into(), "abc2".into()]);
    assert_eq!(found("abd").await.unwrap(), ["abd".into()]);
    assert_eq!(found("ab%").await.unwrap(), ["ab%".into()]);
    assert!(found("x").await.unwrap().is_empty());
    assert_eq!(store.workspaces().await.unwrap(), ["d1".to_owned()].into());
    let whole = store.run(&"abd".into()).await.unwrap().unwrap();
    assert_eq!(whole.new.submission, long);
    // The list is read from the index alone.
    let path = place.path().join("journal.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    let plan = "EXPLAIN QUERY PLAN SELECT run, submitted_us, spec, digest, cells, finished_us, outcome, counts, cancel, settled \
                FROM runs WHERE settled = 0 OR NOT 1 ORDER BY submitted_us DESC, run DESC LIMIT 9";
    let rows = sqlx::query(plan).fetch_all(&mut connection).await.unwrap();
    let plan: Vec<String> = rows
        .iter()
        .map(|row| sqlx::Row::get(row, "detail"))
        .collect();
    assert!(plan.join("\n").contains("COVERING INDEX"), "{plan:?}");
}

#[tokio::test]
async fn a_second_coordinator_on_the_same_database_is_refused_by_name() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("journal.db");
    let _first = SqliteStore::open(&path).await.unwrap();
    let Err(error) = SqliteStore::open(&path).await else {
        panic!("it was opened twice");
    };
    let text = error.to_string();
    let pid = format!("process {}", std::process::id());
    assert!(
        text.contains("in use by another coordinator") && text.contains(&pid),
        "{text}"
    );
}

/// A store whose disk is full for its first commits.
struct Full {
    store: SqliteStore,
    refusals: AtomicU32,
}

#[async_trait]
impl Store for Full {
    async fn begin_term(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.store.begin_term(now).await
    }
    async fn newest_epoch(&self) -> Result<u64, StoreError> {
        self.store.newest_epoch().await
    }
    async fn raise_epoch(&self, epoch: u64) -> Result<(), StoreError> {
        self.store.raise_epoch(epoch).await
    }
    async fn commit(&self, writes: &[Write]) -> Result<(), StoreError> {
        if self.refusals.load(Ordering::SeqCst) > 0 {
            self.refusals.fetch_sub(1, Ordering::SeqCst);
            return Err(StoreError::Unavailable("the disk is full".into()));
        }
        self.store.commit(writes).await
    }
    async fn run(&self, run: &RunId) -> Result<Option<RunRow>, StoreError> {
        self.store.run(run).await
    }
    async fn runs(
        &self,
        limit: u32,
        open: bool,
        within: Option<&Namespace>,
    ) -> Result<Vec<RunHead>, StoreError> {
        self.store.runs(limit, open, within).await
    }
    async fn beginning_with(
        &self,
        text: &str,
        limit: u32,
        within: Option<&Namespace>,
    ) -> Result<Vec<RunId>, StoreError> {
        self.store.beginning_with(text, limit, within).await
    }
    async fn has_workspace(&self, digest: &str, namespace: &Namespace) -> Result<bool, StoreError> {
        self.store.has_workspace(digest, namespace).await
    }
    async fn workspaces(&self) -> Result<HashSet<String>, StoreError> {
        self.store.workspaces().await
    }
    async fn settled_before(&self, before: Timestamp) -> Result<Vec<RunId>, StoreError> {
        self.store.settled_before(before).await
    }
    async fn events(
        &self,
        run: &RunId,
        from: u64,
        limit: u32,
    ) -> Result<Vec<Recorded>, StoreError> {
        self.store.events(run, from, limit).await
    }
    async fn history(&self, spec: &str) -> Result<Vec<Past>, StoreError> {
        self.store.history(spec).await
    }
    async fn check(&self) -> Result<(), String> {
        self.store.check().await
    }
    async fn close(&self) {
        self.store.close().await;
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_waited_for_and_nothing_is_lost() {
    let place = tempfile::tempdir().unwrap();
    let store = Full {
        store: SqliteStore::open(&place.path().join("journal.db"))
            .await
            .unwrap(),
        refusals: AtomicU32::new(2),
    };
    let (journal, _writer) = Journal::start(Arc::new(store), NOW).await.unwrap();
    let mut health = journal.health();
    let durable = journal.append(vec![event("r", 1)]).await;
    health
        .wait_for(|h| h.as_deref() == Some("the disk is full"))
        .await
        .unwrap();
    durable.await.unwrap();
    assert_eq!(*health.borrow(), None);
    assert_eq!(
        journal
            .store()
            .events(&"r".into(), 1, 9)
            .await
            .unwrap()
            .len(),
        1
    );
}
