//! Runs of the real program as traces, sent to a collector that speaks the real protocol.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod collector;

use collector::{Collector, Way, text};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use std::collections::{HashMap, HashSet};
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
    assert_eq!(root.name, "RUN traced");
    assert_eq!(root.kind, SpanKind::Server as i32);
    for (kind, many) in [
        ("run", 1),
        ("cell", 2),
        ("queue", 2),
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
    assert_eq!(spans.len(), 33);
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

/// Sends a run's spans over a transport with a header, and checks that they arrive as over any other.
fn over(way: Way, protocol: &str) {
    let collector = Collector::spoken_to(way);
    let place = tempfile::tempdir().unwrap();
    let certificate = place.path().join("ca.pem");
    fs::write(&certificate, &collector.certificate).unwrap();
    let certificate = certificate.display().to_string();
    let mut variables = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=tests"),
    ];
    if collector.endpoint.starts_with("https") {
        variables.push(("OTEL_EXPORTER_OTLP_CERTIFICATE", &certificate));
    }
    let ran = run(&variables, &[]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(!ran.stderr.contains("trace is not whole"), "{}", ran.stderr);
    let spans = collector.spans("phalanx.run");
    whole(&spans);
    assert_eq!(spans.len(), 33);
    let tenants = collector.tenants();
    assert!(!tenants.is_empty() && tenants.iter().all(|tenant| tenant == "tests"));
}

#[test]
fn spans_go_over_http_with_a_header() {
    over(Way::Http, "http/protobuf");
}

#[test]
fn spans_go_over_https_to_a_server_of_the_given_certificate() {
    over(Way::HttpTls, "http/protobuf");
}

#[test]
fn spans_go_over_encrypted_grpc_to_a_server_of_the_given_certificate() {
    over(Way::GrpcTls, "grpc");
}

#[test]
fn a_server_whose_certificate_is_not_trusted_gets_nothing() {
    let collector = Collector::spoken_to(Way::HttpTls);
    let ran = run(
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ],
        &[],
    );
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let said = ran.stderr.matches("trace is not whole").count();
    assert_eq!(said, 1, "{}", ran.stderr);
    assert!(collector.bytes().is_empty());
}

#[test]
fn what_can_not_be_spoken_is_said_and_the_run_goes_on() {
    let ran = run(
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
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
        .args([
            "agent",
            "--coordinator",
            &address,
            "--slots",
            "2",
            "--allow",
            "run",
        ])
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
    let mut first: Option<String> = None;
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
        let root = whole(&spans);
        assert_eq!(of_kind(&spans, "step").len(), steps);
        // The rerun links to the run that it runs again, and its cell to that one's.
        let linked = |span: &Span| span.links.iter().map(|link| hex(&link.trace_id)).collect();
        let links: [Vec<String>; 2] = [linked(root), linked(of_kind(&spans, "cell")[0])];
        let of_first: Vec<String> = first.iter().cloned().collect();
        assert_eq!(links, [of_first.clone(), of_first]);
        first.get_or_insert(run);
    }
    let services = collector.services();
    assert!(services.contains(&"phalanx".to_owned()), "{services:?}");
}

/// A spec whose 40 cells have more spans than one trace takes.
fn large() -> String {
    let cells: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    let items: Vec<String> = (0..150).map(|n| n.to_string()).collect();
    format!(
        r#"
name: large
strategy: {{ matrix: {{ n: [{}] }} }}
cell: {{ name: "cell ${{{{ matrix.n }}}}", resources: {{ cpus: 0.05, memory: 16MiB }} }}
phases:
  work:
    - {{ id: told, run: 'printf %s "$TRACEPARENT"', capture: {{ parent: stdout }} }}
    - {{ name: "told ${{{{ steps.told.parent }}}}", expect: ["true"] }}
    - {{ foreach: {{ x: [{}] }}, expect: ["true"] }}
"#,
        cells.join(", "),
        items.join(", ")
    )
}

#[test]
fn a_run_of_6000_spans_is_a_trace_down_to_its_attempts_and_a_linked_trace_for_each_cell() {
    let collector = Collector::start();
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("large.yaml"), large()).unwrap();
    let endpoint = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str())];
    let done = phalanx(place.path(), &endpoint)
        .args(["run", "large.yaml", "--report", "json=report.json"])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(0), "{stderr}");
    assert!(!stderr.contains("trace is not whole"), "{stderr}");
    let report = fs::read(place.path().join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    let mut traces: HashMap<String, Vec<Span>> = HashMap::new();
    for span in collector.spans("phalanx.run") {
        traces.entry(hex(&span.trace_id)).or_default().push(span);
    }
    let all: usize = traces.values().map(Vec::len).sum();
    assert!(all > 6_000, "{all}");
    let run = traces.remove(report["trace"].as_str().unwrap()).unwrap();
    whole(&run);
    assert_eq!(run.len(), 1 + 40 * 3);
    assert_eq!(traces.len(), 40);
    for cell in of_kind(&run, "cell") {
        let link = &cell.links[0];
        let detail = &traces[&hex(&link.trace_id)];
        let root = whole(detail);
        assert_eq!((&root.span_id, &root.name), (&link.span_id, &cell.name));
        assert!(root.parent_span_id.is_empty());
        assert_eq!(of_kind(detail, "step").len(), 152);
        // What the agent passes on is in the cell's trace.
        let told = detail.iter().find(|span| span.name.starts_with("told 00-"));
        let (trace, span) = (hex(&link.trace_id), told.unwrap().name.clone());
        let parent = span.split('-').nth(2).unwrap();
        assert!(span.contains(&trace));
        assert!(detail.iter().any(|span| hex(&span.span_id) == parent));
    }
    // Tempo refuses traces above 5 MB.
    let sizes = traces.values().chain([&run]);
    let size = |spans: &Vec<Span>| spans.iter().map(Message::encoded_len).sum::<usize>();
    let (largest, total) = (
        sizes.clone().map(size).max(),
        sizes.map(size).sum::<usize>(),
    );
    assert!(largest.unwrap() < 1_000_000, "{largest:?}");
    assert!(total / all < 1_000, "{} bytes a span", total / all);
}

#[test]
fn the_cells_of_a_finished_run_name_their_findings_and_the_slack_that_they_had() {
    let collector = Collector::start();
    let endpoint = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str())];
    run(&endpoint, &[]);
    let spans = collector.spans("phalanx.run");
    let has = |span: &Span, key: &str| span.attributes.iter().any(|of| of.key == key);
    let cells = of_kind(&spans, "cell");
    let red: Vec<bool> = cells
        .iter()
        .map(|cell| has(cell, "phalanx.finding"))
        .collect();
    assert_eq!(red.iter().filter(|red| **red).count(), 1, "{red:?}");
    assert!(cells.iter().all(|cell| has(cell, "phalanx.slack_us")));
    assert!(cells.iter().all(|cell| has(cell, "phalanx.critical_path")));
    let value = |span: &Span, key: &str| {
        let mut named = span.attributes.iter().filter(|of| of.key == key);
        format!("{:?}", named.next().map(|of| &of.value))
    };
    let found = value(of_kind(&spans, "run")[0], "phalanx.finding");
    // The failed step knew it before the run was over.
    let steps = of_kind(&spans, "step");
    let of_steps = steps.iter().filter(|step| has(step, "phalanx.finding"));
    let of_steps: Vec<String> = of_steps.map(|of| value(of, "phalanx.finding")).collect();
    assert_eq!(of_steps, [found]);
    assert!(
        collector
            .metrics()
            .iter()
            .any(|metric| metric.name == "phalanx.step.duration")
    );
    assert!(
        collector
            .metrics()
            .iter()
            .any(|metric| metric.name == "cicd.pipeline.run.duration")
    );
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
