//! Settings of agents: how many a local run starts, and the capacity of each.

use super::Setting;

/// Number of agents of a local run.
pub const AGENTS: Setting<u32> = Setting {
    key: "agents",
    unit: "agents",
    doc: "number of agents that a local run starts",
    default: |_| 1,
};

/// Whether the agents of a local run are child processes.
pub const AGENTS_AS_PROCESSES: Setting<bool> = Setting {
    key: "agents_as_processes",
    unit: "",
    doc: "whether a local run starts agents as child processes instead of tasks within `phalanx`",
    default: |_| false,
};

/// Maximum concurrent cells per agent. Cells mostly wait for their services, so more than the number of CPUs is right.
pub const SLOTS: Setting<u32> = Setting {
    key: "slots",
    unit: "cells",
    doc: "maximum concurrent cells per agent; by default 4 per CPU, at least 8",
    default: |machine| machine.cpus.saturating_mul(4).max(8),
};

/// Factor by which reserved CPUs may exceed the machine's.
pub const CPU_OVERCOMMIT: Setting<f64> = Setting {
    key: "cpu_overcommit",
    unit: "reserved / real",
    doc: "CPUs that an agent's cells may reserve together, as a multiple of the machine's",
    default: |_| 8.0,
};

/// Factor by which reserved memory may exceed the machine's.
pub const MEMORY_OVERCOMMIT: Setting<f64> = Setting {
    key: "memory_overcommit",
    unit: "reserved / real",
    doc: "memory that an agent's cells may reserve together, as a multiple of the machine's",
    default: |_| 1.0,
};

/// Maximum size of all snapshots on a machine.
pub const SNAPSHOTS_MIB: Setting<u64> = Setting {
    key: "snapshots.max_mib",
    unit: "MiB",
    doc: "maximum size of all snapshots that agents of this machine keep; the least recently used are removed first; 0 for no limit",
    default: |_| 20 * 1024,
};

/// How long an unused snapshot is kept.
pub const SNAPSHOTS_DAYS: Setting<u64> = Setting {
    key: "snapshots.keep_days",
    unit: "days",
    doc: "time after which a snapshot that no cell has used is removed; 0 for never",
    default: |_| 30,
};

/// Policy file of agents and of runs on this machine.
pub const POLICY: Setting<String> = Setting {
    key: "policy",
    unit: "",
    doc: "policy file: what specs may do on this machine, over what /etc/phalanx/policy.toml says (docs/security.md)",
    default: |_| String::new(),
};
