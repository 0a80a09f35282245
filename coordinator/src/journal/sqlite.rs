//! The journal in SQLite: WAL, `synchronous = FULL`, one connection that writes, a few that read.

use super::check;
use super::database::{Database, written};
use super::lock::Lock;
use super::mark::MarkFile;
use super::rows::{
    self, EndColumns, EventColumns, READ_BYTES, Reading, read, refused, signed, unsigned,
};
use super::store::{
    NewRun, PastSnapshot, RunEnd, RunHead, RunRow, Store, StoreError, Submission, Write, past,
};
use crate::journal::Past;
use async_trait::async_trait;
use futures::StreamExt;
use futures::future::BoxFuture;
use phalanx_shared::event::Recorded;
use phalanx_shared::id::RunId;
use phalanx_shared::namespace::Namespace;
use phalanx_shared::time::Timestamp;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{Connection, QueryBuilder, Row, Sqlite};
use std::collections::HashSet;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Maximum rows of one INSERT: with eight columns each, they stay below SQLite's limit on variables.
const ROWS: usize = 2_000;
/// Rows read ahead: an event may have several megabytes.
const AHEAD: usize = 4;
/// Number of connections that read.
const READERS: u32 = 4;

/// A journal in one SQLite file.
pub struct SqliteStore {
    /// `None` if the store is open for reading only.
    writer: Option<SqlitePool>,
    readers: SqlitePool,
    path: PathBuf,
    /// `None` if the store is open for reading only.
    mark: Option<MarkFile>,
    /// Whether all pages were checked when it was opened.
    checked: bool,
    /// Whether runs have a namespace: not in a database of an earlier version that is open for reading only.
    namespaces: bool,
    _lock: Option<Lock>,
}

impl SqliteStore {
    /// Opens a database and creates it if necessary. Checks it for damage and updates its schema. Returns an error
    /// while another coordinator has it open.
    pub fn open(path: &Path) -> BoxFuture<'_, Result<SqliteStore, StoreError>> {
        Box::pin(Self::open_for_writing(path))
    }

    async fn open_for_writing(path: &Path) -> Result<SqliteStore, StoreError> {
        let unusable = |reason: String| StoreError::Unusable {
            path: path.to_owned(),
            reason,
        };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(|e| unusable(e.to_string()))?;
        }
        let lock = Lock::acquire(path)?;
        // SQLite gives the files beside it the same mode.
        private(path).map_err(|e| unusable(e.to_string()))?;
        let mark = MarkFile::open(path).map_err(|e| unusable(format!("its mark file: {e}")))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10));
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options.clone())
            .await
            .map_err(|error| check::opening(path, &error))?;
        check::schema(&writer, path).await?;
        check::version(&writer, path).await?;
        let bytes = path.metadata().map_or(0, |meta| meta.len());
        let checked = bytes <= check::AT_START_BYTES;
        if checked {
            let pages = check::pages(&writer).await;
            pages.map_err(|found| check::damaged(path, &found))?;
        }
        sqlx::migrate!("src/journal/migrations")
            .run(&writer)
            .await
            .map_err(|error| check::migrating(path, error))?;
        check::tables(&writer, path).await?;
        check::newest(&writer, path, &mark.get()).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            // Rows are read ahead, and each may be as large as an event.
            .connect_with(
                options
                    .read_only(true)
                    .create_if_missing(false)
                    .row_buffer_size(AHEAD),
            )
            .await
            .map_err(|error| check::opening(path, &error))?;
        Ok(SqliteStore {
            writer: Some(writer),
            readers,
            path: path.to_owned(),
            mark: Some(mark),
            checked,
            namespaces: true,
            _lock: Some(lock),
        })
    }

    /// Opens a database for reading only, even while a coordinator writes to it.
    pub fn open_for_reading(path: &Path) -> BoxFuture<'_, Result<SqliteStore, StoreError>> {
        Box::pin(Self::open_read_only(path))
    }

    async fn open_read_only(path: &Path) -> Result<SqliteStore, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .busy_timeout(Duration::from_secs(10));
        let readers = SqlitePoolOptions::new().max_connections(READERS);
        let readers = readers.connect_with(options).await;
        let readers = readers.map_err(|error| check::opening(path, &error))?;
        check::schema(&readers, path).await?;
        let namespaces: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pragma_table_info('runs') WHERE name = 'namespace'",
        )
        .fetch_one(&readers)
        .await
        .map_err(|error| check::opening(path, &error))?;
        Ok(SqliteStore {
            writer: None,
            namespaces: namespaces > 0,
            readers,
            path: path.to_owned(),
            mark: None,
            checked: false,
            _lock: None,
        })
    }

    /// Returns the connections that write and those that read, for other tables of the database.
    pub(crate) fn pools(&self) -> Result<(SqlitePool, SqlitePool), StoreError> {
        Ok((self.writer()?.clone(), self.readers.clone()))
    }

    /// Opens a database that a coordinator of this machine has open, to write single rows of other tables than the
    /// journal's. SQLite lets one process write after the other.
    pub(crate) async fn pool_beside(path: &Path) -> Result<SqlitePool, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10));
        let pool = SqlitePoolOptions::new().max_connections(1);
        let pool = pool.connect_with(options).await;
        let pool = pool.map_err(|error| check::opening(path, &error))?;
        check::tables(&pool, path).await?;
        Ok(pool)
    }

    fn writer(&self) -> Result<&SqlitePool, StoreError> {
        let refused = || StoreError::Refused("it is open for reading only".to_owned());
        self.writer.as_ref().ok_or_else(refused)
    }

    /// Updates the mark after a commit.
    fn mark(&self, writes: &[Write]) {
        let Some(mark) = &self.mark else { return };
        mark.set(|mark| {
            for write in writes {
                match write {
                    Write::Event(Recorded { position, event }) => {
                        mark.newest = Some((event.run.clone(), *position));
                    }
                    Write::Forget { run }
                        if mark.newest.as_ref().is_some_and(|(r, _)| r == run) =>
                    {
                        mark.newest = None;
                    }
                    _ => {}
                }
            }
        });
    }

    /// Returns the database for tables beside the runs; `None` if the store is open for reading only.
    pub fn database(&self) -> Option<Database> {
        self.writer
            .clone()
            .map(|writer| Database::new(writer, self.readers.clone()))
    }

    /// Returns the path of the database.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn begin_term(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut transaction = self.writer()?.begin().await.map_err(written)?;
        let row = sqlx::query("INSERT INTO terms (began_us) VALUES (?) RETURNING epoch")
            .bind(now.0)
            .fetch_one(&mut *transaction)
            .await
            .map_err(written)?;
        let epoch = unsigned(row.try_get("epoch").map_err(read)?);
        // SQLite returned the row before it was on disk. If the commit fails (full disk), the next start would get the
        // same epoch.
        transaction.commit().await.map_err(written)?;
        if let Some(mark) = &self.mark {
            mark.set(|mark| mark.epoch = epoch);
        }
        Ok(epoch)
    }

    async fn newest_epoch(&self) -> Result<u64, StoreError> {
        let epoch: Option<i64> = sqlx::query_scalar("SELECT max(epoch) FROM terms")
            .fetch_one(&self.readers)
            .await
            .map_err(read)?;
        Ok(unsigned(epoch.unwrap_or(0)))
    }

    async fn raise_epoch(&self, epoch: u64) -> Result<(), StoreError> {
        if self.newest_epoch().await? >= epoch {
            return Ok(());
        }
        sqlx::query("INSERT INTO terms (epoch, began_us) VALUES (?, 0)")
            .bind(signed(epoch))
            .execute(self.writer()?)
            .await
            .map_err(written)?;
        if let Some(mark) = &self.mark {
            mark.set(|mark| mark.epoch = epoch);
        }
        Ok(())
    }

    async fn commit(&self, writes: &[Write]) -> Result<(), StoreError> {
        let mut connection = self.writer()?.acquire().await.map_err(written)?;
        let committed = commit_on(&mut connection, writes).await;
        if committed.is_ok() {
            self.mark(writes);
        } else {
            // SQLite may have rolled back a failed transaction by itself (full disk). Then sqlx's count of open
            // transactions is wrong: a later commit would be a savepoint within a transaction that never ends. So the
            // next try uses a new connection.
            if let Err(error) = connection.close().await {
                tracing::debug!(%error, "closing a connection to the journal");
            }
        }
        committed
    }

    async fn run(&self, run: &RunId) -> Result<Option<RunRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM runs WHERE run = ?")
            .bind(run.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(read)?;
        Ok(row.as_ref().map(run_row))
    }

    async fn runs(
        &self,
        limit: u32,
        open: bool,
        within: Option<&Namespace>,
    ) -> Result<Vec<RunHead>, StoreError> {
        // Exactly the columns that the index holds.
        let rows = match self.namespaces {
            true => sqlx::query(
                "SELECT run, submitted_us, spec, digest, cells, namespace, finished_us, outcome, counts, cancel, settled FROM runs \
                 WHERE (settled = 0 OR NOT ?1) AND (?2 IS NULL OR namespace = ?2) ORDER BY submitted_us DESC, run DESC LIMIT ?3",
            ),
            false => sqlx::query(
                "SELECT run, submitted_us, spec, digest, cells, finished_us, outcome, counts, cancel, settled FROM runs \
                 WHERE (settled = 0 OR NOT ?1) AND (?2 IS NULL OR 'default' = ?2) ORDER BY submitted_us DESC, run DESC LIMIT ?3",
            ),
        };
        let rows = rows
            .bind(open)
            .bind(within.map(Namespace::as_str))
            .bind(limit)
            .fetch_all(&self.readers)
            .await
            .map_err(read)?;
        Ok(rows.iter().map(run_head).collect())
    }

    async fn beginning_with(
        &self,
        text: &str,
        limit: u32,
        within: Option<&Namespace>,
    ) -> Result<Vec<RunId>, StoreError> {
        // A range of the key, so that no row is read, or only those in the range if one namespace is asked for.
        let rows = match self.namespaces {
            true => sqlx::query(
                "SELECT run FROM runs WHERE run >= ?1 AND run < ?1 || char(1114111) AND (?3 IS NULL OR namespace = ?3) ORDER BY run LIMIT ?2",
            ),
            false => sqlx::query(
                "SELECT run FROM runs WHERE run >= ?1 AND run < ?1 || char(1114111) AND (?3 IS NULL OR 'default' = ?3) ORDER BY run LIMIT ?2",
            ),
        };
        let rows = rows
            .bind(text)
            .bind(limit)
            .bind(within.map(Namespace::as_str))
            .fetch_all(&self.readers)
            .await
            .map_err(read)?;
        let run = |row: &SqliteRow| row.try_get("run").map(RunId).map_err(read);
        rows.iter().map(run).collect()
    }

    async fn workspaces(&self) -> Result<HashSet<String>, StoreError> {
        let rows = sqlx::query("SELECT workspace FROM runs WHERE workspace IS NOT NULL")
            .fetch_all(&self.readers)
            .await
            .map_err(read)?;
        let digest = |row: &SqliteRow| row.try_get("workspace").map_err(read);
        rows.iter().map(digest).collect()
    }

    async fn has_workspace(&self, digest: &str, namespace: &Namespace) -> Result<bool, StoreError> {
        let found: Option<i64> =
            sqlx::query_scalar("SELECT 1 FROM runs WHERE workspace = ? AND namespace = ? LIMIT 1")
                .bind(digest)
                .bind(namespace.as_str())
                .fetch_optional(&self.readers)
                .await
                .map_err(read)?;
        Ok(found.is_some())
    }

    async fn settled_before(&self, before: Timestamp) -> Result<Vec<RunId>, StoreError> {
        let rows = sqlx::query(
            "SELECT run FROM runs WHERE settled = 1 AND finished_us < ? ORDER BY finished_us",
        )
        .bind(before.0)
        .fetch_all(&self.readers)
        .await
        .map_err(read)?;
        let run = |row: &SqliteRow| row.try_get("run").map(RunId).map_err(read);
        rows.iter().map(run).collect()
    }

    async fn events(
        &self,
        run: &RunId,
        from: u64,
        limit: u32,
    ) -> Result<Vec<Recorded>, StoreError> {
        let mut rows = sqlx::query(
            "SELECT * FROM events WHERE run = ? AND position >= ? ORDER BY position LIMIT ?",
        )
        .bind(run.as_str())
        .bind(signed(from))
        .bind(limit)
        .fetch(&self.readers);
        let (mut reading, mut bytes) = (Reading::new(run, from), 0);
        while let Some(row) = rows.next().await {
            let row = row.map_err(read)?;
            bytes += row.try_get::<&str, _>("kind").map_or(0, str::len);
            if !reading.is_empty() && bytes > READ_BYTES {
                break;
            }
            reading.push(event(&row))?;
        }
        Ok(reading.end())
    }

    async fn history(&self, spec: &str) -> Result<Vec<Past>, StoreError> {
        let rows = sqlx::query(
            "SELECT cell, matrix, elapsed_ms, NULL AS restored, NULL AS making_ms, at_us \
             FROM durations WHERE spec = ? \
             UNION ALL SELECT cell, matrix, elapsed_ms, restored, making_ms, at_us \
             FROM snapshot_times WHERE spec = ? ORDER BY at_us",
        )
        .bind(spec)
        .bind(spec)
        .fetch_all(&self.readers)
        .await
        .map_err(read)?;
        let mut history = Vec::with_capacity(rows.len());
        for row in &rows {
            let matrix: String = row.try_get("matrix").map_err(read)?;
            let cell = row.try_get("cell").map_err(read)?;
            let elapsed = row.try_get("elapsed_ms").map_err(read)?;
            let restored: Option<i64> = row.try_get("restored").map_err(read)?;
            let making: Option<i64> = row.try_get("making_ms").map_err(read)?;
            let snapshot = PastSnapshot::of_row(restored, making);
            history.extend(past(cell, &matrix, elapsed, snapshot));
        }
        Ok(history)
    }

    async fn check(&self) -> Result<(), String> {
        if self.checked {
            return Ok(());
        }
        check::pages(&self.readers).await
    }

    async fn close(&self) {
        self.readers.close().await;
        if let Some(writer) = &self.writer {
            writer.close().await;
        }
    }
}

type Transaction<'a> = sqlx::Transaction<'a, Sqlite>;

/// Commits all writes in one transaction.
async fn commit_on(
    connection: &mut PoolConnection<Sqlite>,
    writes: &[Write],
) -> Result<(), StoreError> {
    let mut transaction = connection.begin().await.map_err(written)?;
    let mut events = Vec::new();
    let mut durations = Vec::new();
    for write in writes {
        match write {
            Write::Event(event) => {
                events.push(event);
                if events.len() == ROWS {
                    insert_events(&mut transaction, &events).await?;
                    events.clear();
                }
            }
            // No other write depends on durations, so their order among the others doesn't matter.
            Write::Duration { spec, past, at } => durations.push((spec, past, *at)),
            _ => {
                // Events first: a run's end must not be written before them.
                insert_events(&mut transaction, &events).await?;
                events.clear();
                write_one(&mut transaction, write).await?;
            }
        }
    }
    insert_events(&mut transaction, &events).await?;
    for durations in durations.chunks(ROWS) {
        insert_durations(&mut transaction, durations).await?;
    }
    transaction.commit().await.map_err(written)
}

/// Inserts durations. The later of two durations of a cell replaces the earlier one.
async fn insert_durations(
    tx: &mut Transaction<'_>,
    durations: &[(&String, &Past, Timestamp)],
) -> Result<(), StoreError> {
    let mut rows = Vec::with_capacity(durations.len());
    for (spec, past, at) in durations {
        let matrix = serde_json::to_string(&past.matrix).map_err(refused)?;
        rows.push((spec, past, matrix, at));
    }
    let (plain, with): (Vec<_>, Vec<_>) = rows
        .into_iter()
        .partition(|(_, past, ..)| past.snapshot.is_none());
    if !plain.is_empty() {
        let mut insert = QueryBuilder::<Sqlite>::new(
            "INSERT OR REPLACE INTO durations (spec, cell, matrix, elapsed_ms, at_us) ",
        );
        insert.push_values(plain, |mut row, (spec, past, matrix, at)| {
            row.push_bind(spec.as_str())
                .push_bind(past.cell.as_str())
                .push_bind(matrix)
                .push_bind(signed(past.elapsed_ms))
                .push_bind(at.0);
        });
        insert.build().execute(&mut **tx).await.map_err(written)?;
    }
    if !with.is_empty() {
        let mut insert = QueryBuilder::<Sqlite>::new(
            "INSERT OR REPLACE INTO snapshot_times (spec, cell, matrix, restored, elapsed_ms, making_ms, at_us) ",
        );
        insert.push_values(with, |mut row, (spec, past, matrix, at)| {
            let (restored, making_ms) = past.snapshot.map_or((1, None), PastSnapshot::to_row);
            row.push_bind(spec.as_str())
                .push_bind(past.cell.as_str())
                .push_bind(matrix)
                .push_bind(restored)
                .push_bind(signed(past.elapsed_ms))
                .push_bind(making_ms)
                .push_bind(at.0);
        });
        insert.build().execute(&mut **tx).await.map_err(written)?;
    }
    Ok(())
}

async fn insert_events(tx: &mut Transaction<'_>, events: &[&Recorded]) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    let mut rows = Vec::with_capacity(events.len());
    for recorded in events {
        let kind = serde_json::to_string(&recorded.event.kind).map_err(refused)?;
        rows.push((*recorded, kind));
    }
    let mut insert = QueryBuilder::<Sqlite>::new(
        "INSERT INTO events (run, position, cell, attempt, seq, at_us, mono_us, kind) ",
    );
    insert.push_values(rows, |mut row, (Recorded { position, event }, kind)| {
        let attempt = event.attempt.as_ref();
        row.push_bind(event.run.as_str())
            .push_bind(signed(*position))
            .push_bind(attempt.map(|a| a.cell.as_str()))
            .push_bind(attempt.map(|a| a.attempt))
            .push_bind(signed(event.seq))
            .push_bind(event.at.0)
            .push_bind(signed(event.mono_us))
            .push_bind(kind);
    });
    insert.build().execute(&mut **tx).await.map_err(written)?;
    Ok(())
}

async fn write_one(tx: &mut Transaction<'_>, write: &Write) -> Result<(), StoreError> {
    let query = match write {
        Write::Event(_) | Write::Duration { .. } => return Ok(()),
        Write::Run(new) => sqlx::query(
            "INSERT INTO runs (run, submitted_us, spec, digest, cells, submission, workspace, namespace, submitted_by) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(new.run.as_str())
        .bind(new.submitted.0)
        .bind(&new.spec)
        .bind(&new.digest)
        .bind(new.cells)
        .bind(serde_json::to_string(&new.submission).map_err(refused)?)
        .bind(new.submission.workspace_digest.as_deref())
        .bind(new.namespace.as_str())
        .bind(&new.owner),
        Write::Finished { run, end } => sqlx::query(
            "UPDATE runs SET finished_us = ?, outcome = ?, counts = ?, cancel = ? WHERE run = ?",
        )
        .bind(end.finished.0)
        .bind(end.outcome.as_str())
        .bind(serde_json::to_string(&end.counts).map_err(refused)?)
        .bind(end.cancel.as_deref())
        .bind(run.as_str()),
        Write::Settled { run } => {
            sqlx::query("UPDATE runs SET settled = 1 WHERE run = ?").bind(run.as_str())
        }
        Write::Forget { run } => {
            sqlx::query("DELETE FROM events WHERE run = ?")
                .bind(run.as_str())
                .execute(&mut **tx)
                .await
                .map_err(written)?;
            sqlx::query("DELETE FROM runs WHERE run = ?").bind(run.as_str())
        }
    };
    query.execute(&mut **tx).await.map_err(written)?;
    Ok(())
}

/// Reads a row without its submission. Unreadable columns get their default and are reported in `problem`.
fn run_head(row: &SqliteRow) -> RunHead {
    let mut problem = None;
    let mut note = |error| rows::note(&mut problem, error);
    let run = column::<String>(row, "run", &mut note);
    let submitted = Timestamp(column(row, "submitted_us", &mut note));
    let (spec, digest) = (
        column(row, "spec", &mut note),
        column(row, "digest", &mut note),
    );
    let cells = column(row, "cells", &mut note);
    let end = run_end(row).unwrap_or_else(|error| {
        note(error);
        None
    });
    let settled = column(row, "settled", &mut note);
    let namespace = namespace(row).unwrap_or_else(|error| {
        note(error);
        Namespace::default()
    });
    RunHead {
        run: RunId(run),
        namespace,
        submitted,
        spec,
        digest,
        cells,
        end,
        settled,
        problem,
    }
}

/// Reads a whole row, with the same treatment of unreadable columns.
fn run_row(row: &SqliteRow) -> RunRow {
    let RunHead {
        run,
        namespace,
        submitted,
        spec,
        digest,
        cells,
        end,
        settled,
        mut problem,
    } = run_head(row);
    // Without the column, the database is of an earlier version.
    let owner = row.try_get("submitted_by").unwrap_or_default();
    let submission = row.try_get("submission").map_err(read);
    let submission = submission.and_then(|text: String| rows::submission(&text));
    let submission = submission.unwrap_or_else(|error| {
        rows::note(&mut problem, error);
        Submission::default()
    });
    RunRow {
        new: NewRun {
            run,
            submitted,
            spec,
            digest,
            cells,
            submission,
            namespace,
            owner,
        },
        end,
        settled,
        problem,
    }
}

/// Returns the namespace of a run. Without the column, the database is of an earlier version.
fn namespace(row: &SqliteRow) -> Result<Namespace, StoreError> {
    let name: String = match row.try_get("namespace") {
        Err(sqlx::Error::ColumnNotFound(_)) => return Ok(Namespace::default()),
        name => name.map_err(read)?,
    };
    rows::namespace(&name)
}

/// Returns a column's value, or the default if it can't be read.
fn column<'r, T>(row: &'r SqliteRow, name: &str, note: &mut impl FnMut(StoreError)) -> T
where
    T: Default + sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite>,
{
    row.try_get(name).unwrap_or_else(|error| {
        note(read(error));
        T::default()
    })
}

fn run_end(row: &SqliteRow) -> Result<Option<RunEnd>, StoreError> {
    let text = |column: &str| row.try_get::<Option<String>, _>(column).map_err(read);
    let columns = EndColumns {
        finished_us: row.try_get("finished_us").map_err(read)?,
        outcome: text("outcome")?,
        counts: text("counts")?,
        cancel: text("cancel")?,
    };
    columns.read()
}

fn event(row: &SqliteRow) -> Result<EventColumns, StoreError> {
    let number = |column: &str| row.try_get::<i64, _>(column).map_err(read);
    Ok(EventColumns {
        position: number("position")?,
        cell: row.try_get("cell").map_err(read)?,
        attempt: row.try_get("attempt").map_err(read)?,
        seq: number("seq")?,
        at_us: number("at_us")?,
        mono_us: number("mono_us")?,
        kind: row.try_get("kind").map_err(read)?,
    })
}

/// Creates the file if necessary and makes it accessible to its owner only.
fn private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::File::options();
    options.create(true).truncate(false).write(true);
    let file = options.mode(0o600).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}
