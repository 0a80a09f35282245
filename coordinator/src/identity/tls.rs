//! The listening side of TLS 1.3: the certificate that this coordinator shows, and whose certificates it accepts.
//!
//! Sessions aren't resumed. A resumed one would bring the identity of an earlier handshake along, and a certificate that
//! has expired since then wouldn't be verified again.

use super::ca::CaError;
use phalanx_proto::certificate;
use phalanx_shared::identity::Fingerprint;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Certificates and keys of another PKI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate that the coordinator shows, with its chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// What a server shows and accepts.
pub(super) struct Material {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pub clients: Vec<CertificateDer<'static>>,
}

/// TLS for the two ports.
#[derive(Clone)]
pub(super) struct Configs {
    /// For agents and clients. Agents show a certificate; clients needn't.
    pub calls: Arc<ServerConfig>,
    /// For monitoring and pages.
    pub pages: Arc<ServerConfig>,
    /// The last certificate that is shown: the CA's, if the chain has it.
    pub known_by: Fingerprint,
}

impl Configs {
    pub fn of(material: Material) -> Result<Configs, rustls::Error> {
        let Material {
            chain,
            key,
            clients,
        } = material;
        let last = chain.last().map_or(&[][..], |last| last.as_ref());
        let known_by = Fingerprint::of(last);
        let provider = Arc::new(ring::default_provider());
        let builder = || {
            ServerConfig::builder_with_provider(provider.clone())
                .with_protocol_versions(&[&rustls::version::TLS13])
        };
        let mut roots = RootCertStore::empty();
        for ca in clients {
            roots.add(ca)?;
        }
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .allow_unauthenticated()
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        let calls = builder()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())?;
        let pages = builder()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        let speaks = |mut config: ServerConfig, protocol: &[u8]| {
            config.alpn_protocols = vec![protocol.to_vec()];
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            Arc::new(config)
        };
        Ok(Configs {
            calls: speaks(calls, b"h2"),
            pages: speaks(pages, b"http/1.1"),
            known_by,
        })
    }
}

impl Files {
    /// Reads both files.
    pub(super) fn read(
        &self,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), CaError> {
        let chain = read(&self.certificate, certificate::chain)?;
        Ok((chain, read(&self.key, certificate::key)?))
    }
}

/// Reads a file of certificates.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CaError> {
    read(path, certificate::chain)
}

fn read<T>(
    path: &Path,
    parse: fn(&[u8]) -> Result<T, certificate::InvalidCertificate>,
) -> Result<T, CaError> {
    let bytes = std::fs::read(path).map_err(|error| CaError::File {
        path: path.to_owned(),
        error,
    })?;
    parse(&bytes).map_err(|error| CaError::Content {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// How a file looked. It changed if it looks different.
pub(super) type Look = Option<(SystemTime, u64)>;

/// Looks at files without reading them.
pub(super) fn look(files: &[PathBuf]) -> Vec<Look> {
    let look = |file: &PathBuf| {
        let meta = file.metadata().ok()?;
        Some((meta.modified().ok()?, meta.len()))
    };
    files.iter().map(look).collect()
}
