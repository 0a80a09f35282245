//! `kill -9` of one `phalanx run` while another one runs with the same state directory. The next start removes the
//! leftovers of the dead one and nothing else, and `--resume` finishes its run without repeating a finished cell. Uses
//! the real program; processes are found in /proc by an environment variable that only they have. Also tests Ctrl-C
//! twice, which doesn't wait for steps, and three times, which doesn't wait for clean-up either.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)]

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Longer than anything takes; guards against hanging.
const BOUND: Duration = Duration::from_secs(120);
/// An environment variable of every process of a run's stacks and steps.
const MARK: &str = "PHALANX_TEST_KILL_MARK";

/// Cells 1 and 2 end at once, 3 and 4 when the gate opens. Every executed step leaves a line. `leaver` has a descendant
/// in its own session that ignores SIGTERM, as daemons do.
const SPEC: &str = r#"
name: kill
inputs: { place: {}, mark: {} }
strategy: { matrix: { n: [1, 2, 3, 4] } }
cell: { name: "cell ${{ matrix.n }}", resources: { cpus: 0.05, memory: 16MiB } }
services:
  plain:
    process: [sh, -c, "exec sleep 3600"]
    environment: { PHALANX_TEST_KILL_MARK: "${{ inputs.mark }}" }
  leaver:
    process: [sh, -c, "setsid sh -c 'trap : TERM; while :; do sleep 3601; done' & exec sleep 3600"]
    environment: { PHALANX_TEST_KILL_MARK: "${{ inputs.mark }}" }
phases:
  work:
    - wait: { service: plain, until: ready }
    - wait: { service: leaver, until: ready }
    - name: begins
      run: echo begins >> ${{ inputs.place }}/cell-${{ matrix.n }}
    - name: waits for the gate
      when: matrix.n > 2
      run:
        script: while [ ! -e ${{ inputs.place }}/gate ]; do sleep 0.1; done
        env: { PHALANX_TEST_KILL_MARK: "${{ inputs.mark }}" }
    - name: ends
      run: echo ends >> ${{ inputs.place }}/cell-${{ matrix.n }}
"#;

/// A step that never ends, an `always` step that never ends, and a service that ignores SIGTERM.
const STUBBORN: &str = r#"
name: stubborn
inputs: { place: {}, mark: {} }
services:
  deaf:
    process: [sh, -c, "trap : TERM; while :; do sleep 3602; done"]
    environment: { PHALANX_TEST_KILL_MARK: "${{ inputs.mark }}" }
phases:
  work:
    - wait: { service: deaf, until: ready }
    - name: waits for the gate
      run:
        script: while [ ! -e ${{ inputs.place }}/gate ]; do sleep 0.1; done
        env: { PHALANX_TEST_KILL_MARK: "${{ inputs.mark }}" }
    - name: puts things in order
      always: true
      run:
        script: echo begun > ${{ inputs.place }}/order; while [ ! -e ${{ inputs.place }}/gate ]; do sleep 0.1; done
        env: { PHALANX_TEST_KILL_MARK: "${{ inputs.mark }}" }
"#;

const NEXT: &str = "name: next\nphases: { p: [{ run: 'true' }] }\n";

/// A directory that contains the state directory and the specs, in which `phalanx` is called.
struct Bench {
    place: tempfile::TempDir,
}

/// A run in the background.
struct Started {
    child: Child,
    /// The input `place`: a directory for marker files and the gate.
    place: PathBuf,
    mark: String,
    stderr: PathBuf,
}

impl Bench {
    fn new() -> Bench {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("kill.yaml"), SPEC).unwrap();
        fs::write(place.path().join("next.yaml"), NEXT).unwrap();
        fs::write(place.path().join("stubborn.yaml"), STUBBORN).unwrap();
        Bench { place }
    }

    fn phalanx(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_phalanx"));
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.place.path())
            .env("PHALANX_STATE_DIR", self.place.path().join("state"))
            .current_dir(self.place.path())
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    fn call(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let output = self.phalanx(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let (code, stdout, stderr) = self.call(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {stderr}");
        serde_json::from_str(&stdout).unwrap()
    }

    fn start(&self, name: &str, more: &[&str]) -> Started {
        self.start_of("kill.yaml", name, more)
    }

    fn start_of(&self, spec: &str, name: &str, more: &[&str]) -> Started {
        let place = self.place.path().join(name);
        fs::create_dir(&place).unwrap();
        let mark = format!("{}-{name}", self.place.path().display());
        let stderr = place.join("stderr");
        let inputs = [format!("place={}", place.display()), format!("mark={mark}")];
        let mut command = self.phalanx(&["run", spec, "--slots", "4"]);
        command
            .args(["--input", &inputs[0], "--input", &inputs[1]])
            .args(more);
        let child = command
            .stdout(Stdio::null())
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        Started {
            child,
            place,
            mark,
            stderr,
        }
    }

    /// Returns the first listed run whose id matches.
    fn listed(&self, pick: impl Fn(&str) -> bool) -> Option<Value> {
        let list = self.json(&["runs", "--format", "json"]);
        let runs = list["runs"].as_array().unwrap().clone();
        runs.into_iter()
            .find(|run| pick(run["run"].as_str().unwrap()))
    }
}

impl Started {
    fn said(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap()
    }

    fn marks(&self, n: u32) -> Vec<String> {
        let text = fs::read_to_string(self.place.join(format!("cell-{n}"))).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn open_gate(&self) {
        fs::write(self.place.join("gate"), "").unwrap();
    }

    fn ctrl_c(&self) {
        signal(self.child.id(), Signal::SIGINT);
    }

    /// Waits until a step waits for the gate.
    fn is_at_the_gate(&self) {
        eventually("a step waits for the gate", || {
            let all = processes(&self.mark);
            all.iter().any(|p| p.command.contains("gate")).then_some(())
        });
    }

    /// Waits until the run has printed these words.
    fn has_said(&self, words: &str) {
        eventually(words, || self.said().contains(words).then_some(()));
    }

    fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    fn end(&mut self) -> ExitStatus {
        eventually("the run ends", || self.child.try_wait().unwrap())
    }

    /// Whether two cells have ended, and the other two wait at the gate with both services and the leaver's descendant
    /// up.
    fn is_half_way(&self, run: &Value) -> bool {
        let long = |p: &&Process| p.command.contains("3601") && p.command.contains("trap");
        let (all, passed) = (processes(&self.mark), &run["cells_by_outcome"]["passed"]);
        let steps = all.iter().filter(|p| p.command.contains("gate")).count();
        *passed == 2 && steps >= 2 && all.iter().filter(long).count() >= 2
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Process {
    id: u32,
    command: String,
}

/// Returns the processes with the mark. Zombies have no environment, so they are not included.
fn processes(mark: &str) -> Vec<Process> {
    let variable = format!("{MARK}={mark}");
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(|id| {
        let of = Path::new("/proc").join(id.to_string());
        let environment = fs::read(of.join("environ")).ok()?;
        let mut variables = environment.split(|byte| *byte == 0);
        variables.find(|each| *each == variable.as_bytes())?;
        let command = fs::read(of.join("cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        Some(Process { id, command })
    })
    .collect()
}

fn signal(process: u32, signal: Signal) {
    let id = Pid::from_raw(i32::try_from(process).unwrap());
    nix::sys::signal::kill(id, signal).unwrap();
}

/// Returns the wardens above the marked processes: their parents without a mark.
fn wardens(mark: &str) -> Vec<u32> {
    let below: Vec<u32> = processes(mark).iter().map(|p| p.id).collect();
    let parents = below.iter().filter_map(|id| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // State and parent follow the name in parentheses.
        stat.rsplit(')')
            .next()?
            .split_whitespace()
            .nth(1)?
            .parse()
            .ok()
    });
    let mut parents: Vec<u32> = parents.filter(|id| !below.contains(id)).collect();
    parents.sort_unstable();
    parents.dedup();
    parents
}

fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + BOUND;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(100));
    }
}

/// Checks the marker files of a run that passed; `cut` cells began twice.
fn assert_steps(run: &Started, cut: &[u32]) {
    for n in 1..=4 {
        let expected: &[&str] = if cut.contains(&n) {
            &["begins", "begins", "ends"]
        } else {
            &["begins", "ends"]
        };
        assert_eq!(run.marks(n), expected, "cell {n}");
    }
}

fn a_killed_run_is_cleared_up_and_resumed(more: &[&str]) {
    let bench = Bench::new();
    let mut a = bench.start("a", more);
    let id = eventually("run A is listed", || bench.listed(|_| true));
    let id = id["run"].as_str().unwrap().to_owned();
    let mut b = bench.start("b", more);
    let other = eventually("run B is listed", || bench.listed(|run| run != id));
    let other = other["run"].as_str().unwrap().to_owned();
    for (run, id) in [(&a, &id), (&b, &other)] {
        eventually(&format!("half of {id} is done\n{}", run.said()), || {
            let row = bench.listed(|run| run == id)?;
            run.is_half_way(&row).then_some(())
        });
    }
    let others: Vec<u32> = processes(&b.mark).iter().map(|p| p.id).collect();

    a.child.kill().unwrap();
    a.child.wait().unwrap();

    // The next start, of any run, removes everything of A.
    let (code, _, stderr) = bench.call(&["run", "next.yaml"]);
    assert_eq!(code, Some(0), "{stderr}");
    eventually("nothing of A is left", || {
        processes(&a.mark).is_empty().then_some(())
    });
    // B still has all its processes.
    assert!(b.lives(), "{}", b.said());
    let left: Vec<u32> = processes(&b.mark).iter().map(|p| p.id).collect();
    let stable = others.iter().filter(|id| left.contains(id)).count();
    assert!(stable >= 8, "B's services: {others:?}, later {left:?}");

    // The list is right about the interrupted run: two cells have passed, and it hasn't ended.
    let row = bench.listed(|run| run == id).unwrap();
    assert_eq!(row["outcome"], Value::Null, "{row}");
    assert_eq!(row["cells_by_outcome"]["passed"], 2, "{row}");
    assert_eq!([&row["running"], &row["queued"]], [0, 2], "{row}");
    let finished = [a.marks(1), a.marks(2)];

    a.open_gate();
    let (code, _, stderr) = bench.call(&["run", "--resume", &id, "--slots", "4"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!([a.marks(1), a.marks(2)], finished);
    assert_steps(&a, &[3, 4]);
    let row = bench.listed(|run| run == id).unwrap();
    assert_eq!(row["outcome"], "passed", "{row}");
    assert_eq!(row["cells_by_outcome"]["passed"], 4, "{row}");
    let shown = bench.json(&["show", &id, "--format", "json"]);
    assert_eq!(shown["outcome"], "passed");
    let cells = shown["cells"].as_array().unwrap();
    let attempts = |cell: &Value| cell["attempts"].as_array().map(Vec::len);
    assert_eq!(
        cells.iter().map(attempts).collect::<Vec<_>>(),
        [Some(1), Some(1), Some(2), Some(2)],
        "{shown:#}"
    );

    // B was not affected.
    assert!(b.lives(), "{}", b.said());
    b.open_gate();
    assert_eq!(b.end().code(), Some(0), "{}", b.said());
    assert_steps(&b, &[]);
    eventually("nothing of either is left", || {
        (processes(&a.mark).is_empty() && processes(&b.mark).is_empty()).then_some(())
    });
    let row = bench.listed(|run| run == other).unwrap();
    assert_eq!(row["outcome"], "passed", "{row}");
}

#[test]
fn a_killed_run_is_cleared_up_and_resumed_while_another_goes_on() {
    a_killed_run_is_cleared_up_and_resumed(&[]);
}

#[test]
fn so_it_is_when_the_agents_are_processes_of_their_own() {
    a_killed_run_is_cleared_up_and_resumed(&["--agents-as-processes"]);
}

#[test]
fn ctrl_c_twice_cleans_up_without_waiting_for_steps() {
    let bench = Bench::new();
    let mut run = bench.start_of("stubborn.yaml", "twice", &[]);
    run.is_at_the_gate();
    run.ctrl_c();
    run.has_said("cancelling (Ctrl-C): `always` steps and clean-up still run");
    let order = run.place.join("order");
    eventually("the `always` step runs", || order.exists().then_some(()));
    assert!(run.lives(), "{}", run.said());
    run.ctrl_c();
    run.has_said("cleaning up without waiting for steps");
    assert_eq!(run.end().code(), Some(130), "{}", run.said());
    assert!(!run.said().contains("left at once"), "{}", run.said());
    assert!(run.said().contains("CANCELLED stubborn"), "{}", run.said());
    let left = processes(&run.mark);
    assert!(left.is_empty(), "it was clean before it ended");
}

#[test]
fn ctrl_c_a_third_time_leaves_at_once_and_nothing_stays() {
    let bench = Bench::new();
    let mut run = bench.start_of("stubborn.yaml", "thrice", &[]);
    run.is_at_the_gate();
    run.ctrl_c();
    run.has_said("cancelling (Ctrl-C): ");
    let order = run.place.join("order");
    eventually("the `always` step runs", || order.exists().then_some(()));
    // With its wardens frozen, no clean-up can end.
    let frozen = wardens(&run.mark);
    assert!(!frozen.is_empty() && !frozen.contains(&run.child.id()));
    frozen.iter().for_each(|id| signal(*id, Signal::SIGSTOP));
    run.ctrl_c();
    run.has_said("cleaning up without waiting for steps");
    run.ctrl_c();
    let ended = run.end();
    frozen.iter().for_each(|id| signal(*id, Signal::SIGCONT));
    assert_eq!(ended.code(), Some(130), "{}", run.said());
    assert!(run.said().contains("left at once"), "{}", run.said());
    eventually("nothing of it is left", || {
        processes(&run.mark).is_empty().then_some(())
    });
}
