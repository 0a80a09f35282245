//! The masks of one attempt: its secrets, and what its steps declare secret while it runs (I4).

use crate::sink::Mask;
use phalanx_shared::event::EventKind;
use phalanx_shared::mask::{Masker, StreamMasker};
use serde_json::Value;
use std::sync::Arc;

/// Masks text, events and streams of one attempt.
#[derive(Debug, Default)]
pub struct Masks(Arc<Masker>);

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
        self.0.add(value).map_err(|error| error.to_string())
    }

    /// The text without any secret.
    pub fn mask(&self, text: &str) -> String {
        self.0.masks().text(text).into_owned()
    }

    /// For one stream.
    pub fn stream(&self) -> StreamMask {
        StreamMask(StreamMasker::new(Arc::clone(&self.0)))
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
        let masks = self.0.masks();
        if masks.is_empty() {
            return kind;
        }
        let Ok(value) = serde_json::to_value(&kind) else {
            return kind;
        };
        // An event that can't be read back after masking would mean a secret that is a word of ours: then none of it is told.
        serde_json::from_value(texts(value, &masks)).unwrap_or(EventKind::Note {
            message: "an event could not be masked, and is left out".to_owned(),
        })
    }
}

/// Every text masked. Field names and numbers (times, counts) are ours and stay.
fn texts(value: Value, masks: &phalanx_shared::mask::Masks) -> Value {
    match value {
        Value::String(text) => Value::String(masks.text(&text).into_owned()),
        Value::Array(items) => items.into_iter().map(|item| texts(item, masks)).collect(),
        Value::Object(map) => {
            let entries = map.into_iter().map(|(key, item)| (key, texts(item, masks)));
            Value::Object(entries.collect())
        }
        other => other,
    }
}
