//! The masks of one attempt: its secrets, and the values that its steps declare secret while it runs (I4).

use crate::sink::Mask;
use phalanx_shared::event::{EventKind, EventMasker, Keys};
use phalanx_shared::mask as shared;
use phalanx_shared::mask::{Masker, StreamMasker};
use std::sync::{Arc, Mutex, PoisonError};

/// Masks the text, events and streams of one attempt.
#[derive(Debug, Default)]
pub struct Masks {
    masker: Arc<Masker>,
    keys: Mutex<Keys>,
}

/// Masks one stream of bytes. It holds back bytes that may be the beginning of a secret.
pub struct StreamMask(StreamMasker);

impl Masks {
    /// Creates the masks for the attempt's secrets. Returns an error that names the first secret that can't be masked.
    pub fn new<'a>(
        secrets: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Result<Self, String> {
        let masks = Masks::default();
        for (name, value) in secrets {
            masks
                .add(value)
                .map_err(|why| format!("secret {name}: {why}"))?;
        }
        Ok(masks)
    }

    /// Masks the value from now on.
    pub fn add(&self, value: &str) -> Result<(), String> {
        self.masker.add(value).map_err(|error| error.to_string())
    }

    /// Returns the text with all secrets masked.
    pub fn mask(&self, text: &str) -> String {
        self.current().text(text).into_owned()
    }

    /// Returns a snapshot of the current masks.
    pub fn current(&self) -> Arc<shared::Masks> {
        self.masker.masks()
    }

    /// Returns the masker, to which expressions add secret values.
    pub fn masker(&self) -> Arc<Masker> {
        Arc::clone(&self.masker)
    }

    /// Returns a mask for a new stream.
    pub fn stream(&self) -> StreamMask {
        StreamMask(StreamMasker::new(Arc::clone(&self.masker)))
    }
}

impl StreamMask {
    /// Takes more bytes and returns the masked bytes that can be shown already.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.0.push(bytes)
    }

    /// Returns the bytes that were held back. Call it at the end of the stream.
    pub fn finish(&mut self) -> Vec<u8> {
        self.0.finish()
    }
}

impl Mask for Masks {
    fn text(&self, text: &str) -> String {
        self.mask(text)
    }

    fn event(&self, kind: EventKind) -> EventKind {
        let masks = self.current();
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        EventMasker::new(&masks, &mut keys).event(kind)
    }
}
