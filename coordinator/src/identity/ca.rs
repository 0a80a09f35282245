//! The coordinator's own CA: a key and a certificate in files of the state directory. It issues certificates to this
//! coordinator and to agents.

use super::core::{later, serial};
use crate::private;
use phalanx_proto::certificate;
use phalanx_shared::id::AgentId;
use phalanx_shared::identity::{Party, PartyName};
use phalanx_shared::time::Timestamp;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use time::OffsetDateTime;

/// File of the CA's certificate: for clients and agents.
pub(super) const CERTIFICATE: &str = "ca.pem";
/// File of the CA's private key.
const KEY: &str = "ca.key";
/// How long the CA's certificate is valid.
const CA_LASTS: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);
/// How much earlier than now certificates begin: clocks of other machines may be late.
const EARLIER: Duration = Duration::from_secs(300);

/// The CA or one of its files can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file.
    #[error("can't use {}: {error}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The certificate without its key.
    #[error(
        "{} is missing, the key of {CERTIFICATE} beside it: restore it from a backup. To begin a new CA remove {CERTIFICATE} too: every agent must enrol again then, and clients need the new {CERTIFICATE}",
        .0.display()
    )]
    NoKey(PathBuf),
    /// A file's content.
    #[error("{}: {reason}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Cryptography.
    #[error("can't make a certificate: {0}")]
    Make(String),
}

fn made(error: impl std::fmt::Display) -> CaError {
    CaError::Make(error.to_string())
}

/// A certificate authority.
pub(super) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Ca {
    /// Opens the CA in a directory, and begins one if there is none.
    pub fn open(directory: &Path, cluster: &str, now: Timestamp) -> Result<Ca, CaError> {
        let file = |path: &Path| {
            let path = path.to_owned();
            move |error| CaError::File { path, error }
        };
        private::directory(directory).map_err(file(directory))?;
        let (own, secret) = (directory.join(CERTIFICATE), directory.join(KEY));
        let read = |path: &Path| match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(file(path)(error)),
        };
        let content = |path: &Path, reason: String| CaError::Content {
            path: path.to_owned(),
            reason,
        };
        let key = match (read(&secret)?, own.exists()) {
            (Some(text), _) => KeyPair::from_pem(&text)
                .map_err(|error| content(&secret, format!("not a private key: {error}")))?,
            (None, true) => return Err(CaError::NoKey(secret)),
            (None, false) => {
                let key = KeyPair::generate().map_err(made)?;
                write(&secret, &key.serialize_pem()).map_err(file(&secret))?;
                key
            }
        };
        // A key without its certificate: the first start ended between the two.
        let pem = match read(&own)? {
            Some(pem) => pem,
            None => {
                let pem = begin(&key, cluster, now)?;
                write(&own, &pem).map_err(file(&own))?;
                pem
            }
        };
        let chain =
            certificate::chain(pem.as_bytes()).map_err(|error| content(&own, error.to_string()))?;
        let Some(certificate) = chain.into_iter().next() else {
            return Err(content(&own, "it is empty".to_owned()));
        };
        let mine = certificate::public_key(&certificate)
            .map_err(|error| content(&own, error.to_string()))?;
        if mine != key.subject_public_key_info() {
            return Err(content(
                &own,
                format!(
                    "it isn't the certificate of {KEY} beside it: restore both from one backup"
                ),
            ));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|error| content(&own, error.to_string()))?;
        Ok(Ca {
            issuer,
            certificate,
        })
    }

    /// Returns the CA's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Makes a certificate of this coordinator with a new key. It is for these hosts, and for the coordinator's own name.
    pub fn coordinator(
        &self,
        cluster: &str,
        names: &[String],
        now: Timestamp,
        lasts: Duration,
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), CaError> {
        let key = KeyPair::generate().map_err(made)?;
        let name = PartyName {
            cluster: cluster.to_owned(),
            party: Party::Coordinator,
        };
        let mut params = params(now, lasts, serial(0, random()?))?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = vec![uri(&name)?];
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(Ia5String::try_from(name.as_str()).map_err(made)?),
            });
        }
        let certificate = params.signed_by(&key, &self.issuer).map_err(made)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Ok((certificate.into(), key.into()))
    }

    /// Makes a certificate of an agent for the key of its request. Nothing else of the request counts.
    pub fn agent(
        &self,
        cluster: &str,
        agent: &AgentId,
        generation: u32,
        request: &SigningRequest,
        now: Timestamp,
        lasts: Duration,
    ) -> Result<Vec<u8>, CaError> {
        let name = PartyName {
            cluster: cluster.to_owned(),
            party: Party::Agent(agent.clone()),
        };
        let mut params = params(now, lasts, serial(generation, random()?))?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![uri(&name)?];
        let certificate = params.signed_by(&request.0.public_key, &self.issuer);
        Ok(certificate.map_err(made)?.der().to_vec())
    }
}

/// A request for a certificate whose signature shows that the sender has the key.
pub(super) struct SigningRequest(CertificateSigningRequestParams);

impl SigningRequest {
    /// Reads and verifies a request in DER.
    pub fn parse(der: &[u8]) -> Result<SigningRequest, String> {
        CertificateSigningRequestParams::from_der(&der.into())
            .map(SigningRequest)
            .map_err(|error| format!("the request for a certificate can't be used: {error}"))
    }

    /// Returns the SHA-256 of the public key.
    pub fn key(&self) -> [u8; 32] {
        Sha256::digest(self.0.public_key.subject_public_key_info()).into()
    }
}

fn begin(key: &KeyPair, cluster: &str, now: Timestamp) -> Result<String, CaError> {
    let mut params = params(now, CA_LASTS, serial(0, random()?))?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "Phalanx");
    subject.push(DnType::CommonName, format!("Phalanx CA of {cluster}"));
    params.distinguished_name = subject;
    Ok(params.self_signed(key).map_err(made)?.pem())
}

fn params(now: Timestamp, lasts: Duration, serial: [u8; 16]) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    let seconds = |at: Timestamp| OffsetDateTime::from_unix_timestamp(at.0.div_euclid(1_000_000));
    let begins = Timestamp(
        now.0
            .saturating_sub(i64::try_from(EARLIER.as_micros()).unwrap_or(0)),
    );
    params.not_before = seconds(begins).map_err(made)?;
    params.not_after = seconds(later(now, lasts)).map_err(made)?;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn uri(name: &PartyName) -> Result<SanType, CaError> {
    let text = Ia5String::try_from(name.to_string()).map_err(made)?;
    Ok(SanType::URI(text))
}

/// Returns bytes that can't be guessed.
pub(super) fn random<const N: usize>() -> Result<[u8; N], CaError> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| CaError::Make("the system gives no random numbers".to_owned()))?;
    Ok(bytes)
}

/// Writes a file that only its owner can read, whole or not at all.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut options = std::fs::File::options();
    let options = options.create(true).truncate(true).write(true).mode(0o600);
    let mut file = options.open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    if let Some(directory) = path.parent() {
        std::fs::File::open(directory)?.sync_all()?;
    }
    Ok(())
}
