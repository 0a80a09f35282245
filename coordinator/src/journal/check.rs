//! Checks a journal before it is used: damage is reported with what to do about it, so that no run is lost silently.
//!
//! It doesn't look for rows with unreadable text: each concerns only one run, which is parked by itself.

use super::mark::Mark;
use super::store::StoreError;
use sqlx::migrate::MigrateError;
use sqlx::sqlite::SqlitePool;
use std::path::Path;

/// Files up to this size are checked before the start. This takes about two seconds per GiB if the file is in memory,
/// otherwise as long as the disk needs. Larger files are checked while the coordinator runs, and findings appear in
/// `/healthz`.
pub(super) const AT_START_BYTES: u64 = 2 << 30;
/// The tables that this version reads and writes.
const TABLES: [&str; 10] = [
    "access_tokens",
    "audit",
    "certificates",
    "durations",
    "enrol_tokens",
    "events",
    "identities",
    "runs",
    "snapshot_times",
    "terms",
];

/// Returns the error for a damaged journal, with what to do.
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

/// Converts an error that occurred while opening the journal.
pub(super) fn opening(path: &Path, error: &sqlx::Error) -> StoreError {
    let text = error.to_string();
    if means_damage(error) {
        return damaged(path, &text);
    }
    StoreError::Unusable {
        path: path.to_owned(),
        reason: text,
    }
}

/// SQLite's result code for a file whose content is malformed.
const SQLITE_CORRUPT: i64 = 11;
/// SQLite's result code for a file that isn't a database.
const SQLITE_NOTADB: i64 = 26;

/// Returns the primary result code of an error, if it comes from SQLite.
pub(super) fn primary_code(error: &sqlx::Error) -> Option<i64> {
    let code = error.as_database_error()?.code()?;
    // The higher bits tell where it occurred.
    code.parse::<i64>().ok().map(|code| code & 0xff)
}

/// Returns whether an error of SQLite means that the file is damaged.
fn means_damage(error: &sqlx::Error) -> bool {
    matches!(primary_code(error), Some(SQLITE_CORRUPT | SQLITE_NOTADB))
}

/// Returns an error if a later version wrote the database.
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

/// Converts an error of the migrations.
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
        MigrateError::Execute(ref inner) | MigrateError::ExecuteMigration(ref inner, _)
            if means_damage(inner) =>
        {
            damaged(path, &error.to_string())
        }
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

/// Returns an error if a table is missing.
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

/// Returns an error if a definition in the schema isn't text. SQLite doesn't check that, and sqlx panics in its worker
/// thread when it reads the type of such a column.
pub(super) async fn schema(pool: &SqlitePool, path: &Path) -> Result<(), StoreError> {
    let definitions: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT CAST(name || ' ' || coalesce(sql, '') AS BLOB) FROM sqlite_schema",
    )
    .fetch_all(pool)
    .await
    .map_err(|error| opening(path, &error))?;
    match definitions
        .iter()
        .all(|text| std::str::from_utf8(text).is_ok())
    {
        true => Ok(()),
        false => Err(damaged(path, "its schema has bytes that aren't text")),
    }
}

/// Lets SQLite check every page. Returns its findings as an error.
pub(super) async fn pages(pool: &SqlitePool) -> Result<(), String> {
    // Five findings are enough for a report.
    let found: Result<Vec<String>, sqlx::Error> = sqlx::query_scalar("PRAGMA quick_check(5)")
        .fetch_all(pool)
        .await;
    match found {
        Ok(found) if found.iter().all(|line| line == "ok") => Ok(()),
        Ok(found) => Err(found.join("; ").replace('\n', " ")),
        Err(error) => Err(error.to_string()),
    }
}

/// Returns an error if entries are missing that were durable when the journal was last written.
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
