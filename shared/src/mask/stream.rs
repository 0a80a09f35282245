//! Masks bytes that arrive in pieces: a secret may be split over any number of them.

use super::{MASK, Masker};
use std::ops::Range;
use std::sync::Arc;

/// Masks one stream. Bytes that may be the beginning of a secret are held back until the next ones decide;
/// at most one byte less than the longest encoding of a secret, and what of colours and line breaks stands among them.
#[derive(Debug)]
pub struct StreamMasker {
    masker: Arc<Masker>,
    held: Vec<u8>,
    /// So many of the held bytes belong to a secret whose mask is written already.
    masked: usize,
}

impl StreamMasker {
    /// A masker of a stream; values that `masker` learns later are masked from then on.
    pub fn new(masker: Arc<Masker>) -> Self {
        StreamMasker {
            masker,
            held: Vec::new(),
            masked: 0,
        }
    }

    /// Takes bytes; gives those that are decided.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.take(bytes, false)
    }

    /// The bytes still held back, at the end of the stream.
    pub fn finish(&mut self) -> Vec<u8> {
        self.take(&[], true)
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether bytes are held back.
    pub fn is_holding(&self) -> bool {
        self.held.len() > self.masked
    }

    fn take(&mut self, bytes: &[u8], last: bool) -> Vec<u8> {
        let masks = self.masker.masks();
        let mut all = std::mem::take(&mut self.held);
        all.extend_from_slice(bytes);
        let keep_from = match last {
            true => all.len(),
            false => masks.waits_from(&all),
        };
        let secrets = masks.occurrences(&all);
        let out = self.written(&all, &secrets, keep_from);
        self.masked = secrets
            .iter()
            .find(|secret| secret.start < keep_from && secret.end > keep_from)
            .map_or(self.masked.saturating_sub(keep_from), |secret| {
                secret.end - keep_from
            });
        self.held = all.split_off(keep_from);
        out
    }

    /// The bytes before `keep_from`, each secret that begins among them masked.
    fn written(&self, all: &[u8], secrets: &[Range<usize>], keep_from: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(keep_from);
        let mut at = self.masked;
        for secret in secrets.iter().filter(|secret| secret.start < keep_from) {
            // One that overlaps what is masked already only lengthens it.
            if secret.start >= at {
                out.extend_from_slice(all.get(at..secret.start).unwrap_or_default());
                out.extend_from_slice(MASK.as_bytes());
            }
            at = at.max(secret.end);
        }
        out.extend_from_slice(all.get(at..keep_from).unwrap_or_default());
        out
    }
}
