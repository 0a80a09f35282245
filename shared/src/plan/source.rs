//! A spec as all cells of a run share it: one value in memory, and one message to each agent.

use crate::diagnostic::Sources;
use crate::spec::model::Spec;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::sync::{Arc, OnceLock};

/// A spec and the text that it was read from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SpecSource {
    /// The spec with its files merged.
    pub spec: Arc<Spec>,
    /// Its sources, for messages with places.
    pub sources: Sources,
    #[serde(skip)]
    packed: OnceLock<PackedSpec>,
}

/// A spec as JSON, under the name by which cells refer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedSpec {
    /// SHA-256 over the JSON, in hexadecimal.
    pub digest: String,
    /// A [`SpecSource`].
    pub json: Vec<u8>,
}

impl SpecSource {
    /// Of a spec that was read from these sources.
    pub fn new(spec: Arc<Spec>, sources: Sources) -> SpecSource {
        SpecSource {
            spec,
            sources,
            packed: OnceLock::new(),
        }
    }

    /// It as JSON; made once.
    pub fn packed(&self) -> &PackedSpec {
        self.packed.get_or_init(|| {
            // Writing to memory fails only for maps with keys that aren't text, which a spec has none of.
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
