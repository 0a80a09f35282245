//! Faults: what goes wrong ends in the outcome that the architecture names, with a message that leads to the cause.

use crate::cases;
use crate::daemon::Daemon;
use crate::lab::{Cell, Lab, idle, script, words};
use crate::proxy::Proxy;
use phalanx_agent::runtime::contract::Runtime;
use phalanx_agent::runtime::docker::{DockerRuntime, DockerSettings};
use phalanx_shared::language::service::{Healthcheck, Mount, MountKind, ServiceConfig};
use phalanx_shared::outcome::Outcome;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

cases![
    a_container_that_exits_at_once_tells_its_code_and_last_words,
    a_command_that_is_not_there_is_the_systems_fault,
    a_container_out_of_memory_says_so,
    health_that_never_comes_is_told_with_its_probes,
    a_log_of_200_mb_in_one_line_comes_whole,
    a_slow_reader_loses_nothing,
    a_full_tmpfs_is_the_containers_own_error,
    a_full_network_says_so,
    a_wrong_engine_address_is_an_error_with_the_address,
    logs_and_exit_survive_a_cut_connection,
    output_survives_a_cut_that_nothing_else_notices,
    a_log_file_is_asked_for_again_until_it_is_whole,
    an_exit_during_the_cut_is_noticed,
    an_exec_that_is_cut_is_an_error_of_the_machinery,
    making_and_closing_survive_cuts,
    a_second_engine_is_stopped_and_started_under_a_stack,
    an_engine_that_stays_away_is_an_error_and_its_leftovers_are_reaped,
];

async fn through(lab: &Lab, proxy: &Proxy) -> (Arc<DockerRuntime>, Cell) {
    let settings = DockerSettings {
        host: Some(proxy.host.clone()),
        ready_networks: 0,
        ..lab.settings()
    };
    let runtime = DockerRuntime::connect(settings.clone()).await.unwrap();
    let cell = lab
        .cell_of(runtime.clone(), &settings.agent, |_| {})
        .await
        .unwrap();
    (runtime, cell)
}

async fn a_container_that_exits_at_once_tells_its_code_and_last_words(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let service = cell
        .create(script("s", "echo cannot open config >&2; exit 78"))
        .await
        .unwrap();
    // Whether the start sees it run or not, the exit tells.
    let _ = service.member.start().await;
    assert_eq!(service.exit().await.code, 78);
    assert_eq!(service.log.stderr(), "cannot open config\n");
    cell.down().await;
}

async fn a_command_that_is_not_there_is_the_systems_fault(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let config = ServiceConfig {
        command: Some(vec!["/no/such/program".into()]),
        ..idle("s")
    };
    let service = cell.create(config).await.unwrap();
    let error = service.member.start().await.unwrap_err();
    assert!(
        error.outcome() == Outcome::Failed
            && error.reason.contains("service s")
            && error.reason.contains("/no/such/program"),
        "{error:?}"
    );
    // It can be asked to stop, and again to start.
    service.member.stop(None).await.unwrap();
    service.member.start().await.unwrap_err();
    cell.down().await;
}

async fn a_container_out_of_memory_says_so(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let config = ServiceConfig {
        mem_limit: Some(16 << 20),
        ..script(
            "greedy",
            "exec dd if=/dev/zero of=/dev/null bs=200M count=1",
        )
    };
    let service = cell.create(config).await.unwrap();
    let _ = service.member.start().await;
    let exit = service.exit().await;
    assert!(exit.oom, "{exit:?}");
    assert_eq!(exit.code, 137);
    let text = service.member.inspect().await.join("\n");
    assert!(
        text.contains("killed for want of memory") && text.contains("16777216"),
        "{text}"
    );
    cell.down().await;
}

async fn health_that_never_comes_is_told_with_its_probes(lab: Arc<Lab>) {
    let check = Healthcheck {
        test: vec!["CMD-SHELL".into(), "echo still no answer; exit 1".into()],
        interval_ms: Some(100),
        retries: Some(2),
        ..Healthcheck::default()
    };
    let cell = lab.cell().await;
    let service = cell
        .up(ServiceConfig {
            healthcheck: Some(check),
            ..idle("s")
        })
        .await;
    let mut health = service.member.health();
    health.wait_for(|h| *h == Some(false)).await.unwrap();
    let text = service.member.inspect().await.join("\n");
    assert!(
        text.contains("health unhealthy") && text.contains("still no answer"),
        "{text}"
    );
    cell.down().await;
}

async fn a_log_of_200_mb_in_one_line_comes_whole(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let service = cell
        .up(script(
            "s",
            "head -c 209715200 /dev/zero | tr '\\0' x; echo; echo end",
        ))
        .await;
    assert_eq!(service.exit().await.code, 0);
    assert_eq!(service.log.total(), 209_715_205);
    cell.down().await;
}

async fn a_slow_reader_loses_nothing(lab: Arc<Lab>) {
    use phalanx_agent::sink::LogSink;
    let cell = lab.cell().await;
    let (send, mut receive) = tokio::sync::mpsc::channel(1);
    let config = script("s", "seq 1 300000");
    cell.stack.prepare(&config).await.unwrap();
    let member = cell
        .stack
        .create(&config, LogSink::new("s", send))
        .await
        .unwrap();
    member.start().await.unwrap();
    let mut text = Vec::new();
    let mut pauses = 0;
    let mut exits = member.exits();
    loop {
        tokio::select! {
            Some((_, _, bytes)) = receive.recv() => {
                text.extend(bytes);
                if pauses < 20 {
                    pauses += 1;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            () = async { let _ = exits.wait_for(Option::is_some).await; } => break,
        }
    }
    while let Ok((_, _, bytes)) = receive.try_recv() {
        text.extend(bytes);
    }
    let expected: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(text.len(), expected.len());
    assert!(text == expected.as_bytes());
    cell.down().await;
}

async fn a_full_tmpfs_is_the_containers_own_error(lab: Arc<Lab>) {
    let small = Mount {
        kind: MountKind::Tmpfs,
        target: "/small".into(),
        read_only: false,
        tmpfs_size: Some(1 << 20),
        tmpfs_mode: None,
        no_copy: false,
        subpath: None,
        propagation: None,
    };
    let cell = lab.cell().await;
    let config = ServiceConfig {
        volumes: vec![small],
        ..script("s", "dd if=/dev/zero of=/small/x bs=64k count=100")
    };
    let service = cell.up(config).await;
    assert_ne!(service.exit().await.code, 0);
    assert!(
        service.log.stderr().contains("No space left on device"),
        "{}",
        service.log.stderr()
    );
    cell.down().await;
}

async fn a_full_network_says_so(lab: Arc<Lab>) {
    let settings = DockerSettings {
        subnets: vec!["10.224.0.0/24".into()],
        subnet_prefix: 29,
        ready_networks: 0,
        ..lab.settings()
    };
    let runtime = DockerRuntime::connect(settings.clone()).await.unwrap();
    let cell = lab.cell_of(runtime, &settings.agent, |_| {}).await.unwrap();
    let names: Vec<String> = (0..6).map(|n| format!("s{n}")).collect();
    let results = futures::future::join_all(
        names
            .iter()
            .map(|name| async { cell.create(idle(name)).await.unwrap().member.start().await }),
    )
    .await;
    let errors: Vec<String> = results
        .into_iter()
        .filter_map(|r| r.err().map(|e| e.to_string()))
        .collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("`subnet_prefix`"), "{errors:?}");
    cell.down().await;
}

async fn a_wrong_engine_address_is_an_error_with_the_address(lab: Arc<Lab>) {
    for host in ["unix:///no/such.sock", "tcp://127.0.0.1:1"] {
        let settings = DockerSettings {
            host: Some(host.into()),
            ..lab.settings()
        };
        let error = DockerRuntime::connect(settings).await.err().unwrap();
        assert!(error.to_string().contains(host), "{error}");
    }
}

async fn logs_and_exit_survive_a_cut_connection(lab: Arc<Lab>) {
    let proxy = Proxy::open().await;
    let (_runtime, cell) = through(&lab, &proxy).await;
    let service = cell
        .up(script(
            "s",
            "for i in $(seq 1 40); do seq $((i*1000)) $((i*1000+999)); sleep 0.05; done; exit 4",
        ))
        .await;
    for _ in 0..3 {
        proxy.cut(Duration::from_millis(200)).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(service.exit().await.code, 4);
    let expected: String = (1000..41_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(service.log.stdout().len(), expected.len());
    assert!(service.log.stdout() == expected);
    cell.down().await;
}

async fn output_survives_a_cut_that_nothing_else_notices(lab: Arc<Lab>) {
    // Once while it runs, and once when it has ended before the cut is there; short, and too long to be read twice.
    for (script_text, expected, after) in [
        ("seq 1 3000; sleep 0.5; seq 3001 6000; exit 4", 6000, 5000),
        ("seq 1 6000; exit 4", 6000, 9000),
        ("seq 1 900000; exit 4", 900_000, 5_000_000),
    ] {
        let proxy = Proxy::open().await;
        let (_runtime, cell) = through(&lab, &proxy).await;
        proxy.cut_answers("/attach?", after, 1);
        let service = cell.up(script("s", script_text)).await;
        assert_eq!(service.exit().await.code, 4);
        assert!(proxy.has_cut_all());
        let expected: String = (1..=expected).map(|n| format!("{n}\n")).collect();
        assert_eq!(service.log.total(), expected.len() as u64, "{script_text}");
        let kept = service.log.stdout();
        assert!(kept == expected[..kept.len()], "{script_text}");
        cell.down().await;
    }
}

async fn a_log_file_is_asked_for_again_until_it_is_whole(lab: Arc<Lab>) {
    let proxy = Proxy::open().await;
    let (_runtime, cell) = through(&lab, &proxy).await;
    proxy.cut_answers("/attach?", 5_000, 1);
    for after in [100, 20_000, 60_000, 60_000] {
        proxy.cut_answers("/logs?", after, 1);
    }
    let say =
        "for i in $(seq 1 20); do seq $((i*1000)) $((i*1000+999)); echo e$i >&2; done; exit 4";
    let service = cell.up(script("s", say)).await;
    assert_eq!(service.exit().await.code, 4);
    assert!(proxy.has_cut_all());
    let expected: String = (1000..21_000).map(|n| format!("{n}\n")).collect();
    assert!(service.log.stdout() == expected);
    let errors: String = (1..=20).map(|n| format!("e{n}\n")).collect();
    assert_eq!(service.log.stderr(), errors);
    cell.down().await;
}

async fn an_exit_during_the_cut_is_noticed(lab: Arc<Lab>) {
    let proxy = Proxy::open().await;
    let (_runtime, cell) = through(&lab, &proxy).await;
    let service = cell
        .up(script("s", "echo up; sleep 0.3; echo last words; exit 6"))
        .await;
    service.log.until("up").await;
    proxy.cut(Duration::from_millis(1000)).await;
    assert_eq!(service.exit().await.code, 6);
    assert_eq!(service.log.stdout(), "up\nlast words\n");
    // The code is its own: the engine had nothing to do with it.
    assert_eq!(service.member.ended_by_machinery(), None);
    cell.down().await;
}

async fn an_exec_that_is_cut_is_an_error_of_the_machinery(lab: Arc<Lab>) {
    let proxy = Proxy::open().await;
    let (_runtime, cell) = through(&lab, &proxy).await;
    let service = cell.up(idle("s")).await;
    let request = words(&["sh", "-c", "echo begun; sleep 20"]);
    let (answer, ()) = tokio::join!(service.member.exec(request), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        proxy.cut(Duration::from_millis(50)).await;
    });
    let error = answer.unwrap_err();
    assert!(
        error.outcome() == Outcome::Errored && error.reason.contains("connection to the engine"),
        "{error:?}"
    );
    // The member is as usable as before.
    assert_eq!(service.says("echo well").await, "well");
    cell.down().await;
}

async fn making_and_closing_survive_cuts(lab: Arc<Lab>) {
    let proxy = Proxy::open().await;
    let (_runtime, cell) = through(&lab, &proxy).await;
    let working = async {
        for n in 0..4 {
            let service = cell.up(idle(&format!("s{n}"))).await;
            service.member.stop(None).await.unwrap();
        }
        cell.down().await;
    };
    let cutting = async {
        loop {
            tokio::time::sleep(Duration::from_millis(230)).await;
            proxy.cut(Duration::from_millis(70)).await;
        }
    };
    tokio::select! {
        () = working => {}
        () = cutting => {}
    }
    assert_eq!(cell.left().await, Vec::<String>::new());
}

async fn a_second_engine_is_stopped_and_started_under_a_stack(lab: Arc<Lab>) {
    let Some(mut daemon) = Daemon::start().await else {
        return;
    };
    let settings = DockerSettings {
        host: Some(daemon.host()),
        ready_networks: 0,
        ..lab.settings()
    };
    let runtime = DockerRuntime::connect(settings.clone()).await.unwrap();
    let cell = lab.cell_of(runtime, &settings.agent, |_| {}).await.unwrap();
    let service = cell
        .up(script("s", "echo up; while :; do sleep 1; done"))
        .await;
    service.log.until("up").await;
    daemon.stop().await;
    daemon.run().await;
    // Its containers ended with the engine; that is noticed, and the stack can be closed or used on.
    let exit = service.exit().await;
    assert_ne!(exit.code, 0);
    let cause = service.member.ended_by_machinery().expect("a cause");
    assert!(cause.contains("service s: the engine went away"), "{cause}");
    service.member.start().await.unwrap();
    assert_eq!(service.says("echo again").await, "again");
    let closed = cell.stack.close(Duration::ZERO, None).await;
    assert_eq!(closed.left, Vec::<String>::new());
    daemon.stop().await;
}

async fn an_engine_that_stays_away_is_an_error_and_its_leftovers_are_reaped(lab: Arc<Lab>) {
    let Some(mut daemon) = Daemon::start().await else {
        return;
    };
    let settings = DockerSettings {
        host: Some(daemon.host()),
        ready_networks: 0,
        reconnect_s: 1,
        close_timeout_s: 3,
        ..lab.settings()
    };
    let runtime = DockerRuntime::connect(settings.clone()).await.unwrap();
    let cell = lab
        .cell_of(runtime.clone(), &settings.agent, |_| {})
        .await
        .unwrap();
    let service = cell.up(idle("s")).await;
    daemon.stop().await;
    let error = service.member.exec(words(&["true"])).await.unwrap_err();
    assert!(
        error.outcome() == Outcome::Errored && error.reason.contains("connection to the engine"),
        "{error:?}"
    );
    let closed = cell.stack.close(Duration::ZERO, None).await;
    assert!(!closed.left.is_empty());
    daemon.run().await;
    let reaped = runtime.reap(&HashSet::new()).await.unwrap();
    assert_eq!(reaped.left, Vec::<String>::new());
    assert_eq!(runtime.list_ours(false).await.unwrap(), Vec::new());
    daemon.stop().await;
}
