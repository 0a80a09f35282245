//! Client commands against `phalanx serve`: submit without waiting, watch, follow logs, rerun, remove.

use crate::rig::{Fleet, Run, eventually};
use serde_json::Value;
use std::fs::{self, File};
use std::process::{Child, Command};

/// Two cells; the second fails until it is mended. Each service prints a line before the gate and one after it.
const TALKING: &str = r#"
name: talking
inputs: { place: {} }
strategy: { fail-fast: false, matrix: { n: [1, 2] } }
cell: { name: "cell ${{ matrix.n }}", resources: { cpus: 0.05, memory: 16MiB } }
services:
  talker:
    process:
      - sh
      - -c
      - |
        echo "cell ${{ matrix.n }} waits"
        while [ ! -e ${{ inputs.place }}/gate ]; do sleep 0.1; done
        echo "cell ${{ matrix.n }} goes on"; : > ${{ inputs.place }}/said-${{ matrix.n }}; exec sleep 3600
phases:
  work:
    - wait: { service: talker, until: ready }
    - run: |
        echo $$ >> ${{ inputs.place }}/waits-${{ matrix.n }}
        while [ ! -e ${{ inputs.place }}/said-${{ matrix.n }} ]; do sleep 0.1; done
    - name: fails until it is mended
      run: test ${{ matrix.n }} != 2 || test -e ${{ inputs.place }}/mended
"#;

/// A command that runs beside the test, with its output in a file.
struct Beside {
    child: Child,
    output: std::path::PathBuf,
}

impl Beside {
    fn start(fleet: &Fleet, url: &str, name: &str, arguments: &[&str]) -> Beside {
        let output = fleet.path(name);
        let file = File::create(&output).unwrap();
        let mut command: Command = fleet.phalanx(arguments);
        let command = command.env("PHALANX_COORDINATOR", url);
        let both = (file.try_clone().unwrap(), file);
        let child = command.stdout(both.0).stderr(both.1).spawn().unwrap();
        Beside { child, output }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.output).unwrap()
    }

    fn end(&mut self) -> Option<i32> {
        let ended = eventually("it ends by itself", || self.child.try_wait().unwrap());
        ended.code()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn names(shown: &Value) -> Vec<&str> {
    let cells = shown["cells"].as_array().unwrap().iter();
    cells.map(|cell| cell["name"].as_str().unwrap()).collect()
}

#[test]
fn a_detached_run_is_watched_its_logs_followed_and_it_is_run_again_and_removed() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let _agent = fleet.agent("a", &at.url(), 4);
    fleet.wait_for_state(&at, "a", "connected");
    fs::write(fleet.path("gate.yaml"), TALKING).unwrap();
    let run = fleet.submit(&at, "run", &[]);
    run.wait_at_gate(&[1, 2], 1);

    let url = at.url();
    let mut watching = Beside::start(&fleet, &url, "watching", &["watch", &run.id]);
    let arguments = ["logs", &run.id, "cell 1", "talker", "--follow"];
    let mut following = Beside::start(&fleet, &url, "following", &arguments);
    eventually("the log is followed", || {
        following.said().contains("cell 1 waits\n").then_some(())
    });
    assert!(!following.said().contains("goes on"));
    run.open_gate();
    assert_eq!(watching.end(), Some(1), "{}", watching.said());
    assert!(watching.said().contains("fails until it is mended"));
    assert_eq!(following.end(), Some(0), "{}", following.said());
    let whole: Vec<String> = following.said().lines().map(str::to_owned).collect();
    assert!(
        whole.len() == 2 && whole[1].ends_with("cell 1 goes on"),
        "{whole:?}"
    );

    // Run the failed cell again, mended; then run the other cell detached.
    fs::write(run.place.join("mended"), "").unwrap();
    let (code, _, said) = fleet.call(&at, &["rerun", &run.id, "--failed"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, again, said) = fleet.call(&at, &["rerun", &run.id, "--cell", "cell 1", "--detach"]);
    assert_eq!(code, Some(0), "{said}");
    let again = Run {
        id: again.trim().to_owned(),
        place: run.place.clone(),
    };
    let shown = fleet.finished(&at, &again);
    assert_eq!(
        (names(&shown), &shown["outcome"]),
        (vec!["cell 1"], &"passed".into())
    );
    let listed = fleet.json(&at, &["runs", "--format", "json"]);
    let listed = listed["runs"].as_array().unwrap().clone();
    assert_eq!(listed.len(), 3, "{listed:?}");
    let failed_again = fleet.json(
        &at,
        &[
            "show",
            listed[1]["run"].as_str().unwrap(),
            "--format",
            "json",
        ],
    );
    assert_eq!(names(&failed_again), ["cell 2"]);

    // A run in progress is never removed.
    fs::write(fleet.path("gate.yaml"), crate::rig::GATE).unwrap();
    let open = fleet.submit(&at, "open", &[]);
    open.wait_at_gate(&[1], 1);
    let logs = fleet.path("state/coordinator/logs");
    assert!(logs.join(&run.id).exists());
    // One second is the minimum age.
    let would = eventually("all three are older than a second", || {
        let (_, would, _) = fleet.call(&at, &["gc", "--older-than", "1s", "-n"]);
        (would.matches("run ").count() == 3).then_some(would)
    });
    assert!(
        would.contains(&run.id) && !would.contains(&open.id),
        "{would}"
    );
    assert_eq!(
        fleet.show(&at, &run)["outcome"],
        "failed",
        "it was only asked"
    );
    let (code, removed, said) = fleet.call(&at, &["gc", "--older-than", "1s"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(removed.contains(&run.id), "{removed}");
    assert!(!logs.join(&run.id).exists());
    let (code, _, said) = fleet.call(&at, &["show", &run.id]);
    assert!(
        code != Some(0) && said.contains(&run.id[..8]),
        "{code:?} {said}"
    );
    let (code, _, said) = fleet.call(&at, &["gc", "--kept"]);
    assert_eq!(code, Some(2), "{said}");
    open.open_gate();
    assert_eq!(fleet.finished(&at, &open)["outcome"], "passed");
}
