//! The files of a spec travel from the client. The coordinator reads no path that a client names, and accepts only
//! valid workspaces.

use crate::rig::{Coordinator, Fleet, Run, eventually};
use nix::sys::signal::Signal;
use phalanx_proto::convert::Refusal;
use phalanx_proto::limit::CHUNK_BYTES;
use phalanx_proto::v1;
use phalanx_proto::v1::control_client::ControlClient;
use phalanx_proto::workspace::Part;
use phalanx_shared::diagnostic::Diagnostic;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::SystemTime;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Every kind of file that a spec may use; no name occurs twice.
const FILES: [(&str, &str); 6] = [
    (
        "spec.yaml",
        r#"
name: travels
include: [lib/more.yaml]
stack: { compose: compose.yaml }
workspace: { include: ["data/**", "app.env", "tool.sh", "nothing/*"] }
strategy: { matrix: { n: [1, 2] } }
cell: { name: "cell ${{ matrix.n }}", resources: { cpus: 0.05, memory: 16MiB } }
vars: { release: "${{ fromTOML(file('release.toml')).release }}" }
services:
  web:
    process: [sleep, "1000"]
    env_file: app.env
phases:
  work:
    - exec: { service: web, command: [sh, -c, "echo $FROM_FILE $FROM_COMPOSE"] }
      expect: ["stdout.trim() == 'a b'"]
    - run: ./tool.sh ${{ vars.release }} ${{ vars.included }} $(cat data/deep/greeting)
      expect: ["stdout.trim() == '7 c hello'"]
    - expect: workspace.digest.size() == 64
"#,
    ),
    ("lib/more.yaml", "vars: { included: c }\n"),
    (
        "compose.yaml",
        "services: { web: { environment: { FROM_COMPOSE: b } } }\n",
    ),
    ("app.env", "FROM_FILE=a\n"),
    ("release.toml", "release = 7\n"),
    ("data/deep/greeting", "hello"),
];

/// Creates a directory of a client, separate from everything else.
fn desk(fleet: &Fleet) -> PathBuf {
    let desk = fleet.path("desk");
    for (path, text) in FILES {
        let path = desk.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let tool = desk.join("tool.sh");
    fs::write(&tool, "#!/bin/sh\necho \"$@\"\n").unwrap();
    fs::set_permissions(tool, fs::Permissions::from_mode(0o755)).unwrap();
    desk
}

/// Returns the workspaces that the coordinator keeps.
fn kept(fleet: &Fleet) -> Vec<PathBuf> {
    let entries = fs::read_dir(fleet.path("state/coordinator/workspaces"));
    let entries = entries.into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn is_partial(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "partial")
}

/// Submits without waiting. Returns the run and the output.
fn detached(fleet: &Fleet, at: &Coordinator, arguments: &[&str]) -> (Run, String) {
    let (code, stdout, stderr) = fleet.call(at, arguments);
    assert_eq!(code, Some(0), "{stderr}");
    let run = Run {
        id: stdout.trim().to_owned(),
        place: fleet.path(""),
    };
    (run, stderr)
}

const SUBMIT: [&str; 3] = ["run", "desk/spec.yaml", "--detach"];
const SENT: &str = "sending the workspace: 3 files";

#[test]
fn what_a_run_needs_is_sent_once_and_held_as_long_as_a_run_may_need_it() {
    let fleet = Fleet::new();
    let desk = desk(&fleet);
    let at = fleet.serve();
    let (first, said) = detached(&fleet, &at, &SUBMIT);
    assert!(said.contains(SENT), "{said}");
    assert!(said.contains("`nothing/*` matches no file"), "{said}");
    let (second, said) = detached(&fleet, &at, &SUBMIT);
    assert!(!said.contains("sending"), "{said}");
    assert_eq!(kept(&fleet).len(), 1);
    let local = fleet.phalanx(&["run", "desk/spec.yaml", "-q"]).output();
    let local = local.unwrap();
    let said = String::from_utf8(local.stderr).unwrap();
    assert_eq!(local.status.code(), Some(0), "{said}");
    // No cell has begun, so anything that is read from now on isn't the client's.
    let away = fleet.path("away");
    fs::rename(&desk, &away).unwrap();
    let agent = fleet.agent("a", &at.url(), 4);
    for run in [&first, &second] {
        let shown = fleet.finished(&at, run);
        assert_eq!(shown["outcome"], "passed", "{shown:#}{}", agent.said());
    }

    let address = at.killed();
    let at = fleet.serve_at(&address);
    fleet.wait_for_state(&at, "a", "connected");
    let (again, _) = detached(&fleet, &at, &["rerun", &first.id, "--detach"]);
    let shown = fleet.finished(&at, &again);
    assert_eq!(shown["outcome"], "passed", "{shown:#}");

    // First an old workspace of runs that are kept, then one without runs that was just requested.
    let age = |path: &Path| {
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    };
    let archive = kept(&fleet).remove(0);
    age(&archive);
    fleet.call(&at, &["gc"]);
    assert_eq!(kept(&fleet), std::slice::from_ref(&archive));
    fs::rename(&away, &desk).unwrap();
    let (third, said) = detached(&fleet, &at, &SUBMIT);
    assert!(!said.contains("sending"), "{said}");
    fleet.finished(&at, &third);
    eventually("all runs are forgotten", || {
        fleet.call(&at, &["gc", "--older-than", "1s"]);
        let (_, runs, _) = fleet.call(&at, &["runs", "--format", "json"]);
        (!runs.contains(&third.id)).then_some(())
    });
    assert_eq!(kept(&fleet), std::slice::from_ref(&archive));
    age(&archive);
    let (_, removed, _) = fleet.call(&at, &["gc"]);
    assert!(removed.contains(".tar"), "{removed}");
    assert_eq!(kept(&fleet), Vec::<PathBuf>::new());
    let (fourth, said) = detached(&fleet, &at, &SUBMIT);
    assert!(said.contains(SENT), "{said}");
    // A workspace that is lost all the same is noticed before anything runs.
    fleet.finished(&at, &fourth);
    fs::remove_file(&archive).unwrap();
    let (code, _, said) = fleet.call(&at, &["rerun", &fourth.id]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("doesn't hold the workspace"), "{said}");
}

#[test]
fn a_wrong_spec_is_told_as_in_local_mode_and_nothing_is_sent() {
    let fleet = Fleet::new();
    let desk = desk(&fleet);
    let at = fleet.serve();
    fs::write(desk.join("release.toml"), "release = = 7\n").unwrap();
    let local = fleet.phalanx(&["run", "desk/spec.yaml"]).output().unwrap();
    let local = (
        local.status.code(),
        String::from_utf8(local.stderr).unwrap(),
    );
    let (code, _, said) = fleet.call(&at, &["run", "desk/spec.yaml"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("fromTOML"), "{said}");
    assert_eq!((code, said), local);
    assert_eq!(kept(&fleet), Vec::<PathBuf>::new());
}

fn digest() -> Part {
    Part::Digest("0".repeat(64))
}

fn file(path: &str, size: u64) -> Part {
    Part::File {
        path: path.to_owned(),
        executable: false,
        size,
    }
}

async fn put(
    at: &Coordinator,
    parts: impl Stream<Item = v1::WorkspacePart> + Send + 'static,
) -> Status {
    at.client().await.put_workspace(parts).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_workspace_is_refused_with_a_reason_and_leaves_nothing() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let wire =
        |parts: Vec<Part>| tokio_stream::iter(parts.into_iter().map(v1::WorkspacePart::from));
    let link = Part::Link {
        path: "a".to_owned(),
        target: "../../etc".to_owned(),
    };
    let piece = |bytes| Part::Data(vec![0; bytes]);
    for (parts, code, said) in [
        (
            vec![Part::Digest("../../journal".to_owned())],
            Code::InvalidArgument,
            "is not the digest",
        ),
        (
            vec![file("a", 0)],
            Code::InvalidArgument,
            "isn't its digest",
        ),
        (
            vec![digest(), file("../a", 0)],
            Code::InvalidArgument,
            "is not a path in a workspace",
        ),
        (
            vec![digest(), file("a", 3 << 30)],
            Code::InvalidArgument,
            "at most 2147483648",
        ),
        (
            vec![digest(), file("a", 9 << 20), piece(CHUNK_BYTES + 1)],
            Code::InvalidArgument,
            "a piece of a file has",
        ),
        (
            vec![digest(), link],
            Code::InvalidArgument,
            "leads out of the workspace",
        ),
        (
            vec![digest(), file("a", 1), piece(1)],
            Code::Aborted,
            "one of them changed",
        ),
    ] {
        let status = put(&at, wire(parts)).await;
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(said), "{status}");
    }
    // An upload that never ends.
    let more = v1::WorkspacePart::from(piece(1 << 10));
    let begun = wire(vec![digest(), file("a", 1 << 20)]);
    let endless = begun.chain(tokio_stream::iter(std::iter::repeat(more)));
    let status = put(&at, endless).await;
    assert!(status.message().contains("belong to no file"), "{status}");

    let mut client = at.client().await;
    let digest = "../workspaces".to_owned();
    let asked = client.has_workspace(v1::HasWorkspaceRequest { digest });
    assert_eq!(asked.await.unwrap_err().code(), Code::InvalidArgument);

    // A path has no meaning to the coordinator, even if it exists there.
    let desk = desk(&fleet);
    let source = |name: &str| v1::SourceFile {
        name: name.to_owned(),
        text: fs::read_to_string(desk.join(name)).unwrap(),
    };
    let request = v1::SubmitRequest {
        files: ["spec.yaml", "lib/more.yaml", "compose.yaml"]
            .map(source)
            .into(),
        workspace_root: desk.display().to_string(),
        ..Default::default()
    };
    let status = client.submit(request.clone()).await.unwrap_err();
    let refusal = Refusal::from_status(&status).unwrap();
    let message = &refusal.diagnostics[0].message;
    assert!(message.contains("brought no files"), "{message}");
    let mut reads = request.clone();
    reads.files[0].text = reads.files[0].text.replace("workspace: {", "# {");
    let status = client.submit(reads).await.unwrap_err();
    let refusal = Refusal::from_status(&status).unwrap();
    let said = |d: &Diagnostic| d.message.contains("didn't bring this file");
    assert!(refusal.diagnostics.iter().any(said), "{refusal:?}");
    let hostile = v1::SubmitRequest {
        workspace_digest: format!("..{}", desk.display()),
        ..request
    };
    let status = client.submit(hostile).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains("is not the digest"), "{status}");
    assert_eq!(kept(&fleet), Vec::<PathBuf>::new());
    assert_eq!(
        fleet.json(&at, &["runs", "--format", "json"])["runs"],
        serde_json::json!([])
    );
}

/// Maximum number of uploads at once from one address.
const AT_ONCE: usize = 16;

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_is_said_and_nothing_of_it_stays() {
    let fleet = Fleet::new();
    let desk = desk(&fleet);
    let at = fleet.serve();
    // All places of one address are taken by uploads that stop in the middle, with as many waiting behind them. So the
    // next one waits, even when those that send nothing are ended, five seconds later.
    let halt = |mut client: ControlClient<Channel>| {
        let begun = [digest(), file("a", 2), Part::Data(vec![0])];
        let begun = tokio_stream::iter(begun.map(v1::WorkspacePart::from));
        let parts = begun.chain(tokio_stream::pending());
        tokio::spawn(async move { client.put_workspace(parts).await })
    };
    let partial = || kept(&fleet).iter().filter(|path| is_partial(path)).count();
    let mut halted = Vec::new();
    for _ in 0..2 * AT_ONCE {
        halted.push(halt(at.client().await));
    }
    eventually("they have begun", || (partial() == AT_ONCE).then_some(()));
    let client = |name: &str| {
        let log = fleet.path(name);
        let mut command = fleet.phalanx(&SUBMIT);
        command.env("PHALANX_COORDINATOR", at.url());
        command.stdout(Stdio::null());
        let child = command.stderr(File::create(&log).unwrap()).spawn().unwrap();
        let said = move || fs::read_to_string(&log).unwrap();
        eventually("it is sending", || {
            said().contains("sending the workspace").then_some(())
        });
        (child, said)
    };
    let (mut interrupted, _) = client("interrupted");
    let id = nix::unistd::Pid::from_raw(i32::try_from(interrupted.id()).unwrap());
    nix::sys::signal::kill(id, Signal::SIGINT).unwrap();
    assert_eq!(interrupted.wait().unwrap().code(), Some(130));

    // Clients that disconnect make room, and what they sent is removed.
    let (mut waits, said) = client("waits");
    halted.drain(..).for_each(|upload| upload.abort());
    assert_eq!(waits.wait().unwrap().code(), Some(0), "{}", said());
    eventually("none is left", || (partial() == 0).then_some(()));
    let whole = kept(&fleet).into_iter().find(|path| !is_partial(path));

    for _ in 0..2 * AT_ONCE {
        halted.push(halt(at.client().await));
    }
    eventually("as many have begun again", || {
        (partial() == AT_ONCE).then_some(())
    });
    fs::write(desk.join("data/more"), "more").unwrap();
    let (mut cut, said) = client("cut");
    let address = at.killed();
    assert_eq!(cut.wait().unwrap().code(), Some(3), "{}", said());
    assert!(
        said().contains("sending the workspace: it was cut off") && said().contains("run it again"),
        "{}",
        said()
    );
    assert!(partial() > 0);
    let _at = fleet.serve_at(&address);
    assert_eq!(kept(&fleet), Vec::from_iter(whole));
}
