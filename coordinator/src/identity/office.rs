//! Puts the CA, the store and TLS of a coordinator together, and asks the core.
//!
//! Identities are in memory, so that a call is judged without waiting for the disk. What changes by being used is written
//! behind; what somebody asked for (a token, a certificate, a revocation) is durable before it is answered.

use super::ca::{Ca, CaError, SigningRequest, random};
use super::core::{
    Grant, Identity, Issuer, NotEnrolled, Refusal, Standing, Token, Verdict, agent_of, judge,
    later, must_go, same_agent,
};
use super::store::{IdentityError, IdentityStore, Made, Make, Request};
use super::tls::{Configs, Files, Look, Material, certificates, look};
use crate::clock::Clock;
use crate::incoming::{Door, Presented, Secured};
use crate::journal::{Database, StoreError};
use phalanx_shared::id::AgentId;
use phalanx_shared::identity::{EnrolToken, Fingerprint};
use phalanx_shared::time::Timestamp;
use rustls::ServerConfig;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

/// Interval at which connections are ended whose identity may not be used any more.
const SWEEP: Duration = Duration::from_secs(1);
/// Interval at which files of certificates are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a certificate of this coordinator lasts. A new one is made after half of that.
const SERVER_LASTS: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Shortest life of an agent's certificate.
const SHORTEST: Duration = Duration::from_secs(2);

/// Certificates of another PKI.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct External {
    /// What this coordinator shows: certificate with chain, and key. `None` for one of its own CA.
    pub server: Option<(PathBuf, PathBuf)>,
    /// CAs of agents' certificates. `None` for its own CA.
    pub client_ca: Option<PathBuf>,
}

/// Settings of a coordinator with TLS.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the cluster, in all certificates.
    pub cluster: String,
    /// Hosts that this coordinator's own certificate is for.
    pub names: Vec<String>,
    /// Certificates of another PKI.
    pub external: External,
    /// How long an agent's certificate lasts.
    pub agent_lasts: Duration,
    /// Directory for the CA.
    pub directory: PathBuf,
}

/// The authenticated agent of a call, as its handler sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAgent {
    /// Id of the agent.
    pub agent: AgentId,
    /// What its token gave it; `None` if another PKI made its certificate.
    pub grant: Option<Grant>,
}

impl PeerAgent {
    /// Checks that a message names this agent.
    pub fn is(&self, message: &AgentId) -> Result<(), Status> {
        same_agent(&self.agent, message).map_err(Status::from)
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Status {
        let code = match refusal {
            Refusal::NoCertificate => Code::Unauthenticated,
            _ => Code::PermissionDenied,
        };
        Status::new(code, refusal.to_string())
    }
}

impl From<IdentityError> for Status {
    fn from(error: IdentityError) -> Status {
        let code = match &error {
            IdentityError::Store(_) | IdentityError::Certificate(_) => Code::Unavailable,
            IdentityError::NotEnrolled(_) => Code::PermissionDenied,
            IdentityError::Invalid(_) => Code::InvalidArgument,
        };
        Status::new(code, error.to_string())
    }
}

/// The identities of a coordinator with TLS. Cheap to clone.
#[derive(Clone)]
pub struct Identities(Arc<Inner>);

struct Inner {
    settings: Settings,
    issuer: Issuer,
    ca: Ca,
    store: IdentityStore,
    clock: Arc<dyn Clock>,
    configs: RwLock<Shown>,
    known: Mutex<HashMap<AgentId, Identity>>,
    doors: Mutex<Vec<Door>>,
    notes: mpsc::UnboundedSender<Note>,
}

/// What is shown now, and since when.
struct Shown {
    configs: Configs,
    since: Timestamp,
    files: Vec<Look>,
}

/// Something to write behind.
enum Note {
    Used(AgentId, u32, Timestamp),
    Locked(AgentId, String, Timestamp),
}

/// A new token for agents.
pub struct NewToken {
    /// The token itself.
    pub token: EnrolToken,
    /// Until when it can be used.
    pub expires: Timestamp,
}

/// A certificate for an agent.
pub struct Issued {
    /// The certificate in DER.
    pub certificate: Vec<u8>,
    /// The CA by which this coordinator is known from now on; `None` if another PKI made its certificate.
    pub ca: Option<Vec<u8>>,
}

impl Identities {
    /// Opens the CA, reads all identities and prepares TLS. What has to be done regularly is done until `stop`.
    pub async fn open(
        settings: Settings,
        database: Database,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Result<Identities, OpenError> {
        let now = clock.wall();
        let ca = Ca::open(&settings.directory, &settings.cluster, now)?;
        let store = IdentityStore::new(database);
        let known = store.all().await?.into_iter();
        let known = known.map(|identity| (identity.agent.clone(), identity));
        let configs = shown(&settings, &ca, now)?;
        let (notes, noted) = mpsc::unbounded_channel();
        let issuer = match settings.external.client_ca {
            None => Issuer::Own,
            Some(_) => Issuer::External,
        };
        let identities = Identities(Arc::new(Inner {
            issuer,
            ca,
            known: Mutex::new(known.collect()),
            configs: RwLock::new(configs),
            doors: Mutex::default(),
            settings,
            store,
            clock,
            notes,
        }));
        let writing = identities.clone().write_behind(noted);
        tokio::spawn(stop.clone().run_until_cancelled_owned(writing));
        let keeping = identities.clone().keep();
        tokio::spawn(stop.run_until_cancelled_owned(keeping));
        Ok(identities)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<AgentId, Identity>> {
        // Nothing panics while it is locked.
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn configs(&self) -> Configs {
        let shown = self.0.configs.read();
        shown
            .unwrap_or_else(PoisonError::into_inner)
            .configs
            .clone()
    }

    /// Returns TLS for the port of agents and clients.
    pub fn for_calls(&self) -> Secured {
        let me = self.clone();
        Secured::new(self.0.clock.clone(), move || me.configs().calls)
    }

    /// Returns TLS for the port of monitoring and pages.
    pub fn for_pages(&self) -> Secured {
        let me = self.clone();
        Secured::new(self.0.clock.clone(), move || -> Arc<ServerConfig> {
            me.configs().pages
        })
    }

    /// Ends connections of this door from now on when their identity may not be used any more.
    pub fn watch(&self, door: Door) {
        let mut doors = self.0.doors.lock().unwrap_or_else(PoisonError::into_inner);
        doors.push(door);
    }

    /// Returns the fingerprint by which this coordinator can be verified.
    pub fn fingerprint(&self) -> Fingerprint {
        self.configs().known_by
    }

    /// Returns the file of the CA that verifies this coordinator; `None` if another PKI made its certificate.
    pub fn ca_file(&self) -> Option<PathBuf> {
        let own = self.0.settings.external.server.is_none();
        own.then(|| self.0.settings.directory.join(super::ca::CERTIFICATE))
    }

    /// Reads the files of certificates again. What can't be used is logged, and what was shown before stays.
    pub fn reload(&self) {
        let now = self.0.clock.wall();
        match shown(&self.0.settings, &self.0.ca, now) {
            Ok(new) => {
                let mut shown = self
                    .0
                    .configs
                    .write()
                    .unwrap_or_else(PoisonError::into_inner);
                *shown = new;
                tracing::info!("new connections are shown the new certificate");
            }
            Err(error) => {
                tracing::error!(%error, "the certificate can't be renewed: the earlier one is still shown");
            }
        }
    }

    /// Judges a call. The peer must be an agent with a valid identity.
    pub fn admit(&self, presented: Option<&Presented>) -> Result<PeerAgent, Refusal> {
        let presented = presented.ok_or(Refusal::NoCertificate)?;
        let agent = agent_of(&self.0.settings.cluster, &presented.facts)?;
        let now = self.0.clock.wall();
        let mut known = self.known();
        let identity = known.get_mut(&agent);
        let verdict = judge(self.0.issuer, &agent, presented, identity.as_deref(), now);
        let grant = identity.as_ref().and_then(|known| known.grant.clone());
        match (verdict, identity) {
            (Verdict::Refuse(refusal), _) => Err(refusal),
            (Verdict::Lock { reason }, Some(identity)) => {
                identity.standing = Standing::Locked(reason.clone());
                drop(known);
                tracing::error!(%agent, reason, "an identity is locked");
                self.note(Note::Locked(agent.clone(), reason.clone(), now));
                self.cut(&HashSet::from([agent.clone()]));
                Err(Refusal::Locked { agent, reason })
            }
            (Verdict::First { generation }, Some(identity)) => {
                identity.used = (generation, now);
                // From a backup that is older than the certificate.
                identity.issued = identity.issued.max(generation);
                identity.expires = identity.expires.max(presented.facts.expires);
                drop(known);
                self.note(Note::Used(agent.clone(), generation, now));
                Ok(PeerAgent { agent, grant })
            }
            (_, _) => Ok(PeerAgent { agent, grant }),
        }
    }

    fn note(&self, note: Note) {
        // The task that receives it ends only with the coordinator.
        let _ = self.0.notes.send(note);
    }

    /// Makes a token by which agents enrol.
    pub async fn create_token(
        &self,
        grant: Grant,
        lasts: Duration,
        uses: u32,
    ) -> Result<NewToken, IdentityError> {
        if self.0.issuer == Issuer::External {
            return Err(no_tokens());
        }
        let now = self.0.clock.wall();
        let known_by = self.fingerprint();
        add_token(&self.0.store, known_by, grant, lasts, uses, now).await
    }

    /// Gives an agent its first certificate.
    pub async fn enrol(
        &self,
        token: &EnrolToken,
        agent: AgentId,
        request: &[u8],
    ) -> Result<Issued, IdentityError> {
        if self.0.issuer == Issuer::External {
            return Err(IdentityError::Invalid(
                "agents of this coordinator get their certificates from another PKI: give this one its files, with --certificate and --key".to_owned(),
            ));
        }
        if !phalanx_shared::identity::is_name(agent.as_str()) {
            return Err(IdentityError::Invalid(
                "an agent's id has letters, digits, `.`, `_` and `-`, at most 64".to_owned(),
            ));
        }
        if !self.0.store.knows(token.id(), token.digest()).await? {
            return Err(NotEnrolled::NoToken.into());
        }
        let now = self.0.clock.wall();
        let (asked, make) = self.making(&agent, request, now)?;
        let (id, digest) = (token.id().to_owned(), token.digest());
        let enrolled = self.0.store.enrol(id, digest, asked, now, make).await;
        let (certificate, identity) = enrolled.inspect_err(|error| {
            tracing::warn!(%agent, token = token.id(), %error, "an agent can't enrol");
        })?;
        tracing::info!(%agent, token = token.id(), "an agent enrolled");
        self.known().insert(agent, identity);
        Ok(self.issued(certificate))
    }

    /// Gives an agent a new certificate.
    pub async fn renew(&self, agent: AgentId, request: &[u8]) -> Result<Issued, IdentityError> {
        if self.0.issuer == Issuer::External {
            return Err(IdentityError::Invalid(
                "agents of this coordinator get their certificates from another PKI".to_owned(),
            ));
        }
        let now = self.0.clock.wall();
        let (asked, make) = self.making(&agent, request, now)?;
        let (certificate, identity) = self.0.store.renew(asked, now, make).await?;
        tracing::debug!(%agent, generation = identity.issued, "an agent's certificate was renewed");
        if let Some(known) = self.known().get_mut(&agent) {
            known.issued = known.issued.max(identity.issued);
            known.expires = known.expires.max(identity.expires);
        }
        Ok(self.issued(certificate))
    }

    fn making(
        &self,
        agent: &AgentId,
        request: &[u8],
        now: Timestamp,
    ) -> Result<(Request, Make), IdentityError> {
        let signed = SigningRequest::parse(request).map_err(IdentityError::Invalid)?;
        let asked = Request {
            agent: agent.clone(),
            key: signed.key(),
        };
        let (me, agent) = (self.clone(), agent.clone());
        let lasts = self.0.settings.agent_lasts.max(SHORTEST);
        let make = move |generation| {
            let cluster = &me.0.settings.cluster;
            let der =
                me.0.ca
                    .agent(cluster, &agent, generation, &signed, now, lasts);
            Ok(Made {
                der: der.map_err(|error| IdentityError::Certificate(error.to_string()))?,
                expires: later(now, lasts),
            })
        };
        Ok((asked, Box::new(make)))
    }

    fn issued(&self, certificate: Vec<u8>) -> Issued {
        let own = self.0.settings.external.server.is_none();
        Issued {
            certificate,
            ca: own.then(|| self.0.ca.certificate().to_vec()),
        }
    }

    /// Revokes an identity: it is refused from now on, and its connections end. Returns `false` if there is none.
    pub async fn revoke(&self, agent: AgentId, reason: String) -> Result<bool, StoreError> {
        let may_be_new = self.0.issuer == Issuer::External;
        if !may_be_new && !self.known().contains_key(&agent) {
            return Ok(false);
        }
        let now = self.0.clock.wall();
        let standing = Standing::Revoked(reason.clone());
        let identity = self.0.store.stand(agent.clone(), standing, now).await?;
        tracing::warn!(%agent, reason, "an identity is revoked");
        self.known().insert(agent.clone(), identity);
        self.cut(&HashSet::from([agent]));
        Ok(true)
    }

    /// Returns the identity of an agent.
    pub fn get(&self, agent: &AgentId) -> Option<Identity> {
        self.known().get(agent).cloned()
    }

    /// Returns all identities, by id.
    pub fn all(&self) -> Vec<Identity> {
        let mut all: Vec<Identity> = self.known().values().cloned().collect();
        all.sort_unstable_by(|a, b| a.agent.cmp(&b.agent));
        all
    }

    /// Ends the connections of agents.
    fn cut(&self, agents: &HashSet<AgentId>) {
        let doors = self.0.doors.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = &self.0.settings.cluster;
        for door in doors.iter() {
            door.drop_where(&|presented| {
                agent_of(cluster, &presented.facts).is_ok_and(|agent| agents.contains(&agent))
            });
        }
    }

    async fn write_behind(self, mut notes: mpsc::UnboundedReceiver<Note>) {
        while let Some(note) = notes.recv().await {
            let written = match note {
                Note::Used(agent, generation, since) => {
                    self.0.store.used(agent, generation, since).await
                }
                Note::Locked(agent, reason, now) => {
                    let standing = Standing::Locked(reason);
                    self.0.store.stand(agent, standing, now).await.map(drop)
                }
            };
            if let Err(error) = written {
                tracing::error!(%error, "a change of an identity isn't stored");
            }
        }
    }

    /// Ends connections whose identity has gone, and renews what is shown.
    async fn keep(self) {
        let mut looked = Duration::ZERO;
        loop {
            tokio::time::sleep(SWEEP).await;
            let now = self.0.clock.wall();
            let gone: HashSet<AgentId> = self
                .known()
                .values()
                .filter(|identity| identity.issued > 0 || identity.standing != Standing::Good)
                .filter(|identity| must_go(identity, now))
                .map(|identity| identity.agent.clone())
                .collect();
            if !gone.is_empty() {
                self.cut(&gone);
            }
            let monotonic = self.0.clock.monotonic();
            if monotonic.saturating_sub(looked) >= LOOK_EVERY {
                looked = monotonic;
                self.renew_shown(now).await;
            }
        }
    }

    async fn renew_shown(&self, now: Timestamp) {
        let files = files(&self.0.settings);
        let seen = tokio::task::spawn_blocking(move || look(&files)).await;
        let stale = {
            let shown = self.0.configs.read();
            let shown = shown.unwrap_or_else(PoisonError::into_inner);
            let changed = seen.is_ok_and(|seen| seen != shown.files);
            let own = self.0.settings.external.server.is_none();
            changed || (own && now.since(shown.since) >= SERVER_LASTS / 2)
        };
        if stale {
            let me = self.clone();
            // Its files are read.
            let _ = tokio::task::spawn_blocking(move || me.reload()).await;
        }
    }
}

fn no_tokens() -> IdentityError {
    IdentityError::Invalid(
        "agents get their certificates from the PKI of `serve.tls.client_ca`: there are no tokens for them here".to_owned(),
    )
}

async fn add_token(
    store: &IdentityStore,
    known_by: Fingerprint,
    grant: Grant,
    lasts: Duration,
    uses: u32,
    now: Timestamp,
) -> Result<NewToken, IdentityError> {
    let invalid = |text: &str| Err(IdentityError::Invalid(text.to_owned()));
    if uses == 0 {
        return invalid("a token needs at least one use");
    }
    if lasts.is_zero() {
        return invalid("a token needs a time to live");
    }
    grant
        .check()
        .map_err(|error| IdentityError::Invalid(error.to_string()))?;
    let made = |error: CaError| IdentityError::Certificate(error.to_string());
    let token = EnrolToken::new(random().map_err(made)?, random().map_err(made)?, known_by);
    let expires = later(now, lasts);
    let stored = Token {
        id: token.id().to_owned(),
        grant,
        expires,
        uses: (uses, 0),
    };
    store.add(stored, token.digest(), now).await?;
    tracing::info!(token = token.id(), uses, "a token for agents was created");
    Ok(NewToken { token, expires })
}

/// Makes a token beside a coordinator of this machine, which may be running. `settings` are its own.
pub async fn create_token_beside(
    settings: &Settings,
    journal: &Path,
    grant: Grant,
    lasts: Duration,
    uses: u32,
    now: Timestamp,
) -> Result<NewToken, IdentityError> {
    if settings.external.client_ca.is_some() {
        return Err(no_tokens());
    }
    let own = settings.directory.join(super::ca::CERTIFICATE);
    let shown = match &settings.external.server {
        Some((certificate, _)) => certificate,
        None => &own,
    };
    let chain = certificates(shown).map_err(|error| {
        IdentityError::Invalid(format!(
            "{error}. Start `phalanx serve` with TLS once: it makes its CA then"
        ))
    })?;
    let last = chain.last().map_or(&[][..], |last| last.as_ref());
    let store = IdentityStore::new(Database::beside(journal).await?);
    add_token(&store, Fingerprint::of(last), grant, lasts, uses, now).await
}

/// TLS can't be prepared.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The CA or a file.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The journal's database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The certificate and its key don't make TLS.
    #[error("{what} can't be used for TLS: {error}", what = .files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", "))]
    Tls {
        /// The files.
        files: Vec<PathBuf>,
        /// Why.
        error: rustls::Error,
    },
}

/// Returns the files that other programs may change.
fn files(settings: &Settings) -> Vec<PathBuf> {
    let External { server, client_ca } = &settings.external;
    let server = server
        .iter()
        .flat_map(|(certificate, key)| [certificate, key]);
    server.chain(client_ca).cloned().collect()
}

fn shown(settings: &Settings, ca: &Ca, now: Timestamp) -> Result<Shown, OpenError> {
    let files = files(settings);
    // Before they are read: what changes meanwhile is read again.
    let looks = look(&files);
    let (chain, key) = match &settings.external.server {
        Some((certificate, key)) => Files {
            certificate: certificate.clone(),
            key: key.clone(),
        }
        .read()?,
        None => {
            let (own, key) =
                ca.coordinator(&settings.cluster, &settings.names, now, SERVER_LASTS)?;
            (vec![own, ca.certificate().clone()], key)
        }
    };
    let clients = match &settings.external.client_ca {
        Some(file) => certificates(file)?,
        None => vec![ca.certificate().clone()],
    };
    let material = Material {
        chain,
        key,
        clients,
    };
    let configs = Configs::of(material).map_err(|error| OpenError::Tls {
        files: files.clone(),
        error,
    })?;
    Ok(Shown {
        configs,
        since: now,
        files: looks,
    })
}
