//! Checks field by field that the request matches the definition.
#![allow(clippy::unwrap_used)]

use super::*;
use phalanx_shared::language::service::Ulimit;

fn port(target: u16, published: Option<&str>) -> Port {
    Port {
        target: Some(target),
        name: None,
        protocol: "tcp".into(),
        app_protocol: None,
        published: published.map(str::to_owned),
    }
}

fn base() -> ServiceConfig {
    ServiceConfig {
        name: "shop".into(),
        ..ServiceConfig::default()
    }
}

fn body_with(
    config: &ServiceConfig,
    mounts: &[PlacedMount],
    publish: Publish<'_>,
) -> ContainerCreateBody {
    create_body(
        config,
        &Place {
            image: "image:1",
            labels: &Labels::from([("phalanx.run".into(), "r".into())]),
            attached: Attached::Network("net", &NetworkUse::default()),
            environment: &config.environment,
            mounts,
            publish,
            engine_log_mib: 64,
        },
    )
}

fn body(config: &ServiceConfig) -> ContainerCreateBody {
    body_with(config, &[], Publish::Fixed("127.0.0.1"))
}

fn host(config: &ServiceConfig) -> HostConfig {
    body(config).host_config.unwrap()
}

fn list(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

#[test]
fn a_bare_service_takes_the_images_defaults() {
    let body = body(&base());
    assert_eq!(body.image.as_deref(), Some("image:1"));
    assert_eq!(body.hostname.as_deref(), Some("shop"));
    assert_eq!(body.cmd, None);
    assert_eq!(body.entrypoint, None);
    assert_eq!(body.user, None);
    assert_eq!(body.healthcheck, None);
    assert_eq!(body.exposed_ports, None);
    let host = body.host_config.unwrap();
    assert_eq!(host.network_mode.as_deref(), Some("net"));
    assert_eq!(host.memory, None);
    assert_eq!(host.port_bindings, None);
}

#[test]
fn command_and_entrypoint_override_and_an_empty_entrypoint_clears() {
    let config = ServiceConfig {
        command: Some(list(&["a", "b c"])),
        entrypoint: Some(list(&["e"])),
        ..base()
    };
    assert_eq!(body(&config).cmd, Some(list(&["a", "b c"])));
    assert_eq!(body(&config).entrypoint, Some(list(&["e"])));
    let cleared = ServiceConfig {
        entrypoint: Some(vec![]),
        ..base()
    };
    assert_eq!(body(&cleared).entrypoint, Some(list(&[""])));
}

#[test]
fn a_variable_without_value_is_taken_away() {
    let config = ServiceConfig {
        environment: IndexMap::from([
            ("A".to_owned(), Some("1=2".to_owned())),
            ("B".to_owned(), None),
        ]),
        ..base()
    };
    assert_eq!(body(&config).env, Some(list(&["A=1=2", "B"])));
}

#[test]
fn user_directory_signal_and_grace_are_passed_on() {
    let config = ServiceConfig {
        user: Some("1000:1000".into()),
        working_dir: Some("/srv".into()),
        stop_signal: Some("SIGINT".into()),
        stop_grace_ms: Some(1500),
        ..base()
    };
    let body = body(&config);
    assert_eq!(body.user.as_deref(), Some("1000:1000"));
    assert_eq!(body.working_dir.as_deref(), Some("/srv"));
    assert_eq!(body.stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(body.stop_timeout, Some(2));
}

#[test]
fn names_in_the_network_are_service_host_name_and_aliases_once() {
    let config = ServiceConfig {
        hostname: Some("h".into()),
        aliases: list(&["x", "shop", "x"]),
        ..base()
    };
    let body = body(&config);
    assert_eq!(body.hostname.as_deref(), Some("h"));
    let endpoints = body.networking_config.unwrap().endpoints_config.unwrap();
    assert_eq!(endpoints["net"].aliases, Some(list(&["shop", "h", "x"])));
}

#[test]
fn a_container_without_networks_of_its_own_has_no_names_and_ports_of_its_own_where_it_has_anothers()
{
    let config = ServiceConfig {
        ports: vec![Port {
            target: Some(80),
            name: None,
            protocol: "tcp".into(),
            app_protocol: None,
            published: Some("80".into()),
        }],
        ..base()
    };
    let with = |attached| {
        create_body(
            &config,
            &Place {
                image: "image:1",
                labels: &Labels::new(),
                attached,
                environment: &config.environment,
                mounts: &[],
                publish: Publish::Fixed("127.0.0.1"),
                engine_log_mib: 64,
            },
        )
    };
    let mode = |body: &ContainerCreateBody| {
        let host = body.host_config.as_ref().unwrap();
        (
            host.network_mode.clone().unwrap(),
            host.port_bindings.is_some(),
        )
    };
    let of_another = with(Attached::Container("abc"));
    assert_eq!(mode(&of_another), ("container:abc".to_owned(), false));
    assert_eq!(
        (of_another.hostname, of_another.exposed_ports),
        (None, None)
    );
    let none = with(Attached::None);
    assert_eq!(mode(&none), ("none".to_owned(), false));
    assert_eq!(none.networking_config, None);
    assert_eq!(mode(&with(Attached::Host)), ("host".to_owned(), false));
}

#[test]
fn our_labels_outrank_the_users() {
    let config = ServiceConfig {
        labels: IndexMap::from([
            ("a".to_owned(), "b".to_owned()),
            ("phalanx.run".to_owned(), "forged".to_owned()),
        ]),
        ..base()
    };
    let labels = body(&config).labels.unwrap();
    assert_eq!(labels["a"], "b");
    assert_eq!(labels["phalanx.run"], "r");
    assert_eq!(labels["phalanx.service"], "shop");
}

#[test]
fn a_health_check_is_in_nanoseconds_and_may_be_off() {
    let check = Healthcheck {
        test: list(&["CMD", "x"]),
        interval_ms: Some(250),
        timeout_ms: Some(1000),
        start_period_ms: Some(0),
        start_interval_ms: None,
        retries: Some(3),
    };
    let config = ServiceConfig {
        healthcheck: Some(check),
        ..base()
    };
    let health = body(&config).healthcheck.unwrap();
    assert_eq!(health.test, Some(list(&["CMD", "x"])));
    assert_eq!(health.interval, Some(250_000_000));
    assert_eq!(health.timeout, Some(1_000_000_000));
    assert_eq!(health.start_period, Some(0));
    assert_eq!(health.retries, Some(3));
    let inherited = Healthcheck {
        retries: Some(1),
        ..Healthcheck::default()
    };
    let config = ServiceConfig {
        healthcheck: Some(inherited),
        ..base()
    };
    assert_eq!(body(&config).healthcheck.unwrap().test, None);
}

#[test]
fn limits_and_rights_are_passed_on() {
    let config = ServiceConfig {
        init: Some(true),
        privileged: true,
        cap_add: list(&["NET_ADMIN"]),
        cap_drop: list(&["ALL"]),
        security_opt: list(&["no-new-privileges"]),
        shm_size: Some(1 << 20),
        mem_limit: Some(32 << 20),
        nano_cpus: Some(500_000_000),
        pids_limit: Some(20),
        read_only: true,
        dns: list(&["9.9.9.9"]),
        extra_hosts: list(&["a:1.2.3.4"]),
        ulimits: IndexMap::from([("nofile".to_owned(), Ulimit { soft: 10, hard: 20 })]),
        ..base()
    };
    let host = host(&config);
    assert_eq!(host.init, Some(true));
    assert_eq!(host.privileged, Some(true));
    assert_eq!(host.cap_add, Some(list(&["NET_ADMIN"])));
    assert_eq!(host.cap_drop, Some(list(&["ALL"])));
    assert_eq!(host.security_opt, Some(list(&["no-new-privileges"])));
    assert_eq!(host.shm_size, Some(1 << 20));
    assert_eq!(host.memory, Some(32 << 20));
    assert_eq!(host.nano_cpus, Some(500_000_000));
    assert_eq!(host.pids_limit, Some(20));
    assert_eq!(host.readonly_rootfs, Some(true));
    assert_eq!(host.dns, Some(list(&["9.9.9.9"])));
    assert_eq!(host.extra_hosts, Some(list(&["a:1.2.3.4"])));
    let limit = host.ulimits.unwrap().remove(0);
    assert_eq!(
        (limit.name.as_deref(), limit.soft, limit.hard),
        (Some("nofile"), Some(10), Some(20))
    );
    assert_eq!(host.log_config.unwrap().config.unwrap()["max-size"], "64m");
}

#[test]
fn devices_may_be_renamed_and_restricted() {
    let config = ServiceConfig {
        devices: list(&["/dev/fuse", "/dev/a:/dev/b", "/dev/a:/dev/b:r", "/dev/a:rw"]),
        ..base()
    };
    let got: Vec<(String, String, String)> = host(&config)
        .devices
        .unwrap()
        .into_iter()
        .map(|d| {
            (
                d.path_on_host.unwrap(),
                d.path_in_container.unwrap(),
                d.cgroup_permissions.unwrap(),
            )
        })
        .collect();
    let expected = [
        ("/dev/fuse", "/dev/fuse", "rwm"),
        ("/dev/a", "/dev/b", "rwm"),
        ("/dev/a", "/dev/b", "r"),
        ("/dev/a", "/dev/a", "rw"),
    ];
    assert_eq!(
        got,
        expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()))
    );
}

#[test]
fn ports_are_exposed_and_only_fixed_ones_published_on_a_free_port() {
    let config = ServiceConfig {
        ports: vec![port(80, None), port(443, Some("8443"))],
        expose: list(&["3000-3002", "53/udp", "80"]),
        ..base()
    };
    let direct = body(&config);
    assert_eq!(
        direct.exposed_ports.unwrap(),
        list(&[
            "3000/tcp", "3001/tcp", "3002/tcp", "443/tcp", "53/udp", "80/tcp"
        ])
    );
    let bindings = direct.host_config.unwrap().port_bindings.unwrap();
    assert_eq!(bindings.len(), 1);
    let binding = bindings["443/tcp"].clone().unwrap().remove(0);
    assert_eq!(binding.host_ip.as_deref(), Some("127.0.0.1"));
    assert_eq!(binding.host_port.as_deref(), Some(""));
    let all = body_with(&config, &[], Publish::All("0.0.0.0"));
    assert_eq!(all.host_config.unwrap().port_bindings.unwrap().len(), 2);
}

#[test]
fn mounts_of_each_kind_carry_what_they_need() {
    let placed = |source| PlacedMount {
        propagation: Some(Propagation::Rslave),
        source,
        target: "/t".into(),
        read_only: true,
    };
    let mounts = [
        placed(Source::Path("/w/conf".into())),
        placed(Source::Volume {
            name: Some("phalanx-x-data".into()),
            no_copy: false,
            subpath: None,
        }),
        placed(Source::Volume {
            name: None,
            no_copy: true,
            subpath: Some("a/b".to_owned()),
        }),
        placed(Source::Memory {
            size: Some(4096),
            mode: Some(0o700),
        }),
    ];
    let config = ServiceConfig {
        tmpfs: list(&["/run", "/tmp:size=1m,mode=1777"]),
        ..base()
    };
    let host = body_with(&config, &mounts, Publish::Fixed(""))
        .host_config
        .unwrap();
    let got = host.mounts.unwrap();
    assert!(
        got.iter()
            .all(|m| m.target.as_deref() == Some("/t") && m.read_only == Some(true))
    );
    assert_eq!(
        (got[0].typ, got[0].source.as_deref()),
        (Some(MountType::BIND), Some("/w/conf"))
    );
    assert_eq!(
        (got[1].typ, got[1].source.as_deref()),
        (Some(MountType::VOLUME), Some("phalanx-x-data"))
    );
    for (volume, no_copy) in got[1..3].iter().zip([None, Some(true)]) {
        assert_eq!(volume.volume_options.as_ref().unwrap().no_copy, no_copy);
        let labels = volume.volume_options.clone().unwrap().labels.unwrap();
        assert_eq!(labels["phalanx.run"], "r");
    }
    let propagation = |mount: &bollard::models::Mount| mount.bind_options.clone()?.propagation;
    let rslave = Some(bollard::models::MountBindOptionsPropagationEnum::RSLAVE);
    assert_eq!(propagation(&got[0]), rslave);
    assert_eq!(propagation(&got[1]), None);
    assert_eq!(got[2].source, None);
    let subpath = got[2].volume_options.clone().unwrap().subpath;
    assert_eq!(subpath.as_deref(), Some("a/b"));
    let memory = got[3].tmpfs_options.clone().unwrap();
    assert_eq!((memory.size_bytes, memory.mode), (Some(4096), Some(0o700)));
    let tmpfs = host.tmpfs.unwrap();
    assert_eq!(tmpfs["/run"], "");
    assert_eq!(tmpfs["/tmp"], "size=1m,mode=1777");
}
