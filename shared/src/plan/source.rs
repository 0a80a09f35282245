//! A spec, shared by all cells of a run: kept once in memory, and sent once to each agent.

use crate::diagnostic::Sources;
use crate::language::model::Spec;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::sync::{Arc, OnceLock};

/// A spec with its source texts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SpecSource {
    /// The spec with its included files merged.
    pub spec: Arc<Spec>,
    /// Source texts, for messages with places.
    pub sources: Sources,
    #[serde(skip)]
    packed: OnceLock<PackedSpec>,
}

/// A spec as JSON, with the digest by which cells refer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedSpec {
    /// SHA-256 over the JSON, in hexadecimal.
    pub digest: String,
    /// A serialized [`SpecSource`].
    pub json: Vec<u8>,
}

impl SpecSource {
    /// Wraps a spec that was read from these sources.
    pub fn new(spec: Arc<Spec>, sources: Sources) -> SpecSource {
        SpecSource {
            spec,
            sources,
            packed: OnceLock::new(),
        }
    }

    /// Returns the spec as JSON; serialized on the first call only.
    pub fn packed(&self) -> &PackedSpec {
        self.packed.get_or_init(|| {
            // Serializing to memory fails only for maps with keys that aren't text, and a spec has none.
            let json = serde_json::to_vec(self).unwrap_or_default();
            PackedSpec {
                digest: hex::encode(Sha256::digest(&json)),
                json,
            }
        })
    }
}

impl PartialEq for SpecSource {
    fn eq(&self, other: &SpecSource) -> bool {
        self.spec == other.spec && self.sources == other.sources
    }
}
