//! The audit log: who did what, from where, and with which result. Append-only, and each entry has a hash over itself and
//! the one before, so that a changed, removed or inserted entry is found.
//!
//! Cutting entries off the end isn't: whoever must be able to tell keeps the newest hash elsewhere.

use super::caller::Caller;
use super::secret::DIGEST;
use crate::journal::{StoreError, read_error, write_error};
use phalanx_shared::time::Timestamp;
use ring::digest::{Context, SHA256};
use serde_json::json;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Connection, Row, query};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Entries about refused calls that are written within [`WINDOW`]. Further ones are counted.
const REFUSED: u32 = 30;
const WINDOW: Duration = Duration::from_secs(60);
/// Longest text of an entry's part, in characters.
const TEXT: usize = 300;

/// What happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Happened {
    /// Id of the token that was used; empty for somebody unknown.
    pub token: String,
    /// Display name of whoever did it.
    pub name: String,
    /// The namespaces that the call was about.
    pub namespace: String,
    /// Where the call came from.
    pub from: String,
    /// The call.
    pub call: String,
    /// What it was about: a run, an agent, a token.
    pub about: String,
    /// `ok`, or why not.
    pub result: String,
}

impl Happened {
    /// Describes a call of somebody.
    pub fn by(caller: &Caller, call: &str, from: String) -> Happened {
        let identity = caller.identity();
        Happened {
            token: identity.map(|who| who.token.clone()).unwrap_or_default(),
            name: identity.map(|who| who.name.clone()).unwrap_or_default(),
            namespace: caller.scope().to_string(),
            from,
            call: call.to_owned(),
            ..Happened::default()
        }
    }

    /// Says what the call was about, and how it ended.
    #[must_use]
    pub fn ended(mut self, about: String, result: Result<(), String>) -> Happened {
        self.about = about;
        self.result = result.err().unwrap_or_else(|| "ok".to_owned());
        self
    }

    /// Cuts texts that came from outside.
    fn shortened(self) -> Happened {
        let short = |text: String| text.chars().take(TEXT).collect();
        let Happened {
            token,
            name,
            namespace,
            from,
            call,
            about,
            result,
        } = self;
        Happened {
            token: short(token),
            name: short(name),
            namespace: short(namespace),
            from: short(from),
            call: short(call),
            about: short(about),
            result: short(result),
        }
    }
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Number, from 1 without gaps.
    pub number: u64,
    /// When it was written.
    pub at: Timestamp,
    /// What happened.
    pub happened: Happened,
    /// Hash over this entry and the hash of the one before.
    pub hash: Vec<u8>,
}

impl Entry {
    /// Returns whether the entry follows one with this hash; the first follows [`BEGINNING`].
    pub fn follows(&self, before: &[u8]) -> bool {
        self.hash == hash(before, self.number, self.at, &self.happened)
    }
}

/// The hash before the first entry.
pub const BEGINNING: [u8; DIGEST] = [0; DIGEST];

/// Returns the hash of an entry.
fn hash(before: &[u8], number: u64, at: Timestamp, happened: &Happened) -> Vec<u8> {
    let Happened {
        token,
        name,
        namespace,
        from,
        call,
        about,
        result,
    } = happened;
    let mut context = Context::new(&SHA256);
    context.update(before);
    // JSON, so that no text can look like the border between two.
    let text = json!([
        number, at.0, token, name, namespace, from, call, about, result
    ]);
    context.update(text.to_string().as_bytes());
    context.finish().as_ref().to_vec()
}

/// The audit log of a coordinator. Cheap to clone.
#[derive(Clone)]
pub struct Audit {
    writer: SqlitePool,
    readers: SqlitePool,
    refused: Arc<Mutex<Refused>>,
}

/// Counts refused calls, so that strangers can't fill the disk.
#[derive(Debug, Default)]
struct Refused {
    since: Duration,
    written: u32,
    more: u64,
}

impl Refused {
    /// Returns whether one more may be written, and how many weren't before.
    fn admit(&mut self, now: Duration) -> Option<u64> {
        if now.saturating_sub(self.since) >= WINDOW {
            self.since = now;
            self.written = 0;
        }
        if self.written >= REFUSED {
            self.more += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.more))
    }
}

impl Audit {
    /// Returns the log in a database.
    pub(super) fn in_pools(writer: SqlitePool, readers: SqlitePool) -> Audit {
        Audit {
            writer,
            readers,
            refused: Arc::default(),
        }
    }

    /// Adds an entry. It is on disk when this returns.
    pub async fn add(&self, happened: Happened, at: Timestamp) -> Result<(), StoreError> {
        let happened = happened.shortened();
        let mut connection = self.writer.acquire().await.map_err(write_error)?;
        let added = async {
            // Another process may write too, so the newest entry is read within the transaction that adds one.
            let mut tx = connection
                .begin_with("BEGIN IMMEDIATE")
                .await
                .map_err(write_error)?;
            let newest = query("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1")
                .fetch_optional(&mut *tx)
                .await
                .map_err(write_error)?;
            let (number, before) = match newest {
                None => (0, BEGINNING.to_vec()),
                Some(row) => (
                    row.try_get::<i64, _>("number").map_err(read_error)?,
                    row.try_get("hash").map_err(read_error)?,
                ),
            };
            let number = number + 1;
            let position = u64::try_from(number).unwrap_or_default();
            let hash = hash(&before, position, at, &happened);
            query(
                "INSERT INTO audit (number, at_us, token, name, namespace, origin, call, about, result, hash) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(number)
            .bind(at.0)
            .bind(&happened.token)
            .bind(&happened.name)
            .bind(&happened.namespace)
            .bind(&happened.from)
            .bind(&happened.call)
            .bind(&happened.about)
            .bind(&happened.result)
            .bind(hash)
            .execute(&mut *tx)
            .await
            .map_err(write_error)?;
            tx.commit().await.map_err(write_error)
        };
        let added: Result<(), StoreError> = added.await;
        if added.is_err() {
            // As in the journal: after a failed transaction, the next one gets a new connection.
            let _ = connection.close().await;
        }
        added
    }

    /// Adds an entry about a refused call, unless there were too many.
    pub async fn add_refused(
        &self,
        mut happened: Happened,
        at: Timestamp,
        now: Duration,
    ) -> Result<(), StoreError> {
        let admitted = {
            // Nothing panics while it is locked.
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            refused.admit(now)
        };
        match admitted {
            None => Ok(()),
            Some(more) => {
                if more > 0 {
                    happened.about = format!("{more} more refused calls before this one");
                }
                self.add(happened, at).await
            }
        }
    }

    /// Returns up to `limit` entries from a number and a time on, of a namespace or of all.
    pub async fn list(
        &self,
        from: u64,
        since: Timestamp,
        namespace: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Entry>, StoreError> {
        let rows = query(
            "SELECT * FROM audit WHERE number >= ?1 AND at_us >= ?2 AND (?3 IS NULL OR namespace = ?3) ORDER BY number LIMIT ?4",
        )
        .bind(i64::try_from(from).unwrap_or(i64::MAX))
        .bind(since.0)
        .bind(namespace)
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .map_err(read_error)?;
        rows.iter().map(entry).collect()
    }
}

fn entry(row: &SqliteRow) -> Result<Entry, StoreError> {
    let text = |column: &str| row.try_get::<String, _>(column).map_err(read_error);
    let number: i64 = row.try_get("number").map_err(read_error)?;
    Ok(Entry {
        number: u64::try_from(number).unwrap_or_default(),
        at: Timestamp(row.try_get("at_us").map_err(read_error)?),
        happened: Happened {
            token: text("token")?,
            name: text("name")?,
            namespace: text("namespace")?,
            from: text("origin")?,
            call: text("call")?,
            about: text("about")?,
            result: text("result")?,
        },
        hash: row.try_get("hash").map_err(read_error)?,
    })
}

/// Checks a whole log, entry by entry.
#[derive(Debug)]
pub struct Check {
    entries: u64,
    hash: Vec<u8>,
}

impl Default for Check {
    fn default() -> Check {
        Check {
            entries: 0,
            hash: BEGINNING.to_vec(),
        }
    }
}

impl Check {
    /// Checks the next entry. Returns an error if it isn't the one that was written after the one before.
    pub fn next(&mut self, entry: &Entry) -> Result<(), String> {
        let expected = self.entries + 1;
        if entry.number != expected {
            return Err(format!(
                "entry {expected} is missing: after it comes {}",
                entry.number
            ));
        }
        if !entry.follows(&self.hash) {
            return Err(format!(
                "entry {expected} was changed, or the one before it: its hash is another"
            ));
        }
        self.entries = expected;
        self.hash.clone_from(&entry.hash);
        Ok(())
    }

    /// Returns the number of entries, and the newest hash.
    pub fn end(self) -> (u64, String) {
        (self.entries, hex::encode(self.hash))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::journal::SqliteStore;

    const NOW: Timestamp = Timestamp(7);

    fn happened(call: &str) -> Happened {
        let happened = Happened {
            call: call.to_owned(),
            from: "10.0.0.1:5".to_owned(),
            ..Happened::default()
        };
        happened.ended("run r".to_owned(), Ok(()))
    }

    async fn open(place: &std::path::Path) -> (SqliteStore, Audit) {
        let store = SqliteStore::open(&place.join("journal.db")).await.unwrap();
        let (writer, readers) = store.pools().unwrap();
        (store, Audit::in_pools(writer, readers))
    }

    async fn checked(audit: &Audit) -> Result<u64, String> {
        let mut check = Check::default();
        for entry in audit.list(0, Timestamp(0), None, 1_000).await.unwrap() {
            check.next(&entry)?;
        }
        Ok(check.end().0)
    }

    #[tokio::test]
    async fn each_entry_follows_the_one_before_and_a_changed_one_is_found() {
        let place = tempfile::tempdir().unwrap();
        let (_store, audit) = open(place.path()).await;
        for call in ["a", "b", "c", "d"] {
            audit.add(happened(call), NOW).await.unwrap();
        }
        assert_eq!(checked(&audit).await, Ok(4));
        let entries = audit.list(2, Timestamp(0), None, 2).await.unwrap();
        let calls: Vec<&str> = entries.iter().map(|e| e.happened.call.as_str()).collect();
        assert_eq!(calls, ["b", "c"]);
        assert!(
            audit
                .list(0, Timestamp(8), None, 9)
                .await
                .unwrap()
                .is_empty()
        );
        // The database itself refuses changes; whoever can remove its triggers is found by the hashes.
        for sql in ["UPDATE audit SET name = 'x'", "DELETE FROM audit"] {
            let error = sqlx::query(sql).execute(&audit.writer).await.unwrap_err();
            assert!(error.to_string().contains("append-only"), "{error}");
        }
        sqlx::query("DROP TRIGGER audit_is_never_changed")
            .execute(&audit.writer)
            .await
            .unwrap();
        sqlx::query("UPDATE audit SET result = 'refused' WHERE number = 2")
            .execute(&audit.writer)
            .await
            .unwrap();
        let found = checked(&audit).await.unwrap_err();
        assert!(found.contains("entry 2"), "{found}");
    }

    #[tokio::test]
    async fn a_removed_entry_is_found() {
        let place = tempfile::tempdir().unwrap();
        let (_store, audit) = open(place.path()).await;
        for call in ["a", "b", "c"] {
            audit.add(happened(call), NOW).await.unwrap();
        }
        sqlx::query("DROP TRIGGER audit_is_never_shortened")
            .execute(&audit.writer)
            .await
            .unwrap();
        sqlx::query("DELETE FROM audit WHERE number = 2")
            .execute(&audit.writer)
            .await
            .unwrap();
        assert!(checked(&audit).await.unwrap_err().contains("entry 2"));
    }

    #[tokio::test]
    async fn refused_calls_are_bounded_and_those_left_out_are_counted() {
        let place = tempfile::tempdir().unwrap();
        let (_store, audit) = open(place.path()).await;
        for _ in 0..REFUSED + 5 {
            let refused = audit.add_refused(happened("x"), NOW, Duration::ZERO);
            refused.await.unwrap();
        }
        assert_eq!(checked(&audit).await, Ok(REFUSED.into()));
        let later = audit.add_refused(happened("x"), NOW, WINDOW);
        later.await.unwrap();
        let newest = audit.list(u64::from(REFUSED) + 1, NOW, None, 9).await;
        let about = newest.unwrap().remove(0).happened.about;
        assert!(about.starts_with("5 more"), "{about}");
    }

    #[tokio::test]
    async fn two_that_write_at_once_make_one_chain() {
        let place = tempfile::tempdir().unwrap();
        let (store, audit) = open(place.path()).await;
        let pool = SqliteStore::pool_beside(store.path()).await.unwrap();
        let beside = Audit::in_pools(pool.clone(), pool);
        let write = async |audit: &Audit| {
            for _ in 0..20 {
                audit.add(happened("x"), NOW).await.unwrap();
            }
        };
        tokio::join!(write(&audit), write(&beside));
        assert_eq!(checked(&audit).await, Ok(40));
    }

    #[test]
    fn long_texts_are_cut() {
        let long = happened(&"x".repeat(10_000)).shortened();
        assert_eq!(long.call.len(), TEXT);
    }
}
