//! The journal's database, for the tables that other modules keep in it beside the runs.

use super::check;
use super::rows::read;
use super::store::StoreError;
use futures::future::BoxFuture;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use std::path::Path;
use std::time::Duration;

/// The database of an open journal. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Database {
    pub(super) fn new(writer: SqlitePool, readers: SqlitePool) -> Database {
        Database { writer, readers }
    }

    /// Opens the database of a coordinator that may be running, for single rows of other tables than the journal's: SQLite
    /// lets one process write after the other.
    pub async fn beside(path: &Path) -> Result<Database, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10));
        let pool = SqlitePoolOptions::new().max_connections(1);
        let pool = pool.connect_with(options).await;
        let pool = pool.map_err(|error| check::opening(path, &error))?;
        check::tables(&pool, path).await?;
        Ok(Database::new(pool.clone(), pool))
    }

    /// Runs work in one transaction: all of it is durable when this returns `Ok`, and nothing of it happened otherwise.
    /// The journal's own writes wait meanwhile, so the work must be short.
    pub async fn transaction<T, E: From<StoreError>>(
        &self,
        work: impl for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, E>>,
    ) -> Result<T, E> {
        let mut connection = self.writer.acquire().await.map_err(written)?;
        let begun = sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection);
        let done = match begun.await {
            Ok(_) => match work(&mut connection).await {
                Ok(done) => {
                    let committed = sqlx::query("COMMIT").execute(&mut *connection).await;
                    committed.map(|_| done).map_err(|e| written(e).into())
                }
                Err(error) => Err(error),
            },
            Err(error) => Err(written(error).into()),
        };
        if done.is_err() {
            // SQLite may or may not have rolled back by itself (full disk): a new connection knows of no transaction.
            if let Err(error) = connection.close().await {
                tracing::debug!(%error, "closing a connection to the journal");
            }
        }
        done
    }

    /// Returns the connections for reading.
    pub fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    /// Converts an error of a statement that writes.
    pub fn written(error: sqlx::Error) -> StoreError {
        written(error)
    }

    /// Converts an error of a statement that reads.
    pub fn read(error: sqlx::Error) -> StoreError {
        read(error)
    }
}

/// SQLite's result code for a full disk.
const SQLITE_FULL: i64 = 13;

/// Converts a write error: a conflict with existing rows is final, everything else (disk full, I/O) may pass.
pub(crate) fn written(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Database(database) if database.is_unique_violation() => {
            StoreError::Refused(error.to_string())
        }
        _ if check::primary_code(&error) == Some(SQLITE_FULL) => StoreError::Full,
        _ => StoreError::Unavailable(error.to_string()),
    }
}
