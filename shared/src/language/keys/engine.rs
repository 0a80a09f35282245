//! Keys of a service that are passed to the engine as they are.

use super::*;
use crate::language::shape::{Key, Table, key, needed, unused};

const NUMBER: Kind = Kind::Varies(&Kind::Leaf(Leaf::Int(-1)));
const COUNT: Kind = Kind::Varies(&Kind::Leaf(Leaf::Int(0)));

/// Keys that are passed to the engine.
pub(super) const ENGINE: &[Key] = &[
    key("sysctls", MAP_OR_LIST, "kernel settings of its namespaces"),
    key("runtime", TEMPLATE, "the engine's runtime that runs it"),
    key("stdin_open", BOOL, "whether its standard input stays open"),
    key("tty", BOOL, "whether it has a terminal"),
    key(
        "pid",
        TEMPLATE,
        "`host` or `service:NAME`: whose processes it sees",
    ),
    key(
        "ipc",
        TEMPLATE,
        "`host`, `private`, `shareable`, `none` or `service:NAME`: whose shared memory it has",
    ),
    key("uts", TEMPLATE, "`host`: it has the host's name"),
    key(
        "userns_mode",
        TEMPLATE,
        "`host`: it has the host's user ids",
    ),
    key(
        "cgroup",
        TEMPLATE,
        "`host` or `private`: its cgroup namespace",
    ),
    key("cgroup_parent", TEMPLATE, "the parent of its cgroup"),
    key(
        "gpus",
        Kind::Varies(&Kind::ByType {
            scalar: Some(&TEXT),
            list: Some(&Kind::List(&Kind::Table(|| &DEVICE))),
            map: None,
        }),
        "`all`, or a list of requests for GPUs",
    ),
    key("group_add", TEXT_LIST, "additional groups of its user"),
    key(
        "mac_address",
        TEMPLATE,
        "its MAC address in its first network (engines from API 1.44)",
    ),
    key("dns_opt", TEXT_LIST, "options of the resolver"),
    key(
        "dns_search",
        TEXT_OR_LIST,
        "domains in which the resolver searches",
    ),
    key("domainname", TEMPLATE, "the domain of its host name"),
    key(
        "oom_score_adj",
        Kind::Varies(&Kind::Leaf(Leaf::Int(-1000))),
        "how likely the kernel kills it for lack of memory (-1000 to 1000)",
    ),
    key(
        "oom_kill_disable",
        BOOL,
        "whether the kernel doesn't kill it for lack of memory",
    ),
    key(
        "mem_reservation",
        BYTES,
        "memory that it keeps under pressure",
    ),
    key(
        "memswap_limit",
        Kind::Any,
        "limit of memory and swap together; -1: no limit",
    ),
    key(
        "mem_swappiness",
        COUNT,
        "how readily its memory is swapped out (0 to 100)",
    ),
    unused(
        "cpu_count",
        Kind::Any,
        "accepted and not used: there are no Windows containers",
    ),
    key("cpu_period", TEMPLATE, "period of the CPU limit, in µs"),
    key("cpu_quota", TEMPLATE, "CPU time in each period, in µs"),
    key("cpu_rt_period", TEMPLATE, "period of real-time CPU, in µs"),
    key(
        "cpu_rt_runtime",
        TEMPLATE,
        "real-time CPU in each period, in µs",
    ),
    key("cpu_shares", COUNT, "weight against other containers"),
    key("cpuset", TEMPLATE, "CPUs that it may use: `0-2,5`"),
    key(
        "blkio_config",
        Kind::Table(|| &BLKIO),
        "weights and limits of block devices",
    ),
    key(
        "device_cgroup_rules",
        TEXT_LIST,
        "rules of its device cgroup",
    ),
    key("storage_opt", MAP_OR_LIST, "options of the storage driver"),
    key(
        "annotations",
        MAP_OR_LIST,
        "annotations for the runtime (engines from API 1.43)",
    ),
    key(
        "volumes_from",
        TEXT_LIST,
        "services whose volumes it mounts: `NAME[:ro]`",
    ),
    key(
        "label_file",
        TEXT_OR_LIST,
        "files of labels in the workspace; `labels` go before them",
    ),
];

/// A request for devices.
pub(super) static DEVICE: Table = Table {
    name: "a request for devices",
    doc: "Devices that a driver of the engine provides.",
    keys: &[&[
        key("driver", TEMPLATE, "the driver"),
        key(
            "count",
            Kind::Varies(&Kind::ByType {
                scalar: Some(&TEXT),
                list: None,
                map: None,
            }),
            "how many, or `all` (the default without `device_ids`)",
        ),
        key("device_ids", TEXT_LIST, "which"),
        key("capabilities", TEXT_LIST, "what they must be able to do"),
        key("options", MAP_OR_LIST, "options for the driver"),
    ]],
    rest: None,
    rules: &[],
    hints: &[],
};

static BLKIO: Table = Table {
    name: "`blkio_config`",
    doc: "Weights and limits of block devices.",
    keys: &[&[
        key("weight", COUNT, "weight (10 to 1000)"),
        key("weight_device", WEIGHTS, "weight per device"),
        key("device_read_bps", RATES, "bytes per second read"),
        key("device_write_bps", RATES, "bytes per second written"),
        key("device_read_iops", RATES, "reads per second"),
        key("device_write_iops", RATES, "writes per second"),
    ]],
    rest: None,
    rules: &[],
    hints: &[],
};

const WEIGHTS: Kind = Kind::List(&Kind::Table(|| &WEIGHT));
const RATES: Kind = Kind::List(&Kind::Table(|| &RATE));

static WEIGHT: Table = Table {
    name: "a device's weight",
    doc: "A device and its weight.",
    keys: &[&[
        needed("path", TEMPLATE, "the device"),
        needed("weight", NUMBER, "its weight"),
    ]],
    rest: None,
    rules: &[],
    hints: &[],
};

static RATE: Table = Table {
    name: "a device's limit",
    doc: "A device and its limit.",
    keys: &[&[
        needed("path", TEMPLATE, "the device"),
        needed("rate", TEMPLATE, "bytes (`1mb`) or operations per second"),
    ]],
    rest: None,
    rules: &[],
    hints: &[],
};
