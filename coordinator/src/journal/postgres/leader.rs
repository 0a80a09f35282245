//! Which coordinator leads on a database: it holds an advisory lock, on a connection of its own, and shows that it lives.
//!
//! The lock makes the others wait, and lets them go on at once when the leader's connection ends. It protects nothing: a
//! leader that was paused still believes that it has it. What it writes is rejected by [`super::fence`].

use super::super::rows::read;
use super::super::store::StoreError;
use super::{Database, unavailable};
use phalanx_shared::clock::Stopwatch;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};
use std::future::Future;
use std::time::Duration;
use tokio::sync::watch;

/// How often a leader shows that it lives.
const BEAT: Duration = Duration::from_secs(2);
/// How long a standby waits for the lock before it looks whether the leader lives.
const LOOK: &str = "SET lock_timeout = '1s'";
/// Limit for one request on the leader's connection.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Pause before a lost connection is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// PostgreSQL's code for a lock that wasn't granted in time.
const LOCK_TIMEOUT: &str = "55P03";

/// Number of the lock: one per schema of a database.
const KEY: &str = "SELECT hashtextextended('phalanx journal ' || current_schema(), 0)";

/// The leader as others see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub holder: String,
    pub place: String,
    pub beat: i64,
}

/// What a standby knows of the leader's silence. Pure: it gets the time, which is that of the standby alone.
#[derive(Debug, Default)]
pub(super) struct Silence {
    last: Option<(Seen, Duration)>,
}

impl Silence {
    /// Returns for how long the leader hasn't shown that it lives, at this time.
    pub fn of(&mut self, seen: Seen, now: Duration) -> Duration {
        match &self.last {
            Some((last, since)) if *last == seen => now.saturating_sub(*since),
            _ => {
                self.last = Some((seen, now));
                Duration::ZERO
            }
        }
    }
}

/// The connection that holds the lock.
pub(super) struct Lead {
    connection: PgConnection,
    key: i64,
}

/// Waits until this process has the lock. `waits` gets where the leader runs, once for each one. A leader that hasn't
/// shown for `patience` that it lives loses its lock.
pub(super) async fn lead(
    database: &Database,
    patience: Duration,
    waits: &mut (dyn FnMut(&str) + Send),
) -> Result<Lead, StoreError> {
    // The first connection tells whether the settings are right. Later ones may fail while the database restarts.
    let mut lead = connect(database).await?;
    let began = Stopwatch::start();
    let (mut silence, mut told) = (Silence::default(), None);
    loop {
        match wait_for_lock(&mut lead).await {
            Ok(true) => return Ok(lead),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, "waiting for the database");
                tokio::time::sleep(RETRY).await;
                if let Ok(again) = connect(database).await {
                    lead = again;
                }
                continue;
            }
        }
        let Ok(Some(seen)) = within(look(&mut lead.connection)).await else {
            continue;
        };
        if told.as_ref() != Some(&seen.holder) {
            waits(&seen.place);
            told = Some(seen.holder.clone());
        }
        let place = seen.place.clone();
        if silence.of(seen, began.elapsed()) >= patience {
            tracing::warn!(leader = place, "the leader is silent: it loses its lock");
            silence = Silence::default();
            let ended = within(end_holder(&mut lead)).await;
            if let Err(error) = ended {
                tracing::warn!(%error, "the silent leader keeps its lock");
            }
        }
    }
}

async fn connect(database: &Database) -> Result<Lead, StoreError> {
    let connect = async {
        let mut connection = PgConnection::connect_with(&database.options).await?;
        let key = sqlx::query_scalar(KEY).fetch_one(&mut connection).await?;
        sqlx::query(LOOK).execute(&mut connection).await?;
        Ok(Lead { connection, key })
    };
    let connected = tokio::time::timeout(ANSWER_WITHIN, connect).await;
    let unusable = |reason: String| StoreError::Unusable {
        path: database.shown.clone().into(),
        reason,
    };
    match connected {
        Ok(connected) => connected.map_err(|error: sqlx::Error| unusable(error.to_string())),
        Err(_) => Err(unusable("it doesn't answer".to_owned())),
    }
}

/// Returns whether the lock was granted within a second.
async fn wait_for_lock(lead: &mut Lead) -> Result<bool, StoreError> {
    let asked = sqlx::query("SELECT pg_advisory_lock($1)")
        .bind(lead.key)
        .execute(&mut lead.connection);
    let asked = tokio::time::timeout(ANSWER_WITHIN, asked).await;
    match asked.map_err(|_| unavailable("it doesn't answer"))? {
        Ok(_) => Ok(true),
        Err(error) if super::code(&error).as_deref() == Some(LOCK_TIMEOUT) => Ok(false),
        Err(error) => Err(unavailable(error)),
    }
}

/// Reads who leads; `None` before the first one.
pub(super) async fn look(connection: &mut PgConnection) -> Result<Option<Seen>, StoreError> {
    let table: Option<String> = sqlx::query_scalar("SELECT to_regclass('leader')::text")
        .fetch_one(&mut *connection)
        .await
        .map_err(unavailable)?;
    if table.is_none() {
        return Ok(None);
    }
    let row = sqlx::query("SELECT coalesce(holder, '') AS holder, place, beat FROM leader")
        .fetch_one(connection)
        .await
        .map_err(unavailable)?;
    Ok(Some(Seen {
        holder: row.try_get("holder").map_err(read)?,
        place: row.try_get("place").map_err(read)?,
        beat: row.try_get("beat").map_err(read)?,
    }))
}

/// Ends the connection that holds the lock.
async fn end_holder(lead: &mut Lead) -> Result<(), StoreError> {
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
         AND (classid::bigint << 32) | objid::bigint = $1",
    )
    .bind(lead.key)
    .execute(&mut lead.connection)
    .await
    .map_err(unavailable)?;
    Ok(())
}

async fn within<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let done = tokio::time::timeout(ANSWER_WITHIN, work).await;
    done.unwrap_or_else(|_| Err(unavailable("it doesn't answer")))
}

impl Lead {
    /// Returns the connection.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Shows that this holder lives. Returns whether it still leads.
    async fn beat(&mut self, holder: &str) -> Result<bool, StoreError> {
        let beat = sqlx::query("UPDATE leader SET beat = beat + 1 WHERE holder = $1")
            .bind(holder)
            .execute(&mut self.connection);
        let beaten = tokio::time::timeout(ANSWER_WITHIN, beat).await;
        let beaten = beaten.map_err(|_| unavailable("it doesn't answer"))?;
        Ok(beaten.map_err(unavailable)?.rows_affected() > 0)
    }
}

/// Shows that this process lives, for as long as it leads, and says why it doesn't any more. A lost connection ends
/// nothing by itself: the lock is taken again unless another coordinator was faster.
pub(super) async fn keep(
    mut lead: Lead,
    database: Database,
    holder: String,
    deposed: watch::Sender<Option<String>>,
) {
    let by = loop {
        match lead.beat(&holder).await {
            Ok(true) => tokio::time::sleep(BEAT).await,
            Ok(false) => break within(look(&mut lead.connection)).await.ok().flatten(),
            Err(error) => {
                tracing::warn!(%error, "the leader's connection to the database");
                match again(&database, &holder).await {
                    Ok(connected) => lead = connected,
                    Err(by) => break Some(by),
                }
            }
        }
    };
    let place = by.map_or_else(|| "elsewhere".to_owned(), |seen| seen.place);
    deposed.send_replace(Some(format!("another coordinator leads: {place}")));
}

/// Takes the lock again on a new connection. Returns the other holder as an error if one has written that it leads.
async fn again(database: &Database, holder: &str) -> Result<Lead, Seen> {
    loop {
        tokio::time::sleep(RETRY).await;
        let Ok(mut lead) = connect(database).await else {
            continue;
        };
        match within(look(&mut lead.connection)).await {
            Ok(Some(seen)) if seen.holder != holder => return Err(seen),
            _ => {}
        }
        if let Ok(true) = wait_for_lock(&mut lead).await {
            return Ok(lead);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(holder: &str, beat: i64) -> Seen {
        Seen {
            holder: holder.to_owned(),
            place: String::new(),
            beat,
        }
    }

    #[test]
    fn a_leader_is_silent_since_it_was_first_seen_so_by_the_clock_of_who_looks() {
        let secs = Duration::from_secs;
        let mut silence = Silence::default();
        assert_eq!(silence.of(seen("a", 7), secs(100)), secs(0));
        assert_eq!(silence.of(seen("a", 7), secs(109)), secs(9));
        assert_eq!(silence.of(seen("a", 8), secs(110)), secs(0));
        assert_eq!(silence.of(seen("a", 8), secs(115)), secs(5));
        // Another one that begins with the same number.
        assert_eq!(silence.of(seen("b", 8), secs(116)), secs(0));
        assert_eq!(silence.of(seen("b", 8), secs(126)), secs(10));
    }
}
