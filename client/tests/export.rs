//! A run that leaves its machine: exported to a file, read from it, and a cell of it run again elsewhere.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods
)]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Two cells of each end; a service with lines, one of which isn't UTF-8; a file of the workspace and one that an
/// expression reads.
const SPEC: &str = r#"
name: traveller
secrets: [token]
inputs: { greeting: { type: string, default: hello } }
strategy: { matrix: { end: [passes, fails], n: [1, 2] } }
cell: { resources: { cpus: 0.05, memory: 16MiB } }
workspace: { include: [data.txt] }
vars: { note: "${{ file('note.txt') }}" }
services:
  loud:
    process: [sh, -euc, "echo hello; echo err >&2; printf 'a\\377b\\n'; printf 'no end'; exec sleep 600"]
    ready: { log: hello, timeout: 30s }
phases:
  go:
    - name: greet
      run: { script: "cat data.txt; echo \"$GREETING $NOTE $TOKEN\"", env: { GREETING: "${{ inputs.greeting }}", NOTE: "${{ vars.note }}", TOKEN: "${{ secrets.token }}" } }
      expect: ["stdout.contains('data as it was')", "stdout.contains('a note')"]
    - name: end
      run: "echo bad >&2; exit ${{ matrix.end == 'fails' ? 3 : 0 }}"
"#;
const SECRET: &str = "traveller-secret-8d1f";

struct Lab {
    place: tempfile::TempDir,
}

impl Lab {
    fn new() -> Lab {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("spec.yaml"), SPEC).unwrap();
        fs::write(place.path().join("data.txt"), "data as it was\n").unwrap();
        fs::write(place.path().join("note.txt"), "a note").unwrap();
        fs::create_dir(place.path().join("tmp")).unwrap();
        Lab { place }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Runs the program with a state directory of its own.
    fn phalanx(&self, state: &str, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_phalanx"))
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.place.path())
            .env("TMPDIR", self.at("tmp"))
            .env("PHALANX_STATE_DIR", self.at(state))
            .env("PHALANX_SECRET_token", SECRET)
            .current_dir(self.place.path())
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn ok(&self, state: &str, arguments: &[&str]) -> Vec<u8> {
        let output = self.phalanx(state, arguments);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{arguments:?}: {}",
            said(&output)
        );
        output.stdout
    }

    /// Runs the spec and exports the run. Returns its id.
    fn exported(&self) -> String {
        let run = self.phalanx("state", &["run", "spec.yaml", "--slots", "4"]);
        assert_eq!(run.status.code(), Some(1), "{}", said(&run));
        self.ok("state", &["export", "-o", "r.phx"]);
        let runs: Value =
            serde_json::from_slice(&self.ok("state", &["runs", "--format", "json"])).unwrap();
        runs["runs"][0]["run"].as_str().unwrap().to_owned()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

#[test]
fn every_view_of_an_exported_run_equals_that_of_the_original() {
    let lab = Lab::new();
    let run = lab.exported();
    let file = "--file=r.phx";
    for format in ["text", "json", "junit", "markdown"] {
        let original = lab.ok("state", &["show", &run, "--format", format]);
        let read = lab.ok("elsewhere", &["show", file, "--format", format]);
        assert_eq!(
            String::from_utf8_lossy(&read),
            String::from_utf8_lossy(&original),
            "{format}"
        );
    }
    for cell in ["passes / 1", "fails / 2"] {
        let whole = ["--cell", cell, "--verbose"];
        let original = lab.ok("state", &[&["show", run.as_str()], &whole[..]].concat());
        assert_eq!(
            lab.ok("elsewhere", &[&["show", file], &whole[..]].concat()),
            original
        );
        let original = lab.ok("state", &["logs", &run, cell, "--timestamps"]);
        let read = lab.ok("elsewhere", &["logs", file, cell, "--timestamps"]);
        assert_eq!(read, original);
        assert!(
            original.windows(3).any(|bytes| bytes == b"a\xffb"),
            "{cell}"
        );
    }
    assert_eq!(
        lab.ok("state", &["export", &run]),
        fs::read(lab.at("r.phx")).unwrap()
    );
    assert_eq!(
        lab.ok("elsewhere", &["export", file]),
        fs::read(lab.at("r.phx")).unwrap(),
        "an export of an export is the same"
    );
    assert!(is_empty(&lab.at("tmp")), "what was unpacked is removed");
}

#[test]
fn a_file_that_is_not_whole_or_something_else_is_refused_and_leaves_nothing() {
    let lab = Lab::new();
    lab.exported();
    let whole = fs::read(lab.at("r.phx")).unwrap();
    fs::write(lab.at("cut.phx"), &whole[..whole.len() / 2]).unwrap();
    for (file, expected) in [
        ("cut.phx", "truncated"),
        ("spec.yaml", "it is not an exported run"),
        ("none.phx", "No such file"),
    ] {
        let output = lab.phalanx("elsewhere", &["show", "--file", file]);
        assert_eq!(output.status.code(), Some(2), "{file}");
        let text = said(&output);
        assert!(text.contains(expected) && text.contains(file), "{text}");
    }
    assert!(is_empty(&lab.at("tmp")));
    let output = lab.phalanx("state", &["export", "-o", "no/such/place/r.phx"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
}

/// Writes a file that is well formed and whose only attempt has very many services.
fn with_services(lab: &Lab, count: usize) {
    let unpacked = Command::new("gunzip")
        .args(["-c", "r.phx"])
        .current_dir(lab.place.path())
        .output()
        .unwrap();
    let text = String::from_utf8(unpacked.stdout).unwrap();
    let mut lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line.get("log").is_none())
        .collect();
    let kind = |line: &Value| line["event"]["event"]["kind"]["kind"].clone();
    let at = lines
        .iter()
        .position(|line| kind(line) == "service_changed")
        .unwrap();
    let copies: Vec<Value> = (0..count)
        .map(|n| {
            let mut copy = lines[at].clone();
            copy["event"]["event"]["kind"]["service"] = format!("s{n}").into();
            copy
        })
        .collect();
    lines.splice(at..at, copies);
    let mut position = 0;
    for line in &mut lines {
        if let Some(event) = line.get_mut("event") {
            position += 1;
            event["position"] = position.into();
        }
        if let Some(end) = line.get_mut("end") {
            *end = serde_json::json!({ "events": position, "logs": 0 });
        }
    }
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(lab.at("many.json"), text).unwrap();
    let packed = Command::new("gzip")
        .args(["-c", "many.json"])
        .current_dir(lab.place.path())
        .output()
        .unwrap();
    fs::write(lab.at("many.phx"), packed.stdout).unwrap();
}

#[test]
fn a_file_with_very_many_services_is_refused_with_the_limit() {
    let lab = Lab::new();
    lab.exported();
    with_services(&lab, 10);
    lab.ok("elsewhere", &["show", "--file=many.phx"]);
    with_services(&lab, 1_001);
    let output = lab.phalanx("elsewhere", &["show", "--file=many.phx"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let text = said(&output);
    assert!(
        text.contains("more than 1000 services in one attempt"),
        "{text}"
    );
    assert!(is_empty(&lab.at("tmp")));
}

/// A reader that stops reading blocks the command in a write, and then a signal still ends it at once.
#[test]
fn a_signal_ends_a_command_whose_reader_does_not_read() {
    let lab = Lab::new();
    lab.exported();
    for arguments in [
        &["show", "--file=r.phx", "--format=json"][..],
        &["logs", "--file=r.phx", "passes / 1"],
        &["repro", "--file=r.phx", "passes / 1", "--print"],
    ] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_phalanx"))
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", lab.place.path())
            .env("TMPDIR", lab.at("tmp"))
            .env("PHALANX_STATE_DIR", lab.at("elsewhere"))
            .current_dir(lab.place.path())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(full_pipe())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        until_idle(&mut child);
        let sent = Instant::now();
        kill(pid, Signal::SIGINT).unwrap();
        let code = child.wait().unwrap().code();
        assert_eq!(code, Some(130), "{arguments:?}");
        assert!(sent.elapsed() < Duration::from_secs(5), "{arguments:?}");
        assert!(is_empty(&lab.at("tmp")), "{arguments:?}");
    }
}

/// Waits until a process has computed nothing for a while: nothing but the pipe holds it up.
fn until_idle(child: &mut std::process::Child) {
    let stat = format!("/proc/{}/stat", child.id());
    let (mut known, mut since) = (String::new(), Instant::now());
    while since.elapsed() < Duration::from_secs(2) || known.is_empty() {
        assert_eq!(child.try_wait().unwrap(), None, "it ended by itself");
        let now = fs::read_to_string(&stat).unwrap();
        let times: Vec<&str> = now.split(' ').skip(13).take(2).collect();
        if times.concat() != known {
            (known, since) = (times.concat(), Instant::now());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Returns the writing end of a pipe that is full and whose reader never reads.
fn full_pipe() -> Stdio {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let room = nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    writer
        .write_all(&vec![b'x'; usize::try_from(room).unwrap()])
        .unwrap();
    std::mem::forget(reader);
    writer.into()
}

#[test]
fn a_cell_runs_again_with_the_files_as_they_were() {
    let lab = Lab::new();
    let run = lab.exported();
    // What the run read is in its journal, and the workspace in its directory.
    fs::write(lab.at("spec.yaml"), "name: other\n").unwrap();
    fs::remove_file(lab.at("note.txt")).unwrap();
    fs::write(lab.at("data.txt"), "changed\n").unwrap();
    let again = lab.phalanx(
        "state",
        &["repro", &run, "passes / 2", "--report", "json=again.json"],
    );
    assert_eq!(again.status.code(), Some(0), "{}", said(&again));
    assert!(said(&again).contains("the run's copy"), "{}", said(&again));
    let report: Value = serde_json::from_slice(&fs::read(lab.at("again.json")).unwrap()).unwrap();
    assert_eq!(report["cells_by_outcome"]["total"], 1);
    assert_eq!(report["cells"][0]["name"], "passes / 2");
    let failed = lab.phalanx("state", &["repro", &run, "fails / 1"]);
    assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
}

#[test]
fn what_cannot_be_the_same_is_named() {
    let lab = Lab::new();
    lab.exported();
    let cell = "passes / 1";
    let printed = |workspace: &str| {
        let output = lab.ok(
            "elsewhere",
            &[
                "repro",
                "--file=r.phx",
                cell,
                "--print",
                "--workspace",
                workspace,
            ],
        );
        String::from_utf8(output).unwrap()
    };
    let same = printed(".");
    assert!(same.contains("= workspace"), "{same}");
    assert!(same.contains("≠ secrets   token"), "{same}");
    assert!(same.contains("phalanx run spec.yaml --cell "), "{same}");
    fs::create_dir(lab.at("other")).unwrap();
    fs::write(lab.at("other/data.txt"), "other data").unwrap();
    let differs = printed("other");
    assert!(differs.contains("≠ workspace"), "{differs}");
    // A workspace that isn't here can't be replaced by nothing.
    let gone = lab.phalanx(
        "elsewhere",
        &["repro", "--file=r.phx", cell, "--workspace", "nowhere"],
    );
    assert_eq!(gone.status.code(), Some(2), "{}", said(&gone));
    assert!(said(&gone).contains("--workspace DIR"), "{}", said(&gone));
    let other = lab.phalanx("elsewhere", &["repro", "--file=r.phx", "no such"]);
    assert_eq!(other.status.code(), Some(2), "{}", said(&other));
}

#[test]
fn a_secret_is_in_no_export() {
    let lab = Lab::new();
    lab.exported();
    let content = Command::new("gunzip")
        .arg("-c")
        .stdin(fs::File::open(lab.at("r.phx")).unwrap())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&content.stdout);
    assert!(
        text.contains("hello a note ***"),
        "the step's output is there"
    );
    assert!(!text.contains(SECRET));
}
