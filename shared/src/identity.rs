//! Names of the parties of a fleet as certificates carry them, and the token by which an agent gets its first one.
//!
//! Nothing here decides who may do what: the coordinator does (`coordinator/src/identity/core.rs`).

use crate::id::AgentId;
use sha2::{Digest, Sha256};
use std::fmt;

/// Scheme of the names in certificates.
const SCHEME: &str = "phalanx://";
/// Maximum length of a cluster's name and of an agent's id.
const NAME_BYTES: usize = 64;

/// The party that a certificate stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Party {
    /// An agent.
    Agent(AgentId),
    /// A coordinator.
    Coordinator,
}

/// The name in a certificate: `phalanx://CLUSTER/agent/ID` or `phalanx://CLUSTER/coordinator`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartyName {
    /// Name of the cluster.
    pub cluster: String,
    /// Who it is.
    pub party: Party,
}

/// Returns whether a text may be the name of a cluster or the id of an agent: letters, digits, `.`, `_` and `-`, at most
/// 64.
pub fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=NAME_BYTES).contains(&text.len()) && text.bytes().all(allowed)
}

impl PartyName {
    /// Parses the URI of a certificate. Returns `None` for any other URI.
    pub fn parse(uri: &str) -> Option<PartyName> {
        let (cluster, path) = uri.strip_prefix(SCHEME)?.split_once('/')?;
        let party = match path.split_once('/') {
            Some(("agent", id)) if is_name(id) => Party::Agent(AgentId::from(id)),
            None if path == "coordinator" => Party::Coordinator,
            _ => return None,
        };
        is_name(cluster).then(|| PartyName {
            cluster: cluster.to_owned(),
            party,
        })
    }
}

impl fmt::Display for PartyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cluster = &self.cluster;
        match &self.party {
            Party::Agent(id) => write!(f, "{SCHEME}{cluster}/agent/{id}"),
            Party::Coordinator => write!(f, "{SCHEME}{cluster}/coordinator"),
        }
    }
}

/// SHA-256 of a certificate, by which a certificate is told that can't be compared otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Returns the fingerprint of a certificate in DER.
    pub fn of(der: &[u8]) -> Fingerprint {
        Fingerprint(Sha256::digest(der).into())
    }

    /// Parses `sha256:HEX`. Upper case and colons between the bytes are allowed, as other tools print them.
    pub fn parse(text: &str) -> Option<Fingerprint> {
        let (kind, digits) = text.trim().split_once(':')?;
        let digits: String = digits.chars().filter(|digit| *digit != ':').collect();
        let bytes = hex::decode(digits).ok()?;
        let known = kind.eq_ignore_ascii_case("sha256");
        bytes.try_into().ok().filter(|_| known).map(Fingerprint)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What an agent enrols with, as one text: `phxagent.ID.SECRET.CA`. The secret is 32 random bytes; the coordinator keeps
/// only its digest. The last part is the fingerprint of the certificate by which the agent knows the coordinator.
#[derive(Clone, PartialEq, Eq)]
pub struct EnrolToken {
    id: String,
    secret: [u8; 32],
    coordinator: Fingerprint,
}

/// Beginning of every token, so that scanners for secrets find them.
const TOKEN: &str = "phxagent";

impl EnrolToken {
    /// Creates a token of random bytes: its public id, and its secret.
    pub fn new(id: [u8; 8], secret: [u8; 32], coordinator: Fingerprint) -> EnrolToken {
        EnrolToken {
            id: hex::encode(id),
            secret,
            coordinator,
        }
    }

    /// Parses a token. The error says what is wrong without repeating the text, which may be a secret.
    pub fn parse(text: &str) -> Result<EnrolToken, InvalidToken> {
        let parts: Vec<&str> = text.trim().split('.').collect();
        let [TOKEN, id, secret, coordinator] = parts.as_slice() else {
            return Err(InvalidToken);
        };
        let bytes = |text: &str| hex::decode(text).ok()?.try_into().ok();
        let id_is_one = id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        match (bytes(secret), bytes(coordinator)) {
            (Some(secret), Some(coordinator)) if id_is_one => Ok(EnrolToken {
                id: (*id).to_owned(),
                secret,
                coordinator: Fingerprint(coordinator),
            }),
            _ => Err(InvalidToken),
        }
    }

    /// Returns the public id of the token.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the digest of the secret, which is what a coordinator stores.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.secret).into()
    }

    /// Returns the fingerprint of the certificate by which the coordinator is known.
    pub fn coordinator(&self) -> Fingerprint {
        self.coordinator
    }

    /// Returns the token as text. It contains the secret.
    pub fn reveal(&self) -> String {
        let (secret, coordinator) = (hex::encode(self.secret), hex::encode(self.coordinator.0));
        format!("{TOKEN}.{}.{secret}.{coordinator}", self.id)
    }
}

impl fmt::Debug for EnrolToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnrolToken({})", self.id)
    }
}

/// A text isn't a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "that isn't an enrolment token: `phalanx token create agent` prints one, `phxagent.` and three more parts; give all of it"
)]
pub struct InvalidToken;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written_and_nothing_else_is_one() {
        for text in [
            "phalanx://ci/agent/0197-a_b.c",
            "phalanx://ci.example/coordinator",
        ] {
            assert_eq!(PartyName::parse(text).unwrap().to_string(), text);
        }
        let long = format!("phalanx://ci/agent/{}", "x".repeat(65));
        for text in [
            "phalanx://ci/agent/",
            "phalanx://ci/agent/a/b",
            "phalanx:///agent/a",
            "phalanx://ci/agent/a b",
            "phalanx://ci/agent/a%2fb",
            "phalanx://ci/coordinator/x",
            "phalanx://ci/client/x",
            "https://ci/agent/a",
            &long,
        ] {
            assert_eq!(PartyName::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_fingerprint_is_read_in_the_forms_that_tools_print() {
        let of = Fingerprint::of(b"certificate");
        let text = of.to_string();
        assert_eq!(Fingerprint::parse(&text), Some(of));
        let upper = text["sha256:".len()..].to_uppercase();
        let pairs: Vec<&str> = (0..32).map(|n| &upper[2 * n..2 * n + 2]).collect();
        let openssl = format!("SHA256:{}", pairs.join(":"));
        assert_eq!(Fingerprint::parse(&openssl), Some(of));
        for wrong in ["", "sha256:", "sha256:00", "md5:00", &text[..70], "ca.pem"] {
            assert_eq!(Fingerprint::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_token_is_read_as_it_is_written_and_isnt_shown_by_accident() {
        let token = EnrolToken::new([1; 8], [2; 32], Fingerprint::of(b"ca"));
        let text = token.reveal();
        assert_eq!(EnrolToken::parse(&format!(" {text}\n")), Ok(token.clone()));
        assert_eq!(format!("{token:?}"), "EnrolToken(0101010101010101)");
        let cut = &text[..text.len() - 1];
        for wrong in ["", "phxagent", cut, &text[1..], &text.replace('.', "_")] {
            assert_eq!(EnrolToken::parse(wrong), Err(InvalidToken));
        }
    }
}
