//! Waits that can't succeed are reported, and end.

use crate::place::Place;
use crate::rig::Fleet;
use crate::{Need, Test};
use serde_json::Value;
use std::time::{Duration, Instant};

pub fn tests() -> Vec<Test> {
    vec![
        (
            Need::Nothing,
            "a service that waits for one which no step starts is refused by validate",
            a_service_that_waits_for_one_that_no_step_starts_is_refused,
        ),
        (
            Need::Nothing,
            "a step that waits for what was never started fails at once with the reason",
            a_step_that_waits_for_what_was_never_started_fails_at_once,
        ),
        (
            Need::Nothing,
            "a step may start what another one beside it waits for",
            a_step_may_start_what_another_one_beside_it_waits_for,
        ),
        (
            Need::Nothing,
            "a label that no local agent offers is refused at once",
            a_label_that_no_local_agent_offers_is_refused_at_once,
        ),
        (
            Need::Nothing,
            "cells that no agent takes say why and end with queue-timeout",
            cells_that_no_agent_takes_say_why_and_end,
        ),
        (
            Need::Nothing,
            "an unhealthy service is told at once and waited for by its own health check",
            an_unhealthy_service_is_told_at_once,
        ),
        (
            Need::Engine,
            "an unhealthy container is told at once and waited for by its own health check",
            an_unhealthy_container_is_told_at_once,
        ),
        (
            Need::Engine,
            "a stack whose service turns unhealthy ends with its last probe in time",
            an_unhealthy_stack_ends,
        ),
        (
            Need::Nothing,
            "a service that is never ready says what it answered last",
            a_service_that_is_never_ready_says_what_it_answered_last,
        ),
        (
            Need::Nothing,
            "a failed dependency shows the log of the service at the root",
            a_failed_dependency_shows_the_log_of_the_service_at_the_root,
        ),
        (
            Need::Nothing,
            "the root is shown through a chain of dependencies and for one that a step starts",
            the_root_is_shown_through_a_chain,
        ),
        (
            Need::Nothing,
            "a service whose program is missing says so",
            a_service_whose_program_is_missing_says_so,
        ),
    ]
}

fn report(place: &Place, name: &str) -> Value {
    serde_json::from_str(&place.read(name)).unwrap()
}

/// Returns every step of the newest attempts that isn't ok.
fn bad_steps(report: &Value) -> Vec<Value> {
    let cells = report["cells"].as_array().unwrap().iter();
    let steps = cells
        .filter_map(|cell| cell["attempts"].as_array()?.last())
        .filter_map(|attempt| attempt["steps"].as_array())
        .flatten();
    let bad = |step: &&Value| matches!(step["outcome"].as_str(), Some("failed" | "errored"));
    steps.filter(bad).cloned().collect()
}

fn logs_of(report: &Value, service: &str) -> String {
    let steps = bad_steps(report);
    let tails = steps
        .iter()
        .filter_map(|step| step["failure"]["logs"].as_array())
        .flatten();
    let lines = tails
        .filter(|tail| tail["service"] == service)
        .filter_map(|tail| tail["lines"].as_array())
        .flatten();
    let lines: Vec<&str> = lines.filter_map(Value::as_str).collect();
    lines.join("\n")
}

fn a_service_that_waits_for_one_that_no_step_starts_is_refused() {
    let place = Place::of_field("ux");
    place.write("img/Dockerfile", "FROM scratch\n");
    let said = place.call(&["validate", "manual-dep-deadlock.yaml"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    let text = said.stdout + &said.stderr;
    let found = "service `web` waits for `init`, which is `start: manual`, and no step starts it";
    assert!(text.contains(found), "{text}");
    // A base that others extend and that no step waits for is allowed, and so is one that a step starts.
    let started = place.read("manual-dep-deadlock.yaml").replace(
        "  seeded:\n",
        "  seeded:\n    - container: { start: init }\n",
    );
    place.write("started.yaml", started);
    let said = place.call(&["validate", "started.yaml"]);
    assert_eq!(said.code, Some(0), "{said:?}");
}

fn a_step_that_waits_for_what_was_never_started_fails_at_once() {
    let place = Place::new();
    place.write(
        "spec.yaml",
        r#"
name: skipped-start
services:
  job: { process: ["true"], start: manual }
  between: { process: [sleep, "600"], depends_on: { job: { condition: service_completed_successfully } } }
  web: { process: [sleep, "600"], depends_on: [between] }
phases:
  t:
    - { when: "1 == 2", reason: not today, container: { start: job } }
    - { name: waits, exec: { service: web, command: ["true"] }, timeout: 1h }
"#,
    );
    let began = Instant::now();
    let said = place.call(&["run", "spec.yaml"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let why = "service web can't start: job is `start: manual` and no step has started it";
    assert!(said.stderr.contains(why), "{}", said.stderr);
    assert!(began.elapsed() < Duration::from_secs(60));
}

fn a_step_may_start_what_another_one_beside_it_waits_for() {
    let place = Place::new();
    place.write(
        "spec.yaml",
        r#"
name: beside
services:
  job: { process: ["true"], start: manual }
  web: { process: [sleep, "600"], depends_on: { job: { condition: service_completed_successfully } } }
phases:
  t:
    - parallel:
        - { exec: { service: web, command: ["true"] } }
        - steps: [ { run: "sleep 0.3" }, { container: { start: job } } ]
"#,
    );
    let said = place.call(&["run", "spec.yaml"]);
    assert_eq!(said.code, Some(0), "{said:?}");
}

fn a_label_that_no_local_agent_offers_is_refused_at_once() {
    let place = Place::of_field("ux");
    let said = place.call(&["run", "no-such-label.yaml"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    for part in ["label gpu", "12 cells", "local agents offer", "linux"] {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
}

fn cells_that_no_agent_takes_say_why_and_end() {
    let fleet = Fleet::new();
    let place = Place::new();
    let coordinator = fleet.serve();
    let address = format!("http://{}", coordinator.address);
    let _agent = fleet.agent("small", &address, 2);
    let label = "${{ matrix.a == 2 ? 'gpu' : 'linux' }}";
    place.write(
        "spec.yaml",
        format!(
            "name: queued\ncell: {{ runs-on: [\"{label}\"] }}\nstrategy: {{ queue-timeout: 4s, matrix: {{ a: [1, 2] }} }}\n\
             phases: {{ t: [ {{ run: \"true\" }} ] }}\n"
        ),
    );
    let mut asked = place.phalanx(&["run", "spec.yaml", "--report", "json=o.json"]);
    asked.env("PHALANX_COORDINATOR", &address);
    let said = crate::place::ended(&mut asked);
    assert_eq!(said.code, Some(3), "{said:?}");
    let waits = "waits: no agent offers label gpu";
    assert!(said.stderr.contains(waits), "{}", said.stderr);
    let report = report(&place, "o.json");
    let by_outcome = |outcome: &str| {
        let cells = report["cells"].as_array().unwrap().iter();
        cells
            .filter(|cell| cell["outcome"] == outcome)
            .collect::<Vec<_>>()
    };
    assert_eq!(by_outcome("passed").len(), 1, "{report}");
    let reason = by_outcome("errored")[0]["reason"].as_str().unwrap();
    let expected = "not started within 4s (queue-timeout): no agent offers label gpu";
    assert_eq!(reason, expected);
}

fn an_unhealthy_service_is_told_at_once() {
    let place = Place::new();
    place.write(
        "spec.yaml",
        r#"
name: unhealthy
services:
  web:
    process: [sh, -c, "echo web has begun; exec sleep 600"]
    healthcheck: { test: [CMD, sh, -c, "echo the seed is missing; exit 7"], interval: 200ms, timeout: 2s, retries: 2 }
  probe: { process: [sleep, "600"], depends_on: { web: { condition: service_healthy } } }
phases:
  t: [ { exec: { service: probe, command: ["true"] }, timeout: 1h } ]
"#,
    );
    is_told_at_once(&place.call(&["run", "spec.yaml", "--report", "json=o.json"]));
    assert!(logs_of(&report(&place, "o.json"), "web").contains("web has begun"));
}

fn is_told_at_once(said: &crate::place::Said) {
    assert_eq!(said.code, Some(1), "{said:?}");
    let unhealthy = "service web: unhealthy: its last probe: exit code 7: the seed is missing";
    let late = "not within 30s: it is unhealthy: its last probe: exit code 7: the seed is missing";
    let at = |part: &str| {
        let at = said.stderr.find(part);
        at.unwrap_or_else(|| panic!("{part}: {}", said.stderr))
    };
    assert!(at(unhealthy) < at(late));
}

fn an_unhealthy_container_is_told_at_once() {
    let lab = crate::engine_lab::Lab::new();
    let place = Place::new();
    place.write(
        "spec.yaml",
        r#"
name: unhealthy
services:
  web:
    image: bb:1
    command: [sh, -c, "echo web has begun; trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"]
    healthcheck: { test: [CMD, sh, -c, "echo the seed is missing; exit 7"], interval: 300ms, timeout: 2s, retries: 2 }
  probe:
    image: bb:1
    command: [sh, -c, "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"]
    depends_on: { web: { condition: service_healthy } }
phases:
  t: [ { exec: { service: probe, command: ["true"] }, timeout: 1h } ]
"#,
    );
    place.replace("spec.yaml", "bb:1", &lab.image);
    is_told_at_once(&place.call(&["run", "spec.yaml", "--report", "json=o.json"]));
    assert!(logs_of(&report(&place, "o.json"), "web").contains("web has begun"));
}

fn a_service_that_is_never_ready_says_what_it_answered_last() {
    let place = Place::of_field("ux");
    let said = place.call(&["run", "m58-never-ready.yaml"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let reason = "service web isn't ready: not within 3s: ";
    let line = said.stderr.lines().find(|line| line.contains(reason));
    let line = line.unwrap_or_else(|| panic!("{}", said.stderr));
    assert!(line.contains("404"), "{line}");
}

fn a_failed_dependency_shows_the_log_of_the_service_at_the_root() {
    let place = Place::of_field("failed-dependency-says-why");
    let arguments = [
        "run",
        "spec.yaml",
        "--report",
        "json=o.json",
        "--report",
        "junit=o.xml",
    ];
    let said = place.call(&arguments);
    assert_eq!(said.code, Some(1), "{said:?}");
    let cause = "relation users already exists";
    assert!(said.stderr.contains(cause), "{}", said.stderr);
    assert!(
        said.stderr.contains("exited with code 3"),
        "{}",
        said.stderr
    );
    assert!(logs_of(&report(&place, "o.json"), "migrate").contains(cause));
    let junit = place.read("o.xml");
    let out = junit.split_once("<system-out>").unwrap().1;
    assert!(out.contains(cause), "{junit}");
}

fn the_root_is_shown_through_a_chain() {
    let place = Place::new();
    place.write(
        "spec.yaml",
        r#"
name: chain
services:
  db: { process: [sh, -c, "echo disk is read-only; exit 4"], healthcheck: { test: [CMD, "false"], interval: 10s } }
  api: { process: [sleep, "600"], depends_on: { db: { condition: service_healthy } } }
  web: { process: [sleep, "600"], depends_on: { api: { condition: service_healthy } } }
  late: { process: [sleep, "600"], depends_on: { api: { condition: service_started } }, start: manual }
phases:
  t: [ { exec: { service: web, command: ["true"] } } ]
  u: { always: true, steps: [ { container: { start: late } } ] }
"#,
    );
    let said = place.call(&["run", "spec.yaml", "--report", "json=o.json"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let report = report(&place, "o.json");
    let steps = bad_steps(&report);
    let of_action = |action: &str| {
        let step = steps.iter().find(|step| step["action"] == action);
        step.unwrap_or_else(|| panic!("{action}: {report:#}"))
    };
    for action in ["exec", "container"] {
        let failure = of_action(action)["failure"].to_string();
        assert!(failure.contains("disk is read-only"), "{action}: {failure}");
        assert!(failure.contains("exit code 4"), "{action}: {failure}");
    }
}

fn a_service_whose_program_is_missing_says_so() {
    let place = Place::new();
    place.write(
        "spec.yaml",
        r#"
name: missing
services:
  web: { process: [no-such-program, --flag] }
  app: { process: [sleep, "600"], depends_on: [web] }
phases:
  t: [ { exec: { service: app, command: ["true"] } } ]
"#,
    );
    let said = place.call(&["run", "spec.yaml"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.stderr
            .contains("there is no program `no-such-program`"),
        "{}",
        said.stderr
    );
}

fn an_unhealthy_stack_ends() {
    let lab = crate::engine_lab::Lab::new();
    let place = Place::of_field("ux");
    place.write(
        "img/Dockerfile",
        format!("FROM {}\nCMD [\"sleep\", \"600\"]\n", lab.image),
    );
    let began = Instant::now();
    let cell = ["--only", "role=blue", "--only", "proto=1"];
    let said = place.call(&[&["run", "unhealthy.yaml"][..], &cell].concat());
    assert_eq!(said.code, Some(1), "{said:?}");
    for part in [
        "web: unhealthy: its last probe",
        "not within 30s: it is unhealthy",
    ] {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
    assert!(began.elapsed() < Duration::from_secs(90));
}
