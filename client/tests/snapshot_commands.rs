//! `phalanx snapshots` with a real engine, on one machine and in a fleet: what is listed, that no secret is in it, that it
//! can be removed, and that cells go where their snapshot is.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::disallowed_methods
)]

mod engine_lab;
#[allow(dead_code)] // Each test program uses a part.
#[path = "fleet/rig.rs"]
mod rig;

use engine_lab::{IDLE, Lab, docker, eventually};
use rig::{Coordinator, Fleet};
use serde_json::Value;
use std::fs;
use std::process::ExitCode;

/// Given with `--secret-file`, and in the name of the group.
const GIVEN: &str = "canary-given-7f3a9c1d";
/// Captured as a secret in the group.
const CAPTURED: &str = "canary-captured-5b1d0e77";

fn main() -> ExitCode {
    engine_lab::main(&[
        (
            "the snapshots of this machine are listed without a secret, and removed with their images",
            on_this_machine,
        ),
        (
            "a coordinator lists the snapshots of its agents, sends cells to them, and lets them be removed",
            in_a_fleet,
        ),
    ])
}

fn spec(image: &str) -> String {
    format!(
        r#"name: kept
secrets: [given]
strategy: {{ matrix: {{ n: [1, 2] }} }}
cell: {{ name: "cell ${{{{ matrix.n }}}}", resources: {{ cpus: 0.05, memory: 16MiB }} }}
services:
  db: {{ image: "{image}", command: {IDLE} }}
phases:
  setup:
    - name: "filled with ${{{{ secrets.given }}}}"
      snapshot: {{ services: [db] }}
      steps:
        - {{ exec: {{ service: db, script: "sleep 1; echo row > /data/row" }} }}
        - {{ id: token, exec: {{ service: db, script: "printf %s canary-captured-; echo 5b1d0e77" }}, capture: {{ value: {{ secret: stdout.trim() }} }} }}
  test:
    - {{ exec: {{ service: db, script: "cat /data/row" }}, expect: ["stdout.trim() == 'row'", "steps.token.value.size() > 9"] }}
"#
    )
}

/// Checks that a text holds neither secret.
fn clean(what: &str, text: &str) {
    for secret in [GIVEN, CAPTURED] {
        assert!(!text.contains(secret), "{what}: {text}");
    }
}

fn snapshots(text: &str) -> Vec<Value> {
    let listed: Value = serde_json::from_str(text).unwrap();
    listed["snapshots"].as_array().unwrap().clone()
}

/// Returns the images of a store.
fn images(store: &str) -> String {
    let label = format!("label=phalanx.snapshot.store={store}");
    docker(&["images", "-aq", "--filter", &label])
}

fn on_this_machine() {
    let lab = Lab::new();
    lab.write("spec.yaml", &spec(&lab.image));
    let secret = lab.write("given", GIVEN);
    let given = format!("given={}", secret.display());
    let (code, stdout, stderr) = lab.call(&["snapshots", "--format", "json"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(snapshots(&stdout), Vec::<Value>::new());
    assert!(!lab.path().join("state/snapshots").exists());
    let run = ["run", "spec.yaml", "--secret-file", &given];
    let one = [&run[..], &["--only", "n=1"]].concat();
    let (code, _, stderr) = lab.call(&one);
    assert_eq!(code, Some(0), "{stderr}");

    let (code, json, stderr) = lab.call(&["snapshots", "--format", "json"]);
    assert_eq!(code, Some(0), "{stderr}");
    let listed = snapshots(&json);
    let [held] = listed.as_slice() else {
        panic!("{json}");
    };
    assert_eq!(held["spec"], "kept");
    assert_eq!(held["group"], "filled with ***");
    assert_eq!(held["cell"]["name"], "cell 1");
    assert!(held["bytes"].as_u64().unwrap() > 0, "{json}");
    assert!(held["setup_us"].as_u64().unwrap() >= 1_000_000, "{json}");
    assert_eq!(held["family"].as_str().unwrap().len(), 64);
    assert_eq!(held["agents"], Value::Array(Vec::new()));
    let (_, runs, _) = lab.call(&["runs", "--format", "json"]);
    let runs: Value = serde_json::from_str(&runs).unwrap();
    assert_eq!(held["run"], runs["runs"][0]["run"]);
    let key = held["key"].as_str().unwrap().to_owned();
    let (_, table, note) = lab.call(&["snapshots"]);
    assert!(
        table.contains(&key[..12]) && table.contains("cell 1"),
        "{table}"
    );
    assert!(
        !table.contains("AGENTS") && note.contains("1 snapshot"),
        "{note}"
    );
    for (what, text) in [("json", &json), ("table", &table), ("note", &note)] {
        clean(what, text);
    }
    let manifest = lab
        .path()
        .join(format!("state/snapshots/kept/{key}/manifest.json"));
    clean(
        "manifest",
        &fs::read_to_string(manifest).unwrap_or_default(),
    );

    // The other cell is of the same family, and restores it.
    let other = [&run[..], &["--only", "n=2", "--report", "json=report.json"]].concat();
    let (code, _, stderr) = lab.call(&other);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("restored from snapshot"), "{stderr}");
    let (_, again, _) = lab.call(&["snapshots", "--format", "json"]);
    let again = snapshots(&again);
    assert_eq!((again.len(), &again[0]["key"]), (1, &held["key"]));
    assert!(again[0]["used"].as_str() > held["used"].as_str());

    let store = fs::read_to_string(lab.path().join("state/snapshots/id")).unwrap();
    assert!(!images(store.trim()).is_empty());
    let (code, _, stderr) = lab.call(&["snapshots", "rm", "0000", "--all"]);
    assert_eq!(code, Some(2), "{stderr}");
    let (code, _, stderr) = lab.call(&["snapshots", "rm"]);
    assert_eq!(code, Some(2), "{stderr}");
    let (code, _, stderr) = lab.call(&["snapshots", "rm", "--spec", "kpet"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("did you mean `kept`?"), "{stderr}");
    let (code, stdout, stderr) = lab.call(&["snapshots", "rm", &key[..6], "-n"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        stdout.contains(&key[..12]) && stderr.contains("would go"),
        "{stdout}{stderr}"
    );
    clean("dry run", &stdout);
    assert!(!images(store.trim()).is_empty(), "it was only asked");
    let (code, stdout, stderr) = lab.call(&["snapshots", "rm", &key[..6]]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        stdout.contains(&key[..12]) && stderr.contains("1 snapshot removed"),
        "{stderr}"
    );
    assert_eq!(images(store.trim()), "");
    let (_, stdout, _) = lab.call(&["snapshots", "--format", "json"]);
    assert_eq!(snapshots(&stdout), Vec::<Value>::new());
}

/// Returns the states of the snapshots of a run's cells, with their agents.
fn became(shown: &Value) -> Vec<(String, Vec<String>)> {
    let cells = shown["cells"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let newest = cells.map(|cell| cell["attempts"].as_array().unwrap().last().unwrap());
    newest
        .map(|attempt| {
            let snapshots = attempt["snapshots"].as_array().cloned().unwrap_or_default();
            let states = snapshots.iter().map(|seen| text(&seen["state"])).collect();
            (text(&attempt["agent"]), states)
        })
        .collect()
}

fn in_a_fleet() {
    let lab = Lab::new();
    let fleet = Fleet::new();
    fs::write(fleet.path("spec.yaml"), spec(&lab.image)).unwrap();
    fs::write(fleet.path("given"), GIVEN).unwrap();
    let given = format!("given={}", fleet.path("given").display());
    let at = fleet.serve();
    let agent = |name: &str| {
        let place = fleet.path(&format!("snapshots-{name}"));
        let policy = ["--allow", "all", "--snapshot-dir", place.to_str().unwrap()];
        let agent = fleet.agent_allowing(&policy, &[], name, &at.url(), 4);
        fleet.wait_for_state(&at, name, "connected");
        agent
    };
    let run = |more: &[&str]| {
        let arguments = [&["run", "spec.yaml", "--secret-file", &given], more].concat();
        let (code, _, stderr) = fleet.call(&at, &arguments);
        assert_eq!(code, Some(0), "{stderr}");
        became(&fleet.json(&at, &["show", "--format", "json"]))
    };
    let listed = |at: &Coordinator| {
        let (code, text, stderr) = fleet.call(at, &["snapshots", "--format", "json"]);
        assert_eq!(code, Some(0), "{stderr}");
        clean("listing", &text);
        snapshots(&text)
    };
    let first = agent("first");
    assert_eq!(run(&["--only", "n=1"])[0].1, ["missed", "saved"]);
    let held = eventually("the snapshot is reported", || listed(&at).pop());
    assert_eq!(held["agents"], serde_json::json!(["first"]));
    assert_eq!(held["group"], "filled with ***");

    // Both cells fit on either agent, and less loaded is better: but only one has the snapshot.
    let _second = agent("second");
    for (agent, states) in run(&[]) {
        assert_eq!(
            (agent.as_str(), states),
            ("first", vec!["restored".to_owned()])
        );
    }
    let agents = fleet.json(&at, &["agents", "--format", "json"]);
    let kept: u64 = agents["agents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|agent| agent["snapshots"].as_u64().unwrap())
        .sum();
    assert_eq!(kept, 1, "{agents}");

    // A restarted coordinator learns it from the agents.
    let address = at.killed();
    let at = fleet.serve_at(&address);
    fleet.wait_for_state(&at, "first", "connected");
    assert_eq!(listed(&at).len(), 1);

    let key = held["key"].as_str().unwrap();
    let (code, table, _) = fleet.call(&at, &["snapshots"]);
    assert_eq!(code, Some(0));
    assert!(
        table.contains("AGENTS") && table.contains("first"),
        "{table}"
    );
    let (code, stdout, stderr) = fleet.call(&at, &["snapshots", "rm", &key[..8]]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("on first"), "{stdout}");
    assert_eq!(listed(&at), Vec::<Value>::new());
    let kept = fs::read_dir(fleet.path("snapshots-first/kept")).unwrap();
    assert_eq!(kept.count(), 0);
    let store = fs::read_to_string(fleet.path("snapshots-first/id")).unwrap();
    assert_eq!(images(store.trim()), "");
    let (code, _, stderr) = fleet.call(&at, &["snapshots", "rm", &key[..8]]);
    assert_eq!(code, Some(2), "{stderr}");
    drop(first);
}
