//! Networks: many, small, ready, dual stack, and all of them gone.

use crate::cases;
use crate::lab::{Lab, idle, left, web};
use futures::StreamExt;
use phalanx_agent::runtime::contract::Runtime;
use phalanx_agent::runtime::docker::{DockerRuntime, DockerSettings, Kind, Reach};
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
