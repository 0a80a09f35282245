//! The `phalanx` command as a process, against a scripted coordinator on a Unix socket: standard output and standard
//! error, exit codes, reports, Ctrl-C, a broken connection.
#![allow(clippy::unwrap_used)]

#[path = "../../report/tests/sample/mod.rs"]
mod sample;
mod scripted;

use phalanx_shared::outcome::Outcome;
use scripted::Scripted;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

fn phalanx(server: &Scripted) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_phalanx"));
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", server.directory());
    command.current_dir(server.directory());
    command.args(["--coordinator", &server.address()]);
    command.stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn run(server: &Scripted, arguments: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = phalanx(server).args(arguments).output().unwrap();
    (status.code().unwrap(), text(&stdout), text(&stderr))
}

const SPEC: &str = "name: s\nphases: { p: [{ expect: \"1 == 1\" }] }\n";

#[test]
fn words_go_to_stderr_and_only_the_report_to_stdout() {
    let server = Scripted::start(sample::events(27, 9));
    std::fs::write(server.directory().join("spec.yaml"), SPEC).unwrap();
    let (code, stdout, stderr) = run(
        &server,
        &[
            "run",
            "spec.yaml",
            "--report",
            "json=-",
            "--report",
            "junit=junit.xml",
        ],
    );
    assert_eq!(code, 3, "{stderr}");
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(report["outcome"], "errored");
    assert_eq!(report["cells"].as_array().unwrap().len(), 27);
    assert!(
        std::fs::read_to_string(server.directory().join("junit.xml"))
            .unwrap()
            .contains("<testsuite")
    );
    for line in [
        "local / v4.5.8 / ipv4 / pve | setup > create a NetBox API token ... passed 0.3",
        "pdm | sync > keepalive proxmox ... skipped: the pdm mock has no PVE-shaped API",
        "check failed: json.results[0].status.value == 'offline'",
        "coverage by proxmox_service",
        "ERRORED proxbox-e2e",
    ] {
        assert!(stderr.contains(line), "{line} is not in:\n{stderr}");
    }
    assert!(!stderr.contains('\x1b'), "no colours without a terminal");
}

#[test]
fn quiet_leaves_out_the_course_and_color_always_colours() {
    let server = Scripted::start(sample::events(27, 9));
    let (_, stdout, stderr) = run(&server, &["watch", "--quiet", "--color", "always"]);
    assert!(
        !stderr.contains(" ... passed") && stderr.contains("failures:"),
        "{stderr}"
    );
    assert!(stderr.contains("\x1b[1;31m") && stdout.is_empty());
}

#[test]
fn exit_codes_follow_the_runs_outcome() {
    for (outcome, code) in [
        (Outcome::Passed, 0),
        (Outcome::Failed, 1),
        (Outcome::Errored, 3),
        (Outcome::Cancelled, 130),
    ] {
        let server = Scripted::start(sample::of_outcome(outcome));
        assert_eq!(run(&server, &["watch", "-q"]).0, code, "{outcome}");
    }
    let server = Scripted::start(sample::of_outcome(Outcome::Skipped));
    let (code, _, stderr) = run(&server, &["watch", "-q"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("nothing was tested"), "{stderr}");
}

#[test]
fn a_broken_connection_is_resumed_where_it_broke() {
    let server = Scripted::start(sample::events(27, 9));
    server.break_after(100);
    let (code, _, stderr) = run(&server, &["watch"]);
    assert_eq!(code, 3);
    assert!(stderr.contains("asking again"), "{stderr}");
    assert_eq!(
        stderr
            .matches("local / v4.5.8 / ipv4 / pve | started")
            .count(),
        1,
        "nothing is told twice"
    );
    assert_eq!(server.watched_from(), [1, 101]);
}

#[test]
fn ctrl_c_cancels_and_the_report_is_written() {
    let mut events = sample::events(27, 9);
    let rest = events.split_off(150);
    let server = Scripted::start(events);
    server.after_cancel(sample::cancelled(&rest));
    std::fs::write(server.directory().join("spec.yaml"), SPEC).unwrap();
    let child = phalanx(&server)
        .args(["run", "spec.yaml", "--report", "json=out.json"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    server.wait_until_sent(150);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert_eq!(server.cancels(), [false]);
    assert!(
        stderr.contains("cancelling (Ctrl-C): `always` steps and clean-up still run"),
        "{stderr}"
    );
    let report = std::fs::read_to_string(server.directory().join("out.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["cancelled"], "Ctrl-C");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let server = Scripted::start(sample::events(27, 9));
    let mut child = phalanx(&server)
        .args(["show", "--format", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), text(&output.stderr)),
        (Some(0), String::new())
    );
}

#[test]
fn show_tells_a_cell_with_every_step_and_suggests_names() {
    let server = Scripted::start(sample::events(27, 9));
    let (code, stdout, _) = run(&server, &["show", "--cell", "local / v4.5.9 / ipv4 / pbs"]);
    assert_eq!(code, 0);
    assert!(
        stdout.contains("attempt 1 on runner-1 ... errored")
            && stdout.contains("attempt 2 on runner-2 ... passed"),
        "{stdout}"
    );
    assert!(
        stdout.contains("keepalive proxmox ... skipped: the pbs mock"),
        "{stdout}"
    );
    let (code, _, stderr) = run(&server, &["show", "--cell", "local / v4.5.9 / ipv4 / psb"]);
    assert_eq!(code, 2);
    assert!(
        stderr.contains("did you mean `local / v4.5.9 / ipv4 / pbs`?"),
        "{stderr}"
    );
    let (code, _, stderr) = run(&server, &["show", "--coverage-axis", "service"]);
    assert_eq!(code, 2);
    assert!(
        stderr.contains(
            "choose one of install_source, netbox_image, network_stack, proxmox_service, cell"
        ),
        "{stderr}"
    );
}

#[test]
fn timing_is_shown_as_text_and_data_and_predicted_with_other_figures() {
    let server = Scripted::start(sample::events(27, 9));
    let (code, stdout, _) = run(&server, &["timing"]);
    assert_eq!(code, 0);
    for line in [
        "efficiency ",
        "slots      9 at most",
        "waiting for service netbox ×",
    ] {
        assert!(stdout.contains(line), "{line} is not in:\n{stdout}");
    }
    let (_, stdout, _) = run(&server, &["timing", "--format", "json"]);
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(report["slots"]["peak"], 9);
    let (_, stdout, _) = run(&server, &["timing", "--format", "csv"]);
    assert!(stdout.starts_with("cell,name,attempt,kind,"));
    let cell = ["timing", "--cell", "pypi / v4.5.9 / ipv4 / pve"];
    let (_, stdout, _) = run(&server, &cell);
    assert!(
        stdout.contains("critical path") && stdout.contains('█'),
        "{stdout}"
    );

    let (code, stdout, stderr) = run(&server, &["timing", "--slots", "27"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stdout.contains("shorter") && stdout.contains("model error"),
        "{stdout}"
    );
    let (_, stdout, _) = run(
        &server,
        &["timing", "--faster", "netbox=1s", "--format", "json"],
    );
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let us = |field: &str| report["what_if"][field].as_u64().unwrap();
    assert!(us("changed_us") < us("replayed_us"));
    assert!(report["what_if"]["error"].as_f64().unwrap().abs() < 0.05);

    let (code, _, stderr) = run(&server, &["timing", "--faster", "netbux=1s"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("did you mean `netbox`?"), "{stderr}");
    let (code, _, stderr) = run(&server, &["timing", "--without", "coffee"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("label_limit"), "{stderr}");
}

#[test]
fn github_actions_gets_annotations_and_a_summary() {
    let server = Scripted::start(sample::events(27, 9));
    let summary = server.directory().join("summary.md");
    let output = phalanx(&server)
        .args(["watch", "-q"])
        .env("GITHUB_ACTIONS", "true")
        .env("GITHUB_STEP_SUMMARY", &summary)
        .output()
        .unwrap();
    let stdout = text(&output.stdout);
    assert!(
        stdout.starts_with("::error file=examples/proxbox/sync.yaml,line=57,col=9,"),
        "{stdout}"
    );
    assert!(
        std::fs::read_to_string(summary)
            .unwrap()
            .starts_with("# proxbox-e2e: errored")
    );
}

#[test]
fn mistakes_are_told_with_exit_code_2_before_anything_is_submitted() {
    let server = Scripted::start(sample::events(27, 9));
    std::fs::write(server.directory().join("spec.yaml"), SPEC).unwrap();
    for (arguments, said) in [
        (vec!["run", "spec.yml"], "did you mean `spec.yaml`?"),
        (
            vec!["run", "spec.yaml", "--report", "junit=no/such/x.xml"],
            "there is no directory no/such",
        ),
        (
            vec!["run", "spec.yaml", "--report", "pdf=x"],
            "junit, ctrf, json, markdown or html",
        ),
        (
            vec!["run", "spec.yaml", "--keep", "sometimes"],
            "expected always or on-failure",
        ),
        (
            vec!["run", "spec.yaml", "--keep", "--ttl", "soon"],
            "not a time",
        ),
        (
            vec!["run", "spec.yaml", "--slots", "many"],
            "(--slots) is `many`, expected a whole number",
        ),
        (vec!["run", "spec.yaml", "--input", "x"], "write NAME=VALUE"),
        (
            vec!["run", "spec.yaml", "--secret-env", "token"],
            "the variable token isn't set",
        ),
        (vec!["run"], "required"),
        (vec!["submit"], "required"),
        (vec!["submit", "--keep"], "which spec?"),
        (vec!["show", "nope"], "there is no run `nope`"),
        (vec!["explain", "PHX9999"], "there is no error code"),
        (
            vec!["serve", "--listen", "nowhere"],
            "not an address and port",
        ),
        (vec!["serve", "--tls", "--insecure"], "cannot be used with"),
    ] {
        let (code, stdout, stderr) = run(&server, &arguments);
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}: {stderr}");
        assert!(stderr.contains(said), "{arguments:?}: {stderr}");
    }
    assert_eq!(server.submissions(), 0);
}

#[test]
fn plan_refuses_more_cells_than_are_configured() {
    let server = Scripted::start(sample::events(27, 9));
    let spec = "name: s\nstrategy: { matrix: { n: [1, 2, 3] } }\nphases: { p: [{ expect: \"1 == 1\" }] }\n";
    std::fs::write(server.directory().join("spec.yaml"), spec).unwrap();
    let plan = |most: &str| {
        let mut command = phalanx(&server);
        command.args(["plan", "spec.yaml"]);
        command.env("PHALANX_MAX_CELLS", most).output().unwrap()
    };
    for enough in ["0", "3"] {
        assert_eq!(plan(enough).status.code(), Some(0));
    }
    let refused = plan("2");
    let stderr = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("the matrix has 3 cells") && stderr.contains("`max_cells` allows 2"),
        "{stderr}"
    );
}

#[test]
fn submit_prints_the_runs_id_and_leaves() {
    let server = Scripted::start(sample::events(27, 9));
    std::fs::write(server.directory().join("spec.yaml"), SPEC).unwrap();
    let asked: [&[&str]; 3] = [
        &["submit", "spec.yaml", "--priority", "-1"],
        &["submit", "--keep", "spec.yaml"],
        &["run", "spec.yaml", "--detach"],
    ];
    for (number, arguments) in asked.iter().enumerate() {
        let (code, stdout, stderr) = run(&server, arguments);
        assert_eq!(
            (code, stdout),
            (0, format!("{}\n", server.run())),
            "{stderr}"
        );
        let options = server.options();
        assert_eq!(options.len(), number + 1);
        assert!(options.iter().all(|given| given.detach));
    }
    assert_eq!(server.options()[0].priority, Some(-1));
    assert_eq!(server.watched_from(), Vec::<u64>::new());
    assert_eq!(server.cancels(), Vec::<bool>::new());
}

#[test]
fn nothing_is_left_to_a_coordinator_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("spec.yaml"), SPEC).unwrap();
    for arguments in [
        &["submit", "spec.yaml"][..],
        &["run", "spec.yaml", "--detach"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_phalanx"));
        command.env_clear().env("HOME", folder.path());
        let output = command
            .current_dir(folder.path())
            .args(arguments)
            .output()
            .unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("phalanx serve starts one"), "{stderr}");
    }
}

/// Runs a command without a coordinator.
fn locally(home: &Path, arguments: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_phalanx"))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", home)
        .current_dir(home)
        .stdin(Stdio::null())
        .args(arguments)
        .output()
        .unwrap();
    (status.code().unwrap(), text(&stdout), text(&stderr))
}

#[test]
fn what_a_passed_command_printed_is_shown_where_it_is_asked_for() {
    let home = tempfile::tempdir().unwrap();
    let spec = r#"
name: s
secrets: [token]
phases:
  p:
    - { name: talks, run: "for i in $(seq 30); do echo out $i; done; echo; echo end; echo err s3cr3t-of-mine >&2" }
    - { name: silent, run: "true" }
    - { name: last, expect: "1 == 1" }
"#;
    std::fs::write(home.path().join("spec.yaml"), spec).unwrap();
    std::fs::write(home.path().join("token"), "s3cr3t-of-mine").unwrap();
    let call = |arguments: &[&str]| locally(home.path(), arguments);
    let (code, _, stderr) = call(&[
        "run",
        "spec.yaml",
        "--secret-file",
        "token=token",
        "--report",
        "json=r.json",
        "--report",
        "junit=r.xml",
        "--report",
        "markdown=r.md",
    ]);
    assert_eq!(code, 0, "{stderr}");
    assert!(!stderr.contains("out 30"), "the summary is short: {stderr}");
    let read = |file: &str| std::fs::read_to_string(home.path().join(file)).unwrap();
    let report: serde_json::Value = serde_json::from_str(&read("r.json")).unwrap();
    let steps = report["cells"][0]["attempts"][0]["steps"]
        .as_array()
        .unwrap();
    let step = |name: &str| steps.iter().find(|step| step["name"] == name).unwrap();
    let lines: String = (1..=30).map(|i| format!("out {i}\n")).collect();
    assert_eq!(
        step("talks")["output"],
        serde_json::json!({ "stdout": lines + "\nend\n", "stderr": "err ***\n" })
    );
    assert!(step("silent")["output"].is_null());
    let junit = read("r.xml");
    let has = |element: &str, line: &str| {
        let (_, rest) = junit.split_once(&format!("<{element}>")).unwrap();
        rest.split_once(&format!("</{element}>"))
            .unwrap()
            .0
            .contains(line)
    };
    assert!(has("system-out", "out 7\n"), "{junit}");
    assert!(has("system-err", "err ***"), "{junit}");
    assert_eq!(junit.matches("<system-out>").count(), 1, "{junit}");
    assert!(!read("r.md").contains("out 30"));
    let cell = report["cells"][0]["name"].as_str().unwrap();
    let (_, tree, _) = call(&["show", "--cell", cell]);
    for line in [
        "stdout:\n",
        "… (22 lines before, with --verbose)\n",
        "| out 23\n",
        "| out 30\n        |\n        | end\n",
        "stderr:\n",
        "| err ***\n",
    ] {
        assert!(tree.contains(line), "{line} isn't in:\n{tree}");
    }
    assert!(!tree.contains("out 22\n"), "{tree}");
    let (_, tree, _) = call(&["show", "--verbose", "--cell", cell]);
    assert!(tree.contains("| out 1\n"), "{tree}");
    let given = ["--secret-file", "token=token"];
    let (_, _, lines) = call(&[&["run", "--verbose", "spec.yaml"], &given[..]].concat());
    assert!(lines.contains("s |     | out 1\n"), "{lines}");
    assert!(lines.contains("s |     | err ***\n"), "{lines}");
    assert!(!lines.contains("s3cr3t"), "{lines}");
    for file in ["r.json", "r.xml", "r.md"] {
        assert!(!read(file).contains("s3cr3t"), "{file}");
    }
}

/// Waits for a line of standard error, up to a time limit.
fn line_of(child: &mut Child, wanted: &str) -> Option<String> {
    let (found, wait) = std::sync::mpsc::channel();
    let stderr = child.stderr.take().unwrap();
    let wanted = wanted.to_owned();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
        // Read the rest too, so that the child never blocks on a full pipe.
        if let Some(line) = lines.find(|line| line.contains(&wanted)) {
            let _ = found.send(line);
        }
        lines.for_each(drop);
    });
    wait.recv_timeout(Duration::from_secs(60)).ok()
}

#[test]
fn without_a_terminal_a_long_step_says_what_it_is_at() {
    let mut events = sample::events(27, 9);
    let in_a_step = |event: &phalanx_shared::event::Event| event.kind.name() == "step_started";
    let at = events.iter().position(in_a_step).unwrap();
    events.truncate(at + 1);
    let server = Scripted::start(events);
    // The step began when the sample was written, long ago.
    let mut child = phalanx(&server)
        .args(["watch"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let line = line_of(&mut child, " | still at ");
    let _ = child.kill();
    let _ = child.wait();
    let line = line.unwrap();
    assert!(line.contains(" > "), "{line}");
    assert!(line.contains(" after "), "{line}");
}

#[test]
fn a_run_that_goes_on_needs_its_secrets_again() {
    let home = tempfile::tempdir().unwrap();
    let here = home.path().display();
    let spec = format!(
        "name: s\nsecrets: [token, other]\n\
         phases: {{ p: [{{ run: \"test -e {here}/go || {{ touch {here}/begun; sleep 600; }}\", timeout: 10m }}] }}\n"
    );
    std::fs::write(home.path().join("spec.yaml"), spec).unwrap();
    for name in ["token", "other"] {
        std::fs::write(home.path().join(name), format!("s3cr3t-of-{name}")).unwrap();
    }
    let given = [
        "--secret-file",
        "token=token",
        "--secret-file",
        "other=other",
    ];
    let mut child = Command::new(env!("CARGO_BIN_EXE_phalanx"))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", home.path())
        .current_dir(home.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .args(["run", "spec.yaml"])
        .args(given)
        .spawn()
        .unwrap();
    for _ in 0..600 {
        if home.path().join("begun").exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::write(home.path().join("go"), "").unwrap();
    let call = |arguments: &[&str]| locally(home.path(), arguments);
    let (code, _, stderr) = call(&["run", "--resume"]);
    assert_eq!(code, 2, "{stderr}");
    let missing = "the secrets `token`, `other` have no value";
    assert!(stderr.contains(missing), "{stderr}");
    let (code, _, stderr) = call(&["run", "--resume", "--secret-file", "token=token"]);
    assert_eq!(code, 2, "{stderr}");
    assert!(
        stderr.contains("the secret `other` has no value"),
        "{stderr}"
    );
    let (code, _, stderr) = call(&[&["run", "--resume"], &given[..]].concat());
    assert_eq!(code, 0, "{stderr}");
}

/// Starts a server that sends one event stream per connection until the test ends.
fn events_server() -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                use std::io::{Read, Write};
                let _ = stream.read(&mut [0; 4_096]);
                let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: 1\n\n";
                let _ = stream.write_all(answer.as_bytes());
            });
        }
    });
    address
}

#[test]
fn want_of_open_files_is_told_and_no_verdict_about_copies_and_streams() {
    let home = tempfile::tempdir().unwrap();
    let url = format!("http://{}/", events_server());
    let spec = format!(
        "name: want\nworkspace: {{ include: ['files/**'] }}\nservices: {{ s: {{ process: [sleep, '600'] }} }}\n\
         strategy: {{ matrix: {{ n: '${{{{ lists.range(8) }}}}' }} }}\n\
         phases: {{ p: [{{ sse: {{ get: '{url}' }} }}, {{ cp: {{ from: files, to: 's:/copied' }} }}, {{ cp: {{ from: 's:/copied/a', to: back }} }},\
         {{ sse: {{ get: '{url}' }} }}] }}\n"
    );
    std::fs::write(home.path().join("spec.yaml"), spec).unwrap();
    std::fs::create_dir(home.path().join("files")).unwrap();
    std::fs::write(home.path().join("files/a"), "a").unwrap();
    let mut errored = 0;
    for limit in [36, 52, 60, 68] {
        let script = format!("ulimit -n {limit}; exec \"$0\" run spec.yaml --slots 8");
        let Output { status, stderr, .. } = Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_phalanx")])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", home.path())
            .current_dir(home.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let (code, stderr) = (status.code(), text(&stderr));
        // How far a limit suffices may differ; hitting it must never count as a verdict.
        assert!(matches!(code, Some(0 | 3)), "{limit}: {stderr}");
        assert!(!stderr.contains("... failed"), "{limit}: {stderr}");
        let note = format!("at most {limit} open files are allowed here (`ulimit -n`)");
        assert!(stderr.contains(&note), "{limit}: {stderr}");
        errored += usize::from(code == Some(3));
    }
    assert!(errored > 0, "no limit was too low");
}

#[test]
fn a_run_of_a_version_that_kept_no_names_of_secrets_takes_those_that_are_given() {
    let server = Scripted::start(sample::events(27, 9));
    std::fs::write(server.directory().join("token"), "s3cr3t-of-mine").unwrap();
    let (code, _, stderr) = run(&server, &["rerun", "--secret-file", "token=token"]);
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.contains("scripted, secrets: token"), "{stderr}");
    std::fs::write(server.directory().join("token"), "short").unwrap();
    let (code, _, stderr) = run(&server, &["rerun", "--secret-file", "token=token"]);
    assert_eq!(code, 2, "{stderr}");
}

#[test]
fn a_directory_among_patterns_of_the_workspace_is_told_how_to_be_written() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("files")).unwrap();
    std::fs::write(home.path().join("files/a"), "a").unwrap();
    let spec = "name: s\nworkspace: { include: [files/, nothing] }\nphases: { p: [{ expect: '1 == 1' }] }\n";
    std::fs::write(home.path().join("spec.yaml"), spec).unwrap();
    let (code, stdout, stderr) = locally(home.path(), &["validate", "spec.yaml"]);
    assert_eq!(code, 0, "{stderr}");
    let said = stdout + &stderr;
    assert!(said.contains("`files/` matches no file"), "{said}");
    assert_eq!(said.matches("write `files/**`").count(), 1, "{said}");
    assert_eq!(said.matches("it is a directory").count(), 1, "{said}");
}

#[test]
fn validate_takes_several_specs_and_knows_which_files_travel() {
    let home = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = home.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    put(
        "sub/compose.yml",
        "services:\n  a:\n    image: x\n    volumes: ['./conf:/c', './data:/d', './html/index.html:/i']\n    env_file: [a.env, { path: b.env, required: false }]\n  b: { build: ./app }\n  c: { image: x, profiles: [p], volumes: ['./none:/x'] }\n",
    );
    put("sub/conf/x", "");
    put("sub/html/index.html", "");
    put("sub/app/Dockerfile", "FROM x\n");
    let spec = |include: &str| {
        format!(
            "name: s\ninputs: {{ wanted: {{}} }}\nworkspace: {{ include: [{include}] }}\nstack: {{ compose: sub/compose.yml, profiles: [] }}\nphases: {{ p: [{{ expect: '1 == 1' }}] }}\n"
        )
    };
    put("lacks.yaml", &spec("\"sub/conf/**\""));
    put("sub/a.env", "A=1\n");
    put("whole.yaml", &spec("\"sub/**\""));
    put(
        "empty.yaml",
        "name: e\nstrategy: { matrix: { a: [1], exclude: [{ a: 1 }] } }\nphases: { p: [{ expect: '1 == 1' }] }\n",
    );
    let (code, stdout, stderr) = locally(home.path(), &["validate", "lacks.yaml", "whole.yaml"]);
    assert_eq!(code, 2, "{stderr}");
    for said in [
        "`sub/html/index.html` doesn't travel to the agent",
        "`sub/a.env` doesn't travel",
        "`sub/app` doesn't travel",
        "`sub/app/Dockerfile` doesn't travel",
        "add \"sub/app/**\" to `workspace.include`",
        "sub/compose.yml:4:",
        "there is no `sub/data`: an empty directory is mounted",
    ] {
        assert!(stderr.contains(said), "{said}: {stderr}");
    }
    assert!(
        !stderr.contains("`sub/conf") && !stderr.contains("`sub/none"),
        "{stderr}"
    );
    assert!(stdout.contains("whole.yaml: s is valid"), "{stdout}");
    let (code, stdout, _) = locally(
        home.path(),
        &[
            "validate",
            "--format",
            "json",
            "whole.yaml",
            "empty.yaml",
            "absent.yaml",
        ],
    );
    assert_eq!(code, 2);
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let valid: Vec<_> = report["specs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|spec| &spec["valid"])
        .collect();
    assert_eq!(valid, [true, false, false], "{stdout}");
    assert_eq!(report["valid"], false);
    // A run is refused before anything starts.
    let (code, _, stderr) = locally(home.path(), &["run", "lacks.yaml", "-i", "wanted=1"]);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("`sub/a.env` doesn't travel"), "{stderr}");
}
