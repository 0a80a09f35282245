//! Finds out who makes a call, and lets it in or not.
//!
//! A token that was checked within the last second isn't looked up again, so a revoked one is valid for a second at most.

use super::audit::Happened;
use super::caller::Caller;
use super::core::{Failures, Identity, Need, Refusal, Scope, decide};
use super::secret::{DIGEST, Presented};
use super::tokens::Tokens;
use crate::clock::Clock;
use crate::incoming::Visit;
use crate::metrics::METRICS;
use phalanx_shared::namespace::Namespace;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tonic::{Code, Status};

/// Time for which a check counts.
const FRESH: Duration = Duration::from_secs(1);
/// Interval at which the token of a call that lasts is checked again.
const LOOK: Duration = Duration::from_secs(1);
/// Time between two notes that a token was used.
const NOTE: Duration = Duration::from_secs(60);
/// Tokens that are remembered. They are few; the limit is for those that come and go.
const KNOWN: usize = 10_000;

/// Access control of a coordinator. Cheap to clone.
#[derive(Clone)]
pub struct Access(Option<Arc<Control>>);

struct Control {
    tokens: Tokens,
    clock: Arc<dyn Clock>,
    known: Mutex<HashMap<[u8; DIGEST], Known>>,
    failures: Mutex<Failures>,
}

/// A token that was valid when it was last looked up.
#[derive(Clone)]
struct Known {
    identity: Arc<Identity>,
    looked: Duration,
}

/// What a call brings, as text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Brought<'a> {
    /// The header `authorization`.
    pub authorization: Option<&'a str>,
    /// The token of the page's session.
    pub session: Option<&'a Presented>,
    /// The namespace that the call is narrowed to.
    pub namespace: Option<&'a str>,
    /// The peer; `None` for a socket of this machine.
    pub peer: Option<IpAddr>,
    /// Its address.
    pub from: Option<SocketAddr>,
}

impl<'a> Brought<'a> {
    /// Says which connection brings it.
    #[must_use]
    pub fn by(mut self, visit: Option<&Visit>) -> Brought<'a> {
        self.peer = visit.map(Visit::peer);
        self.from = visit.map(Visit::address);
        self
    }
}

/// Returns the token in a header `authorization`.
pub fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim())
}

impl Access {
    /// Everybody may do everything.
    pub fn off() -> Access {
        Access(None)
    }

    /// Only owners of tokens may do what their roles allow.
    pub fn on(tokens: Tokens, clock: Arc<dyn Clock>) -> Access {
        Access(Some(Arc::new(Control {
            tokens,
            clock,
            known: Mutex::default(),
            failures: Mutex::default(),
        })))
    }

    /// Returns whether callers need tokens.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Returns the tokens, if callers need some.
    pub fn tokens(&self) -> Option<&Tokens> {
        self.0.as_ref().map(|control| &control.tokens)
    }

    /// Lets a call in, or says why not. `what` names the call.
    pub async fn enter(
        &self,
        what: &str,
        need: Option<Need>,
        brought: Brought<'_>,
    ) -> Result<Caller, Refusal> {
        let asked = brought.namespace.filter(|name| !name.is_empty());
        let asked = asked.map(str::parse::<Namespace>).transpose()?;
        let Some(control) = &self.0 else {
            let scope = asked.map_or(Scope::All, Scope::One);
            return Ok(Caller::machine(scope));
        };
        let need = need.ok_or_else(|| Refusal::Unlisted(what.to_owned()))?;
        if need == Need::Agent {
            return Ok(Caller::stranger());
        }
        let token = control.presented(&brought);
        let known = match &token {
            Ok(token) => control.identify(token, brought.peer).await,
            Err(refusal) => Err(refusal.clone()),
        };
        let who = known.as_ref().ok().cloned();
        let entered = match (known, token) {
            (Ok(identity), Ok(token)) => {
                let scope = decide(need, &identity, asked.as_ref());
                scope.map(|scope| Caller::known(identity, Arc::new(token), scope))
            }
            (Err(_), _) if need == Need::Nothing => Ok(Caller::stranger()),
            (Err(refusal), _) | (_, Err(refusal)) => Err(refusal),
        };
        if let Err(refusal) = &entered {
            METRICS.calls_refused.inc();
            control
                .note_refused(what, who.as_deref(), refusal, &brought)
                .await;
        }
        entered
    }

    /// Writes into the audit log that a call was made and how it ended.
    pub async fn note(
        &self,
        caller: &Caller,
        what: &str,
        from: Option<SocketAddr>,
        result: Result<(), String>,
    ) {
        let (Some(control), Some(_)) = (&self.0, caller.identity()) else {
            return;
        };
        let happened = Happened::by(caller, what, origin(from));
        let happened = happened.ended(caller.was_about(), result);
        control.write(happened).await;
    }

    /// Writes into the audit log what this process did by itself.
    pub async fn note_own(&self, who: &str, what: &str, about: String) {
        if let Some(control) = &self.0 {
            let happened = Happened {
                name: who.to_owned(),
                call: what.to_owned(),
                from: origin(None),
                ..Happened::default()
            };
            control.write(happened.ended(about, Ok(()))).await;
        }
    }

    /// Checks a token that a person typed in. Returns it as it is checked.
    pub async fn log_in(&self, text: &str, visit: &Visit) -> Result<Presented, Refusal> {
        let Some(control) = &self.0 else {
            return Err(Refusal::NoToken);
        };
        let brought = Brought::default().by(Some(visit));
        let checked = match control.parsed(text.trim(), &brought) {
            Ok(token) => {
                let known = control.identify(&token, brought.peer).await;
                known.map(|_| token)
            }
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = &checked {
            control
                .note_refused("POST /login", None, refusal, &brought)
                .await;
        }
        checked
    }

    /// Resolves when a caller's token isn't valid any more.
    pub async fn until_over(self, caller: Caller) -> Refusal {
        let (Some(control), Some(token)) = (&self.0, caller.token()) else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(LOOK).await;
            match control.identify(token, None).await {
                // Whoever was let in may stay while nobody can know better.
                Ok(_) | Err(Refusal::Unreadable(_)) => {}
                Err(_) => return Refusal::Over,
            }
        }
    }

    /// Forgets what is known of a token, so that it is looked up at once.
    pub fn forget(&self, id: &str) {
        if let Some(control) = &self.0 {
            control
                .known()
                .retain(|_, known| known.identity.token != id);
        }
    }
}

/// Returns where a call came from, in words.
fn origin(from: Option<SocketAddr>) -> String {
    from.map_or_else(|| "this machine".to_owned(), |from| from.to_string())
}

impl Control {
    async fn write(&self, happened: Happened) {
        let written = self.tokens.audit().add(happened, self.clock.wall()).await;
        if let Err(error) = written {
            // What was done is done.
            tracing::error!(%error, "the audit log can't be written");
        }
    }

    /// Notes that a call was refused. A call without a token is no try to get in.
    async fn note_refused(
        &self,
        what: &str,
        who: Option<&Identity>,
        refusal: &Refusal,
        brought: &Brought<'_>,
    ) {
        if matches!(refusal, Refusal::NoToken | Refusal::Unreadable(_)) {
            return;
        }
        let happened = Happened {
            token: who.map(|who| who.token.clone()).unwrap_or_default(),
            name: who.map(|who| who.name.clone()).unwrap_or_default(),
            namespace: who.map(|who| who.scope.to_string()).unwrap_or_default(),
            from: origin(brought.from),
            call: what.to_owned(),
            about: String::new(),
            result: format!("refused: {refusal}"),
        };
        let (wall, now) = (self.clock.wall(), self.clock.monotonic());
        let written = self.tokens.audit().add_refused(happened, wall, now).await;
        if let Err(error) = written {
            tracing::error!(%error, "the audit log can't be written");
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<[u8; DIGEST], Known>> {
        // Nothing panics while it is locked.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the token of a call.
    fn presented(&self, brought: &Brought<'_>) -> Result<Presented, Refusal> {
        match (brought.authorization, brought.session) {
            (Some(header), _) => match bearer(header) {
                Some(text) => self.parsed(text, brought),
                None => Err(Refusal::NoToken),
            },
            (None, Some(session)) => Ok(session.clone()),
            (None, None) => Err(Refusal::NoToken),
        }
    }

    fn parsed(&self, text: &str, brought: &Brought<'_>) -> Result<Presented, Refusal> {
        Presented::parse(text).ok_or_else(|| self.failed(brought.peer))
    }

    /// Notes a wrong token.
    fn failed(&self, peer: Option<IpAddr>) -> Refusal {
        if let Some(peer) = peer {
            let now = self.clock.monotonic();
            let mut failures = self.failures();
            if let Err(refusal) = failures.check(peer, now) {
                return refusal;
            }
            failures.add(peer, now);
        }
        Refusal::BadToken
    }

    /// Returns the owner of a token. Only tokens that were never valid count against their peer.
    async fn identify(
        &self,
        token: &Presented,
        peer: Option<IpAddr>,
    ) -> Result<Arc<Identity>, Refusal> {
        let now = self.clock.monotonic();
        let wall = self.clock.wall();
        let known = self.known().get(&token.digest).cloned();
        if let Some(known) = &known
            && now.saturating_sub(known.looked) < FRESH
        {
            let ended = known.identity.expires.is_some_and(|end| wall >= end);
            return match ended {
                false => Ok(known.identity.clone()),
                true => Err(Refusal::BadToken),
            };
        }
        if known.is_none()
            && let Some(peer) = peer
        {
            self.failures().check(peer, now)?;
        }
        let found = self.tokens.get(&token.id).await;
        let found = found.map_err(|error| Refusal::Unreadable(error.to_string()))?;
        let valid = found.filter(|found| found.is(token) && found.is_valid(wall));
        let Some(found) = valid else {
            let known = self.known().remove(&token.digest);
            return Err(match known {
                Some(_) => Refusal::BadToken,
                None => self.failed(peer),
            });
        };
        let last = found.used;
        let identity = Arc::new(found.identity);
        let unnoted = last.is_none_or(|last| wall.since(last) >= NOTE);
        if unnoted {
            let (tokens, id) = (self.tokens.clone(), identity.token.clone());
            tokio::spawn(async move {
                if let Err(error) = tokens.used(&id, wall).await {
                    tracing::debug!(%error, "the use of a token isn't noted");
                }
            });
        }
        let mut known = self.known();
        if known.len() >= KNOWN {
            known.retain(|_, known| now.saturating_sub(known.looked) < FRESH);
        }
        let entry = Known {
            identity: identity.clone(),
            looked: now,
        };
        known.insert(token.digest, entry);
        Ok(identity)
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Status {
        let code = match &refusal {
            Refusal::NoToken | Refusal::BadToken | Refusal::Over => Code::Unauthenticated,
            Refusal::TooMany(_) => Code::ResourceExhausted,
            Refusal::Role { .. }
            | Refusal::Everywhere { .. }
            | Refusal::Namespace { .. }
            | Refusal::Unlisted(_) => Code::PermissionDenied,
            Refusal::NoNamespace(_) => Code::InvalidArgument,
            Refusal::Unreadable(_) => Code::Unavailable,
        };
        Status::new(code, refusal.to_string())
    }
}
