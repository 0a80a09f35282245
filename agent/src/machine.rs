//! The machine's capacity, labels and name, which the agent reads once at its start.

use crate::procfs;
use phalanx_shared::plan::Resources;

/// Returns the CPUs and the memory of this machine that this process may use.
pub fn resources() -> Resources {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Resources {
        millicpus: u64::try_from(cpus).unwrap_or(1).saturating_mul(1_000),
        memory_bytes: memory_bytes(),
        subnets: 0,
    }
}

/// Returns the size of the physical memory in bytes, or the control group's limit if that is lower.
fn memory_bytes() -> u64 {
    let total = procfs::memory();
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|text| text.trim().parse().ok());
    match (total, limit) {
        (Some(total), Some(limit)) => u64::min(total, limit),
        (Some(one), None) | (None, Some(one)) => one,
        // Without `/proc` (for example not on Linux) memory is not a constraint.
        (None, None) => u64::MAX,
    }
}

/// Returns the labels that every machine offers: operating system and architecture.
pub fn labels() -> Vec<String> {
    vec![
        std::env::consts::OS.to_owned(),
        std::env::consts::ARCH.to_owned(),
    ]
}

/// Returns the hostname, used as display name.
pub fn name() -> String {
    procfs::hostname().unwrap_or_else(|| "agent".to_owned())
}
