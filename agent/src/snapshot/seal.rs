//! Encrypts what a snapshot keeps of a cell's captures, and digests secrets for keys. The key never leaves the store's
//! directory, so a copy of a snapshot alone reveals nothing.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

/// Length of a store's key in bytes.
pub const LENGTH: usize = 32;

/// A store's key.
pub struct Seal {
    bytes: [u8; LENGTH],
}

impl Seal {
    /// Makes a new key.
    pub fn random() -> Option<[u8; LENGTH]> {
        let mut bytes = [0; LENGTH];
        SystemRandom::new().fill(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Takes a key that was made before.
    pub fn new(bytes: [u8; LENGTH]) -> Seal {
        Seal { bytes }
    }

    fn aead(&self) -> Option<LessSafeKey> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &self.bytes).ok()?;
        Some(LessSafeKey::new(key))
    }

    /// Encrypts bytes. `of` is the snapshot's key: sealed bytes can't be moved to another one.
    pub fn close(&self, of: &str, plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        let aad = Aad::from(of.as_bytes());
        let nonced = Nonce::assume_unique_for_key(nonce);
        self.aead()?
            .seal_in_place_append_tag(nonced, aad, &mut sealed)
            .ok()?;
        let mut all = nonce.to_vec();
        all.append(&mut sealed);
        Some(all)
    }

    /// Decrypts bytes. `None` if they were changed, or sealed by another key or for another snapshot.
    pub fn open(&self, of: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut plain = sealed.to_vec();
        let aad = Aad::from(of.as_bytes());
        let length = self
            .aead()?
            .open_in_place(nonce, aad, &mut plain)
            .ok()?
            .len();
        plain.truncate(length);
        Some(plain)
    }

    /// Returns a digest of a secret that can't be found out by trying values without the store's key.
    pub fn digest(&self, secret: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.bytes);
        hex::encode(hmac::sign(&key, secret.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_sealed_opens_for_its_own_snapshot_and_key_only() {
        let seal = Seal::new(Seal::random().unwrap());
        let sealed = seal.close("k", b"token").unwrap();
        assert!(!sealed.windows(5).any(|part| part == b"token"));
        assert_eq!(seal.open("k", &sealed).unwrap(), b"token");
        assert_eq!(seal.open("other", &sealed), None);
        let other = Seal::new(Seal::random().unwrap());
        assert_eq!(other.open("k", &sealed), None);
        let mut changed = sealed.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert_eq!(seal.open("k", &changed), None);
        assert_eq!(seal.open("k", b"short"), None);
    }

    #[test]
    fn a_secret_s_digest_depends_on_the_store() {
        let (one, other) = (Seal::new([1; LENGTH]), Seal::new([2; LENGTH]));
        assert_eq!(one.digest("a"), one.digest("a"));
        assert_ne!(one.digest("a"), one.digest("b"));
        assert_ne!(one.digest("a"), other.digest("a"));
    }
}
