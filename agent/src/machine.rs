//! The machine's capacity, labels and name, which the agent reads once at its start.

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
    let total = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| meminfo_total(&text));
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

fn meminfo_total(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib.saturating_mul(1024))
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
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let name = name.unwrap_or_default().trim().to_owned();
    if name.is_empty() {
        "agent".to_owned()
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_meminfo() {
        let text = "MemFree: 1 kB\nMemTotal:       24608120 kB\n";
        assert_eq!(meminfo_total(text), Some(24_608_120 * 1024));
        assert_eq!(meminfo_total("garbage"), None);
    }
}
