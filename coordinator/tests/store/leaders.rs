//! Several coordinators on one PostgreSQL database: one leads, and an earlier one commits nothing.

use crate::both::{NOW, event, new_run};
use crate::cluster::Cluster;
use crate::{Leaders, lead};
use phalanx_coordinator::journal::{
    Journal, Past, RunEnd, SqliteStore, Store, StoreError, Write, copy,
};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::Counts;
use phalanx_shared::time::Timestamp;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

crate::cases!(Leaders:
    a_standby_goes_on_as_soon_as_the_leader_ends,
    an_earlier_leader_commits_nothing_whatever_it_believes,
    a_silent_leader_loses_its_lock,
    an_epoch_is_never_given_twice_not_even_by_a_restored_backup,
    a_commit_whose_answer_was_lost_is_not_made_twice,
    a_crashed_database_delays_commits_and_loses_none,
    a_journal_moves_to_another_storage_and_back,
    other_files_than_those_of_the_journal_are_refused,
    messages_name_no_password,
);

type Shared = Arc<Mutex<Cluster>>;

fn of(cluster: &Shared) -> MutexGuard<'_, Cluster> {
    cluster.lock().unwrap_or_else(PoisonError::into_inner)
}

fn name(url: &str) -> String {
    url.rsplit('/').next().unwrap().to_owned()
}

async fn a_standby_goes_on_as_soon_as_the_leader_ends(cluster: Shared) {
    let url = of(&cluster).database();
    let first = lead(&url, "files", &mut |_| {}).await.unwrap();
    let first = Journal::start(Arc::new(first), NOW).await.unwrap();
    first
        .0
        .append(vec![new_run("r"), event("r", 1)])
        .await
        .await
        .unwrap();
    let waited = Arc::new(AtomicBool::new(false));
    let (seen, told) = (waited.clone(), tokio::sync::oneshot::channel());
    let mut tell = Some(told.0);
    let at = url.clone();
    let standby = tokio::spawn(async move {
        let mut waits = |place: &str| {
            assert_eq!(place, "a test");
            seen.store(true, Ordering::SeqCst);
            tell.take().map(|tell| tell.send(()));
        };
        lead(&at, "files", &mut waits).await.unwrap()
    });
    told.1.await.unwrap();
    assert!(!standby.is_finished());
    let epoch = first.0.epoch();
    first.0.store().close().await;
    let second = standby.await.unwrap();
    assert!(waited.load(Ordering::SeqCst));
    let second = Journal::start(Arc::new(second), NOW).await.unwrap().0;
    assert!(second.epoch() > epoch);
    assert_eq!(
        second
            .store()
            .events(&"r".into(), 1, 9)
            .await
            .unwrap()
            .len(),
        1
    );
}

/// Takes the lock from its holder, as an operator or a partition would.
fn end_holder(cluster: &Shared, url: &str) {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted \
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    of(cluster).sql(&name(url), sql);
}

async fn an_earlier_leader_commits_nothing_whatever_it_believes(cluster: Shared) {
    let url = of(&cluster).database();
    let first = lead(&url, "files", &mut |_| {}).await.unwrap();
    first.begin_term(NOW).await.unwrap();
    first.commit(&[new_run("r"), event("r", 1)]).await.unwrap();
    let at = url.clone();
    let second = tokio::spawn(async move { lead(&at, "files", &mut |_| {}).await.unwrap() });
    // Whichever takes the free lock first: the earlier one takes it again unless the other one was faster.
    let second = loop {
        end_holder(&cluster, &url);
        tokio::time::sleep(Duration::from_millis(300)).await;
        if second.is_finished() {
            break second.await.unwrap();
        }
    };
    // A standby that has claimed the lead, and hasn't begun its term yet, stops the earlier one already.
    assert!(matches!(
        first.commit(&[event("r", 2)]).await,
        Err(StoreError::Deposed)
    ));
    second.begin_term(NOW).await.unwrap();
    assert!(matches!(
        first.commit(&[event("r", 2)]).await,
        Err(StoreError::Deposed)
    ));
    assert!(matches!(
        first.begin_term(NOW).await,
        Err(StoreError::Deposed)
    ));
    second.commit(&[event("r", 2)]).await.unwrap();
    assert_eq!(second.events(&"r".into(), 1, 9).await.unwrap().len(), 2);
    assert!(
        first
            .deposed()
            .await
            .contains("another coordinator leads: a test")
    );
    // A journal on it ends its appends with an error, and doesn't try for ever.
    let why = Journal::start(Arc::new(first), NOW).await.err().unwrap();
    assert!(matches!(why, StoreError::Deposed));
}

async fn a_silent_leader_loses_its_lock(cluster: Shared) {
    let url = of(&cluster).database();
    let first = lead(&url, "files", &mut |_| {}).await.unwrap();
    first.begin_term(NOW).await.unwrap();
    first.close().await;
    // Something that holds the lock and shows nothing, as a stopped process would.
    let lock = "SELECT pg_advisory_lock(hashtextextended('phalanx journal ' || current_schema(), 0)); SELECT pg_sleep(600)";
    let mut holder = of(&cluster).psql(&name(&url), lock).spawn().unwrap();
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    while of(&cluster).sql(&name(&url), held).trim() != "1" {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let second = lead(&url, "files", &mut |_| {}).await.unwrap();
    assert!(!holder.wait().unwrap().success());
    second.begin_term(NOW).await.unwrap();
    second.commit(&[event("r", 1)]).await.unwrap();
    assert!(matches!(
        first.commit(&[event("r", 1)]).await,
        Err(StoreError::Deposed | StoreError::Unavailable(_))
    ));
}

async fn an_epoch_is_never_given_twice_not_even_by_a_restored_backup(cluster: Shared) {
    let url = of(&cluster).database();
    let store = lead(&url, "files", &mut |_| {}).await.unwrap();
    let at = |second: i64| Timestamp(second * 1_000_000);
    assert_eq!(store.begin_term(at(500)).await.unwrap(), 500);
    // A clock that was set back.
    assert_eq!(store.begin_term(at(400)).await.unwrap(), 501);
    assert_eq!(store.begin_term(at(501)).await.unwrap(), 502);
    // The database of an hour ago.
    of(&cluster).sql(&name(&url), "UPDATE leader SET epoch = 7");
    assert_eq!(store.begin_term(at(4_000)).await.unwrap(), 4_000);
}

async fn a_commit_whose_answer_was_lost_is_not_made_twice(cluster: Shared) {
    let url = of(&cluster).database();
    let store = lead(&url, "files", &mut |_| {}).await.unwrap();
    store.begin_term(NOW).await.unwrap();
    store.commit(&[new_run("r"), event("r", 1)]).await.unwrap();
    // The server takes the commit and cuts the connection instead of an answer: a trigger at the end of the transaction
    // does so when the rows are in, so here the transaction is lost; and the other case, when the commit is made by hand.
    let cut = "CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$; \
               CREATE CONSTRAINT TRIGGER cut AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION cut()";
    of(&cluster).sql(&name(&url), cut);
    assert!(matches!(
        store.commit(&[event("r", 2)]).await,
        Err(StoreError::Unavailable(_))
    ));
    of(&cluster).sql(&name(&url), "DROP TRIGGER cut ON events");
    // It was lost: it is made now.
    store.commit(&[event("r", 2)]).await.unwrap();

    of(&cluster).sql(&name(&url), "CREATE CONSTRAINT TRIGGER cut AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION cut()");
    assert!(matches!(
        store.commit(&[event("r", 3)]).await,
        Err(StoreError::Unavailable(_))
    ));
    // It was made, as far as the database is concerned: the row is there, and the number of commits is higher.
    let made = "DROP TRIGGER cut ON events; UPDATE leader SET commits = commits + 1; \
                INSERT INTO events SELECT run, 3, cell, attempt, 3, at_us, mono_us, kind FROM events WHERE position = 1";
    of(&cluster).sql(&name(&url), made);
    store.commit(&[event("r", 3)]).await.unwrap();
    store.commit(&[event("r", 4)]).await.unwrap();
    assert_eq!(store.events(&"r".into(), 1, 9).await.unwrap().len(), 4);
}

async fn a_crashed_database_delays_commits_and_loses_none(_: Shared) {
    // A server of its own: it crashes.
    let cluster = Arc::new(Mutex::new(Cluster::start().unwrap()));
    let url = of(&cluster).database();
    let store = lead(&url, "files", &mut |_| {}).await.unwrap();
    let (journal, _writer) = Journal::start(Arc::new(store), NOW).await.unwrap();
    journal.append(vec![new_run("r")]).await.await.unwrap();
    let appending = journal.clone();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let writing = tokio::spawn(async move {
        let mut position = 0;
        while !stopped.load(Ordering::SeqCst) {
            position += 1;
            appending
                .append(vec![event("r", position)])
                .await
                .await
                .unwrap();
        }
        position
    });
    for _ in 0..3 {
        let crashing = cluster.clone();
        tokio::task::spawn_blocking(move || of(&crashing).crash())
            .await
            .unwrap();
        // A commit after each crash.
        journal.append(vec![]).await.await.unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    let last = writing.await.unwrap();
    let mut count = 0;
    loop {
        let part = journal
            .store()
            .events(&"r".into(), count + 1, 1_000)
            .await
            .unwrap();
        if part.is_empty() {
            break;
        }
        count += part.len() as u64;
    }
    assert_eq!(count, last);
    assert_eq!(*journal.health().borrow(), None);
}

async fn a_journal_moves_to_another_storage_and_back(cluster: Shared) {
    let place = tempfile::tempdir().unwrap();
    let sqlite = |name: &str| {
        let path = place.path().join(name);
        async move { SqliteStore::open(&path).await.unwrap() }
    };
    let first = sqlite("first.db").await;
    first.begin_term(NOW).await.unwrap();
    let many: Vec<_> = (1..=2_500).map(|position| event("r", position)).collect();
    first
        .commit(&[new_run("r"), new_run("open")])
        .await
        .unwrap();
    first.commit(&many).await.unwrap();
    let end = RunEnd {
        finished: NOW,
        outcome: Outcome::Passed,
        counts: Counts::default(),
        cancel: None,
    };
    let run = || "r".into();
    let writes = [
        Write::Finished { run: run(), end },
        Write::Settled { run: run() },
        Write::Duration {
            spec: "shop".into(),
            past: Past {
                cell: "c".into(),
                matrix: vec![],
                elapsed_ms: 5,
                snapshot: None,
            },
            at: NOW,
        },
        // A run with a hole can't be read, and the others are copied all the same.
        new_run("hole"),
        event("hole", 2),
    ];
    first.commit(&writes).await.unwrap();

    let url = of(&cluster).database();
    let second = lead(&url, "files", &mut |_| {}).await.unwrap();
    let copied = copy(&first, &second, Timestamp(9_000_000)).await.unwrap();
    assert_eq!((copied.runs, copied.events), (2, 2_500));
    assert!(
        copied.unread[0]
            .1
            .contains("event 1 of run hole is missing")
    );
    let again = copy(&first, &second, NOW).await.unwrap_err();
    assert!(again.to_string().contains("it has runs already"), "{again}");

    let third = sqlite("third.db").await;
    copy(&second, &third, NOW).await.unwrap();
    assert!(third.newest_epoch().await.unwrap() > second.newest_epoch().await.unwrap());
    assert!(third.begin_term(NOW).await.unwrap() > 9);
    assert_eq!(third.runs(9, true, None).await.unwrap().len(), 1);
    assert_eq!(
        third.run(&run()).await.unwrap(),
        first.run(&run()).await.unwrap()
    );
    assert_eq!(
        third.history("shop").await.unwrap(),
        first.history("shop").await.unwrap()
    );
    let last = third.events(&run(), 2_500, 9).await.unwrap();
    assert_eq!(last, first.events(&run(), 2_500, 9).await.unwrap());
}

async fn other_files_than_those_of_the_journal_are_refused(cluster: Shared) {
    let url = of(&cluster).database();
    let first = lead(&url, "files", &mut |_| {}).await.unwrap();
    first.close().await;
    let error = lead(&url, "others", &mut |_| {}).await.err().unwrap();
    let text = error.to_string();
    assert!(
        text.contains("share that directory with this one"),
        "{text}"
    );
    lead(&url, "files", &mut |_| {}).await.unwrap();
}

async fn messages_name_no_password(_: Shared) {
    let malformed = "not a URL of PostgreSQL";
    for (url, says) in [
        (
            "postgres://me@127.0.0.1:1/shop",
            "journal postgres://127.0.0.1:1/shop",
        ),
        ("postgres://me:canary-pass@127.0.0.1:1/shop", "PGPASSWORD"),
        (
            "postgres://me@127.0.0.1:1/shop?password=canary",
            "PGPASSWORD",
        ),
        (
            "postgres://me:canary-pass@127.0.0.1:notaport/shop",
            malformed,
        ),
        ("mysql://me:canary-pass@127.0.0.1/shop", malformed),
    ] {
        let error = lead(url, "files", &mut |_| {}).await.err().unwrap();
        let text = error.to_string();
        assert!(text.contains(says) && !text.contains("canary"), "{text}");
    }
}
