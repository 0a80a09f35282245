//! Commands about containers, with a real engine and a real terminal: `--keep`, `phalanx attach`, `phalanx gc`, and the
//! settings `docker.*`, whose effect is checked in the engine.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)]

mod engine_lab;

use engine_lab::{IDLE, Lab, docker, eventually, said};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;

fn main() -> ExitCode {
    engine_lab::main(&[
        (
            "attach opens a shell on a terminal, passes its size, Ctrl-C and exit code on, and says what it can't (needs python3)",
            attach,
        ),
        (
            "what is kept ends when its time is over, though no agent lives any more",
            kept_for_a_time,
        ),
        ("only what failed is kept on failure", kept_on_failure),
        (
            "settings of the docker section reach the agent, in this process and as a child",
            settings,
        ),
        (
            "limits of pulls and builds and a missing engine are told with their setting",
            limits,
        ),
        (
            "the image of a queued cell is pulled while it waits",
            prefetched,
        ),
        (
            "a first spec of a Compose file and one of a workflow with a service run without an edit",
            init,
        ),
        (
            "a check of the machine makes a network and leaves nothing",
            self_check,
        ),
        (
            "a repro runs the images of the earlier run after their tags moved on, and says which ones are gone",
            repro,
        ),
        (
            "a Compose file's services start as their conditions come true, inherit, stop in their time, and what works otherwise is said",
            compose,
        ),
        (
            "replicas have lives and names of their own, and a service's hooks run at its starts and stops",
            replicas,
        ),
        (
            "test results are fetched from containers that run and that have ended, by path and by glob, and old ones don't count",
            test_results,
        ),
    ])
}

/// Gives a tag to a new image, which says which one it is. Returns the image's id.
fn tagged(lab: &Lab, tag: &str, which: &str) -> String {
    let directory = lab.path().join(which);
    fs::create_dir_all(&directory).unwrap();
    let text = format!("FROM {}\nENV WHICH={which}\n", lab.image);
    fs::write(directory.join("Dockerfile"), text).unwrap();
    docker(&["build", "-q", "-t", tag, directory.to_str().unwrap()]);
    docker(&["image", "inspect", "--format", "{{.Id}}", tag])
}

fn init() {
    let lab = Lab::new();
    lab.write("compose/www/index.html", "hello");
    lab.write(
        "compose/compose.yaml",
        &format!(
            "services:
  web:
    image: {}
    command: [httpd, -f, -p, '8080', -h, /www]
    ports: ['80:8080']
    volumes: ['./www:/www:ro']
    restart: unless-stopped
  job:
    image: {}
    command: [test, -e, /www/index.html]
    volumes: ['./www:/www:ro']
    depends_on: [web]
  after:
    image: {}
    command: {IDLE}
    init: true
    depends_on: {{ job: {{ condition: service_completed_successfully }} }}
",
            lab.image, lab.image, lab.image
        ),
    );
    let (code, _, stderr) = lab.call(&["init", "--output", "compose/phalanx.yaml"]);
    assert_eq!(code, Some(0), "{stderr}");
    let (code, _, stderr) = lab.call(&["run", "compose/phalanx.yaml"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        stderr.contains("ready > web is ready ... passed"),
        "{stderr}"
    );
    assert!(
        stderr.contains("ready > job ends well ... passed"),
        "{stderr}"
    );

    // The image's own command serves: a workflow's service has no other.
    let web = format!("{}-web", lab.image);
    lab.write(
        "image/Dockerfile",
        &format!(
            "FROM {}\nCMD [\"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/\"]\n",
            lab.image
        ),
    );
    docker(&[
        "build",
        "-q",
        "-t",
        &web,
        lab.path().join("image").to_str().unwrap(),
    ]);
    lab.write(
        "flow/test.yml",
        &format!(
            "jobs:
  test:
    strategy: {{ matrix: {{ n: [1, 2] }} }}
    services: {{ web: {{ image: '{web}', ports: ['8081:8080'] }} }}
    env: {{ URL: 'http://localhost:8081/x', PORT: 8081, WEB_HOST: localhost }}
    steps:
      - run: test \"$URL\" = \"http://$WEB_HOST:$PORT/x\"
      - run: exec 3<> \"/dev/tcp/$WEB_HOST/$PORT\"
"
        ),
    );
    let workflow = [
        "init",
        "-o",
        "flow/phalanx.yaml",
        "--from-workflow",
        "flow/test.yml",
    ];
    let (code, _, stderr) = lab.call(&workflow);
    assert_eq!(code, Some(0), "{stderr}");
    let (code, _, stderr) = lab.call(&["run", "flow/phalanx.yaml"]);
    docker(&["image", "rm", "-f", &web]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("cells  2: 2 passed"), "{stderr}");
}

fn self_check() {
    let lab = Lab::new();
    let (code, stdout, stderr) = lab.call(&["self", "check", "--format", "json"]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    let checks = answer["checks"].as_array().unwrap();
    let named = |name: &str| checks.iter().find(|check| check["check"] == name).unwrap();
    for name in ["engine", "networks", "host commands", "state"] {
        assert_ne!(named(name)["verdict"], "fails", "{answer:#}");
    }
    let networks = docker(&["network", "ls", "--format", "{{.Name}}"]);
    assert!(!networks.contains("phalanx-check-"), "{networks}");
}

fn repro() {
    let lab = Lab::new();
    let tag = format!("{}-moves", lab.image);
    let first = tagged(&lab, &tag, "first");
    let built = format!("phalanx-test.built={}", lab.image);
    lab.write(
        "moves.yaml",
        &format!(
            "name: moves
cell: {{ name: one }}
services:
  db: {{ image: '{tag}', command: {IDLE} }}
  own: {{ build: {{ dockerfile_inline: \"FROM {tag}\\nLABEL {built}\\n\" }}, command: {IDLE} }}
phases:
  work:
    - exec: {{ service: db, command: [sh, -c, 'echo $WHICH'] }}
      expect: stdout.contains('first')
    - exec: {{ service: own, command: [sh, -c, 'echo $WHICH'] }}
      expect: stdout.contains('first')
"
        ),
    );
    let (code, _, stderr) = lab.call(&["run", "moves.yaml"]);
    assert_eq!(code, Some(0), "{stderr}");
    let (_, runs, _) = lab.call(&["runs", "--format", "json"]);
    let runs: Value = serde_json::from_str(&runs).unwrap();
    let run = runs["runs"][0]["run"].as_str().unwrap();

    let second = tagged(&lab, &tag, "second");
    assert_ne!(first, second);
    let (code, _, _) = lab.call(&["run", "moves.yaml"]);
    assert_eq!(code, Some(1), "the tag names another image now");
    let (code, printed, stderr) = lab.call(&["repro", run, "one", "--print"]);
    assert_eq!(code, Some(0), "{stderr}");
    let same = format!("= image     db: {first}, then {tag}");
    assert!(printed.contains(&same), "{printed}");
    assert!(printed.contains("= image     own: sha256:"), "{printed}");
    let (code, _, stderr) = lab.call(&["repro", run, "one"]);
    assert_eq!(code, Some(0), "{stderr}");
    // The repro's own journal and export say what it was made from.
    lab.call(&["export", "-o", "again.phx"]);
    let (code, printed, stderr) = lab.call(&["repro", "--file", "again.phx", "one", "--print"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(printed.contains(&same), "{printed}");

    let filter = format!("label={built}");
    for image in docker(&["images", "-q", "--no-trunc", "--filter", &filter]).lines() {
        docker(&["rmi", "-f", image]);
    }
    docker(&["rmi", "-f", &first]);
    let (code, _, stderr) = lab.call(&["repro", run, "one"]);
    let gone = format!("≠ image     db: it was {first}: this engine doesn't have it");
    assert!(stderr.contains(&gone), "{stderr}");
    assert!(stderr.contains("it is built again"), "{stderr}");
    assert_eq!(code, Some(1), "it runs the tag: {stderr}");
    docker(&["rmi", "-f", &tag]);
}

const SHELL: &str = r#"
import fcntl, os, pty, select, struct, sys, termios, time
phalanx, run = sys.argv[1], sys.argv[2]
pid, master = pty.fork()
if pid == 0:
    os.execv(phalanx, [phalanx, "attach", run, "kept", "db"])
def size(rows, columns):
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
seen = b""
def until(text, again=None):
    global seen
    deadline = time.time() + 60
    last = 0
    while text not in seen:
        assert time.time() < deadline, (text, seen)
        if again and time.time() - last > 1:
            # The docker command loses a change that comes before it listens for one: change it again.
            size(rows, columns + 1)
            size(rows, columns)
            os.write(master, again)
            last = time.time()
        if select.select([master], [], [], 0.2)[0]:
            seen += os.read(master, 4096)
    seen = seen.split(text, 1)[1]
rows, columns = 33, 121
size(rows, columns)
until(b"size=33 121", b"echo size=$(stty size)\n")
rows, columns = 40, 100
size(rows, columns)
until(b"size=40 100", b"echo size=$(stty size)\n")
os.write(master, b"echo wai''ting; sleep 1000\n")
until(b"waiting")
until(b"after=130", b"\x03echo after=$?\n")
os.write(master, b"exit 7\n")
try:
    while os.read(master, 4096):
        pass
except OSError:
    pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

fn attach() {
    let lab = Lab::new();
    let image = &lab.image;
    lab.write(
        "kept.yaml",
        &format!(
            "name: kept
cell: {{ name: kept }}
services:
  db: {{ image: '{image}', command: {IDLE}, ports: [8080] }}
  web: {{ image: '{image}', command: {IDLE} }}
  bare: {{ build: {{ dockerfile_inline: \"FROM {image}\\nRUN [\\\"/bin/busybox\\\", \\\"rm\\\", \\\"/bin/sh\\\"]\\n\" }}, command: [/bin/busybox, sleep, '1000'] }}
  native: {{ process: [sleep, '1000'] }}
phases:
  work:
    - exec: {{ service: db, command: ['true'] }}
    - wait: {{ service: web, until: ready }}
    - wait: {{ service: bare, until: ready }}
    - wait: {{ service: native, until: ready }}
"
        ),
    );
    let (code, _, stderr) = lab.call(&["run", "kept.yaml", "--keep", "--ttl", "1h"]);
    assert_eq!(code, Some(0), "{stderr}");
    for service in ["db at http://", "web at ", "bare at "] {
        assert!(
            stderr.contains(service),
            "no address of {service}: {stderr}"
        );
    }
    let says = |arguments: &[&str]| {
        let (code, _, stderr) = lab.call(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {stderr}");
        stderr
    };
    let which = says(&["attach", "last", "kept"]);
    assert!(which.contains("which service? bare, db, web"), "{which}");
    let none = says(&["attach", "last", "kept", "native"]);
    assert!(none.contains("no container of service `native`"), "{none}");
    assert!(none.contains("host process"), "{none}");
    let bare = says(&["attach", "last", "kept", "bare"]);
    assert!(bare.contains("service `bare` has no shell"), "{bare}");
    assert!(bare.contains("-- PROGRAM"), "{bare}");
    let program = [
        "attach",
        "last",
        "kept",
        "bare",
        "--",
        "/bin/busybox",
        "echo",
        "said",
    ];
    let (code, stdout, stderr) = lab.call(&program);
    assert_eq!((code, stdout.trim()), (Some(0), "said"), "{stderr}");

    // Standard input through a pipe.
    let mut piped = lab.phalanx(&["attach", "last", "kept", "db", "--", "cat"]);
    let mut piped = piped
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut piped.stdin.take().unwrap(), b"through\n").unwrap();
    let (code, stdout, stderr) = said(piped.wait_with_output().unwrap());
    assert_eq!((code, stdout.as_str()), (Some(0), "through\n"), "{stderr}");

    // A real terminal.
    let phalanx = lab.phalanx(&[]);
    let mut terminal = Command::new("python3");
    terminal
        .args(["-c", SHELL, env!("CARGO_BIN_EXE_phalanx"), "last"])
        .env("TERM", "xterm")
        .current_dir(lab.path());
    for (name, value) in phalanx.get_envs() {
        terminal.envs(value.map(|value| (name, value)));
    }
    let (code, stdout, stderr) = said(terminal.output().unwrap());
    assert_eq!(code, Some(7), "{stdout}\n{stderr}");

    // The stack is kept until a command removes it.
    assert!(!lab.held(&BTreeSet::new()).is_empty());
    let (code, would, stderr) = lab.call(&["gc", "--kept", "--dry-run"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(would.contains("kept container phalanx-"), "{would}");
    assert!(would.contains("kept processes of "), "{would}");
    assert!(!lab.held(&BTreeSet::new()).is_empty());
    let (code, _, stderr) = lab.call(&["gc", "--kept"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(lab.held(&BTreeSet::new()), Vec::<String>::new());
    // The image that was built for `bare` is unused now.
    let (code, images, stderr) = lab.call(&["gc", "--images", "0s", "--dry-run"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(images.contains("image phalanx-build:"), "{images}");
    let (_, images, _) = lab.call(&["gc", "--images", "876000h", "--dry-run"]);
    assert!(!images.contains("image phalanx-build:"), "{images}");
}

fn kept_for_a_time() {
    let lab = Lab::new();
    let image = &lab.image;
    lab.write(
        "kept.yaml",
        &format!(
            "name: kept
services:
  db: {{ image: '{image}', command: {IDLE}, volumes: ['data:/data'] }}
phases: {{ work: [{{ exec: {{ service: db, script: 'echo seen > /data/file' }} }}] }}
"
        ),
    );
    let (code, _, stderr) = lab.call(&["run", "kept.yaml", "--keep", "--ttl", "3s"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("kept"), "{stderr}");
    // No further `phalanx` is called.
    eventually("the kept stack is gone", || {
        lab.held(&BTreeSet::new()).is_empty().then_some(())
    });
}

fn kept_on_failure() {
    let lab = Lab::new();
    let image = &lab.image;
    lab.write(
        "kept.yaml",
        &format!(
            "name: kept
strategy: {{ matrix: {{ n: [1, 2] }} }}
cell: {{ name: 'cell ${{{{ matrix.n }}}}' }}
services:
  db: {{ image: '{image}', command: {IDLE} }}
phases:
  work:
    - exec: {{ service: db, command: [echo, '${{{{ matrix.n }}}}'] }}
      expect: [stdout.trim() == '1']
"
        ),
    );
    let (code, _, stderr) = lab.call(&["run", "kept.yaml", "--keep", "on-failure"]);
    assert_eq!(code, Some(1), "{stderr}");
    let agent = lab.agents_now();
    let label = format!("phalanx.agent={}", agent.first().unwrap());
    assert_eq!(lab.containers(&label).len(), 1, "{stderr}");
    let attach = ["attach", "last", "cell 2", "--", "echo", "there"];
    let (code, stdout, stderr) = lab.call(&attach);
    assert_eq!((code, stdout.trim()), (Some(0), "there"), "{stderr}");
    let (code, _, stderr) = lab.call(&["attach", "last", "cell 1", "--", "true"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("no container of cell 1 stands"), "{stderr}");
}

fn settings() {
    let lab = Lab::new();
    let image = &lab.image;
    lab.write(
        "kept.yaml",
        &format!(
            "name: kept
services:
  db: {{ image: '{image}', command: {IDLE}, ports: [8080] }}
phases: {{ work: [{{ exec: {{ service: db, command: ['true'] }} }}] }}
"
        ),
    );
    lab.write(
        ".config/phalanx/config.toml",
        "[docker]\nsubnets = [\"10.98.0.0/16\"]\nsubnet_prefix = 28\nengine_log_mib = 7\nreach = \"published\"\n",
    );
    for more in [&[][..], &["--agents-as-processes"]] {
        let arguments = [&["run", "kept.yaml", "--keep"], more].concat();
        let (code, _, stderr) = lab.call(&arguments);
        assert_eq!(code, Some(0), "{stderr}");
        let runs = lab.call(&["runs", "--format", "json"]).1;
        let runs: Value = serde_json::from_str(&runs).unwrap();
        let run = runs["runs"][0]["run"].as_str().unwrap().to_owned();
        let containers = lab.containers(&format!("phalanx.run={run}"));
        let id = containers.first().unwrap();
        let container: Value = serde_json::from_str(&docker(&["inspect", id])).unwrap();
        let host = &container[0]["HostConfig"];
        assert_eq!(host["LogConfig"]["Config"]["max-size"], "7m", "{host:#}");
        let settings = &container[0]["NetworkSettings"];
        let published = settings["Ports"]["8080/tcp"][0]["HostPort"].as_str();
        assert!(
            published.is_some_and(|port| !port.is_empty()),
            "{settings:#}"
        );
        let networks = settings["Networks"].as_object().unwrap();
        let network = networks.values().next().unwrap();
        assert_eq!(network["IPPrefixLen"], 28, "{network:#}");
        let address = network["IPAddress"].as_str().unwrap();
        assert!(address.starts_with("10.98."), "{address}");
        let (code, _, stderr) = lab.call(&["gc", "--kept"]);
        assert_eq!(code, Some(0), "{stderr}");
    }
    let (_, shown, _) = lab.call(&["config"]);
    let line = shown
        .lines()
        .find(|line| line.contains("docker.subnet_prefix"));
    assert!(
        line.is_some_and(|line| line.contains("28") && line.contains("config.toml")),
        "{shown}"
    );
    // Ready networks come from the same pool, so none may be left.
    assert_eq!(lab.held(&BTreeSet::new()), Vec::<String>::new());
}

fn limits() {
    let lab = Lab::new();
    let image = &lab.image;
    let spec = |name: &str, what: &str| {
        let text = format!(
            "name: {name}
services: {{ db: {{ {what}, command: {IDLE} }} }}
phases: {{ work: [{{ exec: {{ service: db, command: ['true'] }} }}] }}
"
        );
        lab.write(&format!("{name}.yaml"), &text);
        format!("{name}.yaml")
    };
    let errored = |file: &str, setting: (&str, &str)| {
        let mut command = lab.phalanx(&["run", file]);
        let (code, _, stderr) = said(command.env(setting.0, setting.1).output().unwrap());
        assert_eq!(code, Some(3), "{setting:?}: {stderr}");
        stderr
    };
    // A registry that accepts connections and never answers.
    let registry = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("image: '{}/absent:1'", registry.local_addr().unwrap());
    let pull = spec("pull", &silent);
    let pulled = errored(&pull, ("PHALANX_DOCKER__PULL_TIMEOUT_S", "1"));
    assert!(pulled.contains("1 s"), "{pulled}");
    let build = format!("build: {{ dockerfile_inline: \"FROM {image}\\nRUN sleep 1000\\n\" }}");
    let built = spec("build", &build);
    let built = errored(&built, ("PHALANX_DOCKER__BUILD_TIMEOUT_S", "1"));
    assert!(built.contains("not done within 1 s"), "{built}");
    let there = spec("there", &format!("image: '{image}'"));
    let gone = errored(
        &there,
        ("PHALANX_DOCKER__HOST", "unix:///nonexistent/engine.sock"),
    );
    assert!(gone.contains("/nonexistent/engine.sock"), "{gone}");
    let pool = errored(&there, ("PHALANX_DOCKER__SUBNETS", "nonsense"));
    assert!(pool.contains("nonsense"), "{pool}");
    assert_eq!(lab.held(&BTreeSet::new()), Vec::<String>::new());
}

fn prefetched() {
    let lab = Lab::new();
    let image = &lab.image;
    let registry = TcpListener::bind("127.0.0.1:0").unwrap();
    let absent = format!("{}/absent:1", registry.local_addr().unwrap());
    let place = lab.path().display();
    lab.write(
        "queue.yaml",
        &format!(
            "name: queue
strategy: {{ matrix: {{ image: ['{image}', '{absent}'] }} }}
services: {{ db: {{ image: '${{{{ matrix.image }}}}', command: {IDLE} }} }}
phases:
  work:
    - run: echo begun > {place}/begun
    - run: {{ script: 'while [ ! -e {place}/gate ]; do sleep 0.1; done' }}
    - exec: {{ service: db, command: ['true'] }}
"
        ),
    );
    let mut command = lab.phalanx(&["run", "queue.yaml", "--max-parallel", "1"]);
    command.env("PHALANX_DOCKER__PULL_TIMEOUT_S", "2");
    let stderr = fs::File::create(lab.path().join("queue.stderr")).unwrap();
    let mut run = command.stderr(stderr).spawn().unwrap();
    let (send, asked) = mpsc::channel();
    let waiting = thread::spawn(move || {
        // The engine requests the image of the second cell while the first one holds the only place.
        let _ = send.send(registry.accept().map(drop));
        registry
    });
    let words = || fs::read_to_string(lab.path().join("queue.stderr")).unwrap_or_default();
    let asked = asked.recv_timeout(engine_lab::BOUND);
    let still = run.try_wait().unwrap().is_none();
    fs::write(lab.path().join("gate"), "").unwrap();
    assert!(asked.is_ok() && still, "{}", words());
    let code = eventually("the run ends", || run.try_wait().unwrap());
    // The registry never sends the image, and its cell reports that.
    assert_eq!(code.code(), Some(3), "{}", words());
    drop(waiting.join());
    let marker = fs::read_to_string(lab.path().join("begun")).unwrap_or_default();
    assert!(marker.contains("begun"), "{}", words());
    assert_eq!(lab.held(&BTreeSet::new()), Vec::<String>::new());
}

/// Each step fails unless the field in its name had its effect.
fn compose() {
    let lab = Lab::new();
    let image = &lab.image;
    lab.write(
        "docker-compose.yml",
        &format!(
            r#"services:
  base:
    image: "{image}"
    command: {IDLE}
    working_dir: /tmp
    environment: {{ WHO: base, KEPT: "yes" }}
  db:
    image: "{image}"
    command: ["sh", "-c", "sleep 1; echo up > /data/up; trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"]
    volumes: [shared:/data]
    healthcheck: {{ test: ["CMD", "test", "-e", "/data/up"], interval: 1s, retries: 60 }}
    restart: always
  job:
    image: "{image}"
    command: ["sh", "-c", "test -e /data/up && sleep 1 && echo migrated > /data/job"]
    volumes: [shared:/data]
    depends_on: {{ db: {{ condition: service_healthy }} }}
  app:
    extends: base
    container_name: the-app
    environment: [WHO=app]
    command: ["sh", "-c", "trap '' TERM; cat /data/job > /tmp/seen; while :; do sleep 1; done"]
    volumes: [shared:/data]
    depends_on: {{ job: {{ condition: service_completed_successfully }}, base: {{ condition: service_started }} }}
    stop_grace_period: 1s
    restart: unless-stopped
    networks: [default]
    logging: {{ driver: none }}
  picky:
    image: "{image}"
    command: ["sh", "-c", "echo attempt; test -e /data/job || exit 7; trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"]
    volumes: [shared:/data]
    healthcheck: {{ test: ["CMD", "test", "-e", "/data/job"], interval: 1s, retries: 60 }}
    restart: on-failure
volumes: {{ shared: {{}} }}
"#
        ),
    );
    lab.write(
        "spec.yaml",
        r#"name: compose
stack: { compose: docker-compose.yml }
phases:
  work:
    - exec: { service: app, script: 'echo "$(cat /tmp/seen) $WHO $KEPT $PWD"' }
      poll: { until: "stdout.contains('migrated')", timeout: 1m }
      expect: ["stdout.trim() == 'migrated app yes /tmp'"]
    - name: a service that exited until the job had run is ready at last
      wait: { service: picky, until: ready }
    - name: an app that ignores SIGTERM is killed after its second, not after the ten that are usual
      container: { stop: app }
      timeout: 8s
"#,
    );
    let (code, _, stderr) = lab.call(&["validate", "spec.yaml"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(!stderr.contains("`restart`"), "{stderr}");
    for field in ["container_name", "logging"] {
        let told = format!("`{field}`");
        assert!(stderr.contains(&told), "nothing about {field}: {stderr}");
    }
    let (code, stdout, stderr) = lab.call(&["run", "spec.yaml", "--report", "json=report.json"]);
    assert_eq!(code, Some(0), "{stdout}\n{stderr}");
    assert_eq!(lab.held(&BTreeSet::new()), Vec::<String>::new());
    restarts_are_reported(&lab);
}

/// The service `picky` was restarted, and every report says so with the exit codes.
fn restarts_are_reported(lab: &Lab) {
    let report = fs::read(lab.path().join("report.json")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    let services = &report["cells"][0]["attempts"][0]["services"];
    let services = services.as_array().unwrap();
    let restarts = |name: &str| {
        let service = services.iter().find(|service| service["name"] == name);
        service.unwrap()["restarts"].as_array().unwrap().clone()
    };
    let picky = restarts("picky");
    assert!(!picky.is_empty(), "{services:?}");
    assert!(picky.iter().all(|exit| exit["exit_code"] == 7), "{picky:?}");
    assert!(restarts("app").is_empty(), "a step stopped it");
    let (code, stdout, stderr) = lab.call(&["show", "--cell", "compose"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains(", restarted "), "{stdout}");
}

fn replicas() {
    let lab = Lab::new();
    let image = &lab.image;
    lab.write(
        "docker-compose.yml",
        &format!(
            r#"services:
  web:
    image: "{image}"
    command: ["sh", "-c", "echo I am $$(hostname); echo $$(hostname) > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"]
    init: true
    ports: ["80:8080"]
    scale: ${{REPLICAS:-2}}
    post_start: [{{ command: "sh -c 'echo > /tmp/started'" }}]
    pre_stop: [{{ command: ["sh", "-c", "echo draining $$WHO"], environment: [WHO=web] }}]
  client: {{ image: "{image}", command: {IDLE}, init: true, depends_on: [web] }}
"#
        ),
    );
    lab.write(
        "spec.yaml",
        r#"name: replicas
strategy: { matrix: { n: [1, 3] } }
stack: { compose: docker-compose.yml, variables: { REPLICAS: "${{ matrix.n }}" } }
services:
  web: { ready: { http: { get: "${{ services.web.url }}/index.html" } } }
phases:
  work:
    - expect: [services.web.replicas.size() == matrix.n, "services.web.host == 'web'"]
    - foreach: { replica: "${{ services.web.replicas }}" }
      http: { get: "${{ replica.url }}/index.html" }
      expect: [body.trim() == replica.host]
    - exec: { service: web, command: [test, -e, /tmp/started] }
    - when: matrix.n == 3
      reason: it needs several
      steps:
        - exec: { service: web-3, script: hostname }
          expect: [stdout.trim() == 'web-3']
        - container: { kill: web-2 }
        - name: the others are the service
          wait: { service: web, until: ready }
        - container: { start: web-2 }
        - http: { get: "${{ services.web.replicas[1].url }}/index.html" }
        - container: { stop: web }
        - container: { start: web }
"#,
    );
    let (code, stdout, stderr) = lab.call(&["run", "spec.yaml", "--report", "json=r.json"]);
    assert_eq!(code, Some(0), "{stdout}\n{stderr}");
    let report: Value =
        serde_json::from_slice(&fs::read(lab.path().join("r.json")).unwrap()).unwrap();
    let services = |cell: usize| {
        let services = &report["cells"][cell]["attempts"][0]["services"];
        let services = services.as_array().unwrap().iter();
        let mut names: Vec<&str> = services.map(|s| s["name"].as_str().unwrap()).collect();
        names.sort_unstable();
        names.join(" ")
    };
    assert_eq!(services(0), "client web");
    assert_eq!(services(1), "client web-1 web-2 web-3");
    let (code, stdout, stderr) = lab.call(&["logs", "last", "3", "web-3"]);
    assert_eq!(code, Some(0), "{stderr}");
    let lines: Vec<&str> = stdout.lines().collect();
    let once = ["I am web-3", "draining web"];
    assert_eq!(lines[..2], once, "{stdout}");
    assert_eq!(lab.held(&BTreeSet::new()), Vec::<String>::new());

    lab.write(
        "broken.yaml",
        &format!(
            "name: broken
services: {{ a: {{ image: '{image}', command: {IDLE}, init: true, post_start: [{{ command: [sh, -c, 'echo no luck; exit 4'] }}] }} }}
phases: {{ p: [{{ exec: {{ service: a, command: ['true'] }} }}] }}
"
        ),
    );
    let (code, stdout, stderr) = lab.call(&["run", "broken.yaml"]);
    assert_eq!(code, Some(1), "{stdout}\n{stderr}");
    let all = stdout + &stderr;
    assert!(all.contains("post_start hook sh: exit code 4"), "{all}");
    assert!(all.contains("no luck"), "{all}");
    assert_eq!(lab.held(&BTreeSet::new()), Vec::<String>::new());
}

fn test_results() {
    let lab = Lab::new();
    let image = &lab.image;
    let xml =
        |case: &str| format!("<testsuite name='s' tests='1'><testcase name='{case}'/></testsuite>");
    let spec = format!(
        "name: suites
services:
  app: {{ image: '{image}', command: {IDLE} }}
  job: {{ image: '{image}', start: manual, command: [sh, -c, \"echo \\\"{job}\\\" > /data/j.xml\"] }}
phases:
  work:
    - exec: {{ service: app, script: \"echo \\\"{one}\\\" > /data/a.xml\" }}
      results: {{ junit: /data/a.xml }}
    - exec: {{ service: app, script: \"echo \\\"{two}\\\" > /data/b.xml\" }}
      results: {{ junit: '/data/*.xml' }}
    - container: {{ run: job }}
      results: {{ junit: ['/data/*.xml'] }}
    - exec: {{ service: app, script: \"echo \\\"{cut}\\\" > /data/c.xml; echo written; sleep 1000\" }}
      timeout: 5s
      continue-on-failure: true
      results: {{ junit: /data/c.xml }}
    - {{ name: old, continue-on-failure: true, exec: {{ service: app, command: ['true'] }}, results: {{ junit: '/data/**/*.xml' }} }}
    - {{ name: none, exec: {{ service: app, command: ['true'] }}, results: {{ junit: /none/a.xml }} }}
",
        one = xml("one"),
        two = xml("two"),
        job = xml("job"),
        cut = "<testsuite name='s'><testcase name='done'/><testcase name='bad'><failure message='no'/></testcase>",
    );
    lab.write("spec.yaml", &spec);
    let (code, stdout, stderr) = lab.call(&["run", "spec.yaml", "--report", "json=r.json"]);
    assert_eq!(code, Some(3), "{stdout}\n{stderr}");
    let report: Value =
        serde_json::from_slice(&fs::read(lab.path().join("r.json")).unwrap()).unwrap();
    let steps = report["cells"][0]["attempts"][0]["steps"]
        .as_array()
        .unwrap();
    let cases = steps.iter().filter(|step| step["action"] == "case");
    let paths: Vec<&str> = cases.map(|case| case["path"].as_str().unwrap()).collect();
    assert_eq!(
        paths,
        [
            "work/0/s::one",
            "work/1/s::two",
            "work/2/s::job",
            "work/3/s::done",
            "work/3/s::bad"
        ],
        "{stderr}"
    );
    let reason = |path: &str| {
        let step = steps.iter().find(|step| step["path"] == path);
        step.unwrap()["reason"].as_str().unwrap().to_owned()
    };
    assert!(
        reason("work/4").contains("are from before the step"),
        "{}",
        reason("work/4")
    );
    assert_eq!(reason("work/3"), "timed out after 5s");
    let late = steps.iter().find(|step| step["path"] == "work/3").unwrap();
    let notes = late["failure"]["notes"].to_string();
    assert!(
        notes.contains("test results until then: 2 cases: 1 passed, 1 failed"),
        "{notes}"
    );
    assert!(
        reason("work/5").contains("wrote no /none/a.xml in service app"),
        "{}",
        reason("work/5")
    );
    assert_eq!(lab.held(&BTreeSet::new()), Vec::<String>::new());
}
