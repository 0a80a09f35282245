//! Looks at a journal before anything is done with it: what is damaged is reported with what to do, and no run is gone without a word.
//!
//! Rows whose text can't be read are not looked for here: each concerns one run, which is parked alone.

use super::mark::Mark;
use super::store::StoreError;
use sqlx::migrate::MigrateError;
use sqlx::sqlite::SqlitePool;
use std::path::Path;

/// A file up to this size is checked before the start: about two seconds for each GiB that is in memory, as long as the disk takes else.
/// A larger one is checked beside the running coordinator, and what is found is in `/healthz`.
pub(super) const AT_START_BYTES: u64 = 2 << 30;
/// The tables that this version reads and writes.
const TABLES: [&str; 4] = ["durations", "events", "runs", "terms"];

/// The error of a damaged journal, with what to do.
pub(super) fn damaged(path: &Path, found: &str) -> StoreError {
    let file = path.display();
    StoreError::Damaged {
        path: path.to_owned(),
        found: found.to_owned(),
        help: format!(
            "restore {file} from a backup, or save what can be read: sqlite3 {file} .recover | sqlite3 recovered.db (in both cases remove {file}-wal, {file}-shm and {file}.mark then); \
             to begin anew move all of them away"
        ),
    }
}

/// An error on the way to an open journal.
pub(super) fn opening(path: &Path, error: &sqlx::Error) -> StoreError {
    let text = error.to_string();
    if says_damaged(&text) {
        return damaged(path, &text);
    }
    StoreError::Unusable {
        path: path.to_owned(),
        reason: text,
    }
}

/// Whether SQLite says that a file isn't what it should be.
pub(super) fn says_damaged(text: &str) -> bool {
    text.contains("malformed") || text.contains("not a database") || text.contains("corrupt")
}

/// Refuses what a later version wrote.
pub(super) async fn version(pool: &SqlitePool, path: &Path) -> Result<(), StoreError> {
    let version: i64 = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(pool)
        .await
        .map_err(|error| opening(path, &error))?;
    if version != 0 {
        return Err(later(path, &format!("its layout is number {version}")));
    }
    Ok(())
}

/// An error of the migrations.
pub(super) fn migrating(path: &Path, error: MigrateError) -> StoreError {
    match error {
        MigrateError::VersionMissing(number) => later(path, &format!("it has the change {number}")),
        MigrateError::VersionMismatch(number) => damaged(
            path,
            &format!("what it says of its change {number} isn't what this version made"),
        ),
        MigrateError::Dirty(number) => damaged(
            path,
            &format!("its change {number} was begun and not ended"),
        ),
        error if says_damaged(&error.to_string()) => damaged(path, &error.to_string()),
        error => StoreError::Unusable {
            path: path.to_owned(),
            reason: format!("its schema can't be brought up to date: {error}"),
        },
    }
}

fn later(path: &Path, what: &str) -> StoreError {
    StoreError::Unusable {
        path: path.to_owned(),
        reason: format!(
            "a later version of phalanx wrote it ({what}): start that version, or give this one another state directory"
        ),
    }
}

/// Whether all tables are there.
pub(super) async fn tables(pool: &SqlitePool, path: &Path) -> Result<(), StoreError> {
    let names: Vec<String> =
        sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'table'")
            .fetch_all(pool)
            .await
            .map_err(|error| opening(path, &error))?;
    let missing = TABLES
        .iter()
        .find(|table| !names.iter().any(|name| name == **table));
    match missing {
        Some(table) => Err(damaged(path, &format!("its table {table} is missing"))),
        None => Ok(()),
    }
}

/// SQLite's own look at every page: what it finds, if anything.
pub(super) async fn pages(pool: &SqlitePool) -> Result<(), String> {
    // Five findings are enough to tell.
    let found: Result<Vec<String>, sqlx::Error> = sqlx::query_scalar("PRAGMA quick_check(5)")
        .fetch_all(pool)
        .await;
    match found {
        Ok(found) if found.iter().all(|line| line == "ok") => Ok(()),
        Ok(found) => Err(found.join("; ").replace('\n', " ")),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether everything is there that was durable when the journal was written last.
pub(super) async fn newest(pool: &SqlitePool, path: &Path, mark: &Mark) -> Result<(), StoreError> {
    let lost = |what: String| {
        let file = path.display();
        StoreError::Damaged {
            path: path.to_owned(),
            found: format!(
                "it has lost its newest entries: {what} was written and isn't there any more (was {file}-wal removed, cut or changed?)"
            ),
            help: format!(
                "restore it from a backup; to go on with what is there, remove {file}.mark"
            ),
        }
    };
    let read = |error: sqlx::Error| opening(path, &error);
    let epoch: Option<i64> = sqlx::query_scalar("SELECT max(epoch) FROM terms")
        .fetch_one(pool)
        .await
        .map_err(read)?;
    if u64::try_from(epoch.unwrap_or(0)).unwrap_or(0) < mark.epoch {
        return Err(lost(format!("start {}", mark.epoch)));
    }
    let Some((run, position)) = &mark.newest else {
        return Ok(());
    };
    let newest: Option<i64> = sqlx::query_scalar("SELECT max(position) FROM events WHERE run = ?")
        .bind(run.as_str())
        .fetch_one(pool)
        .await
        .map_err(read)?;
    if u64::try_from(newest.unwrap_or(0)).unwrap_or(0) < *position {
        return Err(lost(format!("event {position} of run {run}")));
    }
    Ok(())
}
