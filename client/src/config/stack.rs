//! Settings of the stacks of cells.

use super::Setting;

/// How long a kept stack lives.
pub const KEEP_TTL_S: Setting<u64> = Setting {
    key: "keep.ttl_s",
    unit: "seconds",
    doc: "how long `--keep` keeps a stack",
    default: |_| 3600,
};
