//! A container's life: from its first byte to its exit, and what can be done to it in between.

use crate::cases;
use crate::lab::{Lab, get, idle, read, script, web, words};
use phalanx_agent::beneath::Place;
use phalanx_agent::runtime::contract::ExecRequest;
use phalanx_shared::language::service::ServiceConfig;
use phalanx_shared::outcome::Outcome;
use std::sync::Arc;
use std::time::Duration;

cases![
    a_service_starts_logs_from_its_first_byte_and_exits,
    exec_gives_both_outputs_and_the_exit_code,
    exec_takes_stdin_user_variables_and_directory,
    exec_of_what_does_not_exist_is_126_or_127,
    long_exec_output_keeps_head_and_tail,
    an_unknown_exec_user_is_the_systems_fault,
    a_stopped_service_starts_again_with_its_data,
    a_service_that_ignores_sigterm_is_killed_after_its_grace,
    kill_with_another_signal_does_not_wait,
    pause_freezes_and_unpause_thaws,
    disconnect_and_connect_keep_the_aliases,
    files_go_in_and_out,
    health_follows_the_engine,
    steps_reach_a_service_by_its_address,
    close_is_idempotent_and_leaves_nothing,
    a_dropped_create_leaves_nothing_after_close,
    the_summary_tells_the_exit_and_no_environment,
];

async fn a_service_starts_logs_from_its_first_byte_and_exits(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let service = cell
        .create(script("job", "echo first; echo oops >&2; exit 7"))
        .await
        .unwrap();
    let addresses = service.member.start().await.unwrap();
    assert_eq!(addresses.host, "job");
    let exit = service.exit().await;
    assert_eq!((exit.code, exit.oom, exit.start), (7, false, 1));
    assert_eq!(service.log.stdout(), "first\n");
    assert_eq!(service.log.stderr(), "oops\n");
    service.member.start().await.unwrap();
    let mut exits = service.member.exits();
    let second = exits
        .wait_for(|e| e.as_ref().is_some_and(|e| e.start == 2))
        .await
        .unwrap()
        .clone();
    assert_eq!(second.unwrap().code, 7);
    service.flush().await;
    assert_eq!(service.log.stdout(), "first\nfirst\n");
    assert!(cell.down().await.removed >= 2);
}

async fn exec_gives_both_outputs_and_the_exit_code(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let service = cell.up(idle("s")).await;
    let out = service.sh("echo out; echo err >&2; exit 3").await;
    assert_eq!(out.exit_code, 3);
    assert_eq!(out.stdout, b"out\n");
    assert_eq!(out.stderr, b"err\n");
    cell.down().await;
}

async fn exec_takes_stdin_user_variables_and_directory(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let service = cell.up(idle("s")).await;
    let big = vec![b'x'; 300_000];
    let request = ExecRequest {
        stdin: Some(big.clone()),
        env: [("GREETING".to_owned(), "hi there".to_owned())].into(),
        user: Some("app".to_owned()),
        workdir: Some("/srv".to_owned()),
        ..words(&["sh", "-c", "wc -c; echo $GREETING; id -u; pwd"])
    };
    let out = service.member.exec(request).await.unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert_eq!(text, "300000\nhi there\n1000\n/srv\n");
    cell.down().await;
}

async fn exec_of_what_does_not_exist_is_126_or_127(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let service = cell.up(idle("s")).await;
    let out = service.member.exec(words(&["nonsense"])).await.unwrap();
    assert!(matches!(out.exit_code, 126 | 127), "{out:?}");
    assert!(out.stdout.is_empty());
    assert!(
        String::from_utf8_lossy(&out.stderr).contains("nonsense"),
        "{out:?}"
    );
    cell.down().await;
}

async fn long_exec_output_keeps_head_and_tail(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let service = cell.up(idle("s")).await;
    let request = ExecRequest {
        max_output: 1000,
        ..words(&["sh", "-c", "echo begin; seq 1 200000; echo end"])
    };
    let out = service.member.exec(request).await.unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(
        text.starts_with("begin\n1\n") && text.ends_with("200000\nend\n"),
        "{text}"
    );
    assert!(text.contains("bytes left out"));
    cell.down().await;
}

async fn an_unknown_exec_user_is_the_systems_fault(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let service = cell.up(idle("s")).await;
    let request = ExecRequest {
        user: Some("nobody-here".to_owned()),
        ..words(&["true"])
    };
    let error = service.member.exec(request).await.unwrap_err();
    assert!(
        error.outcome() == Outcome::Failed && error.reason.contains("nobody-here"),
        "{error:?}"
    );
    cell.down().await;
}

async fn a_stopped_service_starts_again_with_its_data(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let service = cell.up(idle("s")).await;
    service.says("echo kept > /data/file").await;
    service.member.stop(None).await.unwrap();
    assert_eq!(service.exit().await.code, 0);
    service.member.stop(None).await.unwrap();
    service.member.start().await.unwrap();
    assert_eq!(service.says("cat /data/file").await, "kept");
    service.member.kill("SIGKILL".to_owned()).await.unwrap();
    assert_eq!(service.exit().await.code, 137);
    service.member.kill("SIGKILL".to_owned()).await.unwrap();
    let error = service.member.exec(words(&["true"])).await.unwrap_err();
    assert!(
        error.outcome() == Outcome::Failed && error.reason.contains("running"),
        "{error:?}"
    );
    cell.down().await;
}

async fn a_service_that_ignores_sigterm_is_killed_after_its_grace(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let config = ServiceConfig {
        stop_grace_ms: Some(1000),
        ..script("deaf", "trap '' TERM; echo up; while :; do sleep 1; done")
    };
    let service = cell.up(config).await;
    service.log.until("up").await;
    let began = std::time::Instant::now();
    service.member.stop(None).await.unwrap();
    assert_eq!(service.exit().await.code, 137);
    assert!(began.elapsed() >= Duration::from_millis(900));
    service.member.start().await.unwrap();
    // Closing with a grace ends too, after it.
    let closed = cell.stack.close(Duration::from_secs(1), None).await;
    assert_eq!(closed.left, Vec::<String>::new());
    assert_eq!(cell.left().await, Vec::<String>::new());
}

async fn kill_with_another_signal_does_not_wait(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let service = cell
        .up(script(
            "s",
            "trap 'echo reloaded' HUP; echo up; while :; do sleep 1000 & wait; done",
        ))
        .await;
    service.log.until("up").await;
    service.member.kill("SIGHUP".to_owned()).await.unwrap();
    service.log.until("reloaded").await;
    let error = service
        .member
        .kill("SIGNONSENSE".to_owned())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("SIGNONSENSE"), "{error}");
    cell.down().await;
}

async fn pause_freezes_and_unpause_thaws(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let service = cell.up(idle("s")).await;
    service.member.pause().await.unwrap();
    assert_eq!(cell.inspect("s").await.state.unwrap().paused, Some(true));
    service.member.pause().await.unwrap();
    service.member.unpause().await.unwrap();
    assert_eq!(service.says("echo back").await, "back");
    // A frozen service can be stopped, and its stack closed.
    service.member.pause().await.unwrap();
    service.member.stop(None).await.unwrap();
    service.member.start().await.unwrap();
    service.member.pause().await.unwrap();
    cell.down().await;
}

async fn disconnect_and_connect_keep_the_aliases(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let config = ServiceConfig {
        aliases: vec!["other-name".to_owned()],
        ..web("web", 8080)
    };
    let service = cell.up(config).await;
    let client = cell.up(idle("client")).await;
    get(service.member.addresses().await.unwrap().ports[0].1).await;
    for name in ["web", "other-name"] {
        assert_eq!(
            client
                .says(&format!("wget -q -O - http://{name}:8080/index.html"))
                .await,
            "served"
        );
    }
    service.member.disconnect().await.unwrap();
    service.member.disconnect().await.unwrap();
    assert_eq!(service.member.addresses().await.unwrap().ip, None);
    assert_ne!(
        client
            .sh("wget -q -T 1 -O - http://web:8080/index.html")
            .await
            .exit_code,
        0
    );
    service.member.connect().await.unwrap();
    service.member.connect().await.unwrap();
    for name in ["web", "other-name"] {
        assert_eq!(
            client
                .says(&format!("wget -q -O - http://{name}:8080/index.html"))
                .await,
            "served"
        );
    }
    cell.down().await;
}

async fn files_go_in_and_out(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let service = cell.up(idle("s")).await;
    let here = cell.scratch.path();
    std::fs::create_dir_all(here.join("tree/deep")).unwrap();
    std::fs::write(here.join("tree/deep/file"), "deep").unwrap();
    std::fs::write(here.join("one"), "content").unwrap();
    let copy_in = |from: &str, to: &str| {
        service
            .member
            .copy_in(Place::new(here, from), to.to_owned())
    };
    copy_in("one", "/data").await.unwrap();
    copy_in("one", "/data/renamed").await.unwrap();
    copy_in("tree", "/data").await.unwrap();
    assert_eq!(
        service
            .says("cat /data/one /data/renamed /data/tree/deep/file")
            .await,
        "contentcontentdeep"
    );
    let error = copy_in("one", "/no/such/place").await.unwrap_err();
    assert!(
        error.outcome() == Outcome::Failed && error.reason.contains("/no/such"),
        "{error:?}"
    );
    let error = copy_in("missing", "/data").await.unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");

    let out = |from: &str, to: &str| {
        service
            .member
            .copy_out(from.to_owned(), Place::new(here, to))
    };
    out("/data/one", "got/file").await.unwrap();
    assert_eq!(read(&here.join("got/file")), "content");
    out("/data/tree", "got").await.unwrap();
    assert_eq!(read(&here.join("got/tree/deep/file")), "deep");
    let error = out("/data/missing", "x").await.unwrap_err();
    assert!(
        error.outcome() == Outcome::Failed && error.reason.contains("missing"),
        "{error:?}"
    );
    cell.down().await;
}

async fn health_follows_the_engine(lab: Arc<Lab>) {
    use phalanx_shared::language::service::Healthcheck;
    let cell = lab.cell().await;
    let check = Healthcheck {
        test: vec!["CMD-SHELL".to_owned(), "test -f /tmp/ok".to_owned()],
        interval_ms: Some(200),
        timeout_ms: Some(2000),
        retries: Some(1),
        start_period_ms: Some(0),
        ..Healthcheck::default()
    };
    let service = cell
        .create(ServiceConfig {
            healthcheck: Some(check),
            ..idle("s")
        })
        .await
        .unwrap();
    assert!(service.member.has_healthcheck());
    let mut health = service.member.health();
    service.member.start().await.unwrap();
    health.wait_for(|h| *h == Some(false)).await.unwrap();
    service.says("touch /tmp/ok").await;
    health.wait_for(|h| *h == Some(true)).await.unwrap();
    assert!(
        service
            .member
            .inspect()
            .await
            .iter()
            .any(|l| l.contains("health healthy"))
    );
    let plain = cell.create(idle("plain")).await.unwrap();
    assert!(!plain.member.has_healthcheck());
    cell.down().await;
}

async fn steps_reach_a_service_by_its_address(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let service = cell.create(web("web", 8080)).await.unwrap();
    let addresses = service.member.start().await.unwrap();
    let (name, socket) = addresses.ports[0].clone();
    assert_eq!(name, "8080");
    assert!(get(socket).await.contains("served"));
    assert_eq!(service.member.addresses().await.unwrap(), addresses);
    cell.down().await;
}

async fn close_is_idempotent_and_leaves_nothing(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    cell.up(idle("a")).await;
    cell.create(idle("b")).await.unwrap();
    cell.down().await;
    cell.down().await;
    let error = cell.create(idle("c")).await.err().unwrap();
    assert!(error.to_string().contains("closed"), "{error}");
}

async fn a_dropped_create_leaves_nothing_after_close(lab: Arc<Lab>) {
    for _ in 0..5 {
        let cell = lab.cell().await;
        let dropped = tokio::time::timeout(Duration::from_millis(3), cell.create(idle("s"))).await;
        assert!(dropped.is_err(), "a create within 3 ms");
        let service = cell.create(idle("t")).await.unwrap();
        let dropped = tokio::time::timeout(Duration::from_millis(5), service.member.start()).await;
        assert!(dropped.is_err(), "a start within 5 ms");
        cell.down().await;
    }
}

async fn the_summary_tells_the_exit_and_no_environment(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let config = ServiceConfig {
        environment: [("PASSWORD".to_owned(), Some("hunter22".to_owned()))]
            .into_iter()
            .collect(),
        ..script("job", "exit 139")
    };
    let service = cell.up(config).await;
    service.exit().await;
    let text = service.member.inspect().await.join("\n");
    assert!(
        text.contains("job: exited, exit code 139 (SIGSEGV)"),
        "{text}"
    );
    assert!(!text.contains("hunter22"));
    cell.down().await;
}
