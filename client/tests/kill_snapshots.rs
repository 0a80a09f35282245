//! Snapshots with the whole program and a real engine: `kill -9` of `phalanx run` while it saves one, and what happens when
//! the store is full.
//!
//! A proxy before the engine holds a request or an answer, so a run is killed exactly there, and nothing depends on time.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)]

mod engine_lab;

use engine_lab::{IDLE, Lab, docker, eventually};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

fn main() -> ExitCode {
    engine_lab::main(&[
        (
            "a run killed while it saves leaves nothing that is used, and the next one makes a good snapshot",
            killed_while_saving,
        ),
        (
            "a full store gives up the least recently used snapshot with its images",
            full,
        ),
    ])
}

/// When a run is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    /// Its services are stopped, and nothing is saved.
    Stopped,
    /// A part of a volume is written.
    Volume,
    /// All volumes of a service are written, and the engine has an image of its own files.
    Image,
    /// Everything is saved, and the services start again.
    Starting,
}

impl Point {
    fn hold(self) -> Hold {
        // The services are stopped and started one after the other.
        let (is, nth, answer): (fn(&str) -> bool, usize, Option<usize>) = match self {
            Point::Stopped => (|asked| is(asked, "POST", "/stop"), 2, Some(0)),
            Point::Volume => (|asked| is(asked, "GET", "/archive"), 1, Some(1 << 20)),
            Point::Image => (|asked| is(asked, "POST", "/images/load"), 1, Some(0)),
            Point::Starting => (|asked| is(asked, "POST", "/start"), 3, None),
        };
        Hold { is, nth, answer }
    }
}

/// Whether a request's line asks for this of a container, or of images.
fn is(asked: &str, method: &str, what: &str) -> bool {
    let mut words = asked.split(' ');
    let (asked_by, target) = (words.next(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let of = path.contains("/containers/") || path.contains("/images/");
    asked_by == Some(method) && of && path.ends_with(what)
}

/// What a proxy holds: the nth request of a kind, or its answer after so many bytes.
#[derive(Clone, Copy)]
struct Hold {
    is: fn(&str) -> bool,
    nth: usize,
    answer: Option<usize>,
}

/// A proxy before the engine's socket.
struct Proxy {
    path: PathBuf,
    held: mpsc::Receiver<()>,
}

impl Proxy {
    /// Starts a proxy, which ends with the test.
    fn start(lab: &Lab, name: &str, hold: Hold) -> Proxy {
        let path = lab.path().join(name);
        let listener = UnixListener::bind(&path).unwrap();
        let (send, held) = mpsc::channel();
        let seen = Arc::new(Mutex::new(0));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(engine) = UnixStream::connect(engine()) else {
                    return;
                };
                let (seen, send) = (seen.clone(), send.clone());
                carry(client, engine, hold, seen, send);
            }
        });
        Proxy { path, held }
    }
}

fn engine() -> String {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    let path = host.strip_prefix("unix://").map(str::to_owned);
    path.unwrap_or_else(|| "/var/run/docker.sock".to_owned())
}

/// Carries one connection, on which one request follows another.
fn carry(
    mut client: UnixStream,
    mut engine: UnixStream,
    hold: Hold,
    seen: Arc<Mutex<usize>>,
    send: mpsc::Sender<()>,
) {
    let limit: Arc<Mutex<Option<usize>>> = Arc::default();
    let (mut from_engine, mut to_client) =
        (engine.try_clone().unwrap(), client.try_clone().unwrap());
    let (cut, told) = (limit.clone(), send.clone());
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n @ 1..) = from_engine.read(&mut buffer) {
            let mut pass = n;
            if let Some(left) = &mut *cut.lock().unwrap() {
                pass = n.min(*left);
                *left -= pass;
            }
            if to_client.write_all(&buffer[..pass]).is_err() {
                return;
            }
            if pass < n {
                let _ = told.send(());
                return;
            }
        }
        let _ = to_client.shutdown(Shutdown::Write);
    });
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        let mut held = false;
        while let Ok(n @ 1..) = client.read(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
            let line = text.lines().next().unwrap_or_default();
            if line.ends_with(" HTTP/1.1") && (hold.is)(line) {
                let mut seen = seen.lock().unwrap();
                *seen += 1;
                if *seen == hold.nth {
                    *limit.lock().unwrap() = hold.answer;
                    if hold.answer.is_none() {
                        let _ = send.send(());
                        held = true;
                        break;
                    }
                }
            }
            if engine.write_all(&buffer[..n]).is_err() {
                return;
            }
        }
        if limit.lock().unwrap().is_none() && !held {
            let _ = engine.shutdown(Shutdown::Write);
            return;
        }
        // Held until the client is killed. The engine notices that, as it would without a proxy.
        while client.read(&mut buffer).is_ok_and(|n| n > 0) {}
        let _ = engine.shutdown(Shutdown::Both);
    });
}

/// A child process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two services with volumes and files of their own, which a group prepares. `size` is that of a volume in MiB.
fn spec(lab: &Lab, size: u32) -> String {
    let image = &lab.image;
    format!(
        "name: shop
inputs: {{ n: {{ default: '0' }} }}
cell: {{ resources: {{ cpus: 0.05, memory: 64MiB }} }}
services:
  db: {{ image: '{image}', command: {IDLE}, volumes: ['data:/data'] }}
  app: {{ image: '{image}', command: {IDLE}, depends_on: [db] }}
phases:
  setup:
    - name: prepared
      snapshot: {{ services: [db, app] }}
      steps:
        - exec: {{ service: db, script: '/bin/busybox dd if=/dev/urandom of=/data/big bs=1M count={size} 2>/dev/null; echo row ${{{{ inputs.n }}}} >> /data/rows; echo db > /etc/own' }}
        - exec: {{ service: app, script: 'echo app > /etc/own' }}
  main:
    - exec: {{ service: db, command: [cat, /data/rows, /etc/own] }}
      expect: [\"stdout == 'row ' + inputs.n + '\\\\ndb\\\\n'\"]
    - exec: {{ service: app, command: [cat, /etc/own] }}
      expect: [stdout.trim() == 'app']
"
    )
}

fn store(lab: &Lab) -> PathBuf {
    lab.path().join("state/snapshots")
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Directories that are being made, with what killed runs left of them.
fn half_made(lab: &Lab) -> Vec<PathBuf> {
    let mut all = entries(&store(lab).join("making"));
    all.retain(|path| path.is_dir());
    all
}

fn kept(lab: &Lab) -> Vec<Value> {
    let manifests = entries(&store(lab).join("kept")).into_iter();
    let read = |kept: PathBuf| fs::read(kept.join("manifest.json")).unwrap();
    manifests
        .map(|kept| serde_json::from_slice(&read(kept)).unwrap())
        .collect()
}

/// Images of the store in the engine.
fn images(lab: &Lab) -> BTreeSet<String> {
    let id = fs::read_to_string(store(lab).join("id")).unwrap();
    let whole = format!("label=phalanx.snapshot.store={id}");
    let list = |filter: &str| docker(&["images", "-aq", "--no-trunc", "--filter", filter]);
    let mut all: BTreeSet<String> = list(&whole).lines().map(str::to_owned).collect();
    for image in list("label=phalanx.snapshot.half").lines() {
        let label = "{{index .Config.Labels \"phalanx.snapshot.half\"}}";
        let mut inspect = Command::new("docker");
        let inspect = inspect.args(["image", "inspect", "--format", label, image]);
        // Those of other tests may be gone by now.
        let said = String::from_utf8(inspect.output().unwrap().stdout).unwrap();
        if said.starts_with(&id) {
            all.insert(image.to_owned());
        }
    }
    all
}

/// Images of the snapshots that are kept.
fn kept_images(lab: &Lab) -> BTreeSet<String> {
    let services = |manifest: &Value| manifest["services"].as_array().unwrap().clone();
    let all = kept(lab).iter().flat_map(services).collect::<Vec<_>>();
    let ids = all.iter().map(|service| service["image"]["id"].as_str());
    ids.map(|id| id.unwrap().to_owned()).collect()
}

fn killed_while_saving() {
    for point in [Point::Stopped, Point::Volume, Point::Image, Point::Starting] {
        eprintln!("{point:?}");
        let lab = Lab::new();
        lab.write("shop.yaml", &spec(&lab, 8));
        kill_at(&lab, point);
        let left = half_made(&lab);
        assert_eq!((left.len(), kept(&lab).len()), (1, 0), "{point:?}");
        let files = entries(&left[0]);
        let sizes: Vec<u64> = files
            .iter()
            .map(|file| file.metadata().unwrap().len())
            .collect();
        let (images_left, expected) = match point {
            Point::Stopped => (0, sizes.is_empty()),
            Point::Volume => (0, sizes.len() == 1 && sizes[0] < 8 << 20),
            // The image without an environment, and perhaps the one of which it was made.
            Point::Image => (1, sizes.len() == 1 && sizes[0] > 8 << 20),
            Point::Starting => (2, sizes.len() == 1 && sizes[0] > 8 << 20),
        };
        assert!(expected, "{point:?}: {files:?} of {sizes:?}");
        assert!(images(&lab).len() >= images_left, "{point:?}");
        assert!(
            !lab.held(&BTreeSet::new()).is_empty(),
            "{point:?}: its containers"
        );

        let (code, would, stderr) = lab.call(&["gc", "-n"]);
        assert_eq!(code, Some(0), "{stderr}");
        assert!(would.contains("half-made snapshot "), "{would}");
        assert_eq!(
            would.contains("\nimage "),
            images_left > 0,
            "{point:?}: {would}"
        );
        assert_eq!(half_made(&lab).len(), 1, "{point:?}: nothing was removed");

        let (code, _, stderr) = lab.call(&["run", "shop.yaml"]);
        assert_eq!(code, Some(0), "{point:?}: {stderr}");
        assert!(
            !stderr.contains("restored from snapshot"),
            "{point:?}: {stderr}"
        );
        assert_eq!(
            (half_made(&lab).len(), kept(&lab).len()),
            (0, 1),
            "{point:?}: {stderr}"
        );
        eventually("nothing of the killed run is left", || {
            lab.held(&BTreeSet::new()).is_empty().then_some(())
        });
        assert_eq!(images(&lab), kept_images(&lab), "{point:?}");
        assert_eq!(images(&lab).len(), 2, "{point:?}");

        let (code, _, stderr) = lab.call(&["run", "shop.yaml", "--agents-as-processes"]);
        assert_eq!(code, Some(0), "{point:?}: {stderr}");
        assert!(
            stderr.contains("restored from snapshot"),
            "{point:?}: {stderr}"
        );
        gone_with_all(&lab);
    }
}

/// Runs the spec, and kills the run at a point.
fn kill_at(lab: &Lab, point: Point) {
    let proxy = Proxy::start(lab, "engine.sock", point.hold());
    let stderr = fs::File::create(lab.path().join("killed.stderr")).unwrap();
    let mut command = lab.phalanx(&["run", "shop.yaml"]);
    command.env("DOCKER_HOST", format!("unix://{}", proxy.path.display()));
    let mut killed = Running(command.stderr(stderr).spawn().unwrap());
    eventually(&format!("{point:?}"), || {
        let ended = killed.0.try_wait().unwrap();
        let said = || fs::read_to_string(lab.path().join("killed.stderr")).unwrap();
        assert!(ended.is_none(), "{point:?} never came: {}", said());
        proxy.held.try_recv().ok()
    });
    if point == Point::Image {
        // The engine answers before it is done.
        eventually("the engine has the image", || {
            let id = fs::read_to_string(store(lab).join("id")).unwrap();
            let label = format!("label=phalanx.snapshot.store={id}");
            (!docker(&["images", "-q", "--filter", &label]).is_empty()).then_some(())
        });
    }
    if point == Point::Volume {
        // What the proxy let through is written.
        eventually("a part of the volume is written", || {
            let files = entries(half_made(lab).first()?);
            (files.first()?.metadata().ok()?.len() > 0).then_some(())
        });
    }
    lab.agents_now();
    killed.0.kill().unwrap();
    killed.0.wait().unwrap();
}

/// Removes all snapshots by the command for it.
fn gone_with_all(lab: &Lab) {
    let many = kept(lab).len();
    let (code, would, stderr) = lab.call(&["gc", "--snapshots", "0s", "-n"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(
        would.matches("of shop (prepared): unused for ").count(),
        many,
        "{would}"
    );
    let (_, none, _) = lab.call(&["gc", "--snapshots", "1h"]);
    assert!(
        !none.contains("snapshot") && kept(lab).len() == many,
        "{none}"
    );
    let (code, removed, stderr) = lab.call(&["gc", "--snapshots", "0s"]);
    assert_eq!(code, Some(0), "{stderr}");
    let snapshots = |text: &str| {
        let lines = text.lines().filter(|line| line.starts_with("snapshot "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(snapshots(&removed).len(), many, "{removed}");
    assert!(kept(lab).is_empty() && half_made(lab).is_empty());
    assert_eq!(images(lab), BTreeSet::new());
}

fn full() {
    let lab = Lab::new();
    lab.write("shop.yaml", &spec(&lab, 3));
    // Room for one of them.
    let run = |n: &str, processes: bool| {
        let input = format!("n={n}");
        let mut arguments = vec!["run", "shop.yaml", "--input", &input];
        arguments.extend(processes.then_some("--agents-as-processes"));
        let mut command = lab.phalanx(&arguments);
        command.env("PHALANX_SNAPSHOTS__MAX_MIB", "5");
        let (code, _, stderr) = engine_lab::said(command.output().unwrap());
        assert_eq!(code, Some(0), "{stderr}");
        stderr
    };
    let keys = || {
        let keys = kept(&lab).into_iter();
        keys.map(|one| one["key"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    for processes in [false, true] {
        let first = run("1", processes);
        assert!(!first.contains("restored from snapshot"), "{first}");
        let one = keys();
        assert!(run("1", processes).contains("restored from snapshot"));
        let second = run("2", processes);
        assert!(!second.contains("restored from snapshot"), "{second}");
        let two = keys();
        assert!(
            one.len() == 1 && two.len() == 1 && one != two,
            "{one:?} {two:?}"
        );
        assert_eq!(images(&lab), kept_images(&lab));
        assert!(run("2", processes).contains("restored from snapshot"));
    }
    // One that doesn't fit at all isn't kept, and takes no other's place.
    lab.write("shop.yaml", &spec(&lab, 6));
    let before = keys();
    let large = run("3", false);
    assert!(
        large.contains("what the agent keeps of all snapshots"),
        "{large}"
    );
    assert_eq!(keys(), before);
    assert_eq!(images(&lab), kept_images(&lab));
    gone_with_all(&lab);
}
