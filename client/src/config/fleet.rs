//! Agents: how many a local run starts, and what each takes.

use super::Setting;

/// Agents of a local run.
pub const AGENTS: Setting<u32> = Setting {
    key: "agents",
    unit: "agents",
    doc: "agents that a local run starts",
    default: |_| 1,
};

/// Whether a local run's agents are processes of their own.
pub const AGENTS_AS_PROCESSES: Setting<bool> = Setting {
    key: "agents_as_processes",
    unit: "",
    doc: "whether a local run's agents are child processes instead of tasks within `phalanx`",
    default: |_| false,
};

/// Cells that an agent runs at once. Cells mostly wait for their services, so more than CPUs is right.
pub const SLOTS: Setting<u32> = Setting {
    key: "slots",
    unit: "cells",
    doc: "cells that an agent runs at once; by default four for each CPU, at least eight",
    default: |machine| machine.cpus.saturating_mul(4).max(8),
};

/// Reserved CPUs over real ones.
pub const CPU_OVERCOMMIT: Setting<f64> = Setting {
    key: "cpu_overcommit",
    unit: "reserved / real",
    doc: "how far the CPUs that an agent's cells reserve may exceed the machine's",
    default: |_| 8.0,
};

/// Reserved memory over real memory.
pub const MEMORY_OVERCOMMIT: Setting<f64> = Setting {
    key: "memory_overcommit",
    unit: "reserved / real",
    doc: "how far the memory that an agent's cells reserve may exceed the machine's",
    default: |_| 1.0,
};

/// Whether `run` steps and `process` services may run on the agent's host.
pub const ALLOW_RUN: Setting<bool> = Setting {
    key: "allow_run",
    unit: "",
    doc: "whether cells may run commands on the agent's host (`run` steps and `process` services)",
    default: |_| true,
};
