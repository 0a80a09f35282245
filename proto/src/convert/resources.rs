//! Converts resources: those that a cell reserves and those that an agent has. All numbers are valid.

use crate::v1;
use phalanx_shared::plan::Resources;

/// The message has no resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the resources are missing")]
pub struct MissingResources;

impl From<v1::Resources> for Resources {
    fn from(wire: v1::Resources) -> Self {
        let v1::Resources {
            millicpus,
            memory_bytes,
            subnets,
        } = wire;
        Resources {
            millicpus,
            memory_bytes,
            subnets,
        }
    }
}

impl From<Resources> for v1::Resources {
    fn from(resources: Resources) -> Self {
        let Resources {
            millicpus,
            memory_bytes,
            subnets,
        } = resources;
        v1::Resources {
            millicpus,
            memory_bytes,
            subnets,
        }
    }
}
