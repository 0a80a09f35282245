//! The journal's storage, in SQLite and in PostgreSQL: the same tests on both, and the change of leaders on PostgreSQL.
//! Without a PostgreSQL server its tests are reported as ignored, by name.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)]

mod both;
#[allow(dead_code)] // Each test program uses a part.
mod cluster;
mod leaders;

use cluster::Cluster;
use libtest_mimic::{Arguments, Failed, Trial};
use phalanx_coordinator::journal::{Lead, PostgresStore, SqliteStore, Store};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// No test takes longer than this.
const LIMIT: Duration = Duration::from_secs(120);

/// An empty database for a test, which can be opened again after it was closed.
pub enum Place {
    Sqlite(tempfile::TempDir),
    Postgres(String),
}

impl Place {
    pub async fn open(&self) -> Arc<dyn Store> {
        match self {
            Place::Sqlite(place) => {
                let path = place.path().join("journal.db");
                Arc::new(SqliteStore::open(&path).await.unwrap())
            }
            Place::Postgres(url) => Arc::new(lead(url, "files", &mut |_| {}).await.unwrap()),
        }
    }
}

/// Waits for the lead on a database.
pub async fn lead(
    url: &str,
    files: &str,
    waits: &mut (dyn FnMut(&str) + Send),
) -> Result<PostgresStore, phalanx_coordinator::journal::StoreError> {
    let lead = Lead {
        url,
        place: "a test",
        files,
        patience: Duration::from_secs(5),
        waits,
    };
    PostgresStore::lead(lead).await
}

type Run = Pin<Box<dyn Future<Output = ()> + Send>>;
pub type Both = (&'static str, fn(Place) -> Run);
pub type Leaders = (&'static str, fn(Arc<Mutex<Cluster>>) -> Run);

/// Names a test function's case after the function.
#[macro_export]
macro_rules! cases {
    ($kind:ty: $($name:ident),* $(,)?) => {
        pub const CASES: &[$kind] = &[$((stringify!($name), |of| Box::pin($name(of)))),*];
    };
}

fn main() {
    let arguments = Arguments::from_args();
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let cluster = match arguments.list {
        true => Err("only a list".to_owned()),
        false => Cluster::start().map(|cluster| Arc::new(Mutex::new(cluster))),
    };
    if let Err(why) = &cluster {
        println!("tests of PostgreSQL are ignored: {why}");
    }
    let trial = |name: String, run: Option<Box<dyn FnOnce() -> Run + Send>>| {
        let Some(run) = run else {
            return Trial::test(name, || Ok(())).with_ignored_flag(true);
        };
        let handle = tokio.handle().clone();
        Trial::test(name, move || {
            let _entered = handle.enter();
            let task = handle.spawn(tokio::time::timeout(LIMIT, run()));
            match handle.block_on(task) {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(Failed::from(format!("not done within {LIMIT:?}"))),
                Err(panic) => Err(Failed::from(text(panic))),
            }
        })
    };
    let mut trials = Vec::new();
    for (name, run) in both::CASES {
        let place = move || run(Place::Sqlite(tempfile::tempdir().unwrap()));
        trials.push(trial(format!("sqlite::{name}"), Some(Box::new(place))));
        let cluster = cluster.clone().ok().map(|cluster| {
            let run: Box<dyn FnOnce() -> Run + Send> = Box::new(move || {
                let url = cluster
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .database();
                run(Place::Postgres(url))
            });
            run
        });
        trials.push(trial(format!("postgres::{name}"), cluster));
    }
    for (name, run) in leaders::CASES {
        let cluster = cluster.clone().ok().map(|cluster| {
            let run: Box<dyn FnOnce() -> Run + Send> = Box::new(move || run(cluster));
            run
        });
        trials.push(trial(format!("leaders::{name}"), cluster));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    // The server ends with the last handle, so before the exit.
    drop(cluster);
    conclusion.exit()
}

fn text(panic: tokio::task::JoinError) -> String {
    let panic = panic.into_panic();
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without a text".to_owned())
}
