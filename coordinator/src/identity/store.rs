//! Tokens, identities and certificates in the journal's database.

use super::core::{Grant, Identity, NotEnrolled, Standing, Token, enrol};
use crate::journal::{Database, StoreError};
use phalanx_shared::id::AgentId;
use phalanx_shared::time::Timestamp;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use std::time::Duration;

/// How long the rows of expired certificates stay.
const KEEP: Duration = Duration::from_secs(30 * 24 * 3_600);

/// What an agent asks a certificate with.
#[derive(Clone)]
pub(super) struct Request {
    pub agent: AgentId,
    /// SHA-256 of its public key.
    pub key: [u8; 32],
}

/// A certificate that was made.
pub(super) struct Made {
    pub der: Vec<u8>,
    pub expires: Timestamp,
}

/// Makes the certificate of a generation.
pub(super) type Make = Box<dyn FnOnce(u32) -> Result<Made, IdentityError> + Send>;

/// Reason why something about identities can't be done.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The journal's database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The agent can't enrol.
    #[error(transparent)]
    NotEnrolled(#[from] NotEnrolled),
    /// The request can't be served.
    #[error("{0}")]
    Invalid(String),
    /// The certificate can't be made.
    #[error("the certificate can't be made: {0}")]
    Certificate(String),
}

/// The store.
#[derive(Clone)]
pub(super) struct IdentityStore(Database);

impl IdentityStore {
    pub fn new(database: Database) -> IdentityStore {
        IdentityStore(database)
    }

    /// Returns all identities.
    pub async fn all(&self) -> Result<Vec<Identity>, StoreError> {
        let rows = sqlx::query("SELECT * FROM identities")
            .fetch_all(self.0.readers())
            .await
            .map_err(Database::read)?;
        rows.iter().map(identity).collect()
    }

    /// Adds a token.
    pub async fn add(
        &self,
        token: Token,
        digest: [u8; 32],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let grants = json(&token.grant)?;
        self.0
            .transaction(move |connection| {
                Box::pin(async move {
                    // Tokens that nobody can use any more.
                    sqlx::query("DELETE FROM enrol_tokens WHERE expires_us < ?")
                        .bind(now.0.saturating_sub(micros(KEEP)))
                        .execute(&mut *connection)
                        .await
                        .map_err(Database::written)?;
                    sqlx::query(
                        "INSERT INTO enrol_tokens (id, digest, grants, created_us, expires_us, uses) VALUES (?, ?, ?, ?, ?, ?)",
                    )
                    .bind(token.id)
                    .bind(digest.to_vec())
                    .bind(grants)
                    .bind(now.0)
                    .bind(token.expires.0)
                    .bind(token.uses.0)
                    .execute(&mut *connection)
                    .await
                    .map_err(Database::written)?;
                    Ok(())
                })
            })
            .await
    }

    /// Returns whether there is a token with this id and digest, without waiting for the journal's writer: strangers may
    /// ask.
    pub async fn knows(&self, id: &str, digest: [u8; 32]) -> Result<bool, StoreError> {
        let found = sqlx::query("SELECT 1 FROM enrol_tokens WHERE id = ? AND digest = ?")
            .bind(id)
            .bind(digest.to_vec())
            .fetch_optional(self.0.readers())
            .await
            .map_err(Database::read)?;
        Ok(found.is_some())
    }

    /// Uses a token and records the certificate that `make` returns, or does neither. An agent that asks again with the
    /// same token and key gets the certificate that it was given: its answer may have been lost.
    pub async fn enrol(
        &self,
        token: String,
        digest: [u8; 32],
        request: Request,
        now: Timestamp,
        make: Make,
    ) -> Result<(Vec<u8>, Identity), IdentityError> {
        self.0
            .transaction(move |connection| {
                Box::pin(async move {
                    let known = identity_of(connection, &request.agent).await?;
                    let given = certificate_of(connection, &request, Some(&token), now).await?;
                    if let (Some(der), Some(known)) = (given, known.clone()) {
                        return Ok((der, known));
                    }
                    let row = sqlx::query("SELECT * FROM enrol_tokens WHERE id = ? AND digest = ?")
                        .bind(&token)
                        .bind(digest.to_vec())
                        .fetch_optional(&mut *connection)
                        .await
                        .map_err(Database::read)?;
                    let found = row.as_ref().map(token_of).transpose()?;
                    enrol(found.as_ref(), &request.agent, known.as_ref(), now)?;
                    let Some(found) = found else {
                        return Err(NotEnrolled::NoToken.into());
                    };
                    let issued = known.map_or(0, |known| known.issued).saturating_add(1);
                    let made = make(issued)?;
                    sqlx::query("UPDATE enrol_tokens SET used = used + 1 WHERE id = ?")
                        .bind(&token)
                        .execute(&mut *connection)
                        .await
                        .map_err(Database::written)?;
                    let identity = Identity {
                        agent: request.agent.clone(),
                        grant: Some(found.grant),
                        standing: Standing::Good,
                        issued,
                        used: (issued, now),
                        expires: made.expires,
                    };
                    record(connection, &request, Some(&token), &identity, &made, now).await?;
                    Ok((made.der, identity))
                })
            })
            .await
    }

    /// Records a further certificate of an identity. An agent that asks again with the same key gets the same.
    pub async fn renew(
        &self,
        request: Request,
        now: Timestamp,
        make: Make,
    ) -> Result<(Vec<u8>, Identity), IdentityError> {
        self.0
            .transaction(move |connection| {
                Box::pin(async move {
                    let known = identity_of(connection, &request.agent).await?;
                    let Some(mut identity) = known else {
                        return Err(NotEnrolled::NoToken.into());
                    };
                    if identity.standing != Standing::Good {
                        let word = identity.standing.word();
                        return Err(IdentityError::Invalid(format!(
                            "agent {} is {word}",
                            request.agent
                        )));
                    }
                    if let Some(der) = certificate_of(connection, &request, None, now).await? {
                        return Ok((der, identity));
                    }
                    identity.issued = identity.issued.saturating_add(1);
                    let made = make(identity.issued)?;
                    identity.expires = made.expires;
                    record(connection, &request, None, &identity, &made, now).await?;
                    Ok((made.der, identity))
                })
            })
            .await
    }

    /// Records that a generation is used.
    pub async fn used(
        &self,
        agent: AgentId,
        generation: u32,
        since: Timestamp,
    ) -> Result<(), StoreError> {
        self.0
            .transaction(move |connection| {
                Box::pin(async move {
                    sqlx::query(
                        "UPDATE identities SET used = ?, used_us = ?, issued = max(issued, ?) WHERE agent = ? AND used < ?",
                    )
                    .bind(generation)
                    .bind(since.0)
                    .bind(generation)
                    .bind(agent.as_str())
                    .bind(generation)
                    .execute(&mut *connection)
                    .await
                    .map_err(Database::written)?;
                    Ok(())
                })
            })
            .await
    }

    /// Changes the standing of an identity. Adds a row for an agent that has none: one of another PKI.
    pub async fn stand(
        &self,
        agent: AgentId,
        standing: Standing,
        now: Timestamp,
    ) -> Result<Identity, StoreError> {
        self.0
            .transaction(move |connection| {
                Box::pin(async move {
                    let known = identity_of(connection, &agent).await?;
                    let mut identity = known.unwrap_or(Identity {
                        agent,
                        grant: None,
                        standing: Standing::Good,
                        issued: 0,
                        used: (0, now),
                        expires: now,
                    });
                    identity.standing = standing;
                    write(connection, &identity, now).await?;
                    Ok(identity)
                })
            })
            .await
    }
}

fn json(grant: &Grant) -> Result<String, StoreError> {
    serde_json::to_string(grant).map_err(|error| StoreError::Refused(error.to_string()))
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

async fn identity_of(
    connection: &mut SqliteConnection,
    agent: &AgentId,
) -> Result<Option<Identity>, StoreError> {
    let row = sqlx::query("SELECT * FROM identities WHERE agent = ?")
        .bind(agent.as_str())
        .fetch_optional(&mut *connection)
        .await
        .map_err(Database::read)?;
    row.as_ref().map(identity).transpose()
}

/// Returns the newest certificate that was made for a key, if it is still valid.
async fn certificate_of(
    connection: &mut SqliteConnection,
    request: &Request,
    token: Option<&str>,
    now: Timestamp,
) -> Result<Option<Vec<u8>>, StoreError> {
    let row = sqlx::query(
        "SELECT der FROM certificates WHERE agent = ? AND key = ? AND token IS ? AND expires_us > ? ORDER BY generation DESC LIMIT 1",
    )
    .bind(request.agent.as_str())
    .bind(request.key.to_vec())
    .bind(token)
    .bind(now.0)
    .fetch_optional(&mut *connection)
    .await
    .map_err(Database::read)?;
    row.map(|row| row.try_get("der").map_err(Database::read))
        .transpose()
}

async fn record(
    connection: &mut SqliteConnection,
    request: &Request,
    token: Option<&str>,
    identity: &Identity,
    made: &Made,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM certificates WHERE agent = ? AND expires_us < ?")
        .bind(request.agent.as_str())
        .bind(now.0.saturating_sub(micros(KEEP)))
        .execute(&mut *connection)
        .await
        .map_err(Database::written)?;
    sqlx::query(
        "INSERT INTO certificates (agent, generation, token, key, der, issued_us, expires_us) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(request.agent.as_str())
    .bind(identity.issued)
    .bind(token)
    .bind(request.key.to_vec())
    .bind(&made.der)
    .bind(now.0)
    .bind(made.expires.0)
    .execute(&mut *connection)
    .await
    .map_err(Database::written)?;
    write(connection, identity, now).await
}

async fn write(
    connection: &mut SqliteConnection,
    identity: &Identity,
    now: Timestamp,
) -> Result<(), StoreError> {
    let grants = identity.grant.as_ref().map(json).transpose()?;
    let (used, used_at) = identity.used;
    sqlx::query(
        "INSERT INTO identities (agent, grants, standing, reason, issued, used, used_us, expires_us, changed_us) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (agent) DO UPDATE SET grants = excluded.grants, standing = excluded.standing, reason = excluded.reason, \
         issued = excluded.issued, used = excluded.used, used_us = excluded.used_us, expires_us = excluded.expires_us, \
         changed_us = excluded.changed_us",
    )
    .bind(identity.agent.as_str())
    .bind(grants)
    .bind(identity.standing.word())
    .bind(identity.standing.reason())
    .bind(identity.issued)
    .bind(used)
    .bind(used_at.0)
    .bind(identity.expires.0)
    .bind(now.0)
    .execute(&mut *connection)
    .await
    .map_err(Database::written)?;
    Ok(())
}

fn grant(text: &str) -> Result<Grant, StoreError> {
    serde_json::from_str(text)
        .map_err(|error| StoreError::Read(format!("what an identity was given: {error}")))
}

fn token_of(row: &SqliteRow) -> Result<Token, StoreError> {
    let get = Database::read;
    Ok(Token {
        id: row.try_get("id").map_err(get)?,
        grant: grant(row.try_get("grants").map_err(get)?)?,
        expires: Timestamp(row.try_get("expires_us").map_err(get)?),
        uses: (
            row.try_get("uses").map_err(get)?,
            row.try_get("used").map_err(get)?,
        ),
    })
}

fn identity(row: &SqliteRow) -> Result<Identity, StoreError> {
    let get = Database::read;
    let grants: Option<&str> = row.try_get("grants").map_err(get)?;
    let reason: Option<String> = row.try_get("reason").map_err(get)?;
    let reason = reason.unwrap_or_default();
    let standing = match row.try_get::<&str, _>("standing").map_err(get)? {
        "good" => Standing::Good,
        "locked" => Standing::Locked(reason),
        // One that a later version wrote isn't let in either.
        _ => Standing::Revoked(reason),
    };
    Ok(Identity {
        agent: AgentId(row.try_get("agent").map_err(get)?),
        grant: grants.map(grant).transpose()?,
        standing,
        issued: row.try_get("issued").map_err(get)?,
        used: (
            row.try_get("used").map_err(get)?,
            Timestamp(row.try_get("used_us").map_err(get)?),
        ),
        expires: Timestamp(row.try_get("expires_us").map_err(get)?),
    })
}
