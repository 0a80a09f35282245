//! The fake does what its script says, by tokio's clock, and objects to misuse.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use phalanx_agent::runtime::contract::{
    AttemptScope, ExecRequest, Exit, Fault, Member, Runtime, RuntimeError, Stack,
};
use phalanx_agent::runtime::fake::FakeRuntime;
use phalanx_agent::runtime::fake::script::{
    CommandScript, ExitScript, Printed, Script, ServiceScript,
};
use phalanx_agent::sink::LogSink;
use phalanx_shared::event::LogStream;
use phalanx_shared::id::Token;
use phalanx_shared::language::service::ServiceConfig;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn token() -> Token {
    Token {
        run: "r".into(),
        cell: "c".into(),
        attempt: 1,
        epoch: 1,
    }
}

async fn open(runtime: &FakeRuntime) -> Arc<dyn Stack> {
    let scope = AttemptScope {
        token: token(),
        agent: "a".into(),
        cell_name: "cell".to_owned(),
        scratch: "/nowhere".into(),
        workspace: None,
        ipv6: false,
        trace: None,
        images: Default::default(),
        policy: std::sync::Arc::new(phalanx_agent::policy::Policy::open()),
    };
    runtime.open(scope).await.unwrap()
}

fn config(name: &str) -> ServiceConfig {
    ServiceConfig {
        name: name.to_owned(),
        ..ServiceConfig::default()
    }
}

type Frames = mpsc::Receiver<(String, LogStream, Vec<u8>)>;

async fn create(stack: &Arc<dyn Stack>, name: &str) -> (Arc<dyn Member>, Frames) {
    let (out, frames) = mpsc::channel(8);
    stack.prepare(&config(name)).await.unwrap();
    let member = stack
        .create(&config(name), LogSink::new(name, out))
        .await
        .unwrap();
    (member, frames)
}

fn command(text: &str) -> ExecRequest {
    ExecRequest {
        command: text.split(' ').map(str::to_owned).collect(),
        ..ExecRequest::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_prints_turns_healthy_and_exits_by_its_script() {
    let script = ServiceScript {
        start_delay: s(1),
        output: vec![Printed::line(s(2), "one"), Printed::line(s(5), "two")],
        healthy_after: Some(s(3)),
        exit: Some(ExitScript {
            after: s(9),
            code: 4,
            oom: true,
        }),
        commands: vec![CommandScript::prints("token", "secret\n")],
        ..ServiceScript::default()
    };
    let runtime = FakeRuntime::new(Script::default().service("db", script));
    let stack = open(&runtime).await;
    let (member, mut frames) = create(&stack, "db").await;
    let began = Instant::now();
    assert_eq!(member.start().await.unwrap().host, "db");
    assert_eq!(began.elapsed(), s(1));
    assert_eq!(frames.recv().await.unwrap().2, b"one\n");
    assert_eq!(began.elapsed(), s(3));
    member
        .health()
        .wait_for(|health| *health == Some(true))
        .await
        .unwrap();
    assert_eq!(began.elapsed(), s(4));
    assert_eq!(
        member.exec(command("make token")).await.unwrap().stdout,
        b"secret\n"
    );
    assert_eq!(member.exec(command("other")).await.unwrap().exit_code, 127);
    let exit = member
        .exits()
        .wait_for(Option::is_some)
        .await
        .unwrap()
        .clone();
    assert_eq!(
        exit,
        Some(Exit {
            code: 4,
            oom: true,
            start: 1
        })
    );
    assert_eq!(began.elapsed(), s(10));
    assert_eq!(frames.recv().await.unwrap().2, b"two\n");
    assert!(matches!(
        member.exec(command("x")).await,
        Err(RuntimeError {
            fault: Fault::State,
            ..
        })
    ));
    stack.close(s(1), None).await;
    assert_eq!(runtime.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_deaf_service_takes_its_whole_grace() {
    let deaf = ServiceScript {
        deaf: true,
        ..ServiceScript::default()
    };
    let runtime = FakeRuntime::new(Script::default().service("deaf", deaf));
    let stack = open(&runtime).await;
    let (member, _frames) = create(&stack, "deaf").await;
    member.start().await.unwrap();
    let began = Instant::now();
    member.stop(Some(s(7))).await.unwrap();
    assert_eq!(began.elapsed(), s(7));
    assert_eq!(member.exits().borrow().as_ref().unwrap().code, 137);
    member.start().await.unwrap();
    member.kill("SIGKILL".to_owned()).await.unwrap();
    assert_eq!(member.exits().borrow().as_ref().unwrap().start, 2);
    stack.close(s(1), None).await;
    assert_eq!(runtime.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn every_misuse_is_a_violation() {
    let slow = ServiceScript {
        start_delay: s(1),
        ..ServiceScript::default()
    };
    let runtime = FakeRuntime::new(Script::default().service("slow", slow));
    let stack = open(&runtime).await;
    let (out, _frames) = mpsc::channel(8);
    let sink = LogSink::new("x", out);
    assert!(stack.create(&config("early"), sink.clone()).await.is_err());
    let (member, _frames) = create(&stack, "slow").await;
    assert!(stack.create(&config("slow"), sink).await.is_err());
    let (first, second) = tokio::join!(member.start(), member.stop(None));
    assert!(first.is_ok() && second.is_err());
    assert!(member.start().await.is_err());
    runtime.reap(&HashSet::new()).await.unwrap();
    stack.close(s(1), None).await;
    assert!(member.start().await.is_err());
    assert!(stack.prepare(&config("late")).await.is_err());
    stack.close(s(1), None).await;
    drop(open(&runtime).await);
    assert_eq!(
        runtime.violations(),
        [
            "r/c#1@1: create early before prepare",
            "r/c#1@1: create slow twice",
            "stop slow beside another call that changes it",
            "start slow while it runs",
            "reap while r/c#1@1 is open but not among the live",
            "start slow after close",
            "r/c#1@1: prepare late after close",
            "r/c#1@1: close after close",
            "r/c#1@1: dropped without close",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn scripted_errors_come_where_they_are_written_and_leave_no_violation() {
    let error = || Some(RuntimeError::new(Fault::Engine, "no"));
    let script = Script::default()
        .service(
            "a",
            ServiceScript {
                prepare_error: error(),
                ..Default::default()
            },
        )
        .service(
            "b",
            ServiceScript {
                create_error: error(),
                ..Default::default()
            },
        )
        .service(
            "c",
            ServiceScript {
                start_error: error(),
                ..Default::default()
            },
        );
    let runtime = FakeRuntime::new(script);
    let stack = open(&runtime).await;
    assert!(stack.prepare(&config("a")).await.is_err());
    stack.prepare(&config("b")).await.unwrap();
    let (out, _frames) = mpsc::channel(8);
    assert!(
        stack
            .create(&config("b"), LogSink::new("b", out))
            .await
            .is_err()
    );
    let (member, _frames) = create(&stack, "c").await;
    assert!(member.start().await.is_err());
    let ports = ["http".to_owned(), "admin".to_owned()];
    let reserved = stack.reserve_ports("d", &ports).await.unwrap();
    assert_ne!(reserved[0].1, reserved[1].1);
    assert_eq!(stack.reserve_ports("d", &ports).await.unwrap(), reserved);
    assert_eq!(stack.close(s(1), None).await.removed, 1);
    runtime.shutdown().await;
    assert_eq!(runtime.violations(), Vec::<String>::new());
    assert!(runtime.open_stacks().is_empty());
}
