//! The command line: signals, reports, exit codes.

use crate::place::{BOUND, Place, Said};
use crate::{Need, Test};
use quick_junit::{Report, TestCaseStatus};
use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub fn tests() -> Vec<Test> {
    vec![
        (
            Need::Nothing,
            "JUnit is well-formed whatever a step prints",
            junit_is_well_formed_whatever_a_step_prints,
        ),
        (
            Need::Nothing,
            "JUnit names are unique and skipped steps carry their reason twice",
            junit_names_are_unique_and_skipped_steps_carry_their_reason_twice,
        ),
        (
            Need::Nothing,
            "Ctrl-C once runs always steps and leaves nothing",
            ctrl_c_once_runs_always_steps_and_leaves_nothing,
        ),
        (
            Need::Nothing,
            "Ctrl-C twice cleans up without waiting for steps",
            ctrl_c_twice_cleans_up_without_waiting_for_steps,
        ),
        (
            Need::Nothing,
            "Ctrl-C three times leaves at once and nothing lives on",
            ctrl_c_three_times_leaves_at_once,
        ),
        (
            Need::Nothing,
            "Ctrl-C ten times at once ends the run and nothing lives on",
            ctrl_c_ten_times_at_once,
        ),
        (
            Need::Nothing,
            "SIGTERM is not called Ctrl-C",
            sigterm_is_not_called_ctrl_c,
        ),
        (
            Need::Nothing,
            "a closed terminal cancels the run, reports are written and nothing lives on",
            a_closed_terminal_cancels_the_run,
        ),
        (
            Need::Nothing,
            "a closed standard output costs no verdict",
            a_closed_standard_output_costs_no_verdict,
        ),
        (
            Need::Nothing,
            "closed standard streams change no verdict",
            closed_standard_streams_change_no_verdict,
        ),
        (
            Need::Nothing,
            "a report that can't be written is exit code 3",
            a_report_that_cant_be_written_is_errored,
        ),
        (
            Need::Nothing,
            "a soft limit of open files is raised for us and kept for commands",
            a_soft_limit_of_open_files_is_raised,
        ),
        (
            Need::Nothing,
            "want of open files is errored and never failed",
            want_of_open_files_is_errored,
        ),
        (
            Need::Nothing,
            "five hundred children with sessions of their own end with their cell",
            five_hundred_children_end_with_their_cell,
        ),
        (
            Need::Nothing,
            "five hundred children end when phalanx is killed",
            five_hundred_children_end_when_phalanx_is_killed,
        ),
        (
            Need::Nothing,
            "run --failed runs what failed with the files as they are now",
            run_failed_runs_what_failed_with_the_files_as_they_are_now,
        ),
        (
            Need::Nothing,
            "rerun says that it takes the old files",
            rerun_says_that_it_takes_the_old_files,
        ),
    ]
}

fn junit(place: &Place, name: &str) -> Report {
    let text = place.read(name);
    let allowed = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    let wrong: Vec<char> = text.chars().filter(|c| !allowed(*c)).collect();
    assert!(wrong.is_empty(), "XML 1.0 forbids {wrong:?}");
    Report::deserialize_from_str(&text).unwrap()
}

fn junit_is_well_formed_whatever_a_step_prints() {
    let place = Place::of_field("junit-noncharacters");
    let said = place.call(&["run", "spec.yaml", "--report", "junit=o.xml"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    junit(&place, "o.xml");
    let text = place.read("o.xml");
    assert!(text.contains("before") && text.contains("after"), "{text}");
}

fn junit_names_are_unique_and_skipped_steps_carry_their_reason_twice() {
    let place = Place::of_field("ux");
    place.write(
        "more.yaml",
        r#"
name: names
strategy: { matrix: { v: [a, b] } }
cell: { name: "${{ matrix.v }}" }
define:
  twice: { params: { n: {} }, steps: [ { name: defined, run: "true" } ] }
phases:
  t:
    - { name: one, foreach: { x: [a, b] }, run: "true" }
    - foreach: { x: [a, b] }
      steps: [ { name: inner, run: "true" } ]
    - parallel: [ { name: beside, run: "true" }, { name: beside, run: "true" } ]
    - { use: twice, with: { n: 1 } }
    - { use: twice, with: { n: 2 } }
    - { name: later, when: "false", reason: not on a Sunday, run: "true" }
  t_u: [ { name: other, run: "true" } ]
"#,
    );
    for spec in ["foreach-dup.yaml", "more.yaml"] {
        let said = place.call(&["run", spec, "--report", "junit=o.xml"]);
        assert_eq!(said.code, Some(0), "{said:?}");
        let report = junit(&place, "o.xml");
        let cases: Vec<_> = report
            .test_suites
            .iter()
            .flat_map(|s| &s.test_cases)
            .collect();
        let names: HashSet<(Option<&str>, &str)> = cases
            .iter()
            .map(|case| (case.classname.as_deref(), &*case.name))
            .collect();
        assert_eq!(names.len(), cases.len(), "{}", place.read("o.xml"));
        assert!(cases.len() >= 4);
        for case in cases {
            if let TestCaseStatus::Skipped {
                message,
                description,
                ..
            } = &case.status
            {
                let reason = Some("not on a Sunday");
                assert_eq!(
                    (message.as_deref(), description.as_deref()),
                    (reason, reason)
                );
            }
        }
    }
}

/// A process that ends with its test.
struct Running {
    child: Child,
    said: std::path::PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// Starts a command with both outputs in a file.
    fn start(place: &Place, command: &mut Command) -> Running {
        let said = place.path().join("said");
        let file = File::create(&said).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        Running {
            child: command.spawn().unwrap(),
            said,
        }
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.said).unwrap()).into_owned()
    }

    fn until_said(&self, text: &str) {
        eventually(text, || self.said().contains(text).then_some(()));
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("the program ends", || child.try_wait().unwrap())
    }
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < BOUND, "never: {what}");
        sleep(Duration::from_millis(20));
    }
}

/// Returns the number of processes with this word among their arguments.
fn with_word(word: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .filter(|words| words.split(|b| *b == 0).any(|own| own == word.as_bytes()))
        .count()
}

fn none_is_left(word: &str) {
    eventually("nothing is left", || (with_word(word) == 0).then_some(()));
}

/// Returns a number of seconds that no other test sleeps for.
fn own_time() -> String {
    format!(
        "{}",
        100_000_000 + uuid::Uuid::new_v4().as_u128() % 100_000_000
    )
}

/// A run whose service ignores SIGTERM, whose step lasts long, and whose `always` step leaves a mark.
struct Long {
    place: Place,
    time: String,
    run: Running,
}

impl Long {
    fn start() -> Long {
        let place = Place::new();
        let time = own_time();
        write_long(&place, &time);
        let mut command = place.phalanx(&["run", "long.yaml", "--report", "json=o.json"]);
        let run = Running::start(&place, &mut command);
        begun(&place);
        Long { place, time, run }
    }

    fn always_ran(&self) -> bool {
        self.place.path().join("always").exists()
    }
}

fn write_long(place: &Place, time: &str) {
    place.write(
        "long.yaml",
        format!(
            r#"
name: long
services: {{ s: {{ process: [sh, -c, "trap '' TERM; echo up; sleep {time} & sleep {time}"], ready: {{ log: up }}, stop_grace_period: 1s }} }}
phases:
  t: [ {{ exec: {{ service: s, script: "echo > $HERE/begun; exec sleep {time}", env: {{ HERE: "{here}" }} }}, timeout: 1h }} ]
  z: {{ always: true, steps: [ {{ run: "sleep 2; echo > {here}/always" }} ] }}
"#,
            here = place.path().display()
        ),
    );
}

fn begun(place: &Place) {
    let mark = place.path().join("begun");
    eventually("the step begins", || mark.exists().then_some(()));
}

use nix::sys::signal::Signal::{SIGINT, SIGKILL, SIGTERM};

fn ctrl_c_once_runs_always_steps_and_leaves_nothing() {
    let mut long = Long::start();
    long.run.signal(SIGINT);
    assert_eq!(long.run.ended().code(), Some(130), "{}", long.run.said());
    assert!(long.always_ran(), "{}", long.run.said());
    assert_eq!(with_word(&long.time), 0);
    assert!(long.place.read("o.json").contains("Ctrl-C"));
}

fn ctrl_c_twice_cleans_up_without_waiting_for_steps() {
    let mut long = Long::start();
    long.run.signal(SIGINT);
    long.run.until_said("cancelling");
    long.run.signal(SIGINT);
    assert_eq!(long.run.ended().code(), Some(130), "{}", long.run.said());
    assert!(!long.always_ran(), "{}", long.run.said());
    assert_eq!(with_word(&long.time), 0);
}

fn ctrl_c_three_times_leaves_at_once() {
    let mut long = Long::start();
    long.run.signal(SIGINT);
    long.run.until_said("cancelling");
    long.run.signal(SIGINT);
    long.run.until_said("cleaning up without");
    long.run.signal(SIGINT);
    assert_eq!(long.run.ended().code(), Some(130), "{}", long.run.said());
    none_is_left(&long.time);
}

fn ctrl_c_ten_times_at_once() {
    let mut long = Long::start();
    for _ in 0..10 {
        long.run.signal(SIGINT);
    }
    assert_eq!(long.run.ended().code(), Some(130), "{}", long.run.said());
    none_is_left(&long.time);
}

fn sigterm_is_not_called_ctrl_c() {
    let mut long = Long::start();
    long.run.signal(SIGTERM);
    assert_eq!(long.run.ended().code(), Some(130), "{}", long.run.said());
    assert!(long.always_ran());
    let said = long.run.said() + &long.place.read("o.json");
    assert!(
        said.contains("SIGTERM") && !said.contains("Ctrl-C"),
        "{said}"
    );
}

/// Opens a terminal for the test. Returns its controlling side and the path of the other side.
#[allow(unsafe_code)]
fn terminal() -> (File, String) {
    use nix::libc;
    use std::os::fd::AsRawFd;
    let ours = File::options()
        .read(true)
        .write(true)
        .open("/dev/ptmx")
        .unwrap();
    let (mut number, unlocked): (libc::c_uint, libc::c_int) = (0, 0);
    // SAFETY: both requests take a pointer to an int that lives as long as the call.
    let done = unsafe {
        libc::ioctl(ours.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) == 0
            && libc::ioctl(ours.as_raw_fd(), libc::TIOCGPTN, &raw mut number) == 0
    };
    assert!(done, "no terminal");
    (ours, format!("/dev/pts/{number}"))
}

fn a_closed_terminal_cancels_the_run() {
    let place = Place::new();
    let time = own_time();
    write_long(&place, &time);
    let (ours, path) = terminal();
    let own = place.phalanx(&["run", "long.yaml", "--report", "json=o.json"]);
    let side = || Stdio::from(File::options().read(true).write(true).open(&path).unwrap());
    let mut command = Command::new("setsid");
    command
        .arg("--ctty")
        .arg(own.get_program())
        .args(own.get_args());
    command.env_clear().env("TERM", "xterm");
    command.envs(own.get_envs().filter_map(|(k, v)| Some((k, v?))));
    command.current_dir(place.path());
    command.stdin(side()).stdout(side()).stderr(side());
    let mut run = Running {
        child: command.spawn().unwrap(),
        said: place.path().join("long.yaml"),
    };
    // The program writes until its output is read.
    let mut reader = ours.try_clone().unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let reading = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while stopped.try_recv().is_err() && reader.read(&mut buffer).is_ok_and(|n| n > 0) {}
    });
    begun(&place);
    stop.send(()).unwrap();
    reading.join().unwrap();
    drop(ours);
    let status = run.ended();
    assert_eq!(status.code(), Some(130), "{status:?}");
    assert!(place.path().join("always").exists());
    assert!(place.read("o.json").contains("SIGHUP"));
    assert_eq!(with_word(&time), 0);
}

const PASSES: &str = "name: passes\nphases: { t: [ { run: \"true\" } ] }\n";
const FAILS: &str = "name: fails\nphases: { t: [ { run: \"exit 4\" } ] }\n";

fn shell(place: &Place, script: &str) -> Said {
    let own = place.phalanx(&[]);
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .env("PHALANX", own.get_program())
        .envs(own.get_envs().filter_map(|(k, v)| Some((k, v?))))
        .current_dir(place.path());
    crate::place::ended(&mut command)
}

fn a_closed_standard_output_costs_no_verdict() {
    let place = Place::new();
    place.write("passes.yaml", PASSES);
    place.write("fails.yaml", FAILS);
    place.write(
        "many.yaml",
        "name: many\nstrategy: { matrix: { n: \"${{ lists.range(9000) }}\" } }\nphases: { t: [ { run: \"true\" } ] }\n",
    );
    for (script, code) in [
        ("run fails.yaml --report json=-", 1),
        ("run passes.yaml --report json=-", 0),
        ("plan many.yaml", 0),
        ("schema", 0),
    ] {
        let said = shell(
            &place,
            &format!("{{ $PHALANX {script}; echo \"code $?\" >&2; }} | true"),
        );
        assert!(
            said.stderr.contains(&format!("code {code}\n")),
            "{script}: {said:?}"
        );
        assert!(!said.stderr.contains("panicked"), "{script}: {said:?}");
    }
    // The reader of the progress lines may close its pipe, too.
    let said = shell(
        &place,
        "{ $PHALANX run fails.yaml 2>&1; echo $? > code; } | true; cat code",
    );
    assert_eq!(said.stdout, "1\n", "{said:?}");
}

fn closed_standard_streams_change_no_verdict() {
    let place = Place::new();
    place.write("passes.yaml", PASSES);
    place.write("fails.yaml", FAILS);
    for closed in [
        ">&- 2>&-",
        "<&-",
        "<&- >&- 2>&-",
        "> /dev/full 2>&1",
        "2> /dev/full",
    ] {
        for (spec, code) in [("passes.yaml", 0), ("fails.yaml", 1)] {
            let said = shell(&place, &format!("$PHALANX run {spec} {closed}"));
            assert_eq!(said.code, Some(code), "{spec} {closed}: {said:?}");
        }
    }
}

fn a_report_that_cant_be_written_is_errored() {
    let place = Place::new();
    place.write("passes.yaml", PASSES);
    for script in [
        "$PHALANX run passes.yaml --report json=/dev/full",
        "$PHALANX run passes.yaml --report json=- > /dev/full",
    ] {
        let said = shell(&place, script);
        assert_eq!(said.code, Some(3), "{script}: {said:?}");
        assert!(said.stderr.contains("No space left"), "{script}: {said:?}");
    }
}

fn a_soft_limit_of_open_files_is_raised() {
    // What the agents change for themselves is as before for what they start: its own limits of open files and of core files.
    let place = Place::new();
    place.write(
        "spec.yaml",
        "name: soft\nservices: { s: { process: [sh, -c, \"ulimit -Sn; sleep 600\"], ready: { log: '^64$', timeout: 20s } } }\n\
         strategy: { matrix: { n: \"${{ lists.range(12) }}\" } }\n\
         phases: { t: [ { run: { script: \"echo $(ulimit -Sn) $(ulimit -Sc)\" }, expect: [\"stdout.trim() == '64 100'\"] }, { exec: { service: s, script: \"sleep 0.5; ulimit -Sn\" }, expect: [\"stdout.trim() == '64'\"] } ] }\n",
    );
    let said = shell(
        &place,
        "ulimit -Sc 100; ulimit -Sn 64; $PHALANX run spec.yaml --slots 12",
    );
    assert_eq!(said.code, Some(0), "{said:?}");
}

fn want_of_open_files_is_errored() {
    let place = Place::new();
    place.write(
        "spec.yaml",
        "name: want\nservices: { s: { process: [sleep, \"600\"] } }\n\
         strategy: { matrix: { n: \"${{ lists.range(8) }}\" } }\n\
         phases: { t: [ { run: \"sleep 0.2\" }, { exec: { service: s, command: [\"true\"] } } ] }\n",
    );
    for limit in [24, 32, 64] {
        let said = shell(
            &place,
            &format!("ulimit -n {limit}; $PHALANX run spec.yaml --slots 8"),
        );
        // How far a limit suffices may differ; hitting it must never count as a verdict.
        assert!(matches!(said.code, Some(0 | 3)), "{limit}: {said:?}");
        assert!(!said.stderr.contains("panicked"), "{limit}: {said:?}");
        assert!(!said.stderr.contains("... failed"), "{limit}: {said:?}");
        if said.code == Some(3) {
            assert!(said.stderr.contains("open files"), "{limit}: {said:?}");
        }
    }
    let served = "ulimit -n 64; timeout 3 $PHALANX serve --listen 127.0.0.1:0 --http ''";
    let said = shell(&place, served);
    assert!(said.stderr.contains("coordinator at"), "{said:?}");
    assert!(!said.stderr.contains("panicked"), "{said:?}");
}

/// Returns a command that starts 500 sleepers, each in its own session, every second one an orphan.
fn forking(time: &str, then: &str) -> String {
    format!(
        "i=0; while [ $i -lt 250 ]; do setsid sleep {time} & ( setsid sleep {time} & ); i=$((i+1)); done; echo forked; {then}"
    )
}

fn five_hundred_children_end_with_their_cell() {
    let place = Place::new();
    let time = own_time();
    let (service, step) = (forking(&time, "wait"), forking(&time, "exit 0"));
    place.write("service.sh", service);
    place.write("step.sh", step);
    place.write(
        "fork.yaml",
        format!(
            "name: fork\nservices: {{ s: {{ process: [sh, {here}/service.sh], ready: {{ log: forked }} }} }}\n\
             phases: {{ t: [ {{ run: {{ command: [sh, {here}/step.sh] }}, timeout: 100s }}, {{ exec: {{ service: s, command: [\"true\"] }} }} ] }}\n",
            here = place.path().display()
        ),
    );
    let said = place.call(&["run", "fork.yaml"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(with_word(&time), 0);
}

fn five_hundred_children_end_when_phalanx_is_killed() {
    let place = Place::new();
    let time = own_time();
    place.write("service.sh", forking(&time, "wait"));
    place.write(
        "fork.yaml",
        format!(
            "name: fork\nservices: {{ s: {{ process: [sh, {here}/service.sh], ready: {{ log: forked }} }} }}\n\
             phases: {{ t: [ {{ exec: {{ service: s, script: \"echo > {here}/begun; exec sleep {time}\" }}, timeout: 1h }} ] }}\n",
            here = place.path().display()
        ),
    );
    let mut run = Running::start(&place, &mut place.phalanx(&["run", "fork.yaml"]));
    begun(&place);
    run.signal(SIGKILL);
    run.ended();
    none_is_left(&time);
}

fn run_failed_runs_what_failed_with_the_files_as_they_are_now() {
    let place = Place::new();
    let spec = |bad: &str| {
        format!(
            "name: some-fail\nstrategy: {{ matrix: {{ n: [1, 2, 3] }} }}\ncell: {{ name: \"n ${{{{ matrix.n }}}}\" }}\n\
             phases: {{ t: [ {{ run: \"test ${{{{ matrix.n }}}} {bad}\" }} ] }}\n"
        )
    };
    place.write("spec.yaml", spec("-eq 1"));
    let said = place.call(&["run", "spec.yaml", "--failed"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(
        said.stderr.contains("there is no run of some-fail yet"),
        "{said:?}"
    );
    assert_eq!(place.call(&["run", "spec.yaml"]).code, Some(1));
    // Selects one of the two that failed, with the unchanged file.
    let said = place.call(&["run", "spec.yaml", "--failed", "--only", "n=1"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(
        said.stderr.contains("none of the 2 cells that failed"),
        "{said:?}"
    );
    place.write("spec.yaml", spec("-ne 3"));
    let said = place.call(&["run", "spec.yaml", "--failed"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.stderr.contains("2 cells that failed in run"),
        "{said:?}"
    );
    assert!(said.stderr.contains("some-fail: 2 cells"), "{said:?}");
    // Now only one is left.
    place.write("spec.yaml", spec("-ne 9"));
    let said = place.call(&["run", "spec.yaml", "--failed"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.contains("some-fail: 1 cell"), "{said:?}");
    let said = place.call(&["run", "spec.yaml", "--failed"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("nothing to run again"), "{said:?}");
}

fn rerun_says_that_it_takes_the_old_files() {
    let place = Place::new();
    place.write("spec.yaml", FAILS);
    assert_eq!(place.call(&["run", "spec.yaml"]).code, Some(1));
    place.write("spec.yaml", FAILS.replace("exit 4", "exit 0"));
    let said = place.call(&["rerun", "--failed"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.stderr.contains("spec and files are those that run"),
        "{said:?}"
    );
}
