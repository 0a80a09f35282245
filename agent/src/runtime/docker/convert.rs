//! Converts a service's definition to the engine's create request. Pure: files have been read and paths resolved before
//! (see `mounts`).

use super::labels::{self, Labels};
use bollard::models::{
    ContainerCreateBody, DeviceMapping, EndpointIpamConfig, EndpointSettings, HealthConfig,
    HostConfig, HostConfigLogConfig, Mount, MountBindOptions, MountBindOptionsPropagationEnum,
    MountTmpfsOptions, MountType, MountVolumeOptions, NetworkingConfig, PortBinding, PortMap,
    ResourcesUlimits,
};
use indexmap::IndexMap;
use phalanx_shared::language::service::{
    Healthcheck, NetworkUse, Port, Propagation, ServiceConfig,
};
use std::collections::HashMap;
use std::path::PathBuf;

/// The parts of a create request that the definition alone doesn't contain.
pub(super) struct Place<'a> {
    /// Image to run: the one that was pulled or built.
    pub image: &'a str,
    /// Labels of the attempt.
    pub labels: &'a Labels,
    /// Where its network interfaces come from.
    pub attached: Attached<'a>,
    /// Effective environment variables.
    pub environment: &'a IndexMap<String, Option<String>>,
    /// Mounts with resolved sources.
    pub mounts: &'a [PlacedMount],
    /// Which ports the engine publishes.
    pub publish: Publish<'a>,
    /// Size in MiB at which the engine's log file is truncated.
    pub engine_log_mib: u64,
}

/// Where a container's network interfaces come from, for the create request.
#[derive(Clone, Copy)]
pub(super) enum Attached<'a> {
    /// The first of its networks, by name; it joins the others before it starts.
    Network(&'a str, &'a NetworkUse),
    /// Only loopback.
    None,
    /// Those of the engine's host.
    Host,
    /// Those of the container with this id.
    Container(&'a str),
}

impl Attached<'_> {
    /// Returns whether the container has names, ports and resolver settings of its own.
    fn is_own(self) -> bool {
        !matches!(self, Attached::Container(_))
    }

    fn mode(self) -> String {
        match self {
            Attached::Network(name, _) => name.to_owned(),
            Attached::None => "none".to_owned(),
            Attached::Host => "host".to_owned(),
            Attached::Container(id) => format!("container:{id}"),
        }
    }
}

/// Which ports are published, and on which address of the engine's host.
#[derive(Clone, Copy)]
pub(super) enum Publish<'a> {
    /// Only ports that name a host port (remapped to a free one).
    Fixed(&'a str),
    /// All ports, since steps reach the container through them.
    All(&'a str),
}

/// A mount whose source the engine knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlacedMount {
    /// Source of the mount.
    pub source: Source,
    /// Path in the container.
    pub target: String,
    /// Whether the mount is read-only.
    pub read_only: bool,
    /// Which later mounts below it are seen on the other side.
    pub propagation: Option<Propagation>,
}

/// Source of a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A path on the engine's host.
    Path(PathBuf),
    /// A volume by its name in the engine, or an anonymous one. A new volume is filled from the image unless `no_copy`
    /// is set.
    Volume {
        name: Option<String>,
        no_copy: bool,
        subpath: Option<String>,
    },
    /// A tmpfs with an optional size in bytes and optional permission bits.
    Memory {
        size: Option<u64>,
        mode: Option<u32>,
    },
}

/// Builds the create request of a service.
pub(super) fn create_body(config: &ServiceConfig, place: &Place<'_>) -> ContainerCreateBody {
    let own = place.attached.is_own();
    let exposed = if own { exposed(config) } else { Vec::new() };
    ContainerCreateBody {
        hostname: own.then(|| host_name(config)),
        user: config.user.clone(),
        exposed_ports: (!exposed.is_empty()).then_some(exposed),
        env: Some(environment(place.environment)),
        cmd: config.command.clone(),
        healthcheck: config.healthcheck.as_ref().map(health),
        image: Some(place.image.to_owned()),
        working_dir: config.working_dir.clone(),
        // An empty entrypoint clears that of the image; the engine expresses that as one empty word.
        entrypoint: config
            .entrypoint
            .clone()
            .map(|words| match words.is_empty() {
                true => vec![String::new()],
                false => words,
            }),
        labels: Some(all_labels(config, place.labels)),
        stop_signal: config.stop_signal.clone(),
        stop_timeout: config.stop_grace_ms.map(|ms| whole(ms.div_ceil(1000))),
        host_config: Some(host_config(config, place)),
        networking_config: match place.attached {
            Attached::Network(name, used) => Some(NetworkingConfig {
                endpoints_config: Some(HashMap::from([(name.to_owned(), endpoint(config, used))])),
            }),
            _ => None,
        },
        ..ContainerCreateBody::default()
    }
}

/// Returns how a member is attached to a network, at first and again after a disconnect.
pub(super) fn endpoint(config: &ServiceConfig, used: &NetworkUse) -> EndpointSettings {
    let fixed = used.ipv4_address.is_some()
        || used.ipv6_address.is_some()
        || !used.link_local_ips.is_empty();
    EndpointSettings {
        aliases: Some(aliases(config, used)),
        ipam_config: fixed.then(|| EndpointIpamConfig {
            ipv4_address: used.ipv4_address.clone(),
            ipv6_address: used.ipv6_address.clone(),
            link_local_ips: (!used.link_local_ips.is_empty()).then(|| used.link_local_ips.clone()),
        }),
        mac_address: used.mac_address.clone(),
        gw_priority: used.gw_priority,
        driver_opts: (!used.driver_opts.is_empty())
            .then(|| used.driver_opts.clone().into_iter().collect()),
        ..EndpointSettings::default()
    }
}

/// Returns the names of a member in a network.
pub(super) fn aliases(config: &ServiceConfig, used: &NetworkUse) -> Vec<String> {
    let mut names = vec![config.name.clone()];
    // All replicas answer to their service's name.
    let shared = config.replica_of.iter();
    let more = shared.chain(&config.hostname).chain(&config.aliases);
    for name in more.chain(&used.aliases) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

fn host_name(config: &ServiceConfig) -> String {
    let name = config.hostname.as_ref().unwrap_or(&config.name);
    // The kernel's limit; a longer service name still works as an alias.
    name.chars().take(63).collect()
}

fn all_labels(config: &ServiceConfig, ours: &Labels) -> Labels {
    let mut all: Labels = config
        .labels
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    all.insert(labels::SERVICE.to_owned(), config.name.clone());
    all.extend(ours.clone());
    all
}

fn environment(variables: &IndexMap<String, Option<String>>) -> Vec<String> {
    variables
        .iter()
        .map(|(name, value)| match value {
            Some(value) => format!("{name}={value}"),
            // A name alone removes the image's variable.
            None => name.clone(),
        })
        .collect()
}

fn exposed(config: &ServiceConfig) -> Vec<String> {
    let mut ports: Vec<String> = config.ports.iter().filter_map(port_key).collect();
    for text in &config.expose {
        let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        match (from.parse::<u16>(), to.parse::<u16>()) {
            (Ok(from), Ok(to)) => {
                ports.extend((from..=to).map(|port| format!("{port}/{protocol}")))
            }
            // Not a range: the engine reports what is wrong with it.
            _ => ports.push(text.clone()),
        }
    }
    ports.sort();
    ports.dedup();
    ports
}

/// Returns the engine's name of a port, such as `80/tcp`.
pub(super) fn port_key(port: &Port) -> Option<String> {
    let protocol = match port.protocol.as_str() {
        "" => "tcp",
        other => other,
    };
    port.target.map(|target| format!("{target}/{protocol}"))
}

fn health(check: &Healthcheck) -> HealthConfig {
    let nanos = |ms: Option<u64>| ms.map(|ms| whole(ms.saturating_mul(1_000_000)));
    HealthConfig {
        test: (!check.test.is_empty()).then(|| check.test.clone()),
        interval: nanos(check.interval_ms),
        timeout: nanos(check.timeout_ms),
        retries: check.retries.map(i64::from),
        start_period: nanos(check.start_period_ms),
        start_interval: None,
    }
}

fn host_config(config: &ServiceConfig, place: &Place<'_>) -> HostConfig {
    let some = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    HostConfig {
        memory: config.mem_limit.map(whole),
        nano_cpus: config.nano_cpus.map(whole),
        pids_limit: config.pids_limit,
        shm_size: config.shm_size.map(whole),
        init: config.init,
        privileged: Some(config.privileged),
        readonly_rootfs: Some(config.read_only),
        cap_add: some(&config.cap_add),
        cap_drop: some(&config.cap_drop),
        security_opt: some(&config.security_opt),
        dns: some(&config.dns).filter(|_| place.attached.is_own()),
        extra_hosts: some(&config.extra_hosts).filter(|_| place.attached.is_own()),
        devices: devices(&config.devices),
        ulimits: ulimits(config),
        tmpfs: tmpfs(&config.tmpfs),
        mounts: (!place.mounts.is_empty()).then(|| {
            place
                .mounts
                .iter()
                .map(|m| mount(m, place.labels))
                .collect()
        }),
        port_bindings: bindings(&config.ports, place.publish)
            .filter(|_| matches!(place.attached, Attached::Network(..))),
        network_mode: Some(place.attached.mode()),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                (
                    "max-size".to_owned(),
                    format!("{}m", place.engine_log_mib.max(1)),
                ),
                ("max-file".to_owned(), "1".to_owned()),
            ])),
        }),
        ..HostConfig::default()
    }
}

fn devices(lines: &[String]) -> Option<Vec<DeviceMapping>> {
    let mapping = |line: &String| {
        let mut parts = line.split(':');
        let host = parts.next().unwrap_or_default();
        let second = parts.next();
        // `HOST:rwm` gives only the permissions.
        let rights_only = second.is_some_and(|s| !s.starts_with('/'));
        let inside = second.filter(|_| !rights_only).unwrap_or(host);
        let rights = match rights_only {
            true => second,
            false => parts.next(),
        };
        DeviceMapping {
            path_on_host: Some(host.to_owned()),
            path_in_container: Some(inside.to_owned()),
            cgroup_permissions: Some(rights.unwrap_or("rwm").to_owned()),
        }
    };
    (!lines.is_empty()).then(|| lines.iter().map(mapping).collect())
}

fn ulimits(config: &ServiceConfig) -> Option<Vec<ResourcesUlimits>> {
    let limit =
        |(name, limit): (&String, &phalanx_shared::language::service::Ulimit)| ResourcesUlimits {
            name: Some(name.clone()),
            soft: Some(limit.soft),
            hard: Some(limit.hard),
        };
    (!config.ulimits.is_empty()).then(|| config.ulimits.iter().map(limit).collect())
}

fn tmpfs(lines: &[String]) -> Option<HashMap<String, String>> {
    let split = |line: &String| {
        let (path, options) = line.split_once(':').unwrap_or((line, ""));
        (path.to_owned(), options.to_owned())
    };
    (!lines.is_empty()).then(|| lines.iter().map(split).collect())
}

fn mount(placed: &PlacedMount, ours: &Labels) -> Mount {
    let mut mount = Mount {
        target: Some(placed.target.clone()),
        read_only: Some(placed.read_only),
        ..Mount::default()
    };
    match &placed.source {
        Source::Path(path) => {
            mount.typ = Some(MountType::BIND);
            mount.source = Some(path.to_string_lossy().into_owned());
            mount.bind_options = placed.propagation.map(|propagation| MountBindOptions {
                propagation: Some(propagated(propagation)),
                ..MountBindOptions::default()
            });
        }
        Source::Volume {
            name,
            no_copy,
            subpath,
        } => {
            mount.typ = Some(MountType::VOLUME);
            mount.source.clone_from(name);
            mount.volume_options = Some(MountVolumeOptions {
                labels: Some(ours.clone()),
                no_copy: no_copy.then_some(true),
                subpath: subpath.clone(),
                ..MountVolumeOptions::default()
            });
        }
        Source::Memory { size, mode } => {
            mount.typ = Some(MountType::TMPFS);
            mount.tmpfs_options = (size.is_some() || mode.is_some()).then(|| MountTmpfsOptions {
                size_bytes: size.map(whole),
                mode: mode.map(i64::from),
                ..MountTmpfsOptions::default()
            });
        }
    }
    mount
}

fn propagated(propagation: Propagation) -> MountBindOptionsPropagationEnum {
    use MountBindOptionsPropagationEnum as Docker;
    match propagation {
        Propagation::Private => Docker::PRIVATE,
        Propagation::Rprivate => Docker::RPRIVATE,
        Propagation::Slave => Docker::SLAVE,
        Propagation::Rslave => Docker::RSLAVE,
        Propagation::Shared => Docker::SHARED,
        Propagation::Rshared => Docker::RSHARED,
    }
}

fn bindings(ports: &[Port], publish: Publish<'_>) -> Option<PortMap> {
    let (address, all) = match publish {
        Publish::Fixed(address) => (address, false),
        Publish::All(address) => (address, true),
    };
    let free = || {
        Some(vec![PortBinding {
            host_ip: Some(address.to_owned()),
            // Empty: the engine chooses a free port.
            host_port: Some(String::new()),
        }])
    };
    let map: PortMap = ports
        .iter()
        .filter(|port| all || port.published.is_some())
        .filter_map(port_key)
        .map(|key| (key, free()))
        .collect();
    (!map.is_empty()).then_some(map)
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
