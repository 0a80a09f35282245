//! Gets the agent's certificate: the first by a token, further ones before it expires.

use crate::access::{Access, AccessError, Credentials, replace};
use crate::clock::{Clock, SystemClock};
use crate::link::{Coordinator, InvalidAddress, Unreachable, backoff};
use phalanx_proto::tls::{self, Trust};
use phalanx_proto::v1::enrolment_client::EnrolmentClient;
use phalanx_proto::v1::{EnrolRequest, IssuedCertificate, RenewRequest};
use phalanx_proto::{broken, certificate};
use phalanx_shared::id::AgentId;
use phalanx_shared::identity::EnrolToken;
use phalanx_shared::time::Timestamp;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::{Code, Status};

/// File of the key with which an enrolment was begun, so that a repeated call is the same one.
const BEGUN: &str = "enrolling.json";
/// Longest pause between looks at the clock: the machine may sleep meanwhile.
const LOOK: Duration = Duration::from_secs(60);
/// Time limit of one call.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What an agent's command line says about certificates.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// The token to enrol with, or `@FILE`.
    pub token: Option<String>,
    /// Certificate and key of another PKI.
    pub files: Option<(PathBuf, PathBuf)>,
    /// Setting `ca`; empty for none.
    pub ca: String,
}

/// The agent gets no certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// There is no way to get one.
    #[error(
        "this agent has no identity for {0}: create a token there (`phalanx token create agent`), and start the agent with --enrol TOKEN, --enrol @FILE or PHALANX_ENROL"
    )]
    NoToken(String),
    /// The certificate has expired.
    #[error(
        "this agent's certificate expired at {0}: create a token on the coordinator (`phalanx token create agent`), and start the agent once with --enrol TOKEN or @FILE"
    )]
    Expired(String),
    /// The certificate is another agent's.
    #[error(
        "{} is of agent {theirs}, and this directory of agent {own}: each agent needs its own directory and its own certificate",
        .file.display()
    )]
    OtherAgent {
        /// The file with the certificate.
        file: PathBuf,
        /// The agent that it names.
        theirs: AgentId,
        /// The agent of the directory.
        own: AgentId,
    },
    /// A certificate of another PKI without what the coordinator is known by.
    #[error(
        "with --certificate, `ca` must say what the coordinator is known by: a PEM file or a fingerprint"
    )]
    NoCa,
    /// The token can't be read.
    #[error("--enrol: {0}")]
    Token(String),
    /// A key can't be made.
    #[error("can't make a key: {0}")]
    Key(String),
    /// Files.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The coordinator's address.
    #[error(transparent)]
    Address(#[from] InvalidAddress),
    /// The coordinator refuses.
    #[error("the coordinator refuses: {0}")]
    Refused(String),
    /// The coordinator can't be reached, or it doesn't answer.
    #[error("{0}")]
    Unanswered(String),
}

impl From<Unreachable> for EnrolError {
    fn from(error: Unreachable) -> EnrolError {
        EnrolError::Unanswered(error.to_string())
    }
}

impl From<Status> for EnrolError {
    fn from(status: Status) -> EnrolError {
        match status.code() {
            Code::PermissionDenied
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::Unauthenticated => EnrolError::Refused(status.message().to_owned()),
            Code::Unimplemented => {
                EnrolError::Refused("it knows no enrolment: upgrade it".to_owned())
            }
            _ => EnrolError::Unanswered(broken(&status)),
        }
    }
}

/// A new key and the request for its certificate.
struct Asked {
    key: Vec<u8>,
    request: Vec<u8>,
}

fn ask(key: &KeyPair) -> Result<Asked, EnrolError> {
    let wrong = |error: rcgen::Error| EnrolError::Key(error.to_string());
    let request = CertificateParams::default()
        .serialize_request(key)
        .map_err(wrong)?;
    Ok(Asked {
        key: key.serialize_der(),
        request: request.der().to_vec(),
    })
}

fn new_key() -> Result<KeyPair, EnrolError> {
    KeyPair::generate().map_err(|error| EnrolError::Key(error.to_string()))
}

/// Writes the agent id of another PKI's certificate into a new identity's directory, so that the agent has that id.
pub fn adopt(wish: &Wish, directory: &Path) -> Result<(), EnrolError> {
    let Some((certificate, _)) = &wish.files else {
        return Ok(());
    };
    let (agent, _) = crate::access::agent_of_file(certificate)?;
    crate::identity::adopt(directory, &agent)
        .map_err(|error| AccessError::File {
            path: directory.to_owned(),
            error,
        })
        .map_err(EnrolError::from)
}

/// Returns how the agent reaches its coordinator; `None` for one without TLS. Enrols the agent if it has no certificate
/// yet, and tries until the coordinator answers.
pub async fn access(
    coordinator: &str,
    agent: &AgentId,
    directory: &Path,
    wish: Wish,
) -> Result<Option<Access>, EnrolError> {
    if !coordinator.starts_with("https://") {
        return Ok(None);
    }
    let same = |file: &Path, theirs: AgentId| match theirs == *agent {
        true => Ok(()),
        false => Err(EnrolError::OtherAgent {
            file: file.to_owned(),
            theirs,
            own: agent.clone(),
        }),
    };
    if let Some((certificate, key)) = wish.files {
        let (theirs, _) = crate::access::agent_of_file(&certificate)?;
        same(&certificate, theirs)?;
        if wish.ca.is_empty() {
            return Err(EnrolError::NoCa);
        }
        return Ok(Some(Access::Files {
            certificate,
            key,
            ca: wish.ca,
        }));
    }
    let file = Credentials::file(directory);
    let mut expired = None;
    if let Some(credentials) = Credentials::load(&file)? {
        let (theirs, expires) = credentials.about(&file)?;
        same(&file, theirs)?;
        if expires > SystemClock::default().wall() {
            return Ok(Some(Access::Enrolled { file, ca: wish.ca }));
        }
        expired = Some(expires);
    }
    let token = match (wish.token, expired) {
        (Some(text), _) => token(&text)?,
        (None, Some(at)) => return Err(EnrolError::Expired(at.to_rfc3339())),
        (None, None) => return Err(EnrolError::NoToken(coordinator.to_owned())),
    };
    let credentials = enrol(coordinator, agent, directory, &token, &wish.ca).await?;
    credentials.store(&file)?;
    let _ = std::fs::remove_file(directory.join(BEGUN));
    tracing::info!(%agent, "enrolled");
    Ok(Some(Access::Enrolled { file, ca: wish.ca }))
}

fn token(text: &str) -> Result<EnrolToken, EnrolError> {
    let wrong = |error: String| EnrolError::Token(error);
    let text = match text.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| wrong(format!("can't read {file}: {error}")))?,
        None => text.to_owned(),
    };
    EnrolToken::parse(&text).map_err(|error| wrong(error.to_string()))
}

/// An enrolment that was begun.
#[derive(Serialize, Deserialize)]
struct Begun {
    token: String,
    key: String,
}

/// Returns the key for an enrolment: that of an earlier try with the same token, if there was one. Its answer may have
/// been lost, and the token may be used up.
fn key_for(token: &EnrolToken, directory: &Path) -> Result<KeyPair, EnrolError> {
    let path = directory.join(BEGUN);
    let begun = std::fs::read(&path).ok();
    let begun = begun.and_then(|bytes| serde_json::from_slice::<Begun>(&bytes).ok());
    if let Some(begun) = begun.filter(|begun| begun.token == token.id())
        && let Ok(key) = KeyPair::from_pem(&begun.key)
    {
        return Ok(key);
    }
    let key = new_key()?;
    let begun = Begun {
        token: token.id().to_owned(),
        key: key.serialize_pem(),
    };
    let written = serde_json::to_vec(&begun)
        .map_err(std::io::Error::from)
        .and_then(|bytes| replace(&path, &bytes));
    written.map_err(|error| AccessError::File { path, error })?;
    Ok(key)
}

async fn enrol(
    coordinator: &str,
    agent: &AgentId,
    directory: &Path,
    token: &EnrolToken,
    ca: &str,
) -> Result<Credentials, EnrolError> {
    // The token's fingerprint is enough; with a CA, both must hold.
    let trust = match ca {
        "" => Trust::Fingerprint(token.coordinator()),
        ca => Trust::named(ca).map_err(AccessError::from)?,
    };
    let config = tls::client(trust.clone(), None).map_err(AccessError::from)?;
    let coordinator = Coordinator::anonymous(coordinator, config)?;
    let Asked { key, request } = ask(&key_for(token, directory)?)?;
    let mut failed = 0;
    loop {
        let call = async {
            let mut client = EnrolmentClient::new(coordinator.channel().await?);
            let request = EnrolRequest {
                token: token.reveal(),
                agent_id: agent.to_string(),
                signing_request: request.clone(),
            };
            Ok::<_, EnrolError>(client.enrol(request).await?.into_inner())
        };
        let called = tokio::time::timeout(ANSWER_WITHIN, call).await;
        let reason = match called {
            Ok(Ok(issued)) => {
                let now = SystemClock::default().wall();
                return credentials(key, issued, trust, agent, now);
            }
            Ok(Err(EnrolError::Unanswered(reason))) => reason,
            Ok(Err(error)) => return Err(error),
            Err(_) => "no answer".to_owned(),
        };
        failed += 1;
        if failed == 1 || failed % 20 == 0 {
            tracing::warn!(reason, "can't enrol yet; trying again");
        }
        tokio::time::sleep(backoff::pause(failed, backoff::chance())).await;
    }
}

fn credentials(
    key: Vec<u8>,
    issued: IssuedCertificate,
    before: Trust,
    agent: &AgentId,
    now: Timestamp,
) -> Result<Credentials, EnrolError> {
    let IssuedCertificate {
        certificate,
        coordinator_ca,
    } = issued;
    let known_by = match coordinator_ca.as_slice() {
        [] => before,
        ca => {
            certificate::facts(ca).map_err(AccessError::from)?;
            Trust::Cas(vec![CertificateDer::from(ca.to_vec())])
        }
    };
    let credentials = Credentials::new(&key, &certificate, &known_by, now);
    let (theirs, _) = credentials.about(Path::new("the coordinator's answer"))?;
    if theirs != *agent {
        return Err(EnrolError::Refused(format!(
            "it sent a certificate of agent {theirs}"
        )));
    }
    Ok(credentials)
}

/// Renews the certificate of an enrolled agent after half of its life, for as long as it is polled.
pub async fn keep_renewed(address: String, agent: AgentId, access: Access) {
    // Another PKI renews its files itself.
    let Access::Enrolled { file, .. } = &access else {
        return std::future::pending().await;
    };
    let clock = SystemClock::default();
    let mut failed = 0;
    loop {
        let due = Credentials::load(file).ok().flatten();
        let due = due.and_then(|credentials| {
            let (_, expires) = credentials.about(file).ok()?;
            Some((credentials.renew_at(expires), expires))
        });
        let now = clock.wall();
        if let Some((at, _)) = due.filter(|(at, _)| *at > now) {
            tokio::time::sleep(at.since(now).min(LOOK)).await;
            continue;
        }
        let renewed = tokio::time::timeout(ANSWER_WITHIN, renew(&address, &agent, &access, file));
        let reason = match renewed.await {
            Ok(Ok(())) => {
                failed = 0;
                tracing::info!("the agent's certificate is renewed");
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        failed += 1;
        if failed == 1 || failed % 20 == 0 {
            let expires = due.map(|(_, expires)| expires.to_rfc3339());
            tracing::warn!(
                reason,
                expires,
                "the agent's certificate isn't renewed; trying again"
            );
        }
        tokio::time::sleep(backoff::pause(failed, backoff::chance())).await;
    }
}

async fn renew(
    address: &str,
    agent: &AgentId,
    access: &Access,
    file: &Path,
) -> Result<(), EnrolError> {
    let coordinator = Coordinator::at(address, Some(access.clone()))?;
    let Asked { key, request } = ask(&new_key()?)?;
    let mut client = EnrolmentClient::new(coordinator.channel().await?);
    let request = RenewRequest {
        signing_request: request,
    };
    let issued = client.renew(request).await?.into_inner();
    let before = match Credentials::load(file)? {
        Some(before) => before.known_by(file)?,
        None => return Err(EnrolError::NoToken(address.to_owned())),
    };
    let now = SystemClock::default().wall();
    credentials(key, issued, before, agent, now)?.store(file)?;
    Ok(())
}
