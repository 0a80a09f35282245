//! Converts the rules for keeping stacks after their attempts.

use crate::v1;
use phalanx_shared::plan::Keep;

/// The rule's number is unknown to this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("keep rule {0} is not known to this version")]
pub struct InvalidKeep(pub i32);

impl TryFrom<v1::Keep> for Keep {
    type Error = InvalidKeep;

    fn try_from(wire: v1::Keep) -> Result<Self, InvalidKeep> {
        let v1::Keep { when, ttl_s } = wire;
        Ok(
            match v1::KeepWhen::try_from(when).map_err(|_| InvalidKeep(when))? {
                v1::KeepWhen::Never => Keep::Never,
                v1::KeepWhen::OnFailure => Keep::OnFailure { ttl_s },
                v1::KeepWhen::Always => Keep::Always { ttl_s },
            },
        )
    }
}

impl From<Keep> for v1::Keep {
    fn from(keep: Keep) -> Self {
        let (when, ttl_s) = match keep {
            Keep::Never => (v1::KeepWhen::Never, 0),
            Keep::OnFailure { ttl_s } => (v1::KeepWhen::OnFailure, ttl_s),
            Keep::Always { ttl_s } => (v1::KeepWhen::Always, ttl_s),
        };
        v1::Keep {
            when: when.into(),
            ttl_s,
        }
    }
}
