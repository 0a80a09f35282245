//! The demo server as a service on a port that Phalanx chooses.

use crate::rig::{PROGRAM, host, jobs, processes, run};
use phalanx_agent::runtime::contract::{AttemptScope, Runtime};
use phalanx_agent::sink::LogSink;
use phalanx_client::demo;
use phalanx_shared::event::ServiceState;
use phalanx_shared::id::Token;
use phalanx_shared::language::service::ServiceConfig;
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;

const BOUND: Duration = Duration::from_secs(60);

const SPEC: &str = r#"
services:
  web:
    process: ["${{ phalanx.demo_server }}", "--port", "${{ port.http }}"]
    ports: [http]
    ready: { http: { get: "${{ services.web.url }}/", expect: ["status < 500"] }, timeout: 30s }
phases:
  main:
    - http: { get: "${{ services.web.url }}/" }
      expect: [status == 200, "services.web.port['http'] > 0", services.web.host == '127.0.0.1']
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_process_is_started_on_a_free_port_waited_for_and_torn_down() {
    let state = tempfile::tempdir().unwrap();
    let job = jobs("web", SPEC).remove(0);
    let ended = tokio::time::timeout(BOUND, run(host(state.path()), job)).await;
    let ended = ended.unwrap();
    ended.passed();
    let expected = [
        ServiceState::Created,
        ServiceState::Started,
        ServiceState::Ready,
    ];
    assert_eq!(ended.states("web"), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_servers_started_at_once_get_the_ports_reserved_for_them() {
    let state = tempfile::tempdir().unwrap();
    let (agent, runtime) = processes(state.path());
    let scope = AttemptScope {
        token: Token {
            run: "run".into(),
            cell: "cell".into(),
            attempt: 1,
            epoch: 1,
        },
        agent,
        cell_name: "cell".to_owned(),
        scratch: state.path().to_owned(),
        workspace: None,
        ipv6: false,
        trace: None,
        images: Default::default(),
        policy: std::sync::Arc::new(phalanx_agent::policy::Policy::open()),
    };
    let stack = runtime.open(scope).await.unwrap();
    let server = async |name: String| {
        let ports = stack
            .reserve_ports(&name, &["http".to_owned()])
            .await
            .unwrap();
        let port = ports[0].1.to_string();
        let mut command = demo::command(Path::new(PROGRAM));
        command.extend(["--port".to_owned(), port.clone()]);
        let config = ServiceConfig {
            name: name.clone(),
            process: Some(command),
            ..ServiceConfig::default()
        };
        let (out, mut frames) = mpsc::channel(64);
        let sink = LogSink::new(&name, out);
        let member = stack.create(&config, sink).await.unwrap();
        member.start().await.unwrap();
        let mut printed = String::new();
        while !printed.contains('\n') {
            let frame = tokio::time::timeout(BOUND, frames.recv()).await;
            let (_, _, bytes) = frame.unwrap().unwrap();
            printed.push_str(&String::from_utf8_lossy(&bytes));
        }
        assert!(printed.trim_end().ends_with(&format!(":{port}")));
    };
    futures::future::join_all((0..20).map(|n| server(format!("s{n}")))).await;
    stack.close(Duration::ZERO, None).await;
}
