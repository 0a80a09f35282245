//! Settings of a container that are passed to the engine as they are.

use super::reader::Reader;
use crate::language::quantity;
use crate::node::{Node, NodeValue};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// Settings of a container that are passed to the engine as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EngineOptions {
    /// Kernel settings of its namespaces.
    pub sysctls: IndexMap<String, String>,
    /// Runtime that the engine runs it with.
    pub runtime: Option<String>,
    /// Whether its standard input stays open.
    pub stdin_open: bool,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Process namespace: `host` or `service:NAME`.
    pub pid: Option<String>,
    /// Shared memory: `host`, `private`, `shareable`, `none` or `service:NAME`.
    pub ipc: Option<String>,
    /// Host name's namespace: `host`.
    pub uts: Option<String>,
    /// User namespace: `host`.
    pub userns_mode: Option<String>,
    /// Cgroup namespace: `host` or `private`.
    pub cgroup: Option<String>,
    /// Parent of its cgroup.
    pub cgroup_parent: Option<String>,
    /// Devices that a driver of the engine provides.
    pub gpus: Vec<DeviceRequest>,
    /// Additional groups of its user.
    pub group_add: Vec<String>,
    /// MAC address in its first network.
    pub mac_address: Option<String>,
    /// Options of the resolver.
    pub dns_opt: Vec<String>,
    /// Domains in which the resolver searches.
    pub dns_search: Vec<String>,
    /// Domain of its host name.
    pub domainname: Option<String>,
    /// How likely the kernel kills it for lack of memory.
    pub oom_score_adj: Option<i64>,
    /// Whether the kernel doesn't kill it for lack of memory.
    pub oom_kill_disable: Option<bool>,
    /// Memory that it keeps under pressure, in bytes.
    pub mem_reservation: Option<u64>,
    /// Limit of memory and swap together, in bytes; -1: none.
    pub memswap_limit: Option<i64>,
    /// How readily its memory is swapped out (0 to 100).
    pub mem_swappiness: Option<i64>,
    /// Number of CPUs.
    pub cpu_count: Option<i64>,
    /// Period of the CPU limit, in microseconds.
    pub cpu_period: Option<i64>,
    /// CPU time in each period, in microseconds.
    pub cpu_quota: Option<i64>,
    /// Period of real-time CPU, in microseconds.
    pub cpu_rt_period: Option<i64>,
    /// Real-time CPU in each period, in microseconds.
    pub cpu_rt_runtime: Option<i64>,
    /// Weight against other containers.
    pub cpu_shares: Option<i64>,
    /// CPUs that it may use, as `0-2,5`.
    pub cpuset: Option<String>,
    /// Weights and limits of block devices.
    pub blkio: Blkio,
    /// Rules of its device cgroup.
    pub device_cgroup_rules: Vec<String>,
    /// Options of its storage driver.
    pub storage_opt: IndexMap<String, String>,
    /// Annotations for the runtime.
    pub annotations: IndexMap<String, String>,
    /// Services whose volumes it mounts, as `NAME[:ro|:rw]`.
    pub volumes_from: Vec<String>,
    /// Files of labels in the workspace.
    pub label_files: Vec<String>,
}

/// A request for devices that a driver of the engine provides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceRequest {
    /// Driver, such as `nvidia`.
    pub driver: Option<String>,
    /// Number of devices; -1: all.
    pub count: Option<i64>,
    /// Ids of the devices.
    pub ids: Vec<String>,
    /// What they must be able to do.
    pub capabilities: Vec<String>,
    /// Options for the driver.
    pub options: IndexMap<String, String>,
}

/// Weights and limits of block devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Blkio {
    /// Weight (10 to 1000).
    pub weight: Option<u16>,
    /// Weight per device.
    pub weight_device: Vec<(String, i64)>,
    /// Bytes per second read, by device.
    pub read_bps: Vec<(String, i64)>,
    /// Bytes per second written, by device.
    pub write_bps: Vec<(String, i64)>,
    /// Reads per second, by device.
    pub read_iops: Vec<(String, i64)>,
    /// Writes per second, by device.
    pub write_iops: Vec<(String, i64)>,
}

/// Reads the settings from a definition.
pub fn options(node: &Node, read: &mut Reader<'_>) -> EngineOptions {
    fn get<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
        node.get(key).filter(|node| !node.is_null())
    }
    let text = |key: &str, read: &Reader<'_>| get(node, key).and_then(|node| read.text(node));
    let number = |key: &str, read: &Reader<'_>| get(node, key).and_then(|node| read.integer(node));
    let texts = |key: &str, read: &Reader<'_>| {
        get(node, key).map_or_else(Vec::new, |node| read.texts(node))
    };
    let flag = |key: &str, read: &Reader<'_>| get(node, key).and_then(|node| read.flag(node));
    let micros = |key: &str, read: &mut Reader<'_>| {
        get(node, key).and_then(|node| microseconds(node, key, read))
    };
    EngineOptions {
        sysctls: map(get(node, "sysctls"), "sysctls", read),
        runtime: text("runtime", read),
        stdin_open: flag("stdin_open", read) == Some(true),
        tty: flag("tty", read) == Some(true),
        pid: namespace(node, "pid", &["host"], read),
        ipc: namespace(node, "ipc", &["host", "private", "shareable", "none"], read),
        uts: namespace(node, "uts", &["host"], read),
        userns_mode: namespace(node, "userns_mode", &["host"], read),
        cgroup: namespace(node, "cgroup", &["host", "private"], read),
        cgroup_parent: text("cgroup_parent", read),
        gpus: gpus(node, read),
        group_add: texts("group_add", read),
        mac_address: text("mac_address", read),
        dns_opt: texts("dns_opt", read),
        dns_search: texts("dns_search", read),
        domainname: text("domainname", read),
        oom_score_adj: number("oom_score_adj", read),
        oom_kill_disable: flag("oom_kill_disable", read),
        mem_reservation: get(node, "mem_reservation").and_then(|node| read.bytes(node)),
        memswap_limit: get(node, "memswap_limit").and_then(|node| match node.value {
            NodeValue::Int(-1) => Some(-1),
            _ => read.bytes(node).and_then(|bytes| i64::try_from(bytes).ok()),
        }),
        mem_swappiness: number("mem_swappiness", read),
        cpu_count: number("cpu_count", read),
        cpu_period: micros("cpu_period", read),
        cpu_quota: micros("cpu_quota", read),
        cpu_rt_period: micros("cpu_rt_period", read),
        cpu_rt_runtime: micros("cpu_rt_runtime", read),
        cpu_shares: number("cpu_shares", read),
        cpuset: text("cpuset", read),
        blkio: get(node, "blkio_config").map_or_else(Default::default, |node| blkio(node, read)),
        device_cgroup_rules: texts("device_cgroup_rules", read),
        storage_opt: map(get(node, "storage_opt"), "storage_opt", read),
        annotations: map(get(node, "annotations"), "annotations", read),
        volumes_from: volumes_from(get(node, "volumes_from"), read),
        label_files: texts("label_file", read),
    }
}

fn map(node: Option<&Node>, key: &str, read: &mut Reader<'_>) -> IndexMap<String, String> {
    let Some(node) = node else {
        return IndexMap::new();
    };
    let all = read.variables(node, key).into_iter();
    all.map(|(key, value)| (key, value.unwrap_or_default()))
        .collect()
}

/// Returns a namespace: one of the words or, for processes and shared memory, `service:NAME`.
fn namespace(node: &Node, key: &str, words: &[&str], read: &mut Reader<'_>) -> Option<String> {
    let node = node.get(key).filter(|node| !node.is_null())?;
    let text = read.text(node)?;
    let service = matches!(key, "pid" | "ipc");
    let name = text.strip_prefix("service:").filter(|_| service);
    if text.is_empty() || words.contains(&text.as_str()) || name.is_some_and(|n| !n.is_empty()) {
        return Some(text).filter(|text| !text.is_empty());
    }
    let mut all: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    if service {
        all.push("`service:NAME`".to_owned());
    }
    read.report(node.span, format!("`{text}` is no value of `{key}` here"))
        .help = Some(format!(
        "it is {}; containers of other projects aren't reached",
        all.join(" or ")
    ));
    None
}

/// Reads a number of microseconds: an integer, or a duration such as `50ms`.
fn microseconds(node: &Node, key: &str, read: &mut Reader<'_>) -> Option<i64> {
    if let NodeValue::Int(number) = node.value {
        return Some(number);
    }
    let text = read.text(node)?;
    let number = text.parse().ok();
    let duration = quantity::duration_of(node).map(|duration| duration.as_micros());
    let micros = number.or_else(|| duration.and_then(|micros| i64::try_from(micros).ok()));
    if micros.is_none() {
        read.report(node.span, format!("`{text}` is no value of `{key}`"))
            .help = Some("write microseconds, or a duration such as `50ms`".into());
    }
    micros
}

/// Returns the devices of `gpus` and of `deploy.resources.reservations.devices`.
fn gpus(node: &Node, read: &mut Reader<'_>) -> Vec<DeviceRequest> {
    let all = |node: &Node| node.as_text() == Some("all");
    let mut requests = Vec::new();
    if let Some(gpus) = node.get("gpus").filter(|node| !node.is_null()) {
        if all(gpus) {
            requests.push(DeviceRequest {
                count: Some(-1),
                ..DeviceRequest::default()
            });
        }
        requests.extend(gpus.items().iter().map(|item| device(item, read)));
        for request in &mut requests {
            if request.capabilities.is_empty() {
                request.capabilities.push("gpu".to_owned());
            }
        }
    }
    let reserved = node
        .get("deploy")
        .and_then(|deploy| deploy.get("resources")?.get("reservations")?.get("devices"));
    let reserved = reserved.map_or(&[][..], Node::items);
    requests.extend(reserved.iter().map(|item| device(item, read)));
    requests
}

fn device(node: &Node, read: &mut Reader<'_>) -> DeviceRequest {
    let get = |key: &str| node.get(key).filter(|node| !node.is_null());
    let ids = get("device_ids").map_or_else(Vec::new, |node| read.texts(node));
    let count = match get("count") {
        Some(count) if count.as_text() == Some("all") => Some(-1),
        Some(count) => read.integer(count),
        None if ids.is_empty() => Some(-1),
        None => None,
    };
    DeviceRequest {
        driver: get("driver").and_then(|node| read.text(node)),
        count,
        ids,
        capabilities: get("capabilities").map_or_else(Vec::new, |node| read.texts(node)),
        options: map(get("options"), "options", read),
    }
}

fn blkio(node: &Node, read: &mut Reader<'_>) -> Blkio {
    let weight = node.get("weight").and_then(|node| read.integer(node));
    let pairs = |key: &str, value: &str| -> Vec<(String, i64)> {
        let items = node.get(key).map_or(&[][..], Node::items).iter();
        items
            .filter_map(|item| {
                let path = read.text(item.get("path")?)?;
                let value = item.get(value)?;
                let bytes = || {
                    read.bytes(value)
                        .and_then(|bytes| i64::try_from(bytes).ok())
                };
                Some((path, read.integer(value).or_else(bytes)?))
            })
            .collect()
    };
    Blkio {
        weight: weight.and_then(|weight| u16::try_from(weight).ok()),
        weight_device: pairs("weight_device", "weight"),
        read_bps: pairs("device_read_bps", "rate"),
        write_bps: pairs("device_write_bps", "rate"),
        read_iops: pairs("device_read_iops", "rate"),
        write_iops: pairs("device_write_iops", "rate"),
    }
}

fn volumes_from(node: Option<&Node>, read: &mut Reader<'_>) -> Vec<String> {
    let mut all = Vec::new();
    for item in node.map_or(&[][..], Node::items) {
        let Some(text) = read.text(item) else {
            continue;
        };
        let known = match text.split_once(':') {
            Some((_, mode)) => matches!(mode, "ro" | "rw"),
            None => !text.is_empty(),
        };
        if !known {
            read.report(item.span, format!("`{text}` is no service of this cell"))
                .help = Some(
                "write `NAME`, `NAME:ro` or `NAME:rw`; containers of other projects aren't reached"
                    .into(),
            );
            continue;
        }
        all.push(text);
    }
    all
}
