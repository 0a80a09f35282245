//! Settings of directories.

use super::Setting;
use std::path::PathBuf;

/// Directory for journals, logs and identities of local runs and agents.
pub const STATE_DIR: Setting<PathBuf> = Setting {
    key: "state_dir",
    unit: "",
    doc: "directory for the journals, logs and identities of local runs and agents",
    default: |machine| machine.state_home.join("phalanx"),
};
