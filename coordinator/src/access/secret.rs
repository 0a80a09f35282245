//! The text of tokens: `phx_ID_SECRET`. The secret has 256 random bits, and only the SHA-256 of the whole text is kept.

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt;

/// Beginning of every token, by which people and scanners know one.
pub const PREFIX: &str = "phx_";
/// Random bytes of an id, and of a secret.
const ID: usize = 8;
const SECRET: usize = 32;
/// Bytes of a SHA-256.
pub const DIGEST: usize = 32;

/// Why a token can't be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this machine gives no random numbers")]
pub struct NoRandomness;

/// A new token, to be shown once.
pub struct Fresh {
    /// The token itself.
    pub text: String,
    /// What is kept of it.
    pub kept: Presented,
}

impl fmt::Debug for Fresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fresh({})", self.kept.id)
    }
}

/// A token as it is checked: the id that finds it, and the digest that proves it. Neither allows anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presented {
    /// Id of the token.
    pub id: String,
    /// SHA-256 of its text.
    pub digest: [u8; DIGEST],
}

impl Presented {
    /// Reads a token; `None` if the text can't be one.
    pub fn parse(text: &str) -> Option<Presented> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let digits = |text: &str, bytes: usize| {
            let digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
            text.len() == 2 * bytes && text.bytes().all(digit)
        };
        (digits(id, ID) && digits(secret, SECRET)).then(|| Presented {
            id: id.to_owned(),
            digest: sha256(text),
        })
    }
}

/// Makes a new token.
pub fn fresh() -> Result<Fresh, NoRandomness> {
    let id = hex::encode(random::<ID>()?);
    let text = format!("{PREFIX}{id}_{}", hex::encode(random::<SECRET>()?));
    let digest = sha256(&text);
    Ok(Fresh {
        text,
        kept: Presented { id, digest },
    })
}

/// Returns random bytes.
pub fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// Returns the SHA-256 of a text.
pub fn sha256(text: &str) -> [u8; DIGEST] {
    let mut bytes = [0; DIGEST];
    bytes.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    bytes
}

/// Compares without an early end, so that the time tells nothing about where two texts differ.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    let different = a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b));
    a.len() == b.len() && std::hint::black_box(different) == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_is_found_by_its_id_and_proved_by_its_digest() {
        let one = fresh().unwrap();
        assert_eq!(Presented::parse(&one.text), Some(one.kept.clone()));
        assert_ne!(fresh().unwrap().text, one.text);
        assert!(!format!("{one:?}").contains(&one.text[PREFIX.len() + 17..]));
        let other = one.text.replace(['0', '1'], "2");
        assert_ne!(Presented::parse(&other), Some(one.kept.clone()));
    }

    #[test]
    fn what_is_no_token_is_not_looked_up() {
        let one = fresh().unwrap().text;
        let longer = format!("{one}0");
        for text in ["", "phx_", "phx__", &one[1..], &longer, &one.to_uppercase()] {
            assert_eq!(Presented::parse(text), None, "{text}");
        }
    }

    #[test]
    fn only_equal_bytes_are_the_same() {
        assert!(same(b"abc", b"abc"));
        assert!(!same(b"abc", b"abd") && !same(b"abc", b"ab") && !same(b"", b"a"));
    }
}
