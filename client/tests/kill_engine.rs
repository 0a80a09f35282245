//! `kill -9` of `phalanx run` at ten points of a run with containers, spread over network, pull, build, create, start,
//! steps and clean-up. After the next start, the engine holds nothing of the dead run, and a run beside it isn't
//! affected. `PHALANX_KILL_SEED` repeats an order of points and their delays.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods
)]

mod engine_lab;

use engine_lab::{IDLE, Lab, docker, eventually};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread::sleep;
use std::time::Duration;

fn main() -> ExitCode {
    engine_lab::main(&[(
        "a run killed at any point leaves nothing after the next start and disturbs no other",
        killed_anywhere,
    )])
}

/// When a run is killed; a random delay is added.
#[derive(Clone, Copy, Debug)]
enum Point {
    /// Right after its start, or while its first networks are created.
    Spawned,
    /// A network is kept ready.
    NetworkReady,
    /// The engine pulls from a registry that never answers.
    Pulling,
    /// BuildKit runs a step of a build.
    Building,
    /// The classic builder runs a container of a build.
    BuildingClassically,
    /// Several of its containers are created.
    Created,
    /// A container is started.
    Started,
    /// A command runs in a container.
    Exec,
    /// A step restarts a container.
    Restarting,
    /// The first container ends during clean-up.
    Dying,
    /// The first container is removed.
    Removed,
}

const POINTS: [Point; 11] = [
    Point::Spawned,
    Point::NetworkReady,
    Point::Pulling,
    Point::Building,
    Point::BuildingClassically,
    Point::Created,
    Point::Started,
    Point::Exec,
    Point::Restarting,
    Point::Dying,
    Point::Removed,
];

/// Splitmix64: small, and the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// The engine's events about containers of the image: `ACTION agent=ID`. Containers of a build have no agent.
struct Events {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Events {
    fn of(lab: &Lab) -> Events {
        let format = "{{.Action}} agent={{index .Actor.Attributes \"phalanx.agent\"}}";
        let mut child = Command::new("docker")
            .args(["events", "--filter", "type=container"])
            .args([
                "--filter",
                &format!("label=phalanx-test.image={}", lab.image),
            ])
            .args(["--format", format])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Events { child, lines }
    }

    /// Waits for an action of any agent except those in `aside`.
    fn wait(&self, action: &str, aside: &BTreeSet<String>) {
        self.until(action, |line| {
            line.starts_with(action) && !aside.iter().any(|agent| line.contains(agent))
        });
    }

    fn until(&self, what: &str, is: impl Fn(&str) -> bool) {
        eventually(&format!("the event {what}"), || {
            self.lines.try_iter().find(|line| is(line))
        });
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a spec with two cells of two services each, a volume, commands and a restart. `app` differs between points.
fn spec(lab: &Lab, app: &str) -> String {
    let image = &lab.image;
    format!(
        "name: killed
strategy: {{ matrix: {{ n: [1, 2] }} }}
cell: {{ resources: {{ cpus: 0.05, memory: 16MiB }} }}
services:
  db: {{ image: '{image}', command: {IDLE}, volumes: ['data:/data'] }}
  app: {{ {app}, command: {IDLE}, depends_on: [db] }}
phases:
  work:
    - exec: {{ service: app, command: [echo, up] }}
    - exec: {{ service: db, script: 'echo kept > /data/file; sync; sleep 0.3' }}
    - container: {{ restart: db }}
    - exec: {{ service: db, command: [cat, /data/file] }}
      expect: [stdout.trim() == 'kept']
"
    )
}

/// Returns the spec of a run that has a container and waits until its gate is open.
fn beside(lab: &Lab) -> String {
    let (image, place) = (&lab.image, lab.path().display());
    format!(
        "name: beside
services:
  web: {{ image: '{image}', command: {IDLE}, volumes: ['data:/data'] }}
phases:
  work:
    - exec: {{ service: web, script: 'echo begun > /data/file' }}
    - run: echo begun > {place}/begun
    - run: {{ script: 'while [ ! -e {place}/gate ]; do sleep 0.1; done' }}
    - exec: {{ service: web, command: [cat, /data/file] }}
      expect: [stdout.trim() == 'begun']
"
    )
}

const NEXT: &str = "name: next\nphases: { p: [{ run: 'true' }] }\n";

/// A child process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn killed_anywhere() {
    let seed = std::env::var("PHALANX_KILL_SEED").ok();
    let seed = seed.and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    eprintln!("PHALANX_KILL_SEED={seed} repeats this order");
    let mut random = Random(seed);
    let mut points = POINTS;
    for last in (1..points.len()).rev() {
        points.swap(last, random.below(last as u64 + 1) as usize);
    }

    let lab = Lab::new();
    lab.write("next.yaml", NEXT);
    lab.write("beside.yaml", &beside(&lab));
    let stderr = fs::File::create(lab.path().join("beside.stderr")).unwrap();
    let b = lab.phalanx(&["run", "beside.yaml"]).stderr(stderr).spawn();
    let mut b = Running(b.unwrap());
    let words = || fs::read_to_string(lab.path().join("beside.stderr")).unwrap_or_default();
    eventually("the run beside is under way", || {
        lab.path().join("begun").exists().then_some(())
    });
    let aside = lab.agents_now();
    assert_eq!(aside.len(), 1, "{aside:?}");
    let label = format!("phalanx.agent={}", aside.first().unwrap());
    let others = lab.containers(&label);
    assert_eq!(others.len(), 1);

    for (round, point) in points.into_iter().enumerate() {
        let processes = random.below(3) == 0;
        let delay = Duration::from_millis(random.below(250));
        let what = format!("{point:?} + {delay:?}, agents as processes: {processes}, seed {seed}");
        eprintln!("{round}: {what}");
        kill_one(&lab, point, delay, processes, &aside);
        let (code, _, stderr) = lab.call(&["run", "next.yaml"]);
        assert_eq!(code, Some(0), "{what}: {stderr}");
        let mut held = Vec::new();
        let nothing = eventually_nothing(|| {
            held = lab.held(&aside);
            held.is_empty()
        });
        assert!(nothing, "{what}: the engine still holds {held:#?}");
        assert!(b.0.try_wait().unwrap().is_none(), "{what}: {}", words());
        assert_eq!(lab.containers(&label), others, "{what}");
    }

    fs::write(lab.path().join("gate"), "").unwrap();
    let code = eventually("the run beside ends", || b.0.try_wait().unwrap());
    assert_eq!(code.code(), Some(0), "{}", words());
    let held = lab.held(&BTreeSet::new());
    assert!(held.is_empty(), "{held:#?}");
}

/// Waits until nothing is left. The child of a killed `phalanx` (an agent as a process) cleans up by itself and has the
/// time limit of its clean-up for it.
fn eventually_nothing(mut ask: impl FnMut() -> bool) -> bool {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        if ask() {
            return true;
        }
        if std::time::Instant::now() > deadline {
            return false;
        }
        sleep(Duration::from_millis(50));
    }
}

fn kill_one(lab: &Lab, point: Point, delay: Duration, processes: bool, aside: &BTreeSet<String>) {
    let registry = TcpListener::bind("127.0.0.1:0").unwrap();
    let image = &lab.image;
    let marker = uuid::Uuid::new_v4().to_string();
    let app = match point {
        Point::Pulling => format!("image: '{}/absent:1'", registry.local_addr().unwrap()),
        Point::Building | Point::BuildingClassically => format!(
            "build: {{ dockerfile_inline: \"FROM {image}\\nRUN sleep 1000; : {marker}\\n\" }}"
        ),
        _ => format!("image: '{image}'"),
    };
    lab.write("killed.yaml", &spec(lab, &app));
    let events = Events::of(lab);
    let mut arguments = vec!["run", "killed.yaml", "--slots", "4"];
    arguments.extend(processes.then_some("--agents-as-processes"));
    let stderr = fs::File::create(lab.path().join("killed.stderr")).unwrap();
    let mut command = lab.phalanx(&arguments);
    if let Point::BuildingClassically = point {
        command.env("PHALANX_DOCKER__BUILDER", "classic");
    }
    let mut killed = Running(command.stderr(stderr).spawn().unwrap());
    match point {
        Point::Spawned => {}
        Point::NetworkReady => {
            eventually("a network is kept ready", || {
                let now = lab.agents_now();
                now.difference(aside)
                    .find(|agent| {
                        let label = format!("label=phalanx.agent={agent}");
                        let filter = [
                            "network",
                            "ls",
                            "-q",
                            "--filter",
                            &label,
                            "--filter",
                            "label=phalanx.pool",
                        ];
                        !docker(&filter).is_empty()
                    })
                    .cloned()
            });
        }
        Point::Pulling => {
            registry.accept().unwrap();
        }
        Point::Building => eventually("a step of a build", || step_of(&marker).then_some(())),
        Point::BuildingClassically => events.until("start of a build's container", |line| {
            line.starts_with("start ") && line.trim_end().ends_with("agent=")
        }),
        Point::Created => events.wait("create", aside),
        Point::Started => events.wait("start", aside),
        Point::Exec => events.wait("exec_start", aside),
        Point::Restarting => events.wait("die", aside),
        Point::Dying => {
            // Both cells restart `db` once; further deaths belong to clean-up.
            for _ in 0..3 {
                events.wait("die", aside);
            }
        }
        Point::Removed => events.wait("destroy", aside),
    }
    lab.agents_now();
    sleep(delay);
    killed.0.kill().unwrap();
    killed.0.wait().unwrap();
    lab.agents_now();
    eventually("the build ends", || (!step_of(&marker)).then_some(()));
}

/// Returns whether the step of a build runs. BuildKit's steps are no containers, so this looks for the process: the
/// shell, which becomes the last command of its text.
fn step_of(marker: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let commands = processes.filter_map(|one| fs::read(one.path().join("cmdline")).ok());
    let mut commands = commands.map(|words| String::from_utf8_lossy(&words).into_owned());
    commands.any(|words| words.starts_with("/bin/sh") && words.contains(marker))
}
