//! The masks of one attempt: its secrets, and what its steps declare secret while it runs (I4).

use crate::sink::Mask;
use phalanx_shared::event::{EventKind, EventMasker, Keys};
use phalanx_shared::mask as shared;
use phalanx_shared::mask::{Masker, StreamMasker};
use std::sync::{Arc, Mutex, PoisonError};

/// Masks text, events and streams of one attempt.
#[derive(Debug, Default)]
pub struct Masks {
    masker: Arc<Masker>,
    keys: Mutex<Keys>,
}

/// Masks one stream of bytes; holds back what may be the beginning of a secret.
pub struct StreamMask(StreamMasker);

impl Masks {
    /// With the values of the attempt's secrets; the error names the one that can't be masked.
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

    /// From now on the value is masked.
    pub fn add(&self, value: &str) -> Result<(), String> {
        self.masker.add(value).map_err(|error| error.to_string())
    }

    /// The text without any secret.
    pub fn mask(&self, text: &str) -> String {
        self.current().text(text).into_owned()
    }

    /// What is masked as of now.
    pub fn current(&self) -> Arc<shared::Masks> {
        self.masker.masks()
    }

    /// What learns the values.
    pub fn masker(&self) -> Arc<Masker> {
        Arc::clone(&self.masker)
    }

    /// For one stream.
    pub fn stream(&self) -> StreamMask {
        StreamMask(StreamMasker::new(Arc::clone(&self.masker)))
    }
}

impl StreamMask {
    /// Takes bytes, gives those that can be shown.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.0.push(bytes)
    }

    /// Gives what was held back.
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
