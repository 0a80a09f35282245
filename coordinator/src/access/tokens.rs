//! The tokens of clients, in the journal's database.
//!
//! A coordinator reads them by their ids. Another process on its machine may add and revoke some beside it: SQLite lets
//! one write after the other, and the coordinator looks again often enough.

use super::audit::Audit;
use super::core::{Identity, Role, Scope};
use super::secret::{DIGEST, Fresh, NoRandomness, Presented, fresh, same};
use crate::journal::{SqliteStore, StoreError, read_error, write_error};
use futures::future::BoxFuture;
use phalanx_shared::time::Timestamp;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Row, query, query_scalar};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Longest name of a token, in characters.
const NAME: usize = 100;
/// Tokens that ended longer ago than this are removed when a new one is made.
const KEEP_ENDED: Duration = Duration::from_secs(90 * 24 * 3_600);

/// What a new token shall allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Display name.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// Where it does.
    pub scope: Scope,
    /// How long; `None` for ever.
    pub ttl: Option<Duration>,
    /// Who makes it.
    pub by: String,
    /// Whose it is, if it is somebody's who may have several.
    pub subject: Option<String>,
}

/// Why no token was made.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotMade {
    /// The name can't be shown.
    #[error("a token needs a name of 1 to {NAME} characters without line breaks")]
    Name,
    /// Random numbers are missing.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// The database can't be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is kept of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Who has it, and what it allows.
    pub identity: Identity,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last used, to the minute.
    pub used: Option<Timestamp>,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
    digest: Vec<u8>,
}

impl Token {
    /// Returns whether a token that was presented is this one.
    pub fn is(&self, presented: &Presented) -> bool {
        same(&self.digest, &presented.digest)
    }

    /// Describes the token, for the audit log.
    pub fn in_words(&self) -> String {
        let Identity {
            token,
            name,
            role,
            scope,
            ..
        } = &self.identity;
        format!("{token} {name:?}, {role} in {scope}")
    }

    /// Returns whether the token is valid.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.revoked.is_none() && self.identity.expires.is_none_or(|end| now < end)
    }
}

/// Access to the tokens. Cheap to clone.
#[derive(Clone)]
pub struct Tokens {
    writer: SqlitePool,
    readers: SqlitePool,
    audit: Audit,
    /// Keeps the database to this process, if it opened it alone.
    _store: Option<Arc<SqliteStore>>,
}

impl Tokens {
    /// Returns the tokens in a journal that is open for writing.
    pub fn of(store: &SqliteStore) -> Result<Tokens, StoreError> {
        let (writer, readers) = store.pools()?;
        Ok(Tokens {
            audit: Audit::in_pools(writer.clone(), readers.clone()),
            writer,
            readers,
            _store: None,
        })
    }

    /// Opens the tokens in a journal's file, also while a coordinator has it open.
    pub fn open(path: &Path) -> BoxFuture<'_, Result<Tokens, StoreError>> {
        Box::pin(async move {
            match SqliteStore::open(path).await {
                Ok(store) => {
                    let tokens = Tokens::of(&store)?;
                    Ok(Tokens {
                        _store: Some(Arc::new(store)),
                        ..tokens
                    })
                }
                Err(StoreError::InUse { .. }) => {
                    let pool = SqliteStore::pool_beside(path).await?;
                    Ok(Tokens {
                        audit: Audit::in_pools(pool.clone(), pool.clone()),
                        writer: pool.clone(),
                        readers: pool,
                        _store: None,
                    })
                }
                Err(error) => Err(error),
            }
        })
    }

    /// Returns the audit log beside the tokens.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Makes a token.
    pub async fn add(&self, wish: Wish, now: Timestamp) -> Result<(Fresh, Token), NotMade> {
        let shown = |name: &str| !name.trim().is_empty() && !name.chars().any(char::is_control);
        if !shown(&wish.name) || wish.name.chars().count() > NAME {
            return Err(NotMade::Name);
        }
        let fresh = fresh()?;
        let Presented { id, digest } = fresh.kept.clone();
        let token = Token {
            identity: Identity {
                subject: wish.subject.unwrap_or_else(|| format!("token:{id}")),
                name: wish.name,
                role: wish.role,
                scope: wish.scope,
                expires: wish.ttl.map(|ttl| after(now, ttl)),
                token: id,
            },
            created_by: wish.by,
            created: now,
            used: None,
            revoked: None,
            digest: digest.to_vec(),
        };
        let keep = i64::try_from(KEEP_ENDED.as_micros()).unwrap_or(i64::MAX);
        query("DELETE FROM access_tokens WHERE min(coalesce(revoked_us, 9e18), coalesce(expires_us, 9e18)) < ?")
            .bind(now.0.saturating_sub(keep))
            .execute(&self.writer)
            .await
            .map_err(write_error)?;
        query(
            "INSERT INTO access_tokens (id, digest, name, role, namespace, subject, created_by, created_us, expires_us) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&token.identity.token)
        .bind(&token.digest)
        .bind(&token.identity.name)
        .bind(token.identity.role.as_str())
        .bind(token.identity.scope.to_string())
        .bind(&token.identity.subject)
        .bind(&token.created_by)
        .bind(token.created.0)
        .bind(token.identity.expires.map(|end| end.0))
        .execute(&self.writer)
        .await
        .map_err(write_error)?;
        Ok((fresh, token))
    }

    /// Returns the token with this id.
    pub async fn get(&self, id: &str) -> Result<Option<Token>, StoreError> {
        let row = query("SELECT * FROM access_tokens WHERE id = ?")
            .bind(id)
            .fetch_optional(&self.readers)
            .await
            .map_err(read_error)?;
        row.as_ref().map(token).transpose()
    }

    /// Returns the tokens whose scope is within this one, oldest first.
    pub async fn list(&self, within: &Scope) -> Result<Vec<Token>, StoreError> {
        let rows = query("SELECT * FROM access_tokens ORDER BY created_us, id")
            .fetch_all(&self.readers)
            .await
            .map_err(read_error)?;
        let mut tokens = rows.iter().map(token).collect::<Result<Vec<_>, _>>()?;
        tokens.retain(|token| within.includes(&token.identity.scope));
        Ok(tokens)
    }

    /// Returns whether there has never been a token.
    pub async fn is_empty(&self) -> Result<bool, StoreError> {
        let one: Option<i64> = query_scalar("SELECT 1 FROM access_tokens LIMIT 1")
            .fetch_optional(&self.readers)
            .await
            .map_err(read_error)?;
        Ok(one.is_none())
    }

    /// Revokes a token for ever.
    pub async fn revoke(&self, id: &str, now: Timestamp) -> Result<(), StoreError> {
        query("UPDATE access_tokens SET revoked_us = ? WHERE id = ? AND revoked_us IS NULL")
            .bind(now.0)
            .bind(id)
            .execute(&self.writer)
            .await
            .map_err(write_error)?;
        Ok(())
    }

    /// Notes that a token was used.
    pub async fn used(&self, id: &str, now: Timestamp) -> Result<(), StoreError> {
        query("UPDATE access_tokens SET used_us = ? WHERE id = ?")
            .bind(now.0)
            .bind(id)
            .execute(&self.writer)
            .await
            .map_err(write_error)?;
        Ok(())
    }
}

fn after(now: Timestamp, ttl: Duration) -> Timestamp {
    let ttl = i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX);
    Timestamp(now.0.saturating_add(ttl))
}

fn token(row: &SqliteRow) -> Result<Token, StoreError> {
    let text = |column: &str| row.try_get::<String, _>(column).map_err(read_error);
    let time = |column: &str| {
        let micros = row.try_get::<Option<i64>, _>(column).map_err(read_error)?;
        Ok::<_, StoreError>(micros.map(Timestamp))
    };
    let id = text("id")?;
    let odd = |what: &str| StoreError::Read(format!("the {what} of token {id} isn't known"));
    let role = Role::parse(&text("role")?).ok_or_else(|| odd("role"))?;
    let scope = Scope::parse(&text("namespace")?).ok_or_else(|| odd("namespace"))?;
    let digest: Vec<u8> = row.try_get("digest").map_err(read_error)?;
    if digest.len() != DIGEST {
        return Err(odd("digest"));
    }
    Ok(Token {
        identity: Identity {
            subject: text("subject")?,
            name: text("name")?,
            role,
            scope,
            expires: time("expires_us")?,
            token: text("id")?,
        },
        created_by: text("created_by")?,
        created: Timestamp(row.try_get("created_us").map_err(read_error)?),
        used: time("used_us")?,
        revoked: time("revoked_us")?,
        digest,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn wish(name: &str, scope: &str) -> Wish {
        Wish {
            name: name.to_owned(),
            role: Role::Run,
            scope: Scope::parse(scope).unwrap(),
            ttl: Some(Duration::from_secs(60)),
            by: "a test".to_owned(),
            subject: None,
        }
    }

    #[tokio::test]
    async fn only_the_digest_of_a_token_is_in_the_database() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("journal.db");
        let tokens = Tokens::open(&path).await.unwrap();
        let (fresh, token) = tokens.add(wish("ci", "a"), NOW).await.unwrap();
        let read = tokens.get(&fresh.kept.id).await.unwrap().unwrap();
        assert_eq!(read, token);
        assert!(read.is(&Presented::parse(&fresh.text).unwrap()));
        let (other, _) = tokens.add(wish("other", "a"), NOW).await.unwrap();
        assert!(!read.is(&other.kept));
        drop(tokens);
        let secret = fresh.text.rsplit('_').next().unwrap();
        for entry in std::fs::read_dir(place.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            let found = bytes.windows(16).any(|w| w == &secret.as_bytes()[..16]);
            assert!(!found);
        }
    }

    #[tokio::test]
    async fn a_token_ends_by_its_time_or_by_being_revoked() {
        let place = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(&place.path().join("j.db")).await.unwrap();
        assert!(tokens.is_empty().await.unwrap());
        let (_, token) = tokens.add(wish("ci", "a"), NOW).await.unwrap();
        assert!(!tokens.is_empty().await.unwrap());
        assert!(token.is_valid(after(NOW, Duration::from_secs(59))));
        assert!(!token.is_valid(after(NOW, Duration::from_secs(60))));
        let id = token.identity.token;
        tokens.revoke(&id, NOW).await.unwrap();
        tokens.used(&id, NOW).await.unwrap();
        let read = tokens.get(&id).await.unwrap().unwrap();
        assert!(!read.is_valid(NOW));
        assert_eq!((read.revoked, read.used), (Some(NOW), Some(NOW)));
        let much_later = after(NOW, KEEP_ENDED * 2);
        tokens.add(wish("new", "a"), much_later).await.unwrap();
        assert_eq!(tokens.get(&id).await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_administrator_sees_the_tokens_of_its_namespaces() {
        let place = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(&place.path().join("j.db")).await.unwrap();
        for (name, scope) in [("one", "a"), ("two", "b"), ("all", "*")] {
            tokens.add(wish(name, scope), NOW).await.unwrap();
        }
        let of = async |scope: &str| {
            let tokens = tokens.list(&Scope::parse(scope).unwrap()).await.unwrap();
            let names = tokens.into_iter().map(|token| token.identity.name);
            let mut names: Vec<String> = names.collect();
            names.sort();
            names
        };
        assert_eq!(of("a").await, ["one"]);
        assert_eq!(of("*").await, ["all", "one", "two"]);
        let error = tokens.add(wish("a\nb", "a"), NOW).await.unwrap_err();
        assert!(error.to_string().contains("name"), "{error}");
    }

    #[tokio::test]
    async fn a_token_is_made_beside_a_coordinator_that_has_the_database_open() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("journal.db");
        let store = SqliteStore::open(&path).await.unwrap();
        let beside = Tokens::open(&path).await.unwrap();
        let (fresh, _) = beside.add(wish("ci", "a"), NOW).await.unwrap();
        let own = Tokens::of(&store).unwrap();
        assert!(own.get(&fresh.kept.id).await.unwrap().is_some());
    }
}
