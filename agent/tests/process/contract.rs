//! What the contract asks of a member that is a process.

use crate::bench::{BOUND, Bench, Process, Service, shell, words};
use phalanx_agent::runtime::contract::ExecRequest;
use phalanx_shared::language::service::{Healthcheck, Port, ServiceConfig};
use phalanx_shared::outcome::Outcome;
use std::net::TcpStream;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_and_signals_are_told() {
    let bench = Bench::new();
    let stack = bench.stack().await;
    for (script, code) in [
        ("exit 0", 0),
        ("exit 3", 3),
        ("kill -9 $$", 137),
        ("kill -15 $$", 143),
    ] {
        let service = Service::start(&stack, &shell(script, script)).await;
        let exit = service.exit().await;
        assert_eq!((exit.code, exit.start, exit.oom), (code, 1, false));
    }
    stack.close(Duration::ZERO, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_program_and_directory_are_the_service_s_fault_and_named() {
    let bench = Bench::new();
    let stack = bench.stack().await;
    let mut config = ServiceConfig {
        name: "none".to_owned(),
        process: Some(words(&["no-such-program"])),
        ..ServiceConfig::default()
    };
    let service = Service::create(&stack, &config).await;
    let error = service.member.start().await.unwrap_err();
    assert!(
        error.outcome() == Outcome::Failed && error.reason.contains("no-such-program"),
        "{error}"
    );
    // A failed start is none: stopping it has nothing to wait for.
    service.member.stop(None).await.unwrap();

    config = shell("nowhere", "true");
    config.working_dir = Some("no/such/dir".to_owned());
    let error = Service::create(&stack, &config)
        .await
        .member
        .start()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no/such/dir"), "{error}");
    stack.close(Duration::ZERO, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deaf_service_is_killed_after_its_grace_and_a_polite_one_may_finish() {
    let bench = Bench::new();
    let stack = bench.stack().await;
    let mut deaf = Service::start(
        &stack,
        &shell(
            "deaf",
            "trap '' TERM; echo up; sleep 1000 & while :; do wait; done",
        ),
    )
    .await;
    deaf.line().await;
    deaf.member
        .stop(Some(Duration::from_millis(100)))
        .await
        .unwrap();
    assert_eq!(deaf.exit().await.code, 137);

    let mut config = shell(
        "polite",
        // The shell tells of a child that its group's signal killed.
        "exec 2>/dev/null; trap 'echo bye; exit 7' USR1; echo up; while :; do sleep 0.01; done",
    );
    // Not SIGINT: a shell can't trap what is ignored when it starts, as SIGINT is below a script's background job.
    config.stop_signal = Some("SIGUSR1".to_owned());
    let mut polite = Service::start(&stack, &config).await;
    polite.line().await;
    polite.member.stop(None).await.unwrap();
    assert_eq!(polite.exit().await.code, 7);
    assert_eq!(polite.line().await, "bye");
    polite.member.stop(None).await.unwrap();
    polite.member.kill("SIGKILL".to_owned()).await.unwrap();
    stack.close(Duration::ZERO, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_service_starts_again_and_a_running_one_does_not() {
    let bench = Bench::new();
    let stack = bench.stack().await;
    let mut service = Service::start(&stack, &shell("twice", "echo up; exec sleep 1000")).await;
    service.line().await;
    assert!(service.member.start().await.is_err());
    service.member.kill("KILL".to_owned()).await.unwrap();
    assert_eq!(service.exit().await.start, 1);
    service.member.start().await.unwrap();
    assert!(service.member.exits().borrow().is_none());
    service.line().await;
    service.member.stop(None).await.unwrap();
    assert_eq!(
        (service.exit().await.code, service.exit().await.start),
        (143, 2)
    );
    let lines = service.member.inspect().await.join("\n");
    assert!(
        lines.contains("start 2") && lines.contains("SIGTERM"),
        "{lines}"
    );
    stack.close(Duration::ZERO, None).await;
    assert!(service.member.start().await.is_err(), "the stack is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn pausing_freezes_all_its_sessions_and_a_paused_one_can_be_stopped() {
    let bench = Bench::new();
    let stack = bench.stack().await;
    let script = "echo $$; setsid sh -c 'echo $$; exec sleep 1000' & wait";
    let mut service = Service::start(&stack, &shell("frozen", script)).await;
    let processes = [service.process().await, service.process().await];
    service.member.pause().await.unwrap();
    wait_for_state(&processes, 'T').await;
    service.member.unpause().await.unwrap();
    wait_for_state(&processes, 'S').await;
    service.member.pause().await.unwrap();
    service.member.stop(None).await.unwrap();
    assert_eq!(service.exit().await.code, 143);
    assert!(service.member.pause().await.is_err());
    stack.close(Duration::ZERO, None).await;
}

async fn wait_for_state(processes: &[Process], state: char) {
    let reached = async {
        while processes.iter().any(|process| process.state() != state) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(BOUND, reached).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_sees_the_service_s_environment_directory_and_its_own_input() {
    let bench = Bench::new();
    let stack = bench.stack().await;
    std::fs::create_dir(bench.place.path().join("work")).unwrap();
    let mut config = shell("host", "exec sleep 1000");
    config.working_dir = Some("work".to_owned());
    config
        .environment
        .insert("COLOUR".to_owned(), Some("blue".to_owned()));
    let service = Service::create(&stack, &config).await;
    let request = ExecRequest {
        command: words(&[
            "sh",
            "-c",
            "cat; echo $COLOUR $SIZE; basename $PWD; echo oops >&2; exit 4",
        ]),
        stdin: Some(b"input\n".to_vec()),
        env: [("SIZE".to_owned(), "big".to_owned())].into(),
        ..ExecRequest::default()
    };
    assert!(
        service.member.exec(request.clone()).await.is_err(),
        "not running yet"
    );
    service.member.start().await.unwrap();
    let output = service.member.exec(request).await.unwrap();
    assert_eq!(output.exit_code, 4);
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "input\nblue big\nwork\n"
    );
    assert_eq!(output.stderr, b"oops\n");

    let command = |words_: &[&str]| ExecRequest {
        command: words(words_),
        max_output: 100,
        ..ExecRequest::default()
    };
    let missing = service
        .member
        .exec(command(&["no-such-program"]))
        .await
        .unwrap();
    assert_eq!(missing.exit_code, 127);
    let long = service
        .member
        .exec(command(&["seq", "1", "10000"]))
        .await
        .unwrap();
    let long = String::from_utf8(long.stdout).unwrap();
    assert!(
        long.starts_with("1\n2\n") && long.ends_with("10000\n") && long.len() < 200,
        "{long}"
    );
    let stranger = ExecRequest {
        user: Some("no-such-user".to_owned()),
        ..command(&["true"])
    };
    assert!(service.member.exec(stranger).await.is_err());
    stack.close(Duration::ZERO, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_command_runs_in_the_workspace_without_the_agent_s_own_variables() {
    let bench = Bench::new();
    let stack = bench.stack().await;
    let request = ExecRequest {
        command: words(&[
            "sh",
            "-c",
            "pwd; env | grep -c '^PHALANX_SECRET' || true; echo ${PATH:+path}",
        ]),
        ..ExecRequest::default()
    };
    let output = stack.run_on_host(request).await.unwrap();
    let expected = format!(
        "{}\n0\npath\n",
        bench.place.path().canonicalize().unwrap().display()
    );
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    let empty = stack.run_on_host(ExecRequest::default()).await;
    assert!(empty.is_err());
    stack.close(Duration::ZERO, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_copied_relative_to_the_service_s_directory() {
    let bench = Bench::new();
    let stack = bench.stack().await;
    let service = Service::start(&stack, &shell("files", "exec sleep 1000")).await;
    let outside = bench.place.path().join("outside.txt");
    let at = |path: &str| phalanx_agent::beneath::Place::new(bench.place.path(), path);
    std::fs::write(&outside, "hello").unwrap();
    service
        .member
        .copy_in(at("outside.txt"), "data/".to_owned())
        .await
        .unwrap();
    let back = bench.place.path().join("back.txt");
    service
        .member
        .copy_out("/data/outside.txt".to_owned(), at("back.txt"))
        .await
        .unwrap();
    assert_eq!(std::fs::read_to_string(&back).unwrap(), "hello");
    assert!(
        service
            .member
            .copy_out("absent".to_owned(), at("back.txt"))
            .await
            .is_err()
    );
    stack.close(Duration::ZERO, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn named_ports_are_known_before_creation_and_stay_over_a_restart() {
    let bench = Bench::new();
    let stack = bench.stack().await;
    let names = words(&["http", "admin"]);
    let reserved = stack.reserve_ports("server", &names).await.unwrap();
    assert_eq!(
        stack.reserve_ports("server", &names).await.unwrap(),
        reserved
    );
    let others = stack.reserve_ports("other", &names).await.unwrap();
    assert!(
        reserved
            .iter()
            .all(|(_, port)| others.iter().all(|(_, other)| other != port))
    );
    assert!(TcpStream::connect(("127.0.0.1", reserved[0].1)).is_err());

    let mut config = shell("server", "exec sleep 1000");
    config.ports = names
        .iter()
        .map(|name| Port {
            target: None,
            name: Some(name.clone()),
            protocol: "tcp".to_owned(),
            app_protocol: None,
            published: None,
        })
        .collect();
    let service = Service::create(&stack, &config).await;
    let first = service.member.start().await.unwrap();
    let ports: Vec<(String, u16)> = first
        .ports
        .iter()
        .map(|(name, address)| (name.clone(), address.port()))
        .collect();
    assert_eq!(ports, reserved);
    // Handed over: the service could bind it now.
    drop(std::net::TcpListener::bind(first.ports[0].1).unwrap());
    service.member.stop(None).await.unwrap();
    assert_eq!(service.member.start().await.unwrap(), first);
    stack.close(Duration::ZERO, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthcheck_turns_healthy_and_then_unhealthy() {
    let bench = Bench::new();
    let stack = bench.stack().await;
    let mut config = shell("checked", "exec sleep 1000");
    config.healthcheck = Some(Healthcheck {
        test: words(&["CMD-SHELL", "test -e well"]),
        interval_ms: Some(20),
        retries: Some(2),
        ..Healthcheck::default()
    });
    let service = Service::create(&stack, &config).await;
    assert!(service.member.has_healthcheck());
    let mut health = service.member.health();
    std::fs::write(bench.place.path().join("well"), "").unwrap();
    service.member.start().await.unwrap();
    let wait = tokio::time::timeout(BOUND, health.wait_for(|health| *health == Some(true)));
    wait.await.unwrap().unwrap();
    std::fs::remove_file(bench.place.path().join("well")).unwrap();
    let wait = tokio::time::timeout(BOUND, health.wait_for(|health| *health == Some(false)));
    wait.await.unwrap().unwrap();
    stack.close(Duration::ZERO, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_for_a_process_is_refused_clearly() {
    let bench = Bench::new();
    let stack = bench.stack().await;
    let service = Service::start(&stack, &shell("one", "exec sleep 1000")).await;
    let error = service.member.disconnect().await.unwrap_err();
    assert!(error.outcome() == Outcome::Failed);
    assert!(service.member.connect().await.is_err());
    assert!(service.member.kill("SIGNONE".to_owned()).await.is_err());
    let (out, _frames) = tokio::sync::mpsc::channel(1);
    let sink = phalanx_agent::sink::LogSink::new("one", out);
    assert!(
        stack
            .create(&shell("one", "true"), sink.clone())
            .await
            .is_err(),
        "a name twice"
    );
    assert!(
        stack.create(&ServiceConfig::default(), sink).await.is_err(),
        "no command"
    );
    stack.close(Duration::ZERO, None).await;
}
