//! Helpers for tests of the whole program with a real engine: an image of the test's own, the `docker` command,
//! `phalanx` with its own state directory, and a list of its objects in the engine.
#![allow(dead_code)] // Each test program uses a part.

use libtest_mimic::{Arguments, Failed, Trial};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Longer than anything takes; guards against hanging.
pub const BOUND: Duration = Duration::from_secs(120);

/// Command of a service that only waits, and ends on SIGTERM.
pub const IDLE: &str = r#"[sh, -c, "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"]"#;

/// Runs the tests. Without a usable engine they are ignored by name; with `PHALANX_TEST_ENGINE=required` that is a
/// failure.
pub fn main(tests: &[(&str, fn())]) -> ExitCode {
    let arguments = Arguments::from_args();
    let engine = usable_engine();
    let trials = tests.iter().map(|(name, test)| {
        let test = *test;
        let run = move || match std::panic::catch_unwind(test) {
            Ok(()) => Ok(()),
            Err(_) => Err(Failed::from("panicked, see above")),
        };
        let here = engine && (!name.contains(NEEDS_PYTHON) || works("python3", &["--version"]));
        Trial::test(*name, run).with_ignored_flag(!here)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Part of the name of a test that runs a Python script.
pub const NEEDS_PYTHON: &str = "(needs python3)";

/// Whether tests can use an engine: it answers the `docker` command, and there is a static busybox for their image.
pub fn usable_engine() -> bool {
    let lacking = if !works("docker", &["version", "--format", "{{.Server.Version}}"]) {
        "no engine answers the docker command"
    } else if busybox().is_none() {
        "their image needs a static busybox: apt-get install busybox-static"
    } else {
        return true;
    };
    println!("tests that need an engine are ignored: {lacking}");
    if std::env::var("PHALANX_TEST_ENGINE").as_deref() == Ok("required") {
        eprintln!("PHALANX_TEST_ENGINE=required: {lacking}");
        std::process::exit(1);
    }
    false
}

/// Whether a program exists and succeeds.
pub fn works(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    let command = command.args(arguments).stdin(Stdio::null());
    command.output().is_ok_and(|output| output.status.success())
}

fn busybox() -> Option<&'static Path> {
    let programs = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new);
    programs.into_iter().find(|path| path.exists())
}

fn docker_output(arguments: &[&str]) -> Output {
    let output = Command::new("docker")
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    output.unwrap_or_else(|error| Output {
        status: std::os::unix::process::ExitStatusExt::from_raw(127 << 8),
        stdout: Vec::new(),
        stderr: error.to_string().into_bytes(),
    })
}

/// Returns the standard output of `docker`, which must succeed.
pub fn docker(arguments: &[&str]) -> String {
    let output = docker_output(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// `phalanx` with its own directory, home and state directory, and an image that only this test uses.
pub struct Lab {
    place: tempfile::TempDir,
    /// The image's tag.
    pub image: String,
    /// Every agent identity seen so far.
    agents: std::cell::RefCell<BTreeSet<String>>,
}

impl Lab {
    pub fn new() -> Lab {
        let image = format!("phalanx-test/lab-{}:a", uuid::Uuid::new_v4().simple());
        import(&image);
        Lab {
            place: tempfile::tempdir().unwrap(),
            image,
            agents: Default::default(),
        }
    }

    pub fn path(&self) -> &Path {
        self.place.path()
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    pub fn phalanx(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_phalanx"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path())
            .env("PHALANX_STATE_DIR", self.path().join("state"))
            .current_dir(self.path())
            .args(arguments)
            .stdin(Stdio::null());
        if let Some(host) = std::env::var_os("DOCKER_HOST") {
            command.env("DOCKER_HOST", host);
        }
        command
    }

    /// Runs a command to its end. Returns exit code, standard output and standard error.
    pub fn call(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        said(self.phalanx(arguments).output().unwrap())
    }

    /// Returns the agent identities that exist now.
    pub fn agents_now(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.path().join("state/agents"));
        let entries = entries.into_iter().flatten().flatten();
        let ids =
            entries.filter_map(|entry| fs::read_to_string(entry.path().join("agent-id")).ok());
        let ids: BTreeSet<String> = ids.map(|id| id.trim().to_owned()).collect();
        self.agents.borrow_mut().extend(ids.iter().cloned());
        ids
    }

    /// Returns everything that the engine holds of agents of this state directory (all that were ever seen), and
    /// containers of the image without a label, as builds leave them. Objects of agents in `aside` are left out.
    pub fn held(&self, aside: &BTreeSet<String>) -> Vec<String> {
        self.agents_now();
        let format = "{{.ID}} {{.Label \"phalanx.agent\"}} {{.Names}}";
        let ancestor = format!("ancestor={}", self.image);
        let of_image = docker(&[
            "ps",
            "-a",
            "--no-trunc",
            "--filter",
            &ancestor,
            "--format",
            format,
        ]);
        let mut held: Vec<String> = of_image
            .lines()
            .filter(|line| !aside.iter().any(|agent| line.contains(agent)))
            .map(|line| format!("container {line}"))
            .collect();
        for agent in self.agents.borrow().difference(aside) {
            let label = format!("label=phalanx.agent={agent}");
            for (kind, list) in [
                ("container", &["ps", "-aq"][..]),
                ("network", &["network", "ls", "--format", "{{.Name}}"]),
                ("volume", &["volume", "ls", "-q"]),
            ] {
                let found = docker(&[list, &["--filter", &label]].concat());
                held.extend(found.lines().map(|id| format!("{kind} {id} of {agent}")));
            }
        }
        held
    }

    /// Returns the ids of the containers of a run.
    pub fn containers(&self, label: &str) -> BTreeSet<String> {
        let label = format!("label={label}");
        let ids = docker(&["ps", "-q", "--no-trunc", "--filter", &label]);
        ids.lines().map(str::to_owned).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Remove what a failed test left, then the image and the images built from it.
        for line in self.held(&BTreeSet::new()) {
            let mut words = line.split(' ');
            let (kind, id) = (
                words.next().unwrap_or_default(),
                words.next().unwrap_or_default(),
            );
            let remove: &[&str] = match kind {
                "container" => &["rm", "-f", "-v", id],
                "network" => &["network", "rm", id],
                _ => &["volume", "rm", "-f", id],
            };
            docker_output(remove);
        }
        let label = format!("label=phalanx-test.image={}", self.image);
        let built = docker_output(&["images", "-q", "--filter", &label]).stdout;
        for image in String::from_utf8_lossy(&built).lines() {
            docker_output(&["rmi", "-f", image]);
        }
        docker_output(&["rmi", "-f", &self.image]);
    }
}

pub fn said(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + BOUND;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(50));
    }
}

/// Imports a static busybox with a shell and the commands that tests use.
fn import(image: &str) {
    let mut child = Command::new("docker")
        .args(["import", "--change", "ENV FROM_IMAGE=yes"])
        .args(["--change", &format!("LABEL phalanx-test.image={image}")])
        .args(["-", image])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let tar = file_system().unwrap();
    child.stdin.take().unwrap().write_all(&tar).unwrap();
    assert!(child.wait().unwrap().success(), "docker import {image}");
}

fn file_system() -> std::io::Result<Vec<u8>> {
    let program = busybox().expect("tests were ignored without it");
    let mut archive = tar::Builder::new(Vec::new());
    for directory in [
        "bin", "etc", "tmp", "proc", "sys", "dev", "root", "srv", "data",
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o777);
        header.set_size(0);
        archive.append_data(&mut header, format!("{directory}/"), std::io::empty())?;
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\n";
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(passwd.len() as u64);
    archive.append_data(&mut header, "etc/passwd", passwd.as_bytes())?;
    archive.append_path_with_name(program, "bin/busybox")?;
    for name in [
        "sh", "cat", "echo", "sleep", "true", "trap", "sync", "stty", "test", "httpd",
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        archive.append_link(&mut header, format!("bin/{name}"), "busybox")?;
    }
    archive.into_inner()
}
