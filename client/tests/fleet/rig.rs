//! Coordinators, agents and clients as processes, all in one temporary directory.

use phalanx_proto::v1::control_client::ControlClient;
use serde_json::Value;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tonic::transport::Channel;

/// Longer than anything takes; guards against hanging.
pub const BOUND: Duration = Duration::from_secs(180);

/// Four cells; each prints a line, waits for the gate, and prints another line.
pub const GATE: &str = r#"
name: gate
inputs: { place: {} }
strategy: { matrix: { n: [1, 2, 3, 4] } }
cell: { name: "cell ${{ matrix.n }}", resources: { cpus: 0.05, memory: 16MiB } }
phases:
  work:
    - name: begins
      run: echo begins >> ${{ inputs.place }}/cell-${{ matrix.n }}
    - name: waits for the gate
      run: |
        echo $$ >> ${{ inputs.place }}/waits-${{ matrix.n }}
        while [ ! -e ${{ inputs.place }}/gate ]; do sleep 0.1; done
    - name: ends
      run: echo ends >> ${{ inputs.place }}/cell-${{ matrix.n }}
"#;

pub struct Fleet {
    place: tempfile::TempDir,
}

/// A process that ends with the test.
pub struct Process {
    child: Child,
    log: PathBuf,
}

pub struct Coordinator {
    pub process: Process,
    pub address: SocketAddr,
    pub http: String,
    /// Fingerprint by which a coordinator with TLS is known.
    pub known_by: Option<String>,
}

/// A run of [`GATE`], and its directory.
pub struct Run {
    pub id: String,
    pub place: PathBuf,
}

impl Fleet {
    pub fn new() -> Fleet {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("gate.yaml"), GATE).unwrap();
        Fleet { place }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Returns the program, without the machine's settings.
    pub fn phalanx(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_phalanx"));
        command
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", self.place.path())
            .env("PHALANX_STATE_DIR", self.path("state"))
            .env("PHALANX_DOCKER__READY_NETWORKS", "0")
            .current_dir(self.place.path())
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    fn start(&self, name: &str, command: &mut Command) -> Process {
        let log = self.path(&format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let child = command.stdout(Stdio::null()).stderr(file).spawn().unwrap();
        Process { child, log }
    }

    pub fn serve(&self) -> Coordinator {
        self.serve_at("127.0.0.1:0")
    }

    /// Starts a coordinator on a new port, or on that of one that ended.
    pub fn serve_at(&self, listen: &str) -> Coordinator {
        self.serve_at_with(listen, &[])
    }

    pub fn serve_at_with(&self, listen: &str, more: &[&str]) -> Coordinator {
        let arguments = ["serve", "--listen", listen, "--http", "127.0.0.1:0"];
        self.serving(self.phalanx(&arguments).args(more))
    }

    /// Starts a coordinator with settings and a limit on open files.
    pub fn serve_within(&self, settings: &[(&str, &str)], files: u32) -> Coordinator {
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];
        let own = self.phalanx(&arguments);
        let mut command = Command::new("sh");
        let limited = format!(r#"ulimit -n {files} && exec "$0" "$@""#);
        command.args(["-c", &limited]).arg(own.get_program());
        command.args(own.get_args()).env_clear();
        command.envs(own.get_envs().filter_map(|(k, v)| Some((k, v?))));
        command.envs(settings.iter().copied());
        command.current_dir(self.place.path()).stdin(Stdio::null());
        self.serving(&mut command)
    }

    /// Starts a coordinator that may have to wait before it listens.
    pub fn standby(&self, name: &str, arguments: &[&str]) -> Process {
        self.start(name, self.phalanx(&["serve"]).args(arguments))
    }

    fn serving(&self, command: &mut Command) -> Coordinator {
        let before = fs::read_to_string(self.path("serve.log")).unwrap_or_default();
        let mut process = self.start("serve", command);
        let said = eventually("the coordinator listens", || {
            let said = process.said()[before.len()..].to_owned();
            assert!(process.lives(), "{said}");
            said.contains("/metrics").then_some(said)
        });
        let after = |mark: &str| {
            let rest = said.split_once(mark).unwrap().1;
            let end = rest.find([':', '/', '\n']).unwrap();
            let port = rest[end..]
                .find(['/', '\n', ' '])
                .map_or(rest.len(), |at| end + at);
            // HOST:PORT, up to what follows the port.
            let text = &rest[..port];
            text.trim_end_matches(':').to_owned()
        };
        let known_by = said.split_once("known by --ca ");
        let known_by = known_by.map(|(_, rest)| rest.split([' ', '\n']).next().unwrap().to_owned());
        let scheme = if known_by.is_some() { "https" } else { "http" };
        Coordinator {
            address: after(&format!("coordinator at {scheme}://"))
                .parse()
                .unwrap(),
            http: after(&format!("metrics at {scheme}://")),
            known_by,
            process,
        }
    }

    /// Starts an agent with its own identity under this name.
    pub fn agent(&self, name: &str, coordinator: &str, slots: u32) -> Process {
        self.agent_within(&[], name, coordinator, slots)
    }

    /// Starts an agent through a command that runs another command. It allows everything: what agents refuse has its own
    /// tests.
    pub fn agent_within(
        &self,
        within: &[&str],
        name: &str,
        coordinator: &str,
        slots: u32,
    ) -> Process {
        self.agent_allowing(&["--allow", "all"], within, name, coordinator, slots)
    }

    /// Starts an agent with the flags of its policy; without any it is closed.
    pub fn agent_allowing(
        &self,
        policy: &[&str],
        within: &[&str],
        name: &str,
        coordinator: &str,
        slots: u32,
    ) -> Process {
        let identity = self.path(&format!("agent-{name}"));
        let identity = identity.to_str().unwrap();
        let slots = slots.to_string();
        let mut command = match within {
            [] => self.phalanx(&[]),
            [program, rest @ ..] => {
                let own = self.phalanx(&[]);
                let mut command = Command::new(program);
                command.args(rest).arg(own.get_program());
                command
                    .env_clear()
                    .envs(own.get_envs().filter_map(|(k, v)| Some((k, v?))));
                command.current_dir(self.place.path()).stdin(Stdio::null());
                command
            }
        };
        command.args(["agent", "--coordinator", coordinator, "--name", name]);
        command.args(["--identity-dir", identity, "--slots", &slots]);
        command.args(policy);
        self.start(&format!("agent-{name}"), &mut command)
    }

    /// Runs a client's command to its end.
    pub fn call(&self, at: &Coordinator, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = self.phalanx(arguments);
        if let Some(fingerprint) = &at.known_by {
            command.env("PHALANX_CA", fingerprint);
        }
        let output = command
            .env("PHALANX_COORDINATOR", at.url())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    pub fn json(&self, at: &Coordinator, arguments: &[&str]) -> Value {
        let (code, stdout, stderr) = self.call(at, arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {stderr}");
        serde_json::from_str(&stdout).unwrap()
    }

    /// Returns the state of each agent by name.
    pub fn states(&self, at: &Coordinator) -> Vec<(String, String)> {
        let list = self.json(at, &["agents", "--format", "json"]);
        let agents = list["agents"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        agents
            .map(|a| (text(&a["name"]), text(&a["state"])))
            .collect()
    }

    pub fn wait_for_state(&self, at: &Coordinator, agent: &str, state: &str) {
        let wanted = (agent.to_owned(), state.to_owned());
        eventually(&format!("{agent} is {state}"), || {
            self.states(at).contains(&wanted).then_some(())
        });
    }

    /// Submits a run of [`GATE`] without waiting for it.
    pub fn submit(&self, at: &Coordinator, name: &str, more: &[&str]) -> Run {
        let place = self.path(name);
        fs::create_dir(&place).unwrap();
        let input = format!("place={}", place.display());
        let mut arguments = vec!["submit", "gate.yaml", "--input", &input];
        arguments.extend(more);
        let (code, stdout, stderr) = self.call(at, &arguments);
        assert_eq!(code, Some(0), "{stderr}");
        let id = stdout.trim().to_owned();
        Run { id, place }
    }

    /// Returns the run as JSON.
    pub fn show(&self, at: &Coordinator, run: &Run) -> Value {
        self.json(at, &["show", &run.id, "--format", "json"])
    }

    /// Returns the run as JSON after its end.
    pub fn finished(&self, at: &Coordinator, run: &Run) -> Value {
        let (_, _, stderr) = self.call(at, &["watch", &run.id, "-q"]);
        let shown = self.show(at, run);
        assert!(shown["outcome"].is_string(), "{stderr}");
        shown
    }
}

impl Coordinator {
    pub fn url(&self) -> String {
        let scheme = if self.known_by.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.address)
    }

    pub async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(self.url()).unwrap();
        endpoint.connect().await.unwrap()
    }

    pub async fn client(&self) -> ControlClient<Channel> {
        ControlClient::connect(self.url()).await.unwrap()
    }

    /// Kills the coordinator with `kill -9`. Returns its address, so that the next one can use the same port.
    pub fn killed(mut self) -> String {
        self.process.kill();
        self.address.to_string()
    }

    /// Gets a page over HTTP. Returns status line and body.
    pub fn get(&self, path: &str) -> (String, String) {
        self.get_as(path, "*/*")
    }

    /// Gets a page over HTTP in the format that the client accepts.
    pub fn get_as(&self, path: &str, accept: &str) -> (String, String) {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(&self.http).unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n",
            self.http
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    /// Returns the value of a metric; the name includes labels as in the text.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics");
        let of = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        text.lines()
            .find_map(of)
            .unwrap_or_else(|| panic!("no {name} in {text}"))
    }
}

impl Process {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the peak memory of the process so far.
    pub fn peak_mib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        kib.parse::<u64>().unwrap() / 1024
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let id = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(id, signal).unwrap();
    }

    pub fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn end(&mut self) -> ExitStatus {
        eventually("the process ends", || self.child.try_wait().unwrap())
    }

    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn wait_for(&self, text: &str) {
        eventually(&format!("`{text}` is said"), || {
            self.said().contains(text).then_some(())
        });
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.said());
        }
    }
}

impl Run {
    fn lines(&self, file: String) -> Vec<String> {
        let text = fs::read_to_string(self.place.join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Returns the lines that the steps of a cell left.
    pub fn marks(&self, n: u32) -> Vec<String> {
        self.lines(format!("cell-{n}"))
    }

    /// Returns the processes that wait or waited at the gate for a cell, one per attempt.
    pub fn waiters(&self, n: u32) -> Vec<String> {
        self.lines(format!("waits-{n}"))
    }

    /// Waits until each of the cells has waited at the gate in this many attempts.
    pub fn wait_at_gate(&self, cells: &[u32], attempts: usize) {
        eventually(
            &format!("{cells:?} wait at the gate of {}", self.id),
            || {
                let here = |n: &u32| self.waiters(*n).len() >= attempts;
                cells.iter().all(here).then_some(())
            },
        );
    }

    pub fn open_gate(&self) {
        fs::write(self.place.join("gate"), "").unwrap();
    }
}

pub fn process_exists(id: &str) -> bool {
    // A zombie counts as gone: only its process id is left.
    fs::read_to_string(Path::new("/proc").join(id).join("status"))
        .is_ok_and(|status| !status.contains("State:\tZ"))
}

pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + BOUND;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Returns the number of attempts by cell name.
pub fn attempts(shown: &Value) -> Vec<(String, usize)> {
    let cells = shown["cells"].as_array().unwrap().iter();
    let of = |cell: &Value| {
        let name = cell["name"].as_str().unwrap().to_owned();
        (name, cell["attempts"].as_array().unwrap().len())
    };
    cells.map(of).collect()
}
