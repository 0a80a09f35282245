//! The connecting side of TLS: how a coordinator's certificate is verified, and the certificate that an agent shows.
//!
//! A coordinator is known by a CA, or by the fingerprint of a certificate that it shows. Its certificate is accepted if
//! it is for the host that was asked for. One of a Phalanx CA is also accepted for its own name
//! (`phalanx://CLUSTER/coordinator`): such a CA issues these to coordinators only, so that an address which it didn't know
//! (behind a NAT, a tunnel, a load balancer) needs no new certificate.

use crate::certificate::{self, InvalidCertificate};
use crate::channel::{self, Boxed, Io, Open};
use phalanx_shared::identity::{Fingerprint, Party};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{self, Channel, Endpoint};

/// How a coordinator is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// By one of these CAs.
    Cas(Vec<CertificateDer<'static>>),
    /// By the fingerprint of its own certificate, or of a CA's that it shows with it.
    Fingerprint(Fingerprint),
}

impl Trust {
    /// Reads what the setting `ca` says: a fingerprint, or the path of a PEM file with CAs. The error says what to do.
    pub fn named(text: &str) -> Result<Trust, InvalidCertificate> {
        if let Some(fingerprint) = Fingerprint::parse(text) {
            return Ok(Trust::Fingerprint(fingerprint));
        }
        let wrong = |reason: String| {
            InvalidCertificate(format!(
                "{text}: {reason}. Give a PEM file, or a fingerprint: sha256: and 64 hexadecimal digits"
            ))
        };
        let pem = std::fs::read(text).map_err(|error| wrong(error.to_string()))?;
        let chain = certificate::chain(&pem).map_err(|error| wrong(error.to_string()))?;
        Ok(Trust::Cas(chain))
    }
}

/// A certificate with its chain and key.
pub struct Shown {
    /// The certificate, then those that lead to the CA.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
}

/// Makes connections to one coordinator by TLS 1.3.
pub fn client(trust: Trust, shown: Option<Shown>) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Coordinator::new(trust, provider.clone())?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match shown {
        None => config.with_no_client_auth(),
        Some(Shown { chain, key }) => config.with_client_auth_cert(chain, key)?,
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Connects by TLS. `config` is asked for each connection, so that a renewed certificate is shown from then on. The host is
/// that of the endpoint.
pub fn connect(
    endpoint: Endpoint,
    config: impl Fn() -> io::Result<Arc<ClientConfig>> + Send + 'static,
) -> Boxed<Result<Channel, transport::Error>> {
    let host = endpoint.uri().host().unwrap_or_default().to_owned();
    let port = endpoint.uri().port_u16().unwrap_or(443);
    let open: Open = Box::new(move || {
        let (host, config) = (host.clone(), config());
        Box::pin(async move { open(&host, port, config?).await })
    });
    channel::connect_by(endpoint, open)
}

async fn open(host: &str, port: u16, config: Arc<ClientConfig>) -> io::Result<Box<dyn Io>> {
    // A URI has an IPv6 address in brackets.
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(bare.to_owned())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let stream = TcpStream::connect((bare, port)).await?;
    stream.set_nodelay(true)?;
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    Ok(Box::new(stream))
}

/// Verifies the certificate of a coordinator.
#[derive(Debug)]
struct Coordinator {
    trust: Known,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
enum Known {
    Roots(RootCertStore),
    Fingerprint(Fingerprint),
}

impl Coordinator {
    fn new(trust: Trust, provider: Arc<CryptoProvider>) -> Result<Coordinator, Error> {
        let trust = match trust {
            Trust::Cas(cas) => {
                let mut roots = RootCertStore::empty();
                for ca in cas {
                    roots.add(ca)?;
                }
                Known::Roots(roots)
            }
            Trust::Fingerprint(fingerprint) => Known::Fingerprint(fingerprint),
        };
        Ok(Coordinator { trust, provider })
    }

    fn chain(
        &self,
        own: &ParsedCertificate<'_>,
        roots: &RootCertStore,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(own, roots, intermediates, now, algorithms)
    }
}

impl ServerCertVerifier for Coordinator {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let own = ParsedCertificate::try_from(end_entity)?;
        match &self.trust {
            Known::Roots(roots) => self.chain(&own, roots, intermediates, now)?,
            Known::Fingerprint(fingerprint) => {
                if Fingerprint::of(end_entity) == *fingerprint {
                    // Exactly this certificate was meant, whatever names it has.
                    return Ok(ServerCertVerified::assertion());
                }
                let found = intermediates
                    .iter()
                    .find(|shown| Fingerprint::of(shown) == *fingerprint);
                let ca = found.ok_or(CertificateError::UnknownIssuer)?;
                let mut roots = RootCertStore::empty();
                roots.add(ca.clone().into_owned())?;
                self.chain(&own, &roots, intermediates, now)?;
            }
        }
        let party = certificate::facts(end_entity).ok().and_then(|f| f.party);
        if party.is_some_and(|name| name.party == Party::Coordinator) {
            return Ok(ServerCertVerified::assertion());
        }
        verify_server_name(&own, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// Alerts that are explained, by the names under which HTTP/2 passes them on: it keeps only an error's text.
const ALERTS: [AlertDescription; 5] = [
    AlertDescription::CertificateExpired,
    AlertDescription::UnknownCA,
    AlertDescription::DecryptError,
    AlertDescription::BadCertificate,
    AlertDescription::AccessDenied,
];

/// Describes an error of TLS among the causes of an error, with what to do about it. Returns `None` if there is none.
pub fn explain(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(cause) = next {
        let text = cause.to_string();
        let told = ALERTS
            .iter()
            .find(|alert| text.ends_with(&Error::AlertReceived(**alert).to_string()));
        if let Some(alert) = told {
            return Some(explained(&Error::AlertReceived(*alert)));
        }
        // An I/O error tells the error that it wraps, and not as its source.
        let wrapped = cause
            .downcast_ref::<io::Error>()
            .and_then(|error| error.get_ref());
        let inner = wrapped.and_then(|error| error.downcast_ref::<Error>());
        if let Some(error) = inner.or_else(|| cause.downcast_ref::<Error>()) {
            return Some(explained(error));
        }
        next = match wrapped {
            Some(wrapped) => Some(wrapped as &(dyn std::error::Error + 'static)),
            None => cause.source(),
        };
    }
    None
}

fn explained(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(why) => match why {
            CertificateError::UnknownIssuer => {
                "its certificate isn't of the CA that it is known by: set `ca` to the CA's file or fingerprint (`phalanx serve` prints both), unless this is another machine".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is for other names: use one of these as the host, or add this one to the certificate (`serve.tls.names`)".to_owned()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired: renew it there, and check the clocks of both machines".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate isn't valid yet: check the clocks of both machines".to_owned()
            }
            other => format!("its certificate is refused: {other:?}"),
        },
        Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateExpired => {
                "this agent's certificate has expired: enrol again, with `--enrol` and a new token (and check the clocks of both machines)".to_owned()
            }
            AlertDescription::UnknownCA | AlertDescription::DecryptError => {
                "this agent's certificate is of another CA than the coordinator's: enrol with a token of this coordinator, or correct the address".to_owned()
            }
            AlertDescription::ProtocolVersion => {
                "it doesn't speak TLS 1.3".to_owned()
            }
            other => format!("it refused the TLS connection ({other:?})"),
        },
        Error::InvalidMessage(_) => {
            "it doesn't speak TLS: write http:// for a coordinator without TLS".to_owned()
        }
        other => format!("TLS: {other}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_alert_is_explained_however_it_was_passed_on() {
        let expired = Error::AlertReceived(AlertDescription::CertificateExpired);
        let whole = io::Error::new(io::ErrorKind::InvalidData, expired.clone());
        assert!(explain(&whole).unwrap().contains("enrol again"));
        let text = io::Error::other(format!("connection error: {expired}"));
        assert!(explain(&text).unwrap().contains("enrol again"));
        assert_eq!(explain(&io::Error::other("connection refused")), None);
    }

    #[test]
    fn what_a_coordinator_is_known_by_is_a_fingerprint_or_a_file() {
        let fingerprint = Fingerprint::of(b"x");
        let named = Trust::named(&fingerprint.to_string());
        assert_eq!(named, Ok(Trust::Fingerprint(fingerprint)));
        let missing = Trust::named("/no/such/ca.pem").unwrap_err().to_string();
        assert!(missing.contains("/no/such/ca.pem") && missing.contains("sha256:"));
    }
}
