//! I3: who dies when, and who doesn't.

use crate::bench::{BOUND, Bench, Process, Service, runtime, scope, shell, token, words};
use phalanx_agent::runtime::contract::{ExecRequest, Runtime};
use phalanx_shared::id::AgentId;
use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Prints the pids of itself and of three descendants: a plain child, one in a session of its own,
/// and a doubly forked daemon without our environment.
const FAMILY: &str = r#"
echo $$
sleep 1000 &
echo $!
setsid sh -c 'echo $$; exec sleep 1000' &
sh -c "setsid env -i sh -c 'echo \$\$; exec sleep 1000' & exit 0"
wait
"#;

async fn family(service: &mut Service) -> Vec<Process> {
    let mut processes = Vec::new();
    for _ in 0..4 {
        processes.push(service.process().await);
    }
    processes
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_ends_children_sessions_and_daemons() {
    let bench = Bench::new();
    let stack = bench.stack().await;
    let mut service = Service::start(&stack, &shell("family", FAMILY)).await;
    let processes = family(&mut service).await;
    let closed = stack.close(Duration::from_secs(5), None).await;
    assert!(closed.left.is_empty(), "{closed:?}");
    assert!(processes.iter().all(Process::is_dead), "{processes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_service_started_dies_when_it_exits_by_itself() {
    let bench = Bench::new();
    let stack = bench.stack().await;
    let script =
        "setsid sh -c 'echo $$; exec sleep 1000' & until [ -e go ]; do sleep 0.01; done; exit 5";
    let mut service = Service::start(&stack, &shell("short", script)).await;
    let daemon = service.process().await;
    std::fs::write(bench.place.path().join("go"), "").unwrap();
    assert_eq!(service.exit().await.code, 5);
    assert!(daemon.is_dead(), "the exit is told when nothing lives");
    stack.close(Duration::ZERO, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fast_forking_service_is_ended() {
    let bench = Bench::new();
    let stack = bench.stack().await;
    // Each generation starts the next and exits: no two looks see the same processes.
    let script = "f() { echo x; f & }; f; sleep 1000";
    let mut service = Service::start(&stack, &shell("forks", script)).await;
    for _ in 0..20 {
        service.line().await;
    }
    let drained = tokio::spawn(service.rest());
    let closed = tokio::time::timeout(BOUND, stack.close(Duration::ZERO, None)).await;
    assert!(closed.unwrap().left.is_empty());
    drained.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_warden_takes_everything_with_it() {
    let bench = Bench::new();
    let stack = bench.stack().await;
    let mut service = Service::start(
        &stack,
        &shell("family", FAMILY.replace("env -i ", "").as_str()),
    )
    .await;
    let processes = family(&mut service).await;
    processes[0].parent().kill();
    assert_eq!(service.exit().await.code, 137);
    assert!(processes.iter().all(Process::is_dead), "{processes:?}");
    assert!(
        service.member.start().await.is_ok(),
        "it can be started again"
    );
    assert!(stack.close(Duration::ZERO, None).await.left.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_fork_server_ends_nothing_and_another_takes_its_place() {
    let bench = Bench::new();
    let stack = bench.stack().await;
    let mut service = Service::start(&stack, &shell("family", FAMILY)).await;
    let processes = family(&mut service).await;
    let server = processes[0].parent().parent();
    server.kill();
    assert!(server.dies());
    let request = ExecRequest {
        command: words(&["sh", "-c", "echo $PPID"]),
        ..ExecRequest::default()
    };
    let output = service.member.exec(request).await.unwrap();
    let warden: i32 = String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .unwrap();
    assert!(warden > 0 && output.exit_code == 0, "{output:?}");
    assert!(processes.iter().all(|process| !process.is_dead()));
    let closed = stack.close(Duration::from_secs(5), None).await;
    assert!(closed.left.is_empty(), "{closed:?}");
    assert!(processes.iter().all(Process::is_dead), "{processes:?}");
}

/// Not a test by itself: the agent that the tests below kill. It starts a service and waits for its end.
#[tokio::test]
async fn the_agent_that_is_killed() {
    let Ok(agent) = std::env::var("TEST_AGENT") else {
        return;
    };
    let place = std::env::temp_dir();
    let agent = AgentId::from(agent);
    let runtime = runtime(&agent, &place);
    let stack = runtime
        .open(scope(&agent, token("killed"), &place))
        .await
        .unwrap();
    let script = FAMILY.replace("env -i ", &std::env::var("TEST_ENV").unwrap_or_default());
    let mut service = Service::start(&stack, &shell("family", &script)).await;
    for _ in 0..4 {
        println!("pid {}", service.line().await);
    }
    std::future::pending::<()>().await;
}

/// Runs the agent above in a process of its own, and returns it with its service's processes.
fn agent_process(agent: &str, env: &str) -> (std::process::Child, Vec<Process>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "death::the_agent_that_is_killed", "--nocapture"])
        .env("TEST_AGENT", agent)
        .env("TEST_ENV", env)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let processes = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .filter_map(|line| Some(line.unwrap().split_once("pid ")?.1.trim().parse().unwrap()))
        .take(4)
        .map(Process::open)
        .collect();
    (child, processes)
}

#[test]
fn an_agent_killed_with_minus_nine_leaves_nothing() {
    let (mut agent, processes) = agent_process(&format!("a-{}", uuid::Uuid::new_v4()), "env -i ");
    let warden = processes[0].parent();
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert!(processes.iter().all(Process::dies), "{processes:?}");
    assert!(warden.dies());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_agent_and_warden_left_is_reaped_by_the_same_identity_only() {
    let id = format!("a-{}", uuid::Uuid::new_v4());
    let (mut agent, processes) = tokio::task::spawn_blocking({
        let id = id.clone();
        move || agent_process(&id, "")
    })
    .await
    .unwrap();
    // The agent can't react and the warden can't act: as if both were killed at once.
    Command::new("kill")
        .args(["-STOP", &agent.id().to_string()])
        .status()
        .unwrap();
    processes[0].parent().kill();
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert!(processes[0].dies(), "it is tied to its warden");
    assert!(processes[1..].iter().all(|process| !process.is_dead()));

    let place = tempfile::tempdir().unwrap();
    let nobody = HashSet::new();
    let other = runtime(&AgentId::from("other"), place.path());
    assert_eq!(other.reap(&nobody).await.unwrap().removed, 0);
    let same = runtime(&AgentId::from(id.as_str()), place.path());
    let live = HashSet::from([token("killed")]);
    assert_eq!(same.reap(&live).await.unwrap().removed, 0);
    assert!(processes[1..].iter().all(|process| !process.is_dead()));
    let closed = same.reap(&nobody).await.unwrap();
    assert!(closed.removed >= 3 && closed.left.is_empty(), "{closed:?}");
    assert!(processes.iter().all(Process::is_dead));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_service_lives_on_and_prints_on_until_its_time_is_over() {
    let bench = Bench::new();
    let stack = bench.stack().await;
    // Ten times what a pipe holds, after the agent let go: it must neither block nor die of a broken pipe.
    let script = "echo $$; while [ ! -e go ]; do sleep 0.01; done; yes | head -c 1000000; : > done; exec sleep 1000";
    let mut service = Service::start(&stack, &shell("kept", script)).await;
    let process = service.process().await;
    let closed = stack
        .close(Duration::ZERO, Some(Duration::from_secs(6)))
        .await;
    assert_eq!((closed.removed, closed.left.len()), (0, 0));
    assert!(service.member.start().await.is_err(), "it is out of reach");
    drop((service, stack));
    assert_eq!(
        bench.runtime.reap(&HashSet::new()).await.unwrap().removed,
        0
    );
    std::fs::write(bench.place.path().join("go"), "").unwrap();
    let done = bench.place.path().join("done");
    while !done.exists() {
        assert!(!process.is_dead());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(
        tokio::task::spawn_blocking(move || process.dies())
            .await
            .unwrap()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_services_run_at_once_and_all_end() {
    let bench = Bench::new();
    let stack = bench.stack().await;
    let mut services = futures::future::join_all((0..20).map(|n| {
        let stack = stack.clone();
        async move { Service::start(&stack, &shell(&format!("s{n}"), FAMILY)).await }
    }))
    .await;
    let mut processes = Vec::new();
    for service in &mut services {
        processes.extend(family(service).await);
    }
    assert_eq!(processes.len(), 80);
    let closed = stack.close(Duration::from_secs(5), None).await;
    assert!(closed.left.is_empty(), "{closed:?}");
    assert!(processes.iter().all(Process::is_dead));
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_waits_for_the_end_of_what_a_dropped_command_left() {
    let bench = Bench::new();
    let stack = bench.stack().await;
    let fifo = bench.place.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Without its mark: only its warden can end it.
    let script = format!(
        "setsid env -i sh -c 'echo $$ > {}; exec sleep 1000' & sleep 1000",
        fifo.display()
    );
    let request = phalanx_agent::runtime::contract::ExecRequest {
        command: crate::bench::words(&["sh", "-c", &script]),
        ..Default::default()
    };
    let daemon = tokio::task::spawn_blocking(move || {
        let pid = std::fs::read_to_string(fifo).unwrap();
        Process::open(pid.trim().parse().unwrap())
    });
    let daemon = tokio::select! {
        _ = stack.run_on_host(request) => panic!("it waits"),
        daemon = daemon => daemon.unwrap(),
    };
    let closed = stack.close(Duration::ZERO, None).await;
    assert!(closed.left.is_empty(), "{closed:?}");
    assert!(daemon.is_dead());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_with_a_killed_warden_left_is_gone_when_the_stack_is_closed() {
    let bench = Bench::new();
    let stack = bench.stack().await;
    let fifo = bench.place.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = format!(
        "setsid sh -c 'echo $$ > {}; exec sleep 1000' > /dev/null 2>&1 & exec sleep 1000",
        fifo.display()
    );
    let request = phalanx_agent::runtime::contract::ExecRequest {
        command: crate::bench::words(&["sh", "-c", &script]),
        ..Default::default()
    };
    let killing = tokio::task::spawn_blocking(move || {
        let pid = std::fs::read_to_string(fifo).unwrap();
        let daemon = Process::open(pid.trim().parse().unwrap());
        let command = daemon.parent();
        command.parent().kill();
        daemon
    });
    let (answer, daemon) = tokio::join!(stack.run_on_host(request), killing);
    let daemon = daemon.unwrap();
    assert!(answer.is_err(), "{answer:?}");
    assert!(!daemon.is_dead());
    let closed = stack.close(Duration::ZERO, None).await;
    assert!(closed.left.is_empty(), "{closed:?}");
    assert!(daemon.is_dead());
}

/// What bears an attempt's mark without having been started by it is the reaper's: clean-up of each cell looks at no process of the machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_stack_whose_wardens_all_told_their_end_looks_at_no_other_process() {
    let bench = Bench::new();
    let stack = bench.stack().await;
    let mark = phalanx_agent::runtime::contract::ExecRequest {
        command: crate::bench::words(&["sh", "-c", "echo $PHALANX_ATTEMPT"]),
        ..Default::default()
    };
    let mark = stack.run_on_host(mark).await.unwrap();
    let mut stranger = Command::new("sleep")
        .arg("1000")
        .env(
            "PHALANX_ATTEMPT",
            String::from_utf8_lossy(&mark.stdout).trim(),
        )
        .env("PHALANX_SERVICE", "run")
        .spawn()
        .unwrap();
    stack.close(Duration::ZERO, None).await;
    assert!(stranger.try_wait().unwrap().is_none());
    let reaped = bench.runtime.reap(&HashSet::new()).await.unwrap();
    assert_eq!(reaped.removed, 1);
    stranger.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_command_is_killed_with_its_descendants() {
    let bench = Bench::new();
    let stack = bench.stack().await;
    let mut service = Service::start(&stack, &shell("host", "cat pipe; exec sleep 1000")).await;
    nix::unistd::mkfifo(
        &bench.place.path().join("fifo"),
        nix::sys::stat::Mode::S_IRWXU,
    )
    .ok();
    let request = phalanx_agent::runtime::contract::ExecRequest {
        command: crate::bench::words(&[
            "sh",
            "-c",
            "setsid sh -c 'echo $$ > fifo; exec sleep 1000' & sleep 1000",
        ]),
        ..Default::default()
    };
    let fifo = bench.place.path().join("fifo");
    // Opened while the command certainly lives: it is dropped before a branch of `select!` goes on.
    let daemon = tokio::task::spawn_blocking(move || {
        let pid = std::fs::read_to_string(fifo).unwrap();
        Process::open(pid.trim().parse().unwrap())
    });
    let daemon = tokio::select! {
        _ = stack.run_on_host(request) => panic!("it waits"),
        daemon = daemon => daemon.unwrap(),
    };
    assert!(
        tokio::task::spawn_blocking(move || daemon.dies())
            .await
            .unwrap()
    );
    // Before the end: on a busy machine the service may be killed before it has printed anything.
    assert!(service.line().await.contains("pipe"), "cat's complaint");
    stack.close(Duration::ZERO, None).await;
}
