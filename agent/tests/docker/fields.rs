//! Every field of a service, seen in the container that it makes.

use crate::cases;
use crate::lab::{Cell, Lab, Service, idle, script, tcp, web};
use phalanx_agent::policy::Policy;
use phalanx_agent::runtime::contract::{Fault, RuntimeError};
use phalanx_shared::id::Token;
use phalanx_shared::language::service::{
    Blkio, EngineOptions, EnvFile, Healthcheck, Mount, MountKind, Port, PullPolicy, ServiceConfig,
    Ulimit,
};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::trace::{AttemptTrace, TraceContext};
use std::sync::Arc;

cases![
    command_and_entrypoint,
    environment_over_env_file_and_trace_context,
    an_env_file_that_is_missing_is_an_error_with_its_name,
    bind_mounts_are_relative_to_the_workspace,
    a_bind_mount_that_leaves_the_workspace_is_refused,
    a_closed_agent_mounts_nothing_that_another_container_could_lead_elsewhere,
    named_volumes_are_shared_in_the_cell_and_no_further,
    anonymous_volumes_are_labelled_and_go_with_their_container,
    tmpfs_in_both_spellings,
    a_fixed_host_port_is_remapped_to_a_free_one_on_loopback,
    expose_is_told_to_the_engine,
    a_disabled_healthcheck_is_none,
    user_and_working_dir,
    extra_hosts_and_dns,
    hostname_is_the_services_name_or_its_own,
    init_reaps_for_the_command,
    privileged_gives_all_devices,
    cap_add_and_cap_drop,
    devices_are_there,
    security_opt_forbids_new_privileges,
    ulimits_and_shm_size,
    mem_limit_cpus_and_pids_limit,
    read_only_root,
    stop_signal_is_the_one_sent,
    labels_of_the_user_and_ours,
    platform_of_another_machine_is_an_error_that_names_it,
    pull_policy_never_takes_only_what_is_there,
    traceparent_of_the_user_wins,
    kernel_settings_and_resolver_options_reach_the_container,
    limits_and_weights_reach_the_engine,
    a_terminal_keeps_a_shell_alive_and_its_output_is_whole,
    namespaces_and_volumes_of_another_service_are_shared,
    namespaces_of_the_host_are_given,
    labels_of_files_go_behind_those_of_the_definition,
    a_mac_address_needs_an_engine_that_knows_it,
];

async fn up(lab: &Lab, config: ServiceConfig) -> (Cell, Service) {
    let cell = lab.cell().await;
    let service = cell.up(config).await;
    (cell, service)
}

fn words(words: &[&str]) -> Option<Vec<String>> {
    Some(words.iter().map(|w| (*w).to_owned()).collect())
}

fn mount(kind: MountKind, target: &str) -> Mount {
    Mount {
        kind,
        target: target.to_owned(),
        read_only: false,
        tmpfs_size: None,
        tmpfs_mode: None,
        no_copy: false,
        subpath: None,
        propagation: None,
    }
}

fn message(result: Result<Service, RuntimeError>) -> String {
    match result {
        Err(error) if error.outcome() == Outcome::Errored => error.reason,
        Err(error) => panic!("failed rather than errored: {error}"),
        Ok(_) => panic!("no error"),
    }
}

async fn command_and_entrypoint(lab: Arc<Lab>) {
    let config = ServiceConfig {
        entrypoint: words(&["echo", "from the entrypoint:"]),
        command: words(&["a  b", "$c"]),
        ..script("s", "")
    };
    let (cell, service) = up(&lab, config).await;
    service.exit().await;
    assert_eq!(service.log.stdout(), "from the entrypoint: a  b $c\n");
    cell.down().await;
}

fn trace(token: &Token) -> AttemptTrace {
    AttemptTrace::new(TraceContext::of_run(&token.run, None), token)
}

async fn environment_over_env_file_and_trace_context(lab: Arc<Lab>) {
    let cell = lab
        .cell_of(lab.runtime.clone(), &lab.agent, |scope| {
            std::fs::write(scope.scratch.join("a.env"), "A=file\nB='in file'\n").unwrap();
            scope.workspace = Some(scope.scratch.clone());
            scope.trace = Some(trace(&scope.token));
        })
        .await
        .unwrap();
    let config = ServiceConfig {
        env_file: vec![EnvFile {
            path: "a.env".into(),
            required: true,
            raw: false,
        }],
        environment: [
            ("A".to_owned(), Some("own".to_owned())),
            ("FROM_IMAGE".to_owned(), None),
        ]
        .into_iter()
        .collect(),
        ..idle("s")
    };
    let service = cell.up(config).await;
    let said = service
        .says("echo $A/$B/${FROM_IMAGE-gone}/$TRACEPARENT")
        .await;
    let mine = trace(&cell.token);
    let parent = mine.parent(mine.service("s"));
    assert_eq!(said, format!("own/in file/gone/{parent}"));
    cell.down().await;
}

async fn traceparent_of_the_user_wins(lab: Arc<Lab>) {
    let cell = lab
        .cell_of(lab.runtime.clone(), &lab.agent, |scope| {
            scope.trace = Some(trace(&scope.token))
        })
        .await
        .unwrap();
    let environment = [("TRACEPARENT".to_owned(), Some("theirs".to_owned()))]
        .into_iter()
        .collect();
    let service = cell
        .up(ServiceConfig {
            environment,
            ..idle("s")
        })
        .await;
    assert_eq!(service.says("echo $TRACEPARENT").await, "theirs");
    cell.down().await;
}

async fn an_env_file_that_is_missing_is_an_error_with_its_name(lab: Arc<Lab>) {
    let cell = lab.cell_in(&[("here", "")]).await;
    let file = |path: &str, required| EnvFile {
        path: path.to_owned(),
        required,
        raw: false,
    };
    let with = |files| ServiceConfig {
        env_file: files,
        ..idle("s")
    };
    let error = message(cell.create(with(vec![file("gone.env", true)])).await);
    assert!(
        error.contains("service s") && error.contains("gone.env"),
        "{error}"
    );
    let error = message(cell.create(with(vec![file("../../outside", false)])).await);
    assert!(error.contains("leaves the workspace"), "{error}");
    cell.create(with(vec![file("gone.env", false)]))
        .await
        .unwrap();
    cell.down().await;
}

async fn bind_mounts_are_relative_to_the_workspace(lab: Arc<Lab>) {
    let cell = lab.cell_in(&[("conf/a.txt", "from the workspace")]).await;
    let mut read_only = mount(MountKind::Bind("./conf".into()), "/conf");
    read_only.read_only = true;
    let writable = mount(MountKind::Bind("conf/a.txt".into()), "/file");
    let absolute = mount(MountKind::Bind("/etc/hostname".into()), "/host-name");
    let config = ServiceConfig {
        volumes: vec![read_only, writable, absolute],
        ..idle("s")
    };
    let service = cell.up(config).await;
    assert_eq!(service.says("cat /conf/a.txt").await, "from the workspace");
    assert_ne!(service.sh("touch /conf/new").await.exit_code, 0);
    service.says("echo changed > /file; cat /host-name").await;
    let here = cell.scratch.path().join("workspace/conf/a.txt");
    assert_eq!(std::fs::read_to_string(here).unwrap(), "changed\n");
    cell.down().await;
}

async fn a_bind_mount_that_leaves_the_workspace_is_refused(lab: Arc<Lab>) {
    let cell = lab.cell_in(&[("a", "")]).await;
    std::os::unix::fs::symlink("/etc", cell.scratch.path().join("workspace/link")).unwrap();
    let with = |path: &str| ServiceConfig {
        volumes: vec![mount(MountKind::Bind(path.to_owned()), "/x")],
        ..idle("s")
    };
    for (path, why) in [("../..", "`..`"), ("link", "by a link")] {
        let error = message(cell.create(with(path)).await);
        assert!(
            error.contains("service s") && error.contains(path) && error.contains(why),
            "{error}"
        );
    }
    // What is missing becomes an empty directory, as in Compose.
    let service = cell.up(with("missing")).await;
    assert_eq!(service.says("ls -A /x").await, "");
    cell.down().await;
}

async fn a_closed_agent_mounts_nothing_that_another_container_could_lead_elsewhere(lab: Arc<Lab>) {
    let with = |name: &str, path: &str, read_only: bool| ServiceConfig {
        volumes: vec![Mount {
            read_only,
            ..mount(MountKind::Bind(path.to_owned()), "/x")
        }],
        ..idle(name)
    };
    let closed = || async {
        lab.cell_of(lab.runtime.clone(), &lab.agent, |scope| {
            let root = scope.scratch.join("workspace");
            std::fs::create_dir_all(root.join("conf")).unwrap();
            scope.workspace = Some(root);
            scope.policy = Arc::new(Policy::closed());
        })
        .await
        .unwrap()
    };
    // Whichever comes first.
    for [first, second] in [["./", "./conf"], ["./conf", "./"]] {
        let cell = closed().await;
        cell.up(with("first", first, false)).await;
        let refused = cell
            .create(with("second", second, false))
            .await
            .err()
            .unwrap();
        assert_eq!(refused.fault, Fault::Policy, "{refused}");
        for part in ["./conf is below ./", "rule `nested_mounts`", ":ro"] {
            assert!(refused.reason.contains(part), "{part}: {refused}");
        }
        cell.down().await;
    }
    let cell = closed().await;
    cell.up(with("app", "./", true)).await;
    cell.up(with("one", "./conf", false)).await;
    cell.up(with("two", "./conf", false)).await;
    let absolute = cell.create(with("host", "/etc", true)).await.err().unwrap();
    assert_eq!(absolute.fault, Fault::Policy, "{absolute}");
    cell.down().await;
}

async fn named_volumes_are_shared_in_the_cell_and_no_further(lab: Arc<Lab>) {
    let with = |name: &str| ServiceConfig {
        volumes: vec![mount(MountKind::Named("data".into()), "/data")],
        ..idle(name)
    };
    let (one, two) = (lab.cell().await, lab.cell().await);
    let (writer, reader, stranger) = tokio::join!(
        one.up(with("writer")),
        one.up(with("reader")),
        two.up(with("stranger"))
    );
    writer.says("echo shared > /data/file").await;
    assert_eq!(reader.says("cat /data/file").await, "shared");
    assert_ne!(stranger.sh("cat /data/file").await.exit_code, 0);
    let left = one.left().await;
    assert!(
        left.iter()
            .any(|o| o.starts_with("volume phalanx-") && o.ends_with("-data")),
        "{left:?}"
    );
    one.down().await;
    two.down().await;
}

async fn anonymous_volumes_are_labelled_and_go_with_their_container(lab: Arc<Lab>) {
    let config = ServiceConfig {
        volumes: vec![mount(MountKind::Anonymous, "/anon")],
        ..idle("s")
    };
    let (cell, service) = up(&lab, config).await;
    service
        .says("echo x > /anon/x; grep ' /anon ' /proc/mounts")
        .await;
    assert!(
        cell.left()
            .await
            .iter()
            .any(|object| object.starts_with("volume"))
    );
    cell.down().await;
}

async fn tmpfs_in_both_spellings(lab: Arc<Lab>) {
    let mut memory = mount(MountKind::Tmpfs, "/memory");
    memory.tmpfs_size = Some(1 << 20);
    let config = ServiceConfig {
        volumes: vec![memory],
        tmpfs: vec!["/scratch:size=2m,mode=1777".to_owned(), "/plain".to_owned()],
        ..idle("s")
    };
    let (cell, service) = up(&lab, config).await;
    let size = "df -k /memory /scratch | awk 'NR>1 {print $2}'";
    assert_eq!(service.says(size).await, "1024\n2048");
    assert!(
        service
            .says("grep ' /plain ' /proc/mounts")
            .await
            .starts_with("tmpfs")
    );
    cell.down().await;
}

async fn a_fixed_host_port_is_remapped_to_a_free_one_on_loopback(lab: Arc<Lab>) {
    let fixed = Port {
        published: Some("8080".into()),
        ..tcp(8080)
    };
    // Two cells with the same host port, at once.
    let config = ServiceConfig {
        ports: vec![fixed],
        ..web("web", 8080)
    };
    let (one, two) = (lab.cell().await, lab.cell().await);
    tokio::join!(one.up(config.clone()), two.up(config));
    for cell in [&one, &two] {
        let settings = cell.inspect("web").await.network_settings.unwrap();
        let bindings = settings.ports.unwrap()["8080/tcp"].clone().unwrap();
        assert_eq!(bindings[0].host_ip.as_deref(), Some("127.0.0.1"));
        let port: u16 = bindings[0].host_port.as_ref().unwrap().parse().unwrap();
        assert_ne!(port, 8080);
        assert!(
            crate::lab::get(([127, 0, 0, 1], port).into())
                .await
                .contains("served")
        );
    }
    one.down().await;
    two.down().await;
}

async fn expose_is_told_to_the_engine(lab: Arc<Lab>) {
    let config = ServiceConfig {
        expose: vec!["3000-3001".into(), "53/udp".into()],
        ..idle("s")
    };
    let (cell, _) = up(&lab, config).await;
    let mut exposed = cell
        .inspect("s")
        .await
        .config
        .unwrap()
        .exposed_ports
        .unwrap();
    exposed.sort();
    assert_eq!(exposed, ["3000/tcp", "3001/tcp", "53/udp"]);
    cell.down().await;
}

async fn a_disabled_healthcheck_is_none(lab: Arc<Lab>) {
    let none = Healthcheck {
        test: vec!["NONE".into()],
        ..Healthcheck::default()
    };
    let (cell, service) = up(
        &lab,
        ServiceConfig {
            healthcheck: Some(none),
            ..idle("s")
        },
    )
    .await;
    assert!(!service.member.has_healthcheck());
    assert_eq!(*service.member.health().borrow(), None);
    cell.down().await;
}

async fn user_and_working_dir(lab: Arc<Lab>) {
    let config = ServiceConfig {
        user: Some("app:root".into()),
        working_dir: Some("/srv".into()),
        ..script("s", "id -u; id -g; pwd")
    };
    let (cell, service) = up(&lab, config).await;
    service.exit().await;
    assert_eq!(service.log.stdout(), "1000\n0\n/srv\n");
    let bad = ServiceConfig {
        user: Some("ghost".into()),
        ..idle("bad")
    };
    let error = cell
        .create(bad)
        .await
        .unwrap()
        .member
        .start()
        .await
        .unwrap_err();
    assert!(
        error.outcome() == Outcome::Failed && error.reason.contains("user \"ghost\""),
        "{error:?}"
    );
    cell.down().await;
}

async fn extra_hosts_and_dns(lab: Arc<Lab>) {
    let config = ServiceConfig {
        extra_hosts: vec!["fixed.example:192.0.2.9".into()],
        dns: vec!["192.0.2.53".into()],
        ..idle("s")
    };
    let (cell, service) = up(&lab, config).await;
    assert!(
        service
            .says("grep fixed.example /etc/hosts")
            .await
            .starts_with("192.0.2.9")
    );
    // In a network of its own the engine's resolver stands before the servers given.
    assert_eq!(
        cell.inspect("s").await.host_config.unwrap().dns.unwrap(),
        ["192.0.2.53"]
    );
    cell.down().await;
}

async fn hostname_is_the_services_name_or_its_own(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let named = ServiceConfig {
        hostname: Some("db.example".into()),
        ..idle("named")
    };
    let (plain, named) = tokio::join!(cell.up(idle("plain")), cell.up(named));
    assert_eq!(plain.says("hostname").await, "plain");
    assert_eq!(named.says("hostname").await, "db.example");
    assert!(
        plain
            .says("ping -c 1 db.example")
            .await
            .contains("1 packets received")
    );
    cell.down().await;
}

async fn init_reaps_for_the_command(lab: Arc<Lab>) {
    let (cell, service) = up(
        &lab,
        ServiceConfig {
            init: Some(true),
            ..idle("s")
        },
    )
    .await;
    let first = service.says("cat /proc/1/comm").await;
    assert!(first.contains("init") || first.contains("tini"), "{first}");
    cell.down().await;
}

async fn privileged_gives_all_devices(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let service = cell
        .create(ServiceConfig {
            privileged: true,
            ..idle("s")
        })
        .await
        .unwrap();
    assert_eq!(
        cell.inspect("s").await.host_config.unwrap().privileged,
        Some(true)
    );
    match service.member.start().await {
        Ok(_) => {
            service.says("mount -t tmpfs none /data").await;
        }
        // An engine that hasn't all rights itself can't give them away; it says so.
        Err(error) => assert!(
            error.to_string().contains("operation not permitted"),
            "{error}"
        ),
    }
    cell.down().await;
}

async fn cap_add_and_cap_drop(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let added = ServiceConfig {
        cap_add: vec!["NET_ADMIN".into()],
        ..idle("added")
    };
    let dropped = ServiceConfig {
        cap_drop: vec!["ALL".into()],
        ..idle("dropped")
    };
    let (added, dropped) = tokio::join!(cell.up(added), cell.up(dropped));
    added.says("ip link set lo down").await;
    assert!(
        dropped
            .says("grep CapEff /proc/self/status")
            .await
            .ends_with("0000000000000000")
    );
    cell.down().await;
}

async fn devices_are_there(lab: Arc<Lab>) {
    let config = ServiceConfig {
        devices: vec!["/dev/zero:/dev/nothing:r".into()],
        ..idle("s")
    };
    let (cell, service) = up(&lab, config).await;
    assert_eq!(service.says("head -c 3 /dev/nothing | wc -c").await, "3");
    cell.down().await;
}

async fn security_opt_forbids_new_privileges(lab: Arc<Lab>) {
    let config = ServiceConfig {
        security_opt: vec!["no-new-privileges".into()],
        ..idle("s")
    };
    let (cell, service) = up(&lab, config).await;
    assert!(
        service
            .says("grep NoNewPrivs /proc/1/status")
            .await
            .ends_with('1')
    );
    cell.down().await;
}

async fn ulimits_and_shm_size(lab: Arc<Lab>) {
    let config = ServiceConfig {
        ulimits: [(
            "nofile".to_owned(),
            Ulimit {
                soft: 123,
                hard: 456,
            },
        )]
        .into_iter()
        .collect(),
        shm_size: Some(8 << 20),
        ..idle("s")
    };
    let (cell, service) = up(&lab, config).await;
    let limits = service
        .says("grep 'open files' /proc/1/limits | awk '{print $4, $5}'")
        .await;
    assert_eq!(limits, "123 456");
    assert_eq!(
        service.says("df -k /dev/shm | awk 'NR>1 {print $2}'").await,
        "8192"
    );
    cell.down().await;
}

async fn mem_limit_cpus_and_pids_limit(lab: Arc<Lab>) {
    let config = ServiceConfig {
        mem_limit: Some(32 << 20),
        nano_cpus: Some(250_000_000),
        pids_limit: Some(15),
        ..idle("s")
    };
    let (cell, service) = up(&lab, config).await;
    let host = cell.inspect("s").await.host_config.unwrap();
    assert_eq!(
        (host.memory, host.nano_cpus, host.pids_limit),
        (Some(32 << 20), Some(250_000_000), Some(15))
    );
    // The sixteenth process can't be made.
    let out = service.sh("for i in $(seq 1 30); do sleep 5 & done").await;
    assert!(
        String::from_utf8_lossy(&out.stderr).contains("fork"),
        "{out:?}"
    );
    cell.down().await;
}

async fn read_only_root(lab: Arc<Lab>) {
    let config = ServiceConfig {
        read_only: true,
        tmpfs: vec!["/tmp".into()],
        ..idle("s")
    };
    let (cell, service) = up(&lab, config).await;
    assert_ne!(service.sh("touch /data/x").await.exit_code, 0);
    service.says("touch /tmp/x").await;
    cell.down().await;
}

async fn stop_signal_is_the_one_sent(lab: Arc<Lab>) {
    let config = ServiceConfig {
        stop_signal: Some("SIGUSR1".into()),
        ..script(
            "s",
            "trap 'echo usr1; exit 5' USR1; echo up; while :; do sleep 1000 & wait; done",
        )
    };
    let (cell, service) = up(&lab, config).await;
    service.log.until("up").await;
    service.member.stop(None).await.unwrap();
    assert_eq!(service.exit().await.code, 5);
    assert!(service.log.stdout().ends_with("usr1\n"));
    cell.down().await;
}

async fn labels_of_the_user_and_ours(lab: Arc<Lab>) {
    let labels = [("team".to_owned(), "a".to_owned())].into_iter().collect();
    let (cell, _) = up(
        &lab,
        ServiceConfig {
            labels,
            ..idle("s")
        },
    )
    .await;
    let inspected = cell.inspect("s").await;
    let labels = inspected.config.unwrap().labels.unwrap();
    assert_eq!(labels["team"], "a");
    assert_eq!(labels["phalanx.run"], cell.token.run.0);
    assert_eq!(labels["phalanx.cell-name"], "a cell");
    let name = inspected.name.unwrap();
    assert!(
        name.starts_with("/phalanx-") && name.ends_with("-1-s"),
        "{name}"
    );
    cell.down().await;
}

async fn platform_of_another_machine_is_an_error_that_names_it(lab: Arc<Lab>) {
    let other = if std::env::consts::ARCH == "x86_64" {
        "linux/arm64"
    } else {
        "linux/amd64"
    };
    let cell = lab.cell().await;
    let config = ServiceConfig {
        platform: Some(other.to_owned()),
        pull_policy: PullPolicy::Never,
        ..idle("s")
    };
    let error = message(cell.create(config).await);
    assert!(error.contains(other), "{error}");
    let same = match std::env::consts::ARCH {
        "x86_64" => "linux/amd64",
        _ => "linux/arm64",
    };
    let config = ServiceConfig {
        platform: Some(same.to_owned()),
        ..idle("same")
    };
    cell.up(config).await;
    cell.down().await;
}

async fn pull_policy_never_takes_only_what_is_there(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let config = ServiceConfig {
        image: Some("phalanx-test/not-there:9".into()),
        pull_policy: PullPolicy::Never,
        ..idle("s")
    };
    let error = message(cell.create(config).await);
    assert!(
        error.contains("phalanx-test/not-there:9") && error.contains("never"),
        "{error}"
    );
    cell.up(ServiceConfig {
        pull_policy: PullPolicy::Never,
        ..idle("there")
    })
    .await;
    cell.down().await;
}

fn with(engine: EngineOptions) -> ServiceConfig {
    ServiceConfig {
        engine,
        ..idle("s")
    }
}

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

async fn kernel_settings_and_resolver_options_reach_the_container(lab: Arc<Lab>) {
    let port = "net.ipv4.ip_unprivileged_port_start".to_owned();
    let engine = EngineOptions {
        sysctls: [(port, "77".to_owned())].into(),
        group_add: texts(&["4321"]),
        dns_opt: texts(&["ndots:3"]),
        dns_search: texts(&["shop.test"]),
        domainname: Some("example.test".to_owned()),
        oom_score_adj: Some(321),
        runtime: Some("runc".to_owned()),
        ..EngineOptions::default()
    };
    let (cell, service) = up(&lab, with(engine)).await;
    let read = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/1/oom_score_adj /proc/sys/kernel/domainname";
    assert_eq!(service.says(read).await, "77\n321\nexample.test");
    let groups = service.says("id -G").await;
    assert!(groups.split(' ').any(|group| group == "4321"), "{groups}");
    let resolver = service.says("cat /etc/resolv.conf").await;
    assert!(resolver.contains("search shop.test"), "{resolver}");
    assert!(resolver.contains("ndots:3"), "{resolver}");
    cell.down().await;
}

async fn limits_and_weights_reach_the_engine(lab: Arc<Lab>) {
    let engine = EngineOptions {
        mem_reservation: Some(32 << 20),
        memswap_limit: Some(96 << 20),
        cpu_shares: Some(512),
        cpu_period: Some(50_000),
        cpu_quota: Some(25_000),
        cpuset: Some("0".to_owned()),
        blkio: Blkio {
            weight: Some(300),
            ..Blkio::default()
        },
        device_cgroup_rules: texts(&["c 1:3 rmw"]),
        ..EngineOptions::default()
    };
    let config = ServiceConfig {
        mem_limit: Some(64 << 20),
        ..with(engine)
    };
    let (cell, service) = up(&lab, config).await;
    let host = cell.inspect("s").await.host_config.unwrap();
    assert_eq!(host.memory_reservation, Some(32 << 20));
    assert_eq!(host.memory_swap, Some(96 << 20));
    assert_eq!(
        (host.cpu_shares, host.cpu_period),
        (Some(512), Some(50_000))
    );
    assert_eq!(host.cpu_quota, Some(25_000));
    assert_eq!(host.device_cgroup_rules.unwrap(), ["c 1:3 rmw"]);
    let allowed = service.says("grep Cpus_allowed_list /proc/1/status").await;
    assert_eq!(allowed.split_whitespace().last(), Some("0"));
    cell.down().await;
}

async fn a_terminal_keeps_a_shell_alive_and_its_output_is_whole(lab: Arc<Lab>) {
    let engine = EngineOptions {
        tty: true,
        stdin_open: true,
        ..EngineOptions::default()
    };
    let shell = ServiceConfig {
        command: words(&["sh"]),
        ..with(engine.clone())
    };
    let (cell, service) = up(&lab, shell).await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(*service.member.exits().borrow(), None);
    assert_eq!(service.says("echo on").await, "on");
    cell.down().await;

    let script = script(
        "s",
        "test -t 1 && echo terminal; i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done; exit 3",
    );
    let cell = lab.cell().await;
    let service = cell.up(ServiceConfig { engine, ..script }).await;
    assert_eq!(service.exit().await.code, 3);
    let printed = service.log.stdout();
    let lines: Vec<&str> = printed.lines().map(str::trim_end).collect();
    assert_eq!(lines.first(), Some(&"terminal"));
    assert_eq!((lines.len(), lines.last()), (301, Some(&"line 299")));
    cell.down().await;
}

async fn namespaces_and_volumes_of_another_service_are_shared(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let owner = EngineOptions {
        ipc: Some("shareable".to_owned()),
        ..EngineOptions::default()
    };
    let owner = ServiceConfig {
        name: "owner".to_owned(),
        volumes: vec![mount(MountKind::Named("data".to_owned()), "/data")],
        ..with(owner)
    };
    let owner = cell.up(owner).await;
    let side = EngineOptions {
        pid: Some("service:owner".to_owned()),
        ipc: Some("service:owner".to_owned()),
        volumes_from: texts(&["owner:ro"]),
        ..EngineOptions::default()
    };
    let side = cell.up(with(side)).await;
    owner
        .says("echo here > /data/file; echo shared > /dev/shm/x")
        .await;
    assert_eq!(side.says("cat /data/file /dev/shm/x").await, "here\nshared");
    assert_ne!(side.sh("touch /data/mine").await.exit_code, 0);
    let seen = side.says("cat /proc/1/cmdline | tr '\\0' ' '").await;
    assert!(seen.contains("trap"), "{seen}");
    let missing = EngineOptions {
        pid: Some("service:nobody".to_owned()),
        ..EngineOptions::default()
    };
    let missing = ServiceConfig {
        name: "third".to_owned(),
        ..with(missing)
    };
    let refused = cell.create(missing).await.err().unwrap();
    assert!(
        refused.reason.contains("nobody has no container"),
        "{refused}"
    );
    cell.down().await;
}

async fn namespaces_of_the_host_are_given(lab: Arc<Lab>) {
    let host = || Some("host".to_owned());
    let engine = EngineOptions {
        pid: host(),
        ipc: host(),
        uts: host(),
        cgroup: host(),
        userns_mode: host(),
        ..EngineOptions::default()
    };
    let (cell, service) = up(&lab, with(engine)).await;
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(service.says("hostname").await, name.trim());
    let host = cell.inspect("s").await.host_config.unwrap();
    assert_eq!(host.pid_mode.as_deref(), Some("host"));
    assert_eq!(host.ipc_mode.as_deref(), Some("host"));
    assert_eq!(host.userns_mode.as_deref(), Some("host"));
    cell.down().await;
}

async fn labels_of_files_go_behind_those_of_the_definition(lab: Arc<Lab>) {
    let cell = lab.cell_in(&[("labels", "a=file\nb=file\n")]).await;
    let engine = EngineOptions {
        label_files: texts(&["labels"]),
        ..EngineOptions::default()
    };
    let config = ServiceConfig {
        labels: [("b".to_owned(), "own".to_owned())].into(),
        ..with(engine)
    };
    cell.create(config.clone()).await.unwrap();
    let labels = cell.inspect("s").await.config.unwrap().labels.unwrap();
    assert_eq!(
        (labels["a"].as_str(), labels["b"].as_str()),
        ("file", "own")
    );
    let missing = EngineOptions {
        label_files: texts(&["none"]),
        ..EngineOptions::default()
    };
    let missing = ServiceConfig {
        name: "t".to_owned(),
        ..with(missing)
    };
    let refused = cell.create(missing).await.err().unwrap();
    assert!(refused.reason.contains("label_file none"), "{refused}");
    cell.down().await;
}

async fn a_mac_address_needs_an_engine_that_knows_it(lab: Arc<Lab>) {
    let address = "02:42:ac:11:65:43";
    let engine = EngineOptions {
        mac_address: Some(address.to_owned()),
        ..EngineOptions::default()
    };
    let cell = lab.cell().await;
    match cell.create(with(engine)).await {
        Ok(service) => {
            service.member.start().await.unwrap();
            assert_eq!(
                service.says("cat /sys/class/net/eth0/address").await,
                address
            );
        }
        Err(refused) => {
            assert!(refused.reason.contains("API 1.44"), "{refused}");
            assert_eq!(refused.outcome(), Outcome::Errored);
        }
    }
    cell.down().await;
}
