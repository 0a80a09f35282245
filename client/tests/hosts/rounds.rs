//! Rounds of a run with real containers. Each round kills or cuts something at a random moment. Every cell passes, its
//! log equals what the container wrote byte for byte, and nothing is left in the engine.

use crate::proxy::Proxy;
use crate::rig::{Coordinator, Fleet, Process, eventually};
use nix::sys::signal::Signal;
use std::fs;
use std::process::Command;
use std::time::Duration;

const CELLS: u32 = 6;
const LINES: u32 = 2_000;
const AGENTS: [&str; 3] = ["a", "b", "c"];

const SPEC: &str = r#"
name: rounds
inputs: { place: {}, image: {} }
strategy: { fail-fast: false, matrix: { n: [1, 2, 3, 4, 5, 6] } }
cell: { name: "cell ${{ matrix.n }}", resources: { cpus: 0.05, memory: 32MiB } }
services:
  talker:
    image: "${{ inputs.image }}"
    pull_policy: never
    command:
      - /bin/busybox
      - sh
      - -c
      - |
        i=0; while [ "$i" -lt 2000 ]; do echo "line $i of cell ${{ matrix.n }}"; i=$((i+1)); done
        /bin/busybox touch /done; exec /bin/busybox sleep 3600
phases:
  work:
    - name: everything is said
      exec: { service: talker, command: [/bin/busybox, sh, -c, "while [ ! -e /done ]; do /bin/busybox sleep 0.1; done"] }
    - exec: { service: talker, command: [/bin/busybox, sleep, "2"] }
"#;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Coordinator,
    Agent,
    Connections,
    CoordinatorAndAgent,
    Nothing,
}

const KINDS: [Kind; 5] = [
    Kind::Coordinator,
    Kind::Agent,
    Kind::Connections,
    Kind::CoordinatorAndAgent,
    Kind::Nothing,
];

/// Random enough, and the same for each seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % bound
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// An image that contains only busybox, removed when dropped.
struct Image(String);

impl Image {
    fn make(fleet: &Fleet) -> Image {
        let root = fleet.path("image");
        fs::create_dir_all(root.join("bin")).unwrap();
        let busybox = Command::new("sh")
            .args(["-c", "command -v busybox"])
            .output()
            .unwrap();
        let busybox = String::from_utf8(busybox.stdout).unwrap();
        fs::copy(busybox.trim(), root.join("bin/busybox")).unwrap();
        let tag = format!("phalanx-fleet/busybox:{}", std::process::id());
        let made = format!("tar -C {} -c . | docker import - {tag}", root.display());
        let output = Command::new("sh").args(["-c", &made]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        Image(tag)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "-f", &self.0]).output();
    }
}

/// Returns the containers and networks of an agent in the engine.
fn left(fleet: &Fleet, agent: &str) -> Vec<String> {
    let id = fs::read_to_string(fleet.path(&format!("agent-{agent}")).join("agent-id")).unwrap();
    let filter = format!("label=phalanx.agent={}", id.trim());
    let lists: [&[&str]; 2] = [&["ps", "-aq"], &["network", "ls", "-q"]];
    let ask = |list: &&[&str]| {
        let output = Command::new("docker")
            .args(*list)
            .args(["--filter", &filter])
            .output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    lists.iter().flat_map(ask).collect()
}

pub fn all() {
    let seed = number("PHALANX_FLEET_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let rounds = number("PHALANX_FLEET_ROUNDS")
        .unwrap_or(5)
        .max(KINDS.len() as u64);
    println!("kill rounds: PHALANX_FLEET_ROUNDS={rounds} PHALANX_FLEET_SEED={seed}");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut random = Random(seed);
    let fleet = Fleet::new();
    let image = Image::make(&fleet);
    fs::write(fleet.path("gate.yaml"), SPEC).unwrap();
    let mut at = fleet.serve();
    let proxies: Vec<Proxy> = AGENTS
        .iter()
        .map(|_| runtime.block_on(Proxy::start(at.address)))
        .collect();
    let start = |n: usize| fleet.agent(AGENTS[n], &proxies[n].address, 2);
    let mut agents: Vec<Process> = (0..AGENTS.len()).map(start).collect();
    for round in 0..rounds {
        for agent in AGENTS {
            fleet.wait_for_state(&at, agent, "connected");
        }
        let kind = KINDS[usize::try_from(round).unwrap() % KINDS.len()];
        let victim = usize::try_from(random.below(AGENTS.len() as u64)).unwrap();
        let after = Duration::from_millis(random.below(4_000));
        println!(
            "round {round}: {kind:?}, agent {}, after {after:?}",
            AGENTS[victim]
        );
        let input = format!("image={}", image.0);
        let run = fleet.submit(&at, &format!("run-{round}"), &["--input", &input]);
        // A random moment, not a wait for something.
        std::thread::sleep(after);
        if matches!(kind, Kind::Agent | Kind::CoordinatorAndAgent) {
            agents[victim].kill();
        }
        if matches!(kind, Kind::Coordinator | Kind::CoordinatorAndAgent) {
            let address = at.killed();
            at = fleet.serve_at(&address);
        }
        if kind == Kind::Connections {
            proxies.iter().for_each(Proxy::cut);
        }
        if matches!(kind, Kind::Agent | Kind::CoordinatorAndAgent) {
            agents[victim] = start(victim);
        }
        let shown = fleet.finished(&at, &run);
        assert_eq!(
            shown["outcome"], "passed",
            "round {round} {kind:?}: {shown:#}"
        );
        for n in 1..=CELLS {
            logs_are_whole(&fleet, &at, &run.id, n);
        }
    }
    for agent in &mut agents {
        agent.signal(Signal::SIGTERM);
        assert_eq!(agent.end().code(), Some(0), "{}", agent.said());
    }
    for agent in AGENTS {
        eventually(&format!("nothing of {agent} is left"), || {
            left(&fleet, agent).is_empty().then_some(())
        });
    }
}

fn logs_are_whole(fleet: &Fleet, at: &Coordinator, run: &str, n: u32) {
    let cell = format!("cell {n}");
    let (code, text, stderr) =
        fleet.call(at, &["logs", run, &cell, "talker", "--stream", "stdout"]);
    assert_eq!(code, Some(0), "{stderr}");
    let written: String = (0..LINES)
        .map(|i| format!("line {i} of {cell}\n"))
        .collect();
    assert!(
        text == written,
        "{cell}: {} bytes instead of {}",
        text.len(),
        written.len()
    );
}
