//! Adds to a create request the settings that the engine takes as they are. Pure.

use super::convert::Attached;
use bollard::models::{
    ContainerCreateBody, DeviceRequest, HostConfig, HostConfigCgroupnsModeEnum,
    ResourcesBlkioWeightDevice, ThrottleDevice,
};
use indexmap::IndexMap;
use phalanx_shared::language::service::{Blkio, EngineOptions, ServiceConfig};
use std::collections::HashMap;

/// Ids of the attempt's containers by service.
pub(super) type Peers = HashMap<String, String>;

/// The first versions of the API that know a setting, as minor versions of 1.
const ANNOTATIONS: usize = 43;
const START_INTERVAL: usize = 44;
const MAC_ADDRESS: usize = 44;
const SUBPATH: usize = 45;

/// Returns what a definition asks for that an engine of this version of the API (1.`minor`) doesn't know, and that
/// makes no difference to what the container does.
pub(super) fn notes(config: &ServiceConfig, minor: usize) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |key: &str, since: usize| {
        if minor < since {
            notes.push(format!(
                "service {}: `{key}` is not used, since the engine's API 1.{minor} doesn't know it (1.{since} does)",
                config.name
            ));
        }
    };
    if !config.engine.annotations.is_empty() {
        note("annotations", ANNOTATIONS);
    }
    let check = config.healthcheck.as_ref();
    if check.is_some_and(|check| check.start_interval_ms.is_some()) {
        note("healthcheck.start_interval", START_INTERVAL);
    }
    notes
}

/// Returns why this engine can't run a service, or `None` if it can.
pub(super) fn impossible(config: &ServiceConfig, minor: usize, peers: &Peers) -> Option<String> {
    let engine = &config.engine;
    let networks = config.networks.values();
    let mac = engine.mac_address.is_some() || networks.clone().any(|n| n.mac_address.is_some());
    if mac && minor < MAC_ADDRESS {
        return Some(format!(
            "`mac_address` needs an engine with API 1.{MAC_ADDRESS} (Docker 25), and this one has 1.{minor}: leave it out"
        ));
    }
    let mut volumes = config.volumes.iter();
    if minor < SUBPATH && volumes.any(|mount| mount.subpath.is_some()) {
        return Some(format!(
            "`subpath` of a volume needs an engine with API 1.{SUBPATH} (Docker 26), and this one has 1.{minor}: mount the whole volume"
        ));
    }
    let services = [("pid", &engine.pid), ("ipc", &engine.ipc)];
    let services = services
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.as_deref()?.strip_prefix("service:")?)));
    let volumes = engine.volumes_from.iter();
    let volumes = volumes.map(|text| ("volumes_from", text.split(':').next().unwrap_or_default()));
    let mut missing = services
        .chain(volumes)
        .filter(|(_, name)| !peers.contains_key(*name));
    let (key, name) = missing.next()?;
    Some(format!("`{key}`: {name} has no container"))
}

/// Adds the settings of a service to its create request.
pub(super) fn add(
    config: &ServiceConfig,
    attached: Attached<'_>,
    (minor, peers): (usize, &Peers),
    body: &mut ContainerCreateBody,
) {
    let engine = &config.engine;
    let own = !matches!(attached, Attached::Container(_));
    body.tty = engine.tty.then_some(true);
    body.open_stdin = engine.stdin_open.then_some(true);
    body.domainname = engine.domainname.clone().filter(|_| own);
    if engine.uts.is_some() {
        // The engine refuses a name beside the host's.
        body.hostname = None;
    }
    let interval = config
        .healthcheck
        .as_ref()
        .and_then(|check| check.start_interval_ms);
    if let (Some(ms), Some(check)) = (interval, &mut body.healthcheck)
        && minor >= START_INTERVAL
    {
        let nanos = i64::try_from(ms.saturating_mul(1_000_000));
        check.start_interval = Some(nanos.unwrap_or(i64::MAX));
    }
    if let Some(host) = &mut body.host_config {
        host_settings(engine, own, (minor, peers), host);
    }
    if let (Some(mac), Some(networking)) = (&engine.mac_address, &mut body.networking_config) {
        let endpoints = networking.endpoints_config.iter_mut();
        for endpoint in endpoints.flat_map(HashMap::values_mut) {
            endpoint.mac_address.get_or_insert_with(|| mac.clone());
        }
    }
}

fn host_settings(
    engine: &EngineOptions,
    own: bool,
    (minor, peers): (usize, &Peers),
    host: &mut HostConfig,
) {
    let some = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    host.sysctls = pairs(&engine.sysctls);
    host.runtime.clone_from(&engine.runtime);
    host.pid_mode = engine.pid.as_deref().map(|mode| namespace(mode, peers));
    host.ipc_mode = engine.ipc.as_deref().map(|mode| namespace(mode, peers));
    host.uts_mode.clone_from(&engine.uts);
    host.userns_mode.clone_from(&engine.userns_mode);
    host.cgroupns_mode = match engine.cgroup.as_deref() {
        Some("host") => Some(HostConfigCgroupnsModeEnum::HOST),
        Some("private") => Some(HostConfigCgroupnsModeEnum::PRIVATE),
        _ => None,
    };
    host.cgroup_parent.clone_from(&engine.cgroup_parent);
    host.device_requests = (!engine.gpus.is_empty()).then(|| {
        let requests = engine.gpus.iter();
        requests.map(device_request).collect()
    });
    host.group_add = some(&engine.group_add);
    host.dns_options = some(&engine.dns_opt).filter(|_| own);
    host.dns_search = some(&engine.dns_search).filter(|_| own);
    host.oom_score_adj = engine.oom_score_adj;
    host.oom_kill_disable = engine.oom_kill_disable;
    host.memory_reservation = engine
        .mem_reservation
        .map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    host.memory_swap = engine.memswap_limit;
    host.memory_swappiness = engine.mem_swappiness;
    host.cpu_count = engine.cpu_count;
    host.cpu_period = engine.cpu_period;
    host.cpu_quota = engine.cpu_quota;
    host.cpu_realtime_period = engine.cpu_rt_period;
    host.cpu_realtime_runtime = engine.cpu_rt_runtime;
    host.cpu_shares = engine.cpu_shares;
    host.cpuset_cpus.clone_from(&engine.cpuset);
    host.device_cgroup_rules = some(&engine.device_cgroup_rules);
    host.storage_opt = pairs(&engine.storage_opt);
    host.annotations = pairs(&engine.annotations).filter(|_| minor >= ANNOTATIONS);
    let volumes = engine.volumes_from.iter().map(|text| {
        let (name, mode) = text.split_once(':').unwrap_or((text, "rw"));
        let id = peers.get(name).map_or(name, String::as_str);
        format!("{id}:{mode}")
    });
    host.volumes_from = (!engine.volumes_from.is_empty()).then(|| volumes.collect());
    block_devices(&engine.blkio, host);
}

fn block_devices(blkio: &Blkio, host: &mut HostConfig) {
    let limits = |devices: &[(String, i64)]| {
        let limit = |(path, rate): &(String, i64)| ThrottleDevice {
            path: Some(path.clone()),
            rate: Some(*rate),
        };
        (!devices.is_empty()).then(|| devices.iter().map(limit).collect())
    };
    host.blkio_weight = blkio.weight;
    host.blkio_weight_device = (!blkio.weight_device.is_empty()).then(|| {
        let weight = |(path, weight): &(String, i64)| ResourcesBlkioWeightDevice {
            path: Some(path.clone()),
            weight: usize::try_from(*weight).ok(),
        };
        blkio.weight_device.iter().map(weight).collect()
    });
    host.blkio_device_read_bps = limits(&blkio.read_bps);
    host.blkio_device_write_bps = limits(&blkio.write_bps);
    host.blkio_device_read_iops = limits(&blkio.read_iops);
    host.blkio_device_write_iops = limits(&blkio.write_iops);
}

/// Returns the engine's name of a namespace.
fn namespace(mode: &str, peers: &Peers) -> String {
    let id = mode
        .strip_prefix("service:")
        .and_then(|name| peers.get(name));
    id.map_or_else(|| mode.to_owned(), |id| format!("container:{id}"))
}

fn device_request(request: &phalanx_shared::language::service::DeviceRequest) -> DeviceRequest {
    DeviceRequest {
        driver: request.driver.clone(),
        count: request.count,
        device_ids: (!request.ids.is_empty()).then(|| request.ids.clone()),
        capabilities: (!request.capabilities.is_empty())
            .then(|| vec![request.capabilities.clone()]),
        options: pairs(&request.options),
    }
}

fn pairs(map: &IndexMap<String, String>) -> Option<HashMap<String, String>> {
    (!map.is_empty()).then(|| map.clone().into_iter().collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use phalanx_shared::language::service::{self, Healthcheck};

    fn added(config: &ServiceConfig, minor: usize) -> ContainerCreateBody {
        let peers = Peers::from([("db".to_owned(), "id-of-db".to_owned())]);
        let mut body = ContainerCreateBody {
            hostname: Some("a".to_owned()),
            healthcheck: Some(Default::default()),
            host_config: Some(HostConfig::default()),
            ..ContainerCreateBody::default()
        };
        add(config, Attached::None, (minor, &peers), &mut body);
        body
    }

    fn with(engine: EngineOptions) -> ServiceConfig {
        ServiceConfig {
            name: "a".to_owned(),
            engine,
            ..ServiceConfig::default()
        }
    }

    #[test]
    fn namespaces_and_volumes_of_other_services_are_those_of_their_containers() {
        let config = with(EngineOptions {
            pid: Some("service:db".to_owned()),
            ipc: Some("shareable".to_owned()),
            uts: Some("host".to_owned()),
            volumes_from: vec!["db:ro".to_owned(), "db".to_owned()],
            ..EngineOptions::default()
        });
        let body = added(&config, 41);
        assert_eq!(body.hostname, None);
        let host = body.host_config.unwrap();
        assert_eq!(host.pid_mode.as_deref(), Some("container:id-of-db"));
        assert_eq!(host.ipc_mode.as_deref(), Some("shareable"));
        let volumes = host.volumes_from.unwrap();
        assert_eq!(volumes, ["id-of-db:ro", "id-of-db:rw"]);
        let why = impossible(&config, 41, &Peers::new()).unwrap();
        assert_eq!(why, "`pid`: db has no container");
    }

    #[test]
    fn gpus_and_block_devices_become_the_engines_requests() {
        let request = service::DeviceRequest {
            count: Some(-1),
            capabilities: vec!["gpu".to_owned()],
            ..service::DeviceRequest::default()
        };
        let config = with(EngineOptions {
            gpus: vec![request],
            blkio: Blkio {
                weight: Some(300),
                read_bps: vec![("/dev/sda".to_owned(), 1 << 20)],
                ..Blkio::default()
            },
            ..EngineOptions::default()
        });
        let host = added(&config, 41).host_config.unwrap();
        let requests = host.device_requests.unwrap();
        assert_eq!(requests[0].count, Some(-1));
        let capabilities = requests[0].capabilities.clone().unwrap();
        assert_eq!(capabilities, [["gpu"]]);
        assert_eq!(host.blkio_weight, Some(300));
        let limits = host.blkio_device_read_bps.unwrap();
        assert_eq!(limits[0].rate, Some(1 << 20));
    }

    #[test]
    fn what_an_older_engine_doesnt_know_is_noted_or_refused() {
        let mut config = with(EngineOptions {
            annotations: [("a".to_owned(), "b".to_owned())].into(),
            ..EngineOptions::default()
        });
        config.healthcheck = Some(Healthcheck {
            start_interval_ms: Some(500),
            ..Healthcheck::default()
        });
        assert_eq!(notes(&config, 41).len(), 2);
        assert_eq!(notes(&config, 44), Vec::<String>::new());
        let (old, new) = (added(&config, 41), added(&config, 44));
        let interval =
            |body: &ContainerCreateBody| body.healthcheck.clone().unwrap().start_interval;
        assert_eq!((interval(&old), interval(&new)), (None, Some(500_000_000)));
        assert_eq!(old.host_config.unwrap().annotations, None);
        config.volumes.push(service::Mount {
            kind: service::MountKind::Named("data".to_owned()),
            target: "/data".to_owned(),
            read_only: false,
            tmpfs_size: None,
            tmpfs_mode: None,
            no_copy: false,
            subpath: Some("a".to_owned()),
            propagation: None,
        });
        let why = impossible(&config, 44, &Peers::new()).unwrap();
        assert!(why.starts_with("`subpath` of a volume needs"), "{why}");
        assert_eq!(impossible(&config, 45, &Peers::new()), None);
        config.volumes.clear();
        assert!(new.host_config.unwrap().annotations.is_some());
        config.engine.mac_address = Some("02:42:ac:11:65:43".to_owned());
        let why = impossible(&config, 41, &Peers::new()).unwrap();
        assert!(why.contains("API 1.44"), "{why}");
        assert_eq!(impossible(&config, 44, &Peers::new()), None);
    }
}
