//! Stops and starts a container engine under a remote run. Uses a second engine with its own directories and socket.

use crate::daemon::Daemon;
use crate::image::BUSYBOX;
use crate::rig::{Fleet, attempts, eventually};
use std::fs;

/// In its first attempt, a cell runs a command when the engine stops.
const SPEC: &str = r#"
name: engine
inputs: { place: {}, image: {} }
strategy: { fail-fast: false, matrix: { n: [1, 2] } }
cell: { name: "cell ${{ matrix.n }}", attempts: 2, runs-on: [docker], resources: { cpus: 0.05, memory: 32MiB } }
services:
  s: { image: "${{ inputs.image }}", pull_policy: never, command: [sleep, "3600"], stop_grace_period: 0s }
phases:
  work:
    - id: attempt
      run: echo $$ >> ${{ inputs.place }}/waits-${{ matrix.n }}; wc -l < ${{ inputs.place }}/waits-${{ matrix.n }}
      capture: { number: stdout.trim() }
    - exec: { service: s, command: [echo, here] }
    - run: echo begins >> ${{ inputs.place }}/cell-${{ matrix.n }}
    - name: is cut short
      when: steps.attempt.number == '1'
      exec: { service: s, command: [sleep, "3600"] }
    - run: echo ends >> ${{ inputs.place }}/cell-${{ matrix.n }}
"#;

pub fn it_is_restarted_under_a_remote_run() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let Some(mut daemon) = runtime.block_on(Daemon::start()) else {
        return;
    };
    let fleet = Fleet::new();
    fs::write(fleet.path("gate.yaml"), SPEC).unwrap();
    let at = fleet.serve();
    let host = format!("DOCKER_HOST={}", daemon.host());
    let mut agent = fleet.agent_within(&["env", &host], "a", &at.url(), 2);
    fleet.wait_for_state(&at, "a", "connected");
    let image = format!("image={BUSYBOX}");
    let run = fleet.submit(&at, "run", &["--input", &image]);
    eventually("both cells are in the middle", || {
        let both = [1, 2].iter().all(|n| run.marks(*n) == ["begins"]);
        both.then_some(())
    });
    runtime.block_on(async {
        daemon.stop().await;
        daemon.run().await;
    });
    let shown = fleet.finished(&at, &run);
    assert_eq!(shown["outcome"], "passed", "{shown:#}\n{}", agent.said());
    for (cell, attempts) in attempts(&shown) {
        assert_eq!(attempts, 2, "{cell}");
    }
    for n in 1..=2 {
        assert_eq!(run.marks(n), ["begins", "begins", "ends"], "cell {n}");
    }
    for cell in shown["cells"].as_array().unwrap() {
        let first = &cell["attempts"][0];
        assert_eq!(first["outcome"], "errored", "{first:#}");
        let reason = first["reason"].as_str().unwrap();
        assert!(reason.contains("engine"), "{reason}");
    }
    agent.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(agent.end().code(), Some(0), "{}", agent.said());
    let left = runtime.block_on(daemon.containers());
    assert_eq!(left, Vec::<String>::new(), "{}", agent.said());
    runtime.block_on(daemon.stop());
}
