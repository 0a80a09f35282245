//! A run of a remote coordinator behaves like a local run: the same reports, the same exit codes, helpful messages.

use crate::rig::{Fleet, eventually};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// A cell that fails beside one that passes, and a skipped step.
const MIXED: &str = r#"
name: mixed
strategy: { fail-fast: false, matrix: { n: [1, 2] } }
cell: { name: "cell ${{ matrix.n }}", resources: { cpus: 0.05, memory: 16MiB } }
phases:
  work:
    - run: echo to everybody
      expect: ["stdout.trim() == 'to everybody'"]
    - run: "exit ${{ matrix.n == 2 ? 7 : 0 }}"
    - when: matrix.n == 3
      reason: nobody is third
      run: "true"
"#;

/// Returns the part of a report that doesn't depend on times, ids and machines.
fn essence(report: &Value) -> Value {
    let of_step = |step: &Value| {
        json!([
            step["path"],
            step["name"],
            step["action"],
            step["outcome"],
            step["reason"],
            step["tries"],
            step["verifies"],
            step["failure"]["checks"]
        ])
    };
    let of_attempt = |attempt: &Value| {
        let steps = attempt["steps"].as_array().unwrap();
        json!([
            attempt["attempt"],
            attempt["outcome"],
            steps.iter().map(of_step).collect::<Vec<_>>()
        ])
    };
    let of_cell = |cell: &Value| {
        let attempts = cell["attempts"].as_array().unwrap();
        json!([
            cell["id"],
            cell["name"],
            cell["matrix"],
            cell["outcome"],
            cell["reason"],
            attempts.iter().map(of_attempt).collect::<Vec<_>>()
        ])
    };
    let cells = report["cells"].as_array().unwrap();
    json!({
        "spec": report["spec"],
        "digest": report["digest"],
        "inputs": report["inputs"],
        "outcome": report["outcome"],
        "steps": report["steps_by_outcome"],
        "coverage": report["coverage"],
        "skips": report["skips"],
        "cells": cells.iter().map(of_cell).collect::<Vec<_>>(),
    })
}

#[test]
fn a_run_by_two_agents_reports_what_a_local_run_reports() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let _agents = [
        fleet.agent("a", &at.url(), 2),
        fleet.agent("b", &at.url(), 2),
    ];
    fleet.wait_for_state(&at, "a", "connected");
    fleet.wait_for_state(&at, "b", "connected");
    fs::write(fleet.path("mixed.yaml"), MIXED).unwrap();
    let quickstart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/quickstart.yaml");
    for (spec, code) in [(quickstart.to_str().unwrap(), 0), ("mixed.yaml", 1)] {
        let local = fleet
            .phalanx(&["run", spec, "-q", "--report", "json=local.json"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&local.stderr).into_owned();
        assert_eq!(local.status.code(), Some(code), "{said}");
        let (remote, _, stderr) =
            fleet.call(&at, &["run", spec, "-q", "--report", "json=remote.json"]);
        assert_eq!(remote, Some(code), "{stderr}");
        let read =
            |name| serde_json::from_str::<Value>(&fs::read_to_string(fleet.path(name)).unwrap());
        let (local, remote) = (read("local.json").unwrap(), read("remote.json").unwrap());
        assert_eq!(essence(&local), essence(&remote), "{spec}");
    }
}

#[test]
fn ctrl_c_cancels_a_remote_run_and_detaching_or_watching_does_not() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let _agent = fleet.agent("a", &at.url(), 8);
    fleet.wait_for_state(&at, "a", "connected");
    let detached = fleet.submit(&at, "detached", &[]);
    detached.wait_at_gate(&[1, 2, 3, 4], 1);

    // A client that watches it can end without any effect.
    let mut watching = fleet.phalanx(&["watch", &detached.id]);
    let mut watching = watching
        .env("PHALANX_COORDINATOR", at.url())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    eventually("the watcher is connected", || {
        (at.metric("phalanx_watchers") > 0.0).then_some(())
    });
    let id = nix::unistd::Pid::from_raw(i32::try_from(watching.id()).unwrap());
    nix::sys::signal::kill(id, Signal::SIGINT).unwrap();
    assert_eq!(watching.wait().unwrap().code(), Some(130));
    assert_eq!(fleet.show(&at, &detached)["outcome"], Value::Null);

    // Ctrl-C cancels an attended run, and so does closing its terminal.
    for (name, signal) in [("interrupted", Signal::SIGINT), ("hung-up", Signal::SIGHUP)] {
        let place = fleet.path(name);
        fs::create_dir(&place).unwrap();
        let input = format!("place={}", place.display());
        let mut command = fleet.phalanx(&["run", "gate.yaml", "--input", &input, "-q"]);
        command.env("PHALANX_COORDINATOR", at.url());
        let mut attended = command.stderr(std::process::Stdio::null()).spawn().unwrap();
        eventually("it waits at the gate", || {
            place.join("waits-1").exists().then_some(())
        });
        let id = nix::unistd::Pid::from_raw(i32::try_from(attended.id()).unwrap());
        nix::sys::signal::kill(id, signal).unwrap();
        assert_eq!(attended.wait().unwrap().code(), Some(130), "{name}");
    }
    detached.open_gate();
    assert_eq!(fleet.finished(&at, &detached)["outcome"], "passed");
}

#[test]
fn what_is_wrong_with_an_address_is_said() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let (code, _, stderr) = fleet.call(&at, &["--coordinator", "http://127.0.0.1:1", "runs"]);
    assert_eq!(code, Some(3));
    assert!(
        stderr.contains("refused") && stderr.contains("PHX0001"),
        "{stderr}"
    );
    // The port of the metrics speaks plain HTTP, not the protocol.
    let url = format!("http://{}", at.http);
    let (code, _, stderr) = fleet.call(
        &at,
        &[
            "--coordinator",
            &url,
            "run",
            "gate.yaml",
            "--input",
            "place=/",
        ],
    );
    assert_eq!(code, Some(3));
    assert!(stderr.contains("isn't a coordinator"), "{stderr}");
    let agent = fleet.agent("lost", &url, 1);
    agent.wait_for("is it one?");
    let (code, _, stderr) = fleet.call(&at, &["--coordinator", "https://127.0.0.1:1", "runs"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("known by"), "{stderr}");
    let open = fleet
        .phalanx(&["serve", "--listen", "0.0.0.0:0", "--insecure"])
        .env("PHALANX_SERVE__TLS__CLIENT_CA", "ca.pem")
        .output()
        .unwrap();
    assert_eq!(open.status.code(), Some(2));
    let said = String::from_utf8(open.stderr).unwrap();
    assert!(said.contains("serve.tls.client_ca"), "{said}");
    // First the same database, then also the same port.
    for listen in ["127.0.0.1:0", &at.address.to_string()] {
        let second = fleet
            .phalanx(&["serve", "--listen", listen, "--http", ""])
            .output()
            .unwrap();
        assert_eq!(second.status.code(), Some(3));
        let said = String::from_utf8(second.stderr).unwrap();
        assert!(said.contains("in use"), "{said}");
    }
}

#[test]
fn health_and_metrics_tell_what_happened() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    assert_eq!(
        at.get("/healthz"),
        ("HTTP/1.1 200 OK".to_owned(), "ok\n".to_owned())
    );
    assert!(at.get("/other").0.contains("404"));
    let waiting = fleet.submit(&at, "run", &["--priority", "-1"]);
    eventually("cells wait", || {
        let queued = at.metric("phalanx_cells{state=\"queued\"}");
        (queued > 3.5).then_some(())
    });
    let (_, why, _) = fleet.call(&at, &["why", &waiting.id, "cell 1"]);
    assert!(why.contains("agent"), "{why}");
    let _agent = fleet.agent("a", &at.url(), 3);
    waiting.wait_at_gate(&[1], 1);
    waiting.open_gate();
    assert_eq!(fleet.finished(&at, &waiting)["outcome"], "passed");
    for (name, least) in [
        ("phalanx_agents{state=\"connected\"}", 1.0),
        ("phalanx_slots{state=\"total\"}", 3.0),
        ("phalanx_cells_finished_total{outcome=\"passed\"}", 4.0),
        ("phalanx_runs_finished_total{outcome=\"passed\"}", 1.0),
        ("phalanx_queue_wait_seconds_count", 4.0),
        ("phalanx_offer_accept_seconds_count", 4.0),
        ("phalanx_journal_commit_seconds_count", 4.0),
        ("phalanx_events_total", 20.0),
        ("phalanx_journal_healthy", 1.0),
    ] {
        assert!(at.metric(name) >= least, "{name}");
    }
    let (_, plain) = at.get("/metrics");
    assert!(plain.contains("# TYPE phalanx_events_total counter\n"));
    assert!(plain.contains("phalanx_queue_wait_seconds_bucket{le=\"600\"} "));
    let (status, open) = at.get_as("/metrics", "application/openmetrics-text; version=1.0.0");
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(open.contains("# TYPE phalanx_events counter\n") && open.ends_with("# EOF\n"));
}
