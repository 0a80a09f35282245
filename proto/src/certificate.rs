//! Reads what Phalanx needs of a certificate: whom it names, its number and its dates. It verifies nothing; TLS does.

use phalanx_shared::identity::PartyName;
use phalanx_shared::time::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Serial number, big-endian, without leading zeros.
    pub serial: Vec<u8>,
    /// The Phalanx party that it names, if it names exactly one.
    pub party: Option<PartyName>,
    /// From when it is valid.
    pub begins: Timestamp,
    /// Until when it is valid.
    pub expires: Timestamp,
}

/// Something isn't a certificate, or not a usable one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidCertificate(pub String);

/// Reads a certificate in DER.
pub fn facts(der: &[u8]) -> Result<Facts, InvalidCertificate> {
    let (_, certificate) = X509Certificate::from_der(der)
        .map_err(|error| InvalidCertificate(format!("not a certificate: {error}")))?;
    let names = certificate.subject_alternative_name();
    let names = names.map_err(|error| InvalidCertificate(format!("its names: {error}")))?;
    let names = names.map(|names| names.value.general_names.as_slice());
    let parties = names
        .unwrap_or_default()
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => PartyName::parse(uri),
            _ => None,
        });
    let parties: Vec<PartyName> = parties.collect();
    let mut serial = certificate.raw_serial();
    while let Some((0, rest)) = serial.split_first() {
        serial = rest;
    }
    let at =
        |time: x509_parser::time::ASN1Time| Timestamp(time.timestamp().saturating_mul(1_000_000));
    Ok(Facts {
        serial: serial.to_vec(),
        party: match <[PartyName; 1]>::try_from(parties) {
            Ok([party]) => Some(party),
            Err(_) => None,
        },
        begins: at(certificate.validity().not_before),
        expires: at(certificate.validity().not_after),
    })
}

/// Reads all certificates of a PEM file's text. There must be at least one.
pub fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, InvalidCertificate> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|error| InvalidCertificate(format!("not PEM: {error}")))?;
    if read.is_empty() {
        let none = "there is no `-----BEGIN CERTIFICATE-----` in it".to_owned();
        return Err(InvalidCertificate(none));
    }
    for certificate in &read {
        facts(certificate)?;
    }
    Ok(read)
}

/// Reads the private key of a PEM file's text.
pub fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, InvalidCertificate> {
    // The parser's errors contain no part of the text.
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|error| InvalidCertificate(format!("not a private key in PEM: {error}")))
}

/// Returns the public key of a certificate, as `SubjectPublicKeyInfo` in DER.
pub fn public_key(der: &[u8]) -> Result<Vec<u8>, InvalidCertificate> {
    let (_, certificate) = X509Certificate::from_der(der)
        .map_err(|error| InvalidCertificate(format!("not a certificate: {error}")))?;
    Ok(certificate.public_key().raw.to_vec())
}
