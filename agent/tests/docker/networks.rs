//! Networks: many, small, ready, dual stack, and all of them gone.

use crate::cases;
use crate::lab::{Lab, idle, left, web};
use futures::StreamExt;
use phalanx_agent::policy::Policy;
use phalanx_agent::runtime::contract::{AttemptScope, Runtime};
use phalanx_agent::runtime::docker::{DockerRuntime, DockerSettings, Kind, Reach};
use phalanx_shared::language::service::{
    NetworkDefinition, NetworkMode, NetworkUse, ServiceConfig, Subnet,
};
use phalanx_shared::outcome::Outcome;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

cases![
    sixty_cells_have_a_network_each,
    two_agents_with_one_pool_of_subnets_do_not_collide,
    a_pool_that_is_used_up_says_so,
    a_dual_stack_cell_has_both_addresses,
    services_are_reached_through_published_ports_where_they_must,
    cells_do_not_see_each_other,
    services_see_each_other_only_on_a_common_network_and_steps_reach_all,
    a_network_is_made_as_its_definition_says,
    a_fixed_subnet_is_used_by_one_cell_at_a_time,
    a_network_mode_gives_no_network_that_of_another_service_or_needs_permission,
    an_agent_in_a_container_joins_its_cells_networks,
    ready_networks_are_used_once_and_go_with_the_agent,
    leftovers_of_a_dead_agent_are_reaped_and_live_ones_are_not,
    a_kept_stack_is_left_until_its_time,
    an_abandoned_open_leaves_nothing,
];

async fn sixty_cells_have_a_network_each(lab: Arc<Lab>) {
    for wave in [20, 30, 10] {
        let cells = futures::future::join_all((0..wave).map(|_| lab.cell())).await;
        // In some of them something runs, too.
        let running = cells.iter().step_by(10).map(|cell| cell.up(idle("s")));
        futures::future::join_all(running).await;
        for closed in futures::future::join_all(cells.iter().map(|cell| cell.down())).await {
            assert!(closed.removed >= 1);
        }
    }
}

async fn two_agents_with_one_pool_of_subnets_do_not_collide(lab: Arc<Lab>) {
    let pool = |settings: DockerSettings| DockerSettings {
        subnets: vec!["10.222.0.0/25".into()],
        subnet_prefix: 28,
        ready_networks: 0,
        ..settings
    };
    let (one, two) = (pool(lab.settings()), pool(lab.settings()));
    let (a, b) = (
        DockerRuntime::connect(one.clone()).await.unwrap(),
        DockerRuntime::connect(two.clone()).await.unwrap(),
    );
    assert_eq!(a.network_capacity(), 8);
    let agents = [(&a, &one.agent), (&b, &two.agent)];
    let opening = agents.iter().cycle().take(8);
    let opening = opening.map(|(runtime, agent)| lab.cell_of((*runtime).clone(), agent, |_| {}));
    let cells = futures::future::join_all(opening).await;
    for cell in cells {
        cell.unwrap().down().await;
    }
}

async fn a_pool_that_is_used_up_says_so(lab: Arc<Lab>) {
    let settings = DockerSettings {
        subnets: vec!["10.223.0.0/27".into()],
        subnet_prefix: 28,
        ready_networks: 0,
        ..lab.settings()
    };
    let runtime = DockerRuntime::connect(settings.clone()).await.unwrap();
    let open = || lab.cell_of(runtime.clone(), &settings.agent, |_| {});
    let (one, two) = (open().await.unwrap(), open().await.unwrap());
    let error = open().await.err().unwrap();
    assert_eq!(error.outcome(), Outcome::Errored, "{error}");
    let why = error.reason;
    assert!(
        why.contains("all 2 subnets") && why.contains("`subnets`"),
        "{why}"
    );
    one.down().await;
    // What came back is given out again.
    open().await.unwrap().down().await;
    two.down().await;
}

async fn a_dual_stack_cell_has_both_addresses(lab: Arc<Lab>) {
    let cell = lab
        .cell_of(lab.runtime.clone(), &lab.agent, |scope| scope.ipv6 = true)
        .await
        .unwrap();
    let service = cell.up(web("web", 8080)).await;
    let client = cell.up(idle("client")).await;
    let addresses = service.member.addresses().await.unwrap();
    assert!(addresses.ip.is_some_and(|ip| ip.is_ipv4()));
    let six = addresses.ipv6.unwrap();
    assert!(six.is_ipv6());
    crate::lab::get(addresses.ports[0].1).await;
    assert_eq!(
        client
            .says(&format!("wget -q -O - http://[{six}]:8080/index.html"))
            .await,
        "served"
    );
    assert!(crate::lab::get((six, 8080).into()).await.contains("served"));
    cell.down().await;
}

async fn services_are_reached_through_published_ports_where_they_must(lab: Arc<Lab>) {
    let settings = DockerSettings {
        reach: Reach::Published,
        ready_networks: 0,
        ..lab.settings()
    };
    let runtime = DockerRuntime::connect(settings.clone()).await.unwrap();
    let cell = lab.cell_of(runtime, &settings.agent, |_| {}).await.unwrap();
    let service = cell.up(web("web", 8080)).await;
    let (name, socket) = service.member.addresses().await.unwrap().ports[0].clone();
    assert_eq!(name, "8080");
    assert!(socket.ip().is_loopback() && socket.port() != 8080);
    assert!(crate::lab::get(socket).await.contains("served"));
    // A restart may change the port; addresses are asked anew.
    service.member.stop(Some(Duration::ZERO)).await.unwrap();
    service.member.start().await.unwrap();
    let (_, socket) = service.member.addresses().await.unwrap().ports[0].clone();
    assert!(crate::lab::get(socket).await.contains("served"));
    cell.down().await;
}

async fn cells_do_not_see_each_other(lab: Arc<Lab>) {
    let (one, two) = (lab.cell().await, lab.cell().await);
    let (web, stranger) = tokio::join!(one.up(web("web", 8080)), two.up(idle("stranger")));
    let address = web.member.addresses().await.unwrap();
    crate::lab::get(address.ports[0].1).await;
    assert_ne!(
        stranger
            .sh("wget -q -T 2 -O - http://web:8080/index.html")
            .await
            .exit_code,
        0
    );
    one.down().await;
    two.down().await;
}

/// A service that joins these networks, with the settings of all.
fn joins(service: ServiceConfig, networks: &[(&str, NetworkUse)]) -> ServiceConfig {
    let networks = networks.iter();
    ServiceConfig {
        networks: networks
            .map(|(name, used)| ((*name).to_owned(), used.clone()))
            .collect(),
        ..service
    }
}

fn plain() -> NetworkUse {
    NetworkUse::default()
}

async fn services_see_each_other_only_on_a_common_network_and_steps_reach_all(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let alias = NetworkUse {
        aliases: vec!["backend".to_owned()],
        ..NetworkUse::default()
    };
    let front = cell.up(joins(web("front", 8080), &[("f", plain())])).await;
    let back = cell.up(joins(web("back", 8080), &[("b", alias)])).await;
    let both = cell
        .up(joins(web("both", 8080), &[("f", plain()), ("b", plain())]))
        .await;
    let alone = cell.up(idle("alone")).await;
    for service in [&front, &back, &both] {
        let address = service.member.addresses().await.unwrap();
        crate::lab::get(address.ports[0].1).await;
    }
    let reaches = async |from: &crate::lab::Service, to: &str| {
        // Not wget: the static one of the image crashes in the libraries that resolve names.
        let connect = format!("nc -w 2 {to} 8080 </dev/null");
        from.sh(&connect).await.exit_code == 0
    };
    for (from, to, expected) in [
        (&both, "front", true),
        (&both, "back", true),
        (&both, "backend", true),
        (&front, "both", true),
        (&front, "back", false),
        (&front, "backend", false),
        (&back, "front", false),
        (&alone, "both", false),
    ] {
        assert_eq!(reaches(from, to).await, expected, "{} to {to}", from.name);
    }
    // Not even by its address. Docker takes its rules of isolation out for a moment and puts them back whenever anybody on the
    // machine makes a network, so a connection may slip through; a second and a third one don't.
    let ip = back.member.addresses().await.unwrap().ip.unwrap();
    let mut slipped = 0;
    while slipped < 5 && reaches(&front, &ip.to_string()).await {
        slipped += 1;
    }
    assert!(slipped < 5, "services of two networks reach each other");
    both.member.disconnect().await.unwrap();
    assert!(!reaches(&front, "both").await);
    both.member.connect().await.unwrap();
    assert!(reaches(&front, "both").await);
    assert!(reaches(&back, "both").await);
    // Four containers, the first network and two more.
    assert_eq!(cell.down().await.removed, 7);
}

async fn a_network_is_made_as_its_definition_says(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let definition = NetworkDefinition {
        internal: true,
        driver_opts: [(
            "com.docker.network.driver.mtu".to_owned(),
            "1400".to_owned(),
        )]
        .into(),
        labels: [("of".to_owned(), "user".to_owned())].into(),
        ..NetworkDefinition::default()
    };
    let used = NetworkUse {
        network: definition,
        ..NetworkUse::default()
    };
    let service = cell.up(joins(web("a", 8080), &[("in", used)])).await;
    let address = service.member.addresses().await.unwrap();
    crate::lab::get(address.ports[0].1).await;
    assert_eq!(service.says("cat /sys/class/net/eth0/mtu").await, "1400");
    let inspected = cell.inspect("a").await;
    let networks = inspected.network_settings.unwrap().networks.unwrap();
    let name = networks.keys().next().unwrap();
    let network = lab.docker.inspect_network(name, None).await.unwrap();
    assert_eq!(network.internal, Some(true));
    let labels = network.labels.unwrap();
    assert_eq!(labels["of"], "user");
    assert_eq!(labels["phalanx.run"], cell.token.run.0);
    cell.down().await;
}

async fn a_fixed_subnet_is_used_by_one_cell_at_a_time(lab: Arc<Lab>) {
    let subnet = Subnet {
        subnet: "172.30.77.0/28".to_owned(),
        gateway: Some("172.30.77.14".to_owned()),
        ip_range: None,
    };
    let used = NetworkUse {
        ipv4_address: Some("172.30.77.5".to_owned()),
        network: NetworkDefinition {
            subnets: vec![subnet],
            ..NetworkDefinition::default()
        },
        ..NetworkUse::default()
    };
    let config = joins(web("a", 8080), &[("n", used)]);
    let (one, two) = (lab.cell().await, lab.cell().await);
    let first = one.up(config.clone()).await;
    let address = first.member.addresses().await.unwrap();
    assert_eq!(address.ports[0].1.to_string(), "172.30.77.5:8080");
    let mut waiting = std::pin::pin!(two.up(config.clone()));
    let early = tokio::time::timeout(Duration::from_secs(1), &mut waiting).await;
    assert!(early.is_err(), "both have the subnet");
    one.down().await;
    let second = waiting.await;
    let address = second.member.addresses().await.unwrap();
    assert_eq!(address.ip.unwrap().to_string(), "172.30.77.5");
    // A cell that ends while it waits ends.
    let three = lab.cell().await;
    let early = tokio::time::timeout(Duration::from_millis(300), three.create(config)).await;
    assert!(early.is_err());
    three.down().await;
    two.down().await;
}

async fn a_network_mode_gives_no_network_that_of_another_service_or_needs_permission(
    lab: Arc<Lab>,
) {
    let cell = lab.cell().await;
    let mode = |service, network_mode| ServiceConfig {
        network_mode,
        ..service
    };
    let none = cell.up(mode(idle("none"), NetworkMode::None)).await;
    assert_eq!(none.says("ls /sys/class/net").await, "lo");
    assert_eq!(none.member.addresses().await.unwrap().ip, None);
    let refused = none.member.disconnect().await.unwrap_err();
    assert_eq!(refused.outcome(), Outcome::Failed, "{refused}");

    let owner = cell.up(idle("owner")).await;
    let side = mode(web("side", 8080), NetworkMode::Service("owner".to_owned()));
    let side = cell.up(side).await;
    let address = side.member.addresses().await.unwrap();
    assert_eq!(address.ip, owner.member.addresses().await.unwrap().ip);
    crate::lab::get(address.ports[0].1).await;
    let own = owner.sh("nc -w 2 127.0.0.1 8080 </dev/null").await;
    assert_eq!(own.exit_code, 0, "it is in the same network namespace");

    let host = mode(idle("host"), NetworkMode::Host);
    let host = cell.up(host).await;
    let seen = host.says("ls /sys/class/net").await;
    assert!(seen.contains("docker0"), "{seen}");
    cell.down().await;

    let settings = lab.settings();
    let agent = settings.agent.clone();
    let closed = DockerRuntime::connect(settings).await.unwrap();
    let change = |scope: &mut AttemptScope| scope.policy = Arc::new(Policy::closed());
    let cell = lab.cell_of(closed.clone(), &agent, change).await.unwrap();
    let host = mode(idle("host"), NetworkMode::Host);
    let refused = cell.create(host).await.err().unwrap();
    assert!(refused.reason.contains("rule `namespaces`"), "{refused}");
    assert_eq!(refused.outcome(), Outcome::Errored);
    cell.down().await;
    closed.shutdown().await;
}

/// Runs another of these tests in a container of the same engine, where container addresses lead nowhere until the agent
/// has joined the network.
async fn an_agent_in_a_container_joins_its_cells_networks(lab: Arc<Lab>) {
    use bollard::models::{ContainerCreateBody, HostConfig};
    use bollard::query_parameters::{LogsOptionsBuilder, RemoveContainerOptionsBuilder};
    let program = std::env::current_exe().unwrap().display().to_string();
    let test = "life::steps_reach_a_service_by_its_address";
    let command = ["busybox", "chroot", "/machine", &program, "--exact", test];
    let body = ContainerCreateBody {
        image: Some(crate::image::BUSYBOX.to_owned()),
        cmd: Some(command.map(str::to_owned).to_vec()),
        env: Some(vec!["PHALANX_TEST_ENGINE=required".to_owned()]),
        // So that it goes with the rest if this test is killed.
        labels: Some([("phalanx.agent".to_owned(), lab.agent.0.clone())].into()),
        host_config: Some(HostConfig {
            binds: Some(vec!["/:/machine".to_owned()]),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let id = lab.docker.create_container(None, body).await.unwrap().id;
    lab.docker.start_container(&id, None).await.unwrap();
    let code = match lab.docker.wait_container(&id, None).next().await.unwrap() {
        Ok(end) => end.status_code,
        Err(bollard::errors::Error::DockerContainerWaitError { code, .. }) => code,
        Err(error) => panic!("{error}"),
    };
    let options = LogsOptionsBuilder::default()
        .stdout(true)
        .stderr(true)
        .build();
    let said: Vec<String> = lab
        .docker
        .logs(&id, Some(options))
        .map(|line| line.unwrap().to_string())
        .collect()
        .await;
    let force = RemoveContainerOptionsBuilder::default().force(true).build();
    lab.docker.remove_container(&id, Some(force)).await.unwrap();
    let said = said.concat();
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

async fn ready_networks_are_used_once_and_go_with_the_agent(lab: Arc<Lab>) {
    let settings = DockerSettings {
        ready_networks: 2,
        ..lab.settings()
    };
    let runtime = DockerRuntime::connect(settings.clone()).await.unwrap();
    let ready = || async {
        let label = format!("phalanx.agent={}", settings.agent);
        let mut names = left(&lab.docker, &label).await;
        names.retain(|name| name.contains("phalanx-ready-"));
        names
    };
    let wait = |n: usize| {
        let ready = &ready;
        async move {
            while ready().await.len() != n {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    wait(2).await;
    let before = ready().await;
    let cell = lab
        .cell_of(runtime.clone(), &settings.agent, |_| {})
        .await
        .unwrap();
    wait(3).await;
    // The reaper leaves ready and used ones alone.
    assert_eq!(runtime.reap(&HashSet::new()).await.unwrap().removed, 0);
    cell.stack.close(Duration::ZERO, None).await;
    wait(2).await;
    assert_ne!(ready().await, before);
    runtime.shutdown().await;
    wait(0).await;
}

async fn leftovers_of_a_dead_agent_are_reaped_and_live_ones_are_not(lab: Arc<Lab>) {
    let settings = DockerSettings {
        ready_networks: 1,
        ..lab.settings()
    };
    let first = DockerRuntime::connect(settings.clone()).await.unwrap();
    let cell = lab
        .cell_of(first.clone(), &settings.agent, |_| {})
        .await
        .unwrap();
    cell.up(idle("s")).await;
    // A stack that is open here is safe, also if the caller forgot to name it.
    assert_eq!(first.reap(&HashSet::new()).await.unwrap().removed, 0);
    // As if the process had been killed: a new one of the same identity.
    let second = DockerRuntime::connect(DockerSettings {
        ready_networks: 0,
        ..settings.clone()
    })
    .await
    .unwrap();
    let live = HashSet::from([cell.token.clone()]);
    let of_cell = |found: &[phalanx_agent::runtime::docker::Found]| {
        found
            .iter()
            .filter(|f| f.kind == Kind::Container && f.token().as_ref() == Some(&cell.token))
            .count()
    };
    let network_in_use = second.reap(&live).await.unwrap();
    assert_eq!(
        of_cell(&second.list_ours(false).await.unwrap()),
        1,
        "{network_in_use:?}"
    );
    // A stranger's reaper touches nothing of it.
    let stranger = DockerRuntime::connect(DockerSettings {
        ready_networks: 0,
        ..lab.settings()
    })
    .await
    .unwrap();
    assert_eq!(stranger.reap(&HashSet::new()).await.unwrap().removed, 0);
    assert_eq!(of_cell(&stranger.list_ours(true).await.unwrap()), 1);
    drop(cell);
    first.shutdown().await;
    let closed = second.reap(&HashSet::new()).await.unwrap();
    assert_eq!(closed.left, Vec::<String>::new());
    assert_eq!(lab.left(&settings.agent).await, Vec::<String>::new());
}

async fn a_kept_stack_is_left_until_its_time(lab: Arc<Lab>) {
    let settings = DockerSettings {
        ready_networks: 1,
        ..lab.settings()
    };
    let runtime = DockerRuntime::connect(settings.clone()).await.unwrap();
    let open = || lab.cell_of(runtime.clone(), &settings.agent, |_| {});
    let (kept, brief) = (open().await.unwrap(), open().await.unwrap());
    let service = kept.up(idle("s")).await;
    brief.up(idle("s")).await;
    let hour = kept
        .stack
        .close(Duration::ZERO, Some(Duration::from_secs(3600)))
        .await;
    assert_eq!((hour.removed, hour.left.len()), (0, 0));
    brief
        .stack
        .close(Duration::ZERO, Some(Duration::ZERO))
        .await;
    runtime.shutdown().await;
    let later = DockerRuntime::connect(DockerSettings {
        ready_networks: 0,
        ..settings.clone()
    })
    .await
    .unwrap();
    let reaped = later.reap(&HashSet::new()).await.unwrap();
    assert_eq!(reaped.left, Vec::<String>::new());
    assert_eq!(brief.left().await, Vec::<String>::new());
    assert!(
        kept.left()
            .await
            .iter()
            .any(|object| object.starts_with("container"))
    );
    assert_eq!(service.says("echo still here").await, "still here");
    let found = later.list_ours(false).await.unwrap();
    let closed = later.remove(&found).await;
    assert_eq!(closed.left, Vec::<String>::new());
    assert_eq!(lab.left(&settings.agent).await, Vec::<String>::new());
}

async fn an_abandoned_open_leaves_nothing(lab: Arc<Lab>) {
    let settings = DockerSettings {
        ready_networks: 0,
        ..lab.settings()
    };
    let runtime = DockerRuntime::connect(settings.clone()).await.unwrap();
    let open = lab.cell_of(runtime.clone(), &settings.agent, |_| {});
    assert!(
        tokio::time::timeout(Duration::from_millis(5), open)
            .await
            .is_err()
    );
    // The network is made and then unmade by itself; until then the reaper has nothing to do with it.
    while !lab.left(&settings.agent).await.is_empty() || !settled(&runtime).await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether nothing is in the making any more: what was begun is seen by a later listing.
async fn settled(runtime: &DockerRuntime) -> bool {
    tokio::time::sleep(Duration::from_millis(300)).await;
    runtime.list_ours(false).await.unwrap().is_empty()
}
