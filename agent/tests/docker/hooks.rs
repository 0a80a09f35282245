//! Hooks of a definition, and replicas, in containers.

use crate::cases;
use crate::lab::{Lab, idle, script, web};
use phalanx_shared::language::service::{Hook, ServiceConfig};
use phalanx_shared::outcome::Outcome;
use std::sync::Arc;
use std::time::Duration;

cases![
    post_start_runs_in_the_container_with_its_settings,
    a_post_start_that_fails_is_the_service_s_fault,
    pre_stop_runs_before_a_stop_and_its_output_is_in_the_log,
    a_pre_stop_that_fails_leaves_the_service_running,
    clean_up_runs_pre_stop_within_its_time_and_a_kill_does_not,
    replicas_answer_to_their_service_s_name_and_their_own,
];

fn hook(text: &str) -> Hook {
    Hook {
        command: ["sh", "-c", text].map(str::to_owned).to_vec(),
        ..Hook::default()
    }
}

async fn post_start_runs_in_the_container_with_its_settings(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let config = ServiceConfig {
        user: Some("65534".to_owned()),
        post_start: vec![
            hook("echo first > /tmp/seen"),
            Hook {
                user: Some("0".to_owned()),
                working_dir: Some("/tmp".to_owned()),
                environment: [("WHO".to_owned(), "me".to_owned())].into_iter().collect(),
                ..hook("echo \"$WHO $(id -u) $(pwd)\" >> seen; echo told >&2")
            },
        ],
        ..idle("s")
    };
    let service = cell.up(config).await;
    service.member.post_start().await.unwrap();
    assert_eq!(service.says("cat /tmp/seen").await, "first\nme 0 /tmp");
    service.flush().await;
    assert_eq!(service.log.stderr(), "told\n");
    cell.down().await;
}

async fn a_post_start_that_fails_is_the_service_s_fault(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let config = ServiceConfig {
        post_start: vec![hook("true"), hook("exit 7"), hook("touch /never")],
        ..idle("s")
    };
    let service = cell.up(config).await;
    let error = service.member.post_start().await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Failed);
    let text = "service s: post_start hook 2 (sh): exit code 7; its output is in the service's log";
    assert_eq!(error.reason, text);
    assert_eq!(service.sh("test -e /never").await.exit_code, 1);
    cell.down().await;
}

/// A service that prints when it is asked to stop.
fn stopped(pre_stop: Hook) -> ServiceConfig {
    ServiceConfig {
        pre_stop: vec![pre_stop],
        ..script(
            "s",
            "trap 'echo stopped; exit 0' TERM; echo up; while :; do sleep 1000 & wait; done",
        )
    }
}

async fn pre_stop_runs_before_a_stop_and_its_output_is_in_the_log(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let service = cell.up(stopped(hook("echo draining"))).await;
    service.log.until("up").await;
    service.member.pause().await.unwrap();
    service.member.stop(None).await.unwrap();
    assert_eq!(service.exit().await.code, 0);
    assert_eq!(service.log.stdout(), "up\ndraining\nstopped\n");
    cell.down().await;
}

async fn a_pre_stop_that_fails_leaves_the_service_running(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let service = cell.up(stopped(hook("test -e /ready"))).await;
    service.log.until("up").await;
    let error = service.member.stop(None).await.unwrap_err();
    assert!(error.reason.contains("pre_stop hook sh: exit code 1"));
    assert_eq!(service.says("echo $((1 + 1)); touch /ready").await, "2");
    service.member.stop(None).await.unwrap();
    assert_eq!(service.exit().await.code, 0);
    cell.down().await;
}

async fn clean_up_runs_pre_stop_within_its_time_and_a_kill_does_not(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let good = cell.up(stopped(hook("echo draining"))).await;
    good.log.until("up").await;
    let slow = ServiceConfig {
        name: "slow".to_owned(),
        stop_grace_ms: Some(500),
        ..stopped(hook("sleep 1000"))
    };
    let slow = cell.up(slow).await;
    slow.log.until("up").await;
    let killed = ServiceConfig {
        name: "killed".to_owned(),
        ..stopped(hook("echo never"))
    };
    let killed = cell.up(killed).await;
    killed.log.until("up").await;
    killed.member.kill("SIGKILL".to_owned()).await.unwrap();
    let closed = cell.stack.close(Duration::from_secs(10), None).await;
    assert_eq!(closed.left, Vec::<String>::new());
    assert_eq!(cell.left().await, Vec::<String>::new());
    good.flush().await;
    assert_eq!(good.log.stdout(), "up\ndraining\nstopped\n");
    killed.flush().await;
    assert_eq!(killed.log.stdout(), "up\n");
}

async fn replicas_answer_to_their_service_s_name_and_their_own(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let mut replicas = Vec::new();
    for name in ["web-1", "web-2"] {
        let config = ServiceConfig {
            replica_of: Some("web".to_owned()),
            ..web(name, 80)
        };
        replicas.push(cell.up(config).await);
    }
    let other = ServiceConfig {
        engine: phalanx_shared::language::service::EngineOptions {
            volumes_from: vec!["web".to_owned()],
            ..Default::default()
        },
        ..idle("other")
    };
    let other = cell.up(other).await;
    let found = other.says("nslookup web | grep -c 'Address.*: *1'").await;
    let own = |name: &str| format!("nslookup {name} | grep -c 'Address.*: *1'");
    assert_eq!(found, "2");
    assert_eq!(other.says(&own("web-1")).await, "1");
    assert_eq!(other.says(&own("web-2")).await, "1");
    assert_eq!(replicas[1].says("hostname").await, "web-2");
    let host = replicas[0].member.addresses().await.unwrap().host;
    assert_eq!(host, "web-1");
    cell.down().await;
}
