//! Runs of the real program as traces, sent to a collector that speaks the real protocol.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod collector;

use collector::{Collector, text};
use opentelemetry_proto::tonic::trace::v1::Span;
use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

const SPEC: &str = r#"
name: traced
strategy: { matrix: { n: [1, 2] } }
cell: { name: "cell ${{ matrix.n }}", resources: { cpus: 0.05, memory: 16MiB } }
services:
  shop:
    process: ["${{ phalanx.demo_server }}", --port, "${{ port.http }}"]
    ports: [http]
    ready: { http: { get: "${{ services.shop.url }}/health" } }
sessions: { shop: { base: "${{ services.shop.url }}" } }
defaults: { http: { session: shop } }
phases:
  test:
    - id: header
      http: { post: /echo, json: {} }
      capture: { parent: "'traceparent' in json.headers ? json.headers.traceparent : 'none'" }
    - id: variable
      run: 'printf %s "${TRACEPARENT:-none}"'
      capture: { parent: stdout }
    - { name: "header ${{ steps.header.parent }}", expect: ["true"] }
    - { name: "variable ${{ steps.variable.parent }}", expect: ["true"] }
    - { name: left out, when: matrix.n == 1, reason: only in the first, expect: ["true"] }
    - { name: wrong, when: matrix.n == 2, expect: ["matrix.n == 1"] }
"#;

fn phalanx(place: &Path, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_phalanx"));
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", place)
        .env("PHALANX_STATE_DIR", place.join("state"))
        .envs(variables.iter().copied())
        .current_dir(place)
        .stdin(Stdio::null());
    command
}

struct Ran {
    code: Option<i32>,
    stderr: String,
    report: serde_json::Value,
}

fn run(variables: &[(&str, &str)], more: &[&str]) -> Ran {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("spec.yaml"), SPEC).unwrap();
    let mut command = phalanx(place.path(), variables);
    command.args(["run", "spec.yaml", "--report", "json=report.json"]);
    let done = command.args(more).output().unwrap();
    let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
    let report = fs::read(place.path().join("report.json"));
    let report = report.unwrap_or_else(|error| panic!("{error}: {stderr}"));
    Ran {
        code: done.status.code(),
        stderr,
        report: serde_json::from_slice(&report).unwrap(),
    }
}

/// Checks that there is one trace, with each span once and every parent present except the root's. Returns the root.
fn whole(spans: &[Span]) -> &Span {
    let traces: HashSet<&[u8]> = spans.iter().map(|span| &span.trace_id[..]).collect();
    assert_eq!(traces.len(), 1);
    let ids: HashSet<&[u8]> = spans.iter().map(|span| &span.span_id[..]).collect();
    assert_eq!(ids.len(), spans.len(), "a span came twice");
    let is_root = |span: &&Span| !ids.contains(&span.parent_span_id[..]);
    let roots: Vec<&Span> = spans.iter().filter(is_root).collect();
    assert_eq!(roots.len(), 1, "{roots:#?}");
    roots[0]
}

fn of_kind<'a>(spans: &'a [Span], kind: &str) -> Vec<&'a Span> {
    let of = |span: &&Span| text(span, "phalanx.kind").as_deref() == Some(kind);
    spans.iter().filter(of).collect()
}

fn a_run_is_one_trace(more: &[&str]) {
    let collector = Collector::start();
    let ran = run(
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint)],
        more,
    );
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let spans = collector.spans("phalanx.run");
    let root = whole(&spans);
    let run = ran.report["run"].as_str().unwrap().replace('-', "");
    assert_eq!(hex(&root.trace_id), run);
    assert_eq!(ran.report["trace"], run);
    assert_eq!(root.name, "traced");
    for (kind, many) in [
        ("run", 1),
        ("cell", 2),
        ("attempt", 2),
        ("stack", 2),
        ("service", 2),
        ("create", 2),
        ("start", 2),
        ("ready", 2),
        ("phase", 2),
        ("step", 12),
        ("clean-up", 2),
    ] {
        assert_eq!(of_kind(&spans, kind).len(), many, "{kind}");
    }
    assert_eq!(spans.len(), 31);
    // A called service receives the step's own span.
    for what in ["header", "variable"] {
        let told = of_kind(&spans, "step");
        let told = told
            .iter()
            .find(|span| span.name.starts_with(&format!("{what} 00-")));
        let parent = told.unwrap().name.rsplit('-').nth(1).unwrap().to_owned();
        let span = spans.iter().find(|span| hex(&span.span_id) == parent);
        assert_eq!(
            text(span.unwrap(), "phalanx.step.id").as_deref(),
            Some(what)
        );
    }
    let skipped = spans.iter().find(|span| {
        span.name == "left out" && text(span, "phalanx.outcome").as_deref() == Some("skipped")
    });
    let reason = text(skipped.unwrap(), "phalanx.skip.reason");
    assert_eq!(reason.as_deref(), Some("only in the first"));
    // The program's own spans are separate from the run's.
    let own = collector.spans("phalanx");
    assert!(own.iter().any(|span| span.name == "submit"), "{own:#?}");
    assert!(!ran.stderr.contains("trace is not whole"), "{}", ran.stderr);
}

#[test]
fn a_run_is_one_trace_and_its_steps_hand_their_spans_on() {
    a_run_is_one_trace(&[]);
}

#[test]
fn the_same_with_agents_as_processes() {
    a_run_is_one_trace(&["--agents-as-processes"]);
}

#[test]
fn a_run_within_a_trace_is_a_part_of_it() {
    let collector = Collector::start();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    run(
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint),
            ("TRACEPARENT", parent),
        ],
        &[],
    );
    let spans = collector.spans("phalanx.run");
    let root = whole(&spans);
    assert_eq!(hex(&root.trace_id), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(hex(&root.parent_span_id), "b7ad6b7169203331");
}

#[test]
fn without_an_endpoint_nothing_is_sent_and_nothing_is_told() {
    let collector = Collector::start();
    for off in [
        &[][..],
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str()),
            ("OTEL_SDK_DISABLED", "true"),
        ],
    ] {
        let ran = run(off, &[]);
        let names = serde_json::to_string(&ran.report["cells"]).unwrap();
        assert!(names.contains("header none") && names.contains("variable none"));
        assert_eq!(ran.report.get("trace"), None);
    }
    assert!(collector.bytes().is_empty());
}

#[test]
fn a_backend_that_is_not_there_changes_no_outcome_and_is_said_once() {
    let ran = run(
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")],
        &[],
    );
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let said = ran.stderr.matches("trace is not whole").count();
    assert_eq!(said, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("http://127.0.0.1:1"), "{}", ran.stderr);
}

#[test]
fn what_can_not_be_spoken_is_said_and_the_run_goes_on() {
    let ran = run(
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ],
        &[],
    );
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("nothing is traced"), "{}", ran.stderr);
}

/// The backend accepts connections and never answers.
#[test]
fn a_backend_that_hangs_holds_nothing_up_for_long_and_is_said_once() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let ran = run(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)], &[]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let said = ran.stderr.matches("trace is not whole").count();
    assert_eq!(said, 1, "{}", ran.stderr);
}

/// A child process that ends with the test.
struct Kept(std::process::Child);

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_coordinators_runs_and_their_reruns_are_a_trace_each() {
    let collector = Collector::start();
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("spec.yaml"), SPEC).unwrap();
    let endpoint = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str())];
    let mut serve = phalanx(place.path(), &endpoint)
        .args(["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(serve.stderr.take().unwrap()).lines();
    let _serve = Kept(serve);
    let address = said.by_ref().find_map(|line| {
        let line = line.unwrap();
        let (_, rest) = line.split_once("coordinator at ")?;
        let address = rest.split_whitespace().next()?;
        Some(address.trim_end_matches(':').to_owned())
    });
    let address = address.unwrap();
    // Read everything, because a full pipe would block the coordinator.
    std::thread::spawn(move || said.for_each(drop));
    let agent = phalanx(place.path(), &endpoint)
        .args(["agent", "--coordinator", &address, "--slots", "2"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _agent = Kept(agent);
    let call = |arguments: &[&str]| {
        let mut command = phalanx(place.path(), &[("PHALANX_COORDINATOR", &address)]);
        let done = command.args(arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(1), "{stderr}");
        stderr
    };
    call(&["run", "spec.yaml", "--report", "json=first.json"]);
    call(&["rerun", "last", "--failed", "--report", "json=again.json"]);
    for (report, steps) in [("first.json", 12), ("again.json", 6)] {
        let report = fs::read(place.path().join(report)).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
        let run = report["run"].as_str().unwrap().replace('-', "");
        // A run's last spans leave the coordinator after its client has seen the end. This only guards against hanging.
        let spans = (0..600).find_map(|_| {
            let mut spans = collector.spans("phalanx.run");
            spans.retain(|span| hex(&span.trace_id) == run);
            if of_kind(&spans, "run").is_empty() {
                std::thread::sleep(std::time::Duration::from_millis(50));
                return None;
            }
            Some(spans)
        });
        let spans = spans.unwrap();
        whole(&spans);
        assert_eq!(of_kind(&spans, "step").len(), steps);
    }
}

const GATED: &str = r#"
name: gated
inputs: { place: {} }
phases:
  work:
    - { name: counts, run: "echo run >> ${{ inputs.place }}/begun" }
    - { name: waits for the gate, run: "while [ ! -e ${{ inputs.place }}/gate ]; do sleep 0.05; done" }
"#;

#[test]
fn a_run_that_was_killed_and_goes_on_is_one_trace() {
    let collector = Collector::start();
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("gated.yaml"), GATED).unwrap();
    let endpoint = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str())];
    let input = format!("place={}", place.path().display());
    let mut child = phalanx(place.path(), &endpoint)
        .args(["run", "gated.yaml", "--input", &input])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // This only guards against hanging; the test continues as soon as the step has begun.
    for _ in 0..6_000 {
        if place.path().join("begun").exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    fs::write(place.path().join("gate"), "").unwrap();
    let resumed = phalanx(place.path(), &endpoint)
        .args(["run", "--resume"])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&resumed.stderr).into_owned();
    assert_eq!(resumed.status.code(), Some(0), "{stderr}");
    let mut spans = collector.spans("phalanx.run");
    // The spans from before the kill are sent again unchanged.
    spans.sort_by(|a, b| a.span_id.cmp(&b.span_id));
    spans.dedup();
    whole(&spans);
    let attempts = of_kind(&spans, "attempt");
    let outcomes: HashSet<_> = attempts
        .iter()
        .map(|s| text(s, "phalanx.outcome"))
        .collect();
    let expected = ["errored", "passed"].map(|word| Some(word.to_owned()));
    assert_eq!(outcomes, HashSet::from(expected), "{stderr}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
