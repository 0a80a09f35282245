//! The journal in PostgreSQL, for coordinators that take over from each other.
//!
//! One coordinator leads; the others wait as standbys ([`leader`]). Each commit is conditional on the leader's epoch and
//! random id ([`fence`]), so one that was paused and comes back commits nothing, whatever it believes.

mod leader;

use super::rows::{
    self, EndColumns, EventColumns, READ_BYTES, Reading, read, refused, signed, unsigned,
};
use super::store::{
    NewRun, Past, PastSnapshot, RunHead, RunRow, Store, StoreError, Submission, Write, past,
};
use async_trait::async_trait;
use futures::future::BoxFuture;
use phalanx_shared::event::Recorded;
use phalanx_shared::id::RunId;
use phalanx_shared::namespace::Namespace;
use phalanx_shared::time::Timestamp;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow};
use sqlx::{ConnectOptions, Connection, Executor, Row};
use std::collections::{HashMap, HashSet};
use std::str::FromStr;
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use url::Url;

static MIGRATIONS: Migrator = sqlx::migrate!("src/journal/postgres");

/// Number of connections that read.
const READERS: u32 = 4;
/// Maximum rows of one INSERT.
const ROWS: usize = 5_000;
/// Limit for a commit. One that takes longer is tried again on a new connection.
const COMMIT_WITHIN: Duration = Duration::from_secs(30);
/// How long to wait for a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// PostgreSQL's class of errors for a lack of disk or memory, and its code for a full disk.
const DISK_FULL: &str = "53100";

const MALFORMED: &str = "not a URL of PostgreSQL; write postgres://USER@HOST:PORT/DATABASE";
const PASSWORD: &str = "a password in the URL can be read by others (`phalanx config`, /proc); give it in the variable PGPASSWORD or in a .pgpass file";

/// A database, and how messages call it: without user and password.
#[derive(Clone, Debug)]
pub(super) struct Database {
    options: PgConnectOptions,
    shown: String,
}

impl Database {
    fn of(url: &str) -> Result<Database, StoreError> {
        // No message quotes the URL: it may hold a password.
        let unusable = |reason: &str| StoreError::Unusable {
            path: "of `serve.database`".into(),
            reason: reason.to_owned(),
        };
        let parsed = Url::parse(url).ok();
        let parsed = parsed.filter(|url| matches!(url.scheme(), "postgres" | "postgresql"));
        let parsed = parsed.ok_or_else(|| unusable(MALFORMED))?;
        let names_one = parsed.query_pairs().any(|(key, _)| key == "password");
        if parsed.password().is_some() || names_one {
            return Err(unusable(PASSWORD));
        }
        let options = PgConnectOptions::from_str(url).map_err(|_| unusable(MALFORMED))?;
        let place = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        let name = options
            .get_database()
            .unwrap_or_else(|| options.get_username());
        let shown = format!("postgres://{place}/{name}");
        let options = options
            .application_name("phalanx")
            // A commit that was acknowledged must survive, whatever the server's or the role's default is.
            .options([
                ("synchronous_commit", "on"),
                ("client_min_messages", "warning"),
            ])
            .disable_statement_logging();
        Ok(Database { options, shown })
    }
}

/// A journal in a PostgreSQL database, which this process leads.
pub struct PostgresStore {
    database: Database,
    writer: PgPool,
    readers: PgPool,
    holder: String,
    turn: Mutex<Turn>,
    keeping: JoinHandle<()>,
    deposed: watch::Receiver<Option<String>>,
}

/// The leader's place among its commits.
#[derive(Debug, Default)]
struct Turn {
    epoch: i64,
    /// Number of commits that are known to have succeeded.
    commits: i64,
    /// Whether the last commit may have succeeded although its answer didn't arrive.
    in_doubt: bool,
}

/// Arguments of [`PostgresStore::lead`].
pub struct Lead<'a> {
    /// URL of the database.
    pub url: &'a str,
    /// Where this process runs, for people.
    pub place: &'a str,
    /// Id of the directory with logs, artifacts and workspaces.
    pub files: &'a str,
    /// A leader that hasn't shown for so long that it lives loses its lock.
    pub patience: Duration,
    /// Gets where the leader runs for which this process waits.
    pub waits: &'a mut (dyn FnMut(&str) + Send),
}

impl PostgresStore {
    /// Waits until this process leads, and brings the schema up to date.
    pub fn lead<'a>(args: Lead<'a>) -> BoxFuture<'a, Result<PostgresStore, StoreError>> {
        Box::pin(Self::become_leader(args))
    }

    async fn become_leader(args: Lead<'_>) -> Result<PostgresStore, StoreError> {
        let database = Database::of(args.url)?;
        let mut lead = leader::lead(&database, args.patience, args.waits).await?;
        let holder = uuid::Uuid::new_v4().simple().to_string();
        let connection = lead.connection();
        MIGRATIONS
            .run_direct(None, &mut *connection, false)
            .await
            .map_err(|error| migrating(&database, error))?;
        claim(connection, &database, &holder, args.place, args.files).await?;
        let pool = |most: u32| {
            let options = PgPoolOptions::new().max_connections(most);
            let options = options.acquire_timeout(CONNECT_WITHIN);
            options.connect_lazy_with(database.options.clone())
        };
        let (writer, readers) = (pool(1), pool(READERS));
        let (deposed_out, deposed) = watch::channel(None);
        let keep = leader::keep(lead, database.clone(), holder.clone(), deposed_out);
        Ok(PostgresStore {
            database,
            writer,
            readers,
            holder,
            turn: Mutex::default(),
            keeping: tokio::spawn(keep),
            deposed,
        })
    }

    /// Waits until another coordinator leads, and returns which.
    pub async fn deposed(&self) -> String {
        let mut deposed = self.deposed.clone();
        let told = deposed.wait_for(Option::is_some).await;
        let why = told.ok().and_then(|why| why.clone());
        why.unwrap_or_else(|| "the store is closed".to_owned())
    }

    /// Returns the database as messages name it.
    pub fn shown(&self) -> &str {
        &self.database.shown
    }

    /// Returns whether the commit whose answer was lost has succeeded.
    async fn was_committed(&self, turn: &Turn) -> Result<bool, StoreError> {
        let commits: Option<i64> =
            sqlx::query_scalar("SELECT commits FROM leader WHERE epoch = $1 AND holder = $2")
                .bind(turn.epoch)
                .bind(&self.holder)
                .fetch_optional(&self.writer)
                .await
                .map_err(written)?;
        match commits {
            None => Err(StoreError::Deposed),
            Some(commits) => Ok(commits > turn.commits),
        }
    }

    async fn commit_once(&self, turn: &Turn, writes: &[Write]) -> Result<(), StoreError> {
        let mut connection = self.writer.acquire().await.map_err(written)?;
        let committed = tokio::time::timeout(COMMIT_WITHIN, async {
            let mut transaction = connection.begin().await.map_err(written)?;
            fence(&mut transaction, &self.holder, turn).await?;
            write_all(&mut transaction, writes).await?;
            transaction.commit().await.map_err(written)
        });
        let committed = committed.await;
        let committed = committed.unwrap_or_else(|_| {
            let within = COMMIT_WITHIN.as_secs();
            Err(unavailable(format!("no answer within {within}s")))
        });
        if matches!(committed, Err(StoreError::Unavailable(_))) {
            // An answer that comes later would be taken for that of another request.
            connection.close_on_drop();
        }
        committed
    }
}

/// Writes down that this process leads, unless its files are others than those of the journal.
async fn claim(
    connection: &mut PgConnection,
    database: &Database,
    holder: &str,
    place: &str,
    files: &str,
) -> Result<(), StoreError> {
    let claimed = sqlx::query(
        "UPDATE leader SET holder = $1, place = $2, files = $3, beat = beat + 1 WHERE files IS NULL OR files = $3",
    )
    .bind(holder)
    .bind(plain(place))
    .bind(files)
    .execute(connection)
    .await
    .map_err(unavailable)?;
    match claimed.rows_affected() {
        0 => Err(StoreError::Unusable {
            path: database.shown.clone().into(),
            reason: "its logs, artifacts and workspaces are in the state directory of another coordinator: share that directory with this one (a copy has to be whole: `files-id` is in it)".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Ends the transaction with an error unless this process still leads. The row stays locked until the end of the
/// transaction, so nobody can begin a term in between.
async fn fence(
    transaction: &mut PgConnection,
    holder: &str,
    turn: &Turn,
) -> Result<(), StoreError> {
    let passed = sqlx::query(
        "UPDATE leader SET commits = $3 + 1 WHERE epoch = $1 AND holder = $2 AND commits = $3",
    )
    .bind(turn.epoch)
    .bind(holder)
    .bind(turn.commits)
    .execute(transaction)
    .await
    .map_err(written)?;
    match passed.rows_affected() {
        0 => Err(StoreError::Deposed),
        _ => Ok(()),
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn begin_term(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut turn = self.turn.lock().await;
        let mut transaction = self.writer.begin().await.map_err(written)?;
        // At least the time in seconds: a database that was restored from a backup has forgotten later terms, and their
        // epochs must not come again.
        let epoch: Option<i64> = sqlx::query_scalar(
            "UPDATE leader SET epoch = greatest(epoch + 1, $2), commits = 0 WHERE holder = $1 RETURNING epoch",
        )
        .bind(&self.holder)
        .bind(now.0 / 1_000_000)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(written)?;
        let epoch = epoch.ok_or(StoreError::Deposed)?;
        sqlx::query("INSERT INTO terms (epoch, holder, began_us) VALUES ($1, $2, $3)")
            .bind(epoch)
            .bind(&self.holder)
            .bind(now.0)
            .execute(&mut *transaction)
            .await
            .map_err(written)?;
        transaction.commit().await.map_err(written)?;
        *turn = Turn {
            epoch,
            ..Turn::default()
        };
        Ok(unsigned(epoch))
    }

    async fn newest_epoch(&self) -> Result<u64, StoreError> {
        let epoch: i64 = sqlx::query_scalar("SELECT epoch FROM leader")
            .fetch_one(&self.readers)
            .await
            .map_err(read)?;
        Ok(unsigned(epoch))
    }

    async fn raise_epoch(&self, epoch: u64) -> Result<(), StoreError> {
        let raised = sqlx::query("UPDATE leader SET epoch = greatest(epoch, $2) WHERE holder = $1")
            .bind(&self.holder)
            .bind(signed(epoch))
            .execute(&self.writer)
            .await
            .map_err(written)?;
        match raised.rows_affected() {
            0 => Err(StoreError::Deposed),
            _ => Ok(()),
        }
    }

    async fn commit(&self, writes: &[Write]) -> Result<(), StoreError> {
        let mut turn = self.turn.lock().await;
        if turn.in_doubt {
            let committed = self.was_committed(&turn).await?;
            turn.in_doubt = false;
            if committed {
                turn.commits += 1;
                return Ok(());
            }
        }
        let committed = self.commit_once(&turn, writes).await;
        match &committed {
            Ok(()) => turn.commits += 1,
            Err(StoreError::Unavailable(_)) => turn.in_doubt = true,
            Err(_) => {}
        }
        committed
    }

    async fn run(&self, run: &RunId) -> Result<Option<RunRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM runs WHERE run = $1")
            .bind(run.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(read)?;
        row.as_ref().map(run_row).transpose()
    }

    async fn runs(
        &self,
        limit: u32,
        open: bool,
        within: Option<&Namespace>,
    ) -> Result<Vec<RunHead>, StoreError> {
        const COLUMNS: &str = "SELECT run, submitted_us, spec, digest, cells, namespace, finished_us, outcome, counts, cancel, settled \
             FROM runs WHERE ($2::text IS NULL OR namespace = $2) ORDER BY submitted_us DESC, run DESC LIMIT $1";
        const OPEN: &str = "SELECT run, submitted_us, spec, digest, cells, namespace, finished_us, outcome, counts, cancel, settled \
             FROM runs WHERE NOT settled AND ($2::text IS NULL OR namespace = $2) ORDER BY submitted_us DESC, run DESC LIMIT $1";
        let rows = sqlx::query(if open { OPEN } else { COLUMNS })
            .bind(i64::from(limit))
            .bind(within.map(Namespace::as_str))
            .fetch_all(&self.readers)
            .await
            .map_err(read)?;
        rows.iter().map(run_head).collect()
    }

    async fn beginning_with(
        &self,
        text: &str,
        limit: u32,
        within: Option<&Namespace>,
    ) -> Result<Vec<RunId>, StoreError> {
        if text.contains('\0') {
            return Ok(Vec::new());
        }
        let rows = sqlx::query(
            "SELECT run FROM runs WHERE run >= $1 AND run < $1 || chr(1114111) \
             AND ($3::text IS NULL OR namespace = $3) ORDER BY run LIMIT $2",
        )
        .bind(text)
        .bind(i64::from(limit))
        .bind(within.map(Namespace::as_str))
        .fetch_all(&self.readers)
        .await
        .map_err(read)?;
        let run = |row: &PgRow| row.try_get("run").map(RunId).map_err(read);
        rows.iter().map(run).collect()
    }

    async fn has_workspace(&self, digest: &str, namespace: &Namespace) -> Result<bool, StoreError> {
        let found: Option<i32> = sqlx::query_scalar(
            "SELECT 1 FROM runs WHERE workspace = $1 AND namespace = $2 LIMIT 1",
        )
        .bind(digest)
        .bind(namespace.as_str())
        .fetch_optional(&self.readers)
        .await
        .map_err(read)?;
        Ok(found.is_some())
    }

    async fn workspaces(&self) -> Result<HashSet<String>, StoreError> {
        let rows = sqlx::query("SELECT DISTINCT workspace FROM runs WHERE workspace IS NOT NULL")
            .fetch_all(&self.readers)
            .await
            .map_err(read)?;
        let digest = |row: &PgRow| row.try_get("workspace").map_err(read);
        rows.iter().map(digest).collect()
    }

    async fn settled_before(&self, before: Timestamp) -> Result<Vec<RunId>, StoreError> {
        let rows = sqlx::query(
            "SELECT run FROM runs WHERE settled AND finished_us < $1 ORDER BY finished_us",
        )
        .bind(before.0)
        .fetch_all(&self.readers)
        .await
        .map_err(read)?;
        let run = |row: &PgRow| row.try_get("run").map(RunId).map_err(read);
        rows.iter().map(run).collect()
    }

    async fn events(
        &self,
        run: &RunId,
        from: u64,
        limit: u32,
    ) -> Result<Vec<Recorded>, StoreError> {
        // The server counts the bytes: whatever it sends has to be read.
        let rows = sqlx::query(
            "SELECT position, cell, attempt, seq, at_us, mono_us, kind FROM ( \
               SELECT *, sum(octet_length(kind)) OVER (ORDER BY position) AS bytes FROM ( \
                 SELECT * FROM events WHERE run = $1 AND position >= $2 ORDER BY position LIMIT $3) AS wanted \
             ) AS counted WHERE bytes <= $4 OR position = $2 ORDER BY position",
        )
        .bind(run.as_str())
        .bind(signed(from.max(1)))
        .bind(i64::from(limit))
        .bind(signed(READ_BYTES as u64))
        .fetch_all(&self.readers)
        .await
        .map_err(read)?;
        let mut reading = Reading::new(run, from);
        for row in &rows {
            reading.push(event(row))?;
        }
        Ok(reading.end())
    }

    async fn history(&self, spec: &str) -> Result<Vec<Past>, StoreError> {
        let rows = sqlx::query(
            "SELECT cell, matrix, elapsed_ms, NULL::bigint AS restored, NULL::bigint AS making_ms, at_us \
             FROM durations WHERE spec = $1 \
             UNION ALL SELECT cell, matrix, elapsed_ms, restored, making_ms, at_us \
             FROM snapshot_times WHERE spec = $1 ORDER BY at_us",
        )
        .bind(plain(spec))
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

    /// PostgreSQL checks its pages itself (`data_checksums`, `amcheck`).
    async fn check(&self) -> Result<(), String> {
        Ok(())
    }

    async fn close(&self) {
        // Ends the connection that holds the lock, so that a standby goes on at once.
        self.keeping.abort();
        self.readers.close().await;
        self.writer.close().await;
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.keeping.abort();
    }
}

/// Writes everything, events before the end of their run.
async fn write_all(transaction: &mut PgConnection, writes: &[Write]) -> Result<(), StoreError> {
    let mut events = Vec::new();
    // The later of two durations of a cell replaces the earlier one, also within a statement.
    let mut durations: HashMap<(&str, &str), (&Past, Timestamp)> = HashMap::new();
    let mut with: HashMap<(&str, &str, i64), (&Past, Timestamp)> = HashMap::new();
    for write in writes {
        match write {
            Write::Event(event) => events.push(event),
            Write::Duration { spec, past, at } => {
                let cell = past.cell.as_str();
                match past.snapshot {
                    None => durations.insert((spec, cell), (past, *at)),
                    Some(snapshot) => with.insert((spec, cell, snapshot.to_row().0), (past, *at)),
                };
            }
            _ => {
                insert_events(transaction, &std::mem::take(&mut events)).await?;
                write_one(transaction, write).await?;
            }
        }
    }
    insert_events(transaction, &events).await?;
    insert_durations(transaction, durations).await?;
    insert_snapshot_times(transaction, with).await
}

async fn insert_events(
    transaction: &mut PgConnection,
    events: &[&Recorded],
) -> Result<(), StoreError> {
    for events in events.chunks(ROWS) {
        let kinds = events
            .iter()
            .map(|one| serde_json::to_string(&one.event.kind));
        let kinds: Vec<String> = kinds.collect::<Result<_, _>>().map_err(refused)?;
        let number =
            |of: fn(&Recorded) -> i64| -> Vec<i64> { events.iter().map(|one| of(one)).collect() };
        let runs: Vec<&str> = events.iter().map(|one| one.event.run.as_str()).collect();
        let attempts = || events.iter().map(|one| one.event.attempt.as_ref());
        let cells: Vec<Option<&str>> = attempts().map(|of| of.map(|a| a.cell.as_str())).collect();
        let attempts: Vec<Option<i64>> =
            attempts().map(|of| of.map(|a| a.attempt.into())).collect();
        let insert = sqlx::query(
            "INSERT INTO events (run, position, cell, attempt, seq, at_us, mono_us, kind) \
             SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[])",
        )
        .bind(runs)
        .bind(number(|one| signed(one.position)))
        .bind(cells)
        .bind(attempts)
        .bind(number(|one| signed(one.event.seq)))
        .bind(number(|one| one.event.at.0))
        .bind(number(|one| signed(one.event.mono_us)))
        .bind(kinds);
        (&mut *transaction).execute(insert).await.map_err(written)?;
    }
    Ok(())
}

async fn insert_durations(
    transaction: &mut PgConnection,
    durations: HashMap<(&str, &str), (&Past, Timestamp)>,
) -> Result<(), StoreError> {
    if durations.is_empty() {
        return Ok(());
    }
    let (mut specs, mut cells, mut matrices) = (Vec::new(), Vec::new(), Vec::new());
    let (mut elapsed, mut at) = (Vec::new(), Vec::new());
    for ((spec, cell), (past, when)) in durations {
        specs.push(plain(spec));
        cells.push(cell.to_owned());
        matrices.push(serde_json::to_string(&past.matrix).map_err(refused)?);
        elapsed.push(signed(past.elapsed_ms));
        at.push(when.0);
    }
    let insert = sqlx::query(
        "INSERT INTO durations (spec, cell, matrix, elapsed_ms, at_us) \
         SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[]) \
         ON CONFLICT (spec, cell) DO UPDATE SET matrix = excluded.matrix, elapsed_ms = excluded.elapsed_ms, at_us = excluded.at_us",
    )
    .bind(specs)
    .bind(cells)
    .bind(matrices)
    .bind(elapsed)
    .bind(at);
    transaction.execute(insert).await.map_err(written)?;
    Ok(())
}

async fn insert_snapshot_times(
    transaction: &mut PgConnection,
    times: HashMap<(&str, &str, i64), (&Past, Timestamp)>,
) -> Result<(), StoreError> {
    if times.is_empty() {
        return Ok(());
    }
    let (mut specs, mut cells, mut matrices) = (Vec::new(), Vec::new(), Vec::new());
    let (mut restored, mut elapsed) = (Vec::new(), Vec::new());
    let (mut making, mut at) = (Vec::new(), Vec::new());
    for ((spec, cell, was_restored), (past, when)) in times {
        specs.push(plain(spec));
        cells.push(cell.to_owned());
        matrices.push(serde_json::to_string(&past.matrix).map_err(refused)?);
        restored.push(was_restored);
        elapsed.push(signed(past.elapsed_ms));
        making.push(past.snapshot.and_then(|snapshot| snapshot.to_row().1));
        at.push(when.0);
    }
    let insert = sqlx::query(
        "INSERT INTO snapshot_times (spec, cell, matrix, restored, elapsed_ms, making_ms, at_us) \
         SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[]) \
         ON CONFLICT (spec, cell, restored) DO UPDATE SET matrix = excluded.matrix, elapsed_ms = excluded.elapsed_ms, \
         making_ms = excluded.making_ms, at_us = excluded.at_us",
    )
    .bind(specs)
    .bind(cells)
    .bind(matrices)
    .bind(restored)
    .bind(elapsed)
    .bind(making)
    .bind(at);
    transaction.execute(insert).await.map_err(written)?;
    Ok(())
}

async fn write_one(transaction: &mut PgConnection, write: &Write) -> Result<(), StoreError> {
    let query = match write {
        Write::Event(_) | Write::Duration { .. } => return Ok(()),
        Write::Run(new) => sqlx::query(
            "INSERT INTO runs (run, submitted_us, spec, digest, cells, submission, workspace, namespace, submitted_by) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(new.run.as_str())
        .bind(new.submitted.0)
        .bind(plain(&new.spec))
        .bind(plain(&new.digest))
        .bind(i64::from(new.cells))
        .bind(serde_json::to_string(&new.submission).map_err(refused)?)
        .bind(new.submission.workspace_digest.as_deref().map(plain))
        .bind(new.namespace.as_str())
        .bind(plain(&new.owner)),
        Write::Finished { run, end } => sqlx::query(
            "UPDATE runs SET finished_us = $1, outcome = $2, counts = $3, cancel = $4 WHERE run = $5",
        )
        .bind(end.finished.0)
        .bind(end.outcome.as_str())
        .bind(serde_json::to_string(&end.counts).map_err(refused)?)
        .bind(end.cancel.as_deref().map(plain))
        .bind(run.as_str()),
        Write::Settled { run } => {
            sqlx::query("UPDATE runs SET settled = TRUE WHERE run = $1").bind(run.as_str())
        }
        Write::Forget { run } => {
            let events = sqlx::query("DELETE FROM events WHERE run = $1").bind(run.as_str());
            (&mut *transaction).execute(events).await.map_err(written)?;
            sqlx::query("DELETE FROM runs WHERE run = $1").bind(run.as_str())
        }
    };
    transaction.execute(query).await.map_err(written)?;
    Ok(())
}

/// PostgreSQL's texts have no NUL. Those inside JSON are escaped.
fn plain(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn run_head(row: &PgRow) -> Result<RunHead, StoreError> {
    let mut problem = None;
    let text = |column: &str| row.try_get::<Option<String>, _>(column).map_err(read);
    let columns = EndColumns {
        finished_us: row.try_get("finished_us").map_err(read)?,
        outcome: text("outcome")?,
        counts: text("counts")?,
        cancel: text("cancel")?,
    };
    let end = columns.read().unwrap_or_else(|error| {
        rows::note(&mut problem, error);
        None
    });
    let cells: i64 = row.try_get("cells").map_err(read)?;
    let name: String = row.try_get("namespace").map_err(read)?;
    let namespace = rows::namespace(&name).unwrap_or_else(|error| {
        rows::note(&mut problem, error);
        Namespace::default()
    });
    Ok(RunHead {
        run: RunId(row.try_get("run").map_err(read)?),
        namespace,
        submitted: Timestamp(row.try_get("submitted_us").map_err(read)?),
        spec: row.try_get("spec").map_err(read)?,
        digest: row.try_get("digest").map_err(read)?,
        cells: u32::try_from(cells).unwrap_or(u32::MAX),
        end,
        settled: row.try_get("settled").map_err(read)?,
        problem,
    })
}

fn run_row(row: &PgRow) -> Result<RunRow, StoreError> {
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
    } = run_head(row)?;
    let text: String = row.try_get("submission").map_err(read)?;
    let submission = rows::submission(&text).unwrap_or_else(|error| {
        rows::note(&mut problem, error);
        Submission::default()
    });
    Ok(RunRow {
        new: NewRun {
            run,
            submitted,
            spec,
            digest,
            cells,
            submission,
            namespace,
            owner: row.try_get("submitted_by").map_err(read)?,
        },
        end,
        settled,
        problem,
    })
}

fn event(row: &PgRow) -> Result<EventColumns, StoreError> {
    let attempt: Option<i64> = row.try_get("attempt").map_err(read)?;
    let number = |column: &str| row.try_get::<i64, _>(column).map_err(read);
    Ok(EventColumns {
        position: number("position")?,
        cell: row.try_get("cell").map_err(read)?,
        attempt: attempt.map(|attempt| u32::try_from(attempt).unwrap_or(u32::MAX)),
        seq: number("seq")?,
        at_us: number("at_us")?,
        mono_us: number("mono_us")?,
        kind: row.try_get("kind").map_err(read)?,
    })
}

/// Returns PostgreSQL's code of an error, if it comes from the server.
fn code(error: &sqlx::Error) -> Option<String> {
    let code = error.as_database_error()?.code()?;
    Some(code.into_owned())
}

/// Converts a write error: a conflict with existing rows is final, everything else (a restart, a full disk) may pass.
fn written(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Database(database) if database.is_unique_violation() => {
            StoreError::Refused(error.to_string())
        }
        _ if code(&error).as_deref() == Some(DISK_FULL) => StoreError::Full,
        _ => StoreError::Unavailable(error.to_string()),
    }
}

fn unavailable(why: impl ToString) -> StoreError {
    StoreError::Unavailable(why.to_string())
}

fn migrating(database: &Database, error: MigrateError) -> StoreError {
    let reason = match error {
        MigrateError::VersionMissing(number) => {
            format!(
                "a later version of phalanx wrote it (it has the change {number}): start that version"
            )
        }
        error => format!("its schema can't be brought up to date: {error}"),
    };
    StoreError::Unusable {
        path: database.shown.clone().into(),
        reason,
    }
}
