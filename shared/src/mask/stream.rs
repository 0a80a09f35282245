//! Masks bytes that arrive in pieces: a secret may be split over any number of pieces.

use super::{MASK, Masker};
use std::ops::Range;
use std::sync::Arc;

/// Masks one stream. Holds back bytes that may be the beginning of a secret until the next bytes decide: at most one
/// byte less than the longest encoding of a secret, plus the colours and line breaks among them.
#[derive(Debug)]
pub struct StreamMasker {
    masker: Arc<Masker>,
    held: Vec<u8>,
    /// Number of held bytes that belong to a secret whose mask is already written.
    masked: usize,
}

impl StreamMasker {
    /// Returns a masker for a stream; it also masks values that `masker` learns later.
    pub fn new(masker: Arc<Masker>) -> Self {
        StreamMasker {
            masker,
            held: Vec::new(),
            masked: 0,
        }
    }

    /// Takes bytes and returns those that are decided.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.take(bytes, false)
    }

    /// Returns the held bytes at the end of the stream.
    pub fn finish(&mut self) -> Vec<u8> {
        self.take(&[], true)
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Returns whether bytes are held back.
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

    /// Returns the bytes before `keep_from`, with a mask for each secret that begins among them.
    fn written(&self, all: &[u8], secrets: &[Range<usize>], keep_from: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(keep_from);
        let mut at = self.masked;
        for secret in secrets.iter().filter(|secret| secret.start < keep_from) {
            // A secret that overlaps an already masked range only extends that range.
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
