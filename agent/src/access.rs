//! How an agent reaches a coordinator with TLS: the certificate that it shows, and what it knows the coordinator by.
//!
//! Key and certificate are in one file, which is replaced as a whole, so they always belong together. Files are read at
//! each connection: what was renewed is shown from then on, also by the agent's mourner. So a new certificate is never
//! used before it is on disk.

use crate::private;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use phalanx_proto::certificate::{self, InvalidCertificate};
use phalanx_proto::tls::{self, Shown, Trust};
use phalanx_shared::id::AgentId;
use phalanx_shared::identity::{Fingerprint, Party};
use phalanx_shared::time::Timestamp;
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// File of an enrolled agent's key and certificate, in its identity's directory.
const FILE: &str = "credentials.json";

/// Where an agent's certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// From the coordinator's CA, by enrolment.
    Enrolled {
        /// File with the credentials.
        file: PathBuf,
        /// Setting `ca`, which replaces what the coordinator was known by at the enrolment; empty for that.
        ca: String,
    },
    /// From another PKI.
    Files {
        /// PEM file with the certificate and its chain.
        certificate: PathBuf,
        /// PEM file with its key.
        key: PathBuf,
        /// Setting `ca`: what the coordinator is known by.
        ca: String,
    },
}

/// A file of credentials can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// It can't be read or written.
    #[error("can't use {}: {error}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Its content is wrong.
    #[error("{}: {reason}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The setting `ca`.
    #[error("ca: {0}")]
    Ca(#[from] InvalidCertificate),
    /// TLS refuses what the files contain.
    #[error("the certificate and its key can't be used: {0}")]
    Tls(#[from] rustls::Error),
}

/// The key and certificate of an enrolled agent.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// Private key, PKCS #8 in Base64.
    key: String,
    /// Certificate, DER in Base64.
    certificate: String,
    /// CA of the coordinator, DER in Base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    coordinator_ca: Option<String>,
    /// What the coordinator is known by without a CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    coordinator_fingerprint: Option<String>,
    /// When the certificate came, by this machine's clock.
    received: Timestamp,
}

impl Credentials {
    /// Returns the file in an identity's directory.
    pub fn file(identity: &Path) -> PathBuf {
        identity.join(FILE)
    }

    /// Puts a key and the certificate for it together.
    pub fn new(key: &[u8], certificate: &[u8], known_by: &Trust, received: Timestamp) -> Self {
        let (ca, fingerprint) = match known_by {
            Trust::Cas(cas) => (cas.first(), None),
            Trust::Fingerprint(fingerprint) => (None, Some(fingerprint.to_string())),
        };
        Credentials {
            key: BASE64_STANDARD.encode(key),
            certificate: BASE64_STANDARD.encode(certificate),
            coordinator_ca: ca.map(|ca| BASE64_STANDARD.encode(ca)),
            coordinator_fingerprint: fingerprint,
            received,
        }
    }

    /// Reads a file. Returns `None` if there is none.
    pub fn load(path: &Path) -> Result<Option<Credentials>, AccessError> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let path = path.to_owned();
                return Err(AccessError::File { path, error });
            }
        };
        // The error doesn't contain the text, which has a key in it.
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| content(path, format!("line {}: not credentials", error.line())))
    }

    /// Writes the file: as a whole, and durable before this returns.
    pub fn store(&self, path: &Path) -> Result<(), AccessError> {
        let written = serde_json::to_vec_pretty(self)
            .map_err(io::Error::from)
            .and_then(|bytes| replace(path, &bytes));
        written.map_err(|error| AccessError::File {
            path: path.to_owned(),
            error,
        })
    }

    /// Returns the agent of the certificate and when it expires.
    pub fn about(&self, path: &Path) -> Result<(AgentId, Timestamp), AccessError> {
        agent_of(&decoded(path, &self.certificate)?, path)
    }

    /// Returns when the certificate is to be renewed: after half of its life.
    pub fn renew_at(&self, expires: Timestamp) -> Timestamp {
        let life = expires.since(self.received);
        let half = i64::try_from(life.as_micros() / 2).unwrap_or(i64::MAX);
        Timestamp(self.received.0.saturating_add(half))
    }

    /// Returns what the coordinator is known by.
    pub fn known_by(&self, path: &Path) -> Result<Trust, AccessError> {
        if let Some(ca) = &self.coordinator_ca {
            let ca = CertificateDer::from(decoded(path, ca)?);
            return Ok(Trust::Cas(vec![ca]));
        }
        let text = self.coordinator_fingerprint.as_deref();
        let fingerprint = text.and_then(Fingerprint::parse);
        let none = || {
            content(
                path,
                "it doesn't say what the coordinator is known by".to_owned(),
            )
        };
        Ok(Trust::Fingerprint(fingerprint.ok_or_else(none)?))
    }

    fn shown(&self, path: &Path) -> Result<Shown, AccessError> {
        let key = PrivatePkcs8KeyDer::from(decoded(path, &self.key)?);
        Ok(Shown {
            chain: vec![CertificateDer::from(decoded(path, &self.certificate)?)],
            key: PrivateKeyDer::from(key),
        })
    }
}

impl Access {
    /// Makes TLS of what the files contain now.
    pub fn config(&self) -> Result<Arc<ClientConfig>, AccessError> {
        let (trust, shown) = match self {
            Access::Enrolled { file, ca } => {
                let missing = || content(file, "it is gone: enrol the agent again".to_owned());
                let credentials = Credentials::load(file)?.ok_or_else(missing)?;
                let trust = match ca.as_str() {
                    "" => credentials.known_by(file)?,
                    ca => Trust::named(ca)?,
                };
                (trust, credentials.shown(file)?)
            }
            Access::Files {
                certificate,
                key,
                ca,
            } => {
                let chain = read(certificate, certificate::chain)?;
                let key = read(key, certificate::key)?;
                (Trust::named(ca)?, Shown { chain, key })
            }
        };
        Ok(tls::client(trust, Some(shown))?)
    }
}

/// Returns the agent that a PEM file's certificate names, and when it expires.
pub fn agent_of_file(path: &Path) -> Result<(AgentId, Timestamp), AccessError> {
    let chain = read(path, certificate::chain)?;
    let first = chain.first().map(AsRef::as_ref).unwrap_or_default();
    agent_of(first, path)
}

fn agent_of(der: &[u8], path: &Path) -> Result<(AgentId, Timestamp), AccessError> {
    let facts = certificate::facts(der).map_err(|error| content(path, error.to_string()))?;
    match facts.party.map(|name| name.party) {
        Some(Party::Agent(agent)) => Ok((agent, facts.expires)),
        _ => Err(content(
            path,
            "its certificate names no agent: it needs one URI phalanx://CLUSTER/agent/ID"
                .to_owned(),
        )),
    }
}

fn content(path: &Path, reason: String) -> AccessError {
    let path = path.to_owned();
    AccessError::Content { path, reason }
}

fn decoded(path: &Path, text: &str) -> Result<Vec<u8>, AccessError> {
    let decoded = BASE64_STANDARD.decode(text);
    decoded.map_err(|_| content(path, "not credentials: it isn't Base64".to_owned()))
}

fn read<T>(
    path: &Path,
    parse: fn(&[u8]) -> Result<T, InvalidCertificate>,
) -> Result<T, AccessError> {
    let bytes = std::fs::read(path).map_err(|error| AccessError::File {
        path: path.to_owned(),
        error,
    })?;
    parse(&bytes).map_err(|error| content(path, error.to_string()))
}

/// Replaces a private file as a whole.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut options = private::file();
    let options = options.create(true).truncate(true).write(true);
    let mut file = options.open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    if let Some(directory) = path.parent() {
        std::fs::File::open(directory)?.sync_all()?;
    }
    Ok(())
}
