//! Tokens, roles and namespaces, with real processes: who is let in, what each role may do, and what nobody sees.

use super::rig::{BOUND, Coordinator, Fleet, Run, eventually};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longest time from a revocation to the end of what the token is used for.
const CUT: Duration = Duration::from_secs(5);

/// A coordinator that asks for tokens.
struct Guarded {
    fleet: Fleet,
    at: Coordinator,
    admin: String,
}

type Called = (Option<i32>, String, String);

impl Guarded {
    fn start() -> Guarded {
        Guarded::within(Fleet::new())
    }

    fn within(fleet: Fleet) -> Guarded {
        let at = fleet.serve_at_with("127.0.0.1:0", &["--access"]);
        let file = fleet.path("state/coordinator/admin.token");
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(at.process.said().contains(file.to_str().unwrap()));
        let admin = fs::read_to_string(file).unwrap().trim().to_owned();
        Guarded { fleet, at, admin }
    }

    fn command(&self, token: &str, arguments: &[&str]) -> Command {
        let mut command = self.fleet.phalanx(arguments);
        command.env("PHALANX_COORDINATOR", self.at.url());
        if !token.is_empty() {
            command.env("PHALANX_TOKEN", token);
        }
        command
    }

    /// Runs a client's command with a token, or without one.
    fn call(&self, token: &str, arguments: &[&str]) -> Called {
        let output = self.command(token, arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    fn json(&self, token: &str, arguments: &[&str]) -> Value {
        let (code, stdout, stderr) = self.call(token, arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {stderr}");
        serde_json::from_str(&stdout).unwrap()
    }

    /// Makes a token. Returns its id and its text.
    fn token(&self, role: &str, namespace: &str) -> (String, String) {
        let name = format!("{role} of {namespace}");
        let arguments = [
            "token",
            "create",
            "client",
            "--role",
            role,
            "--namespace",
            namespace,
            "--name",
            &name,
        ];
        let (code, stdout, stderr) = self.call(&self.admin, &arguments);
        assert_eq!(code, Some(0), "{stderr}");
        let text = stdout.trim().to_owned();
        let id = text.split('_').nth(1).unwrap().to_owned();
        assert!(!stderr.contains(&text), "shown once, as data");
        (id, text)
    }

    fn submit(&self, token: &str, name: &str) -> Run {
        let place = self.fleet.path(name);
        fs::create_dir(&place).unwrap();
        let input = format!("place={}", place.display());
        let (code, stdout, stderr) = self.call(token, &["submit", "gate.yaml", "--input", &input]);
        assert_eq!(code, Some(0), "{stderr}");
        let id = stdout.trim().to_owned();
        Run { id, place }
    }

    /// Sends a request over HTTP. Returns the whole answer's head and body.
    fn http(&self, method: &str, path: &str, headers: &str, body: &str) -> (String, String) {
        let mut stream = self.open(method, path, headers, body);
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    fn open(&self, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.at.http).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        let host = &self.at.http;
        let length = body.len();
        let form = "Content-Type: application/x-www-form-urlencoded";
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}{form}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    fn get(&self, path: &str, token: &str) -> (String, String) {
        self.http("GET", path, &bearer(token), "")
    }
}

fn bearer(token: &str) -> String {
    match token {
        "" => String::new(),
        token => format!("Authorization: Bearer {token}\r\n"),
    }
}

fn status(head: &str) -> &str {
    head.split(' ').nth(1).unwrap()
}

fn refused(called: &Called, code: &str, says: &str) {
    let (exit, stdout, stderr) = called;
    assert_eq!(*exit, Some(2), "{stderr}");
    assert!(stdout.is_empty(), "{stdout}");
    assert!(stderr.contains(code) && stderr.contains(says), "{stderr}");
}

#[test]
fn without_a_token_only_health_answers_and_errors_say_how_to_log_in() {
    let guarded = Guarded::start();
    let without = guarded.call("", &["runs"]);
    refused(&without, "PHX0040", "phalanx login");
    let wrong = format!("phx_0123456789abcdef_{}", "0".repeat(64));
    refused(&guarded.call(&wrong, &["runs"]), "PHX0040", "isn't valid");
    refused(
        &guarded.call("not a token", &["runs"]),
        "PHX0040",
        "isn't valid",
    );
    for (path, expected) in [
        ("/healthz", "200"),
        ("/explain", "200"),
        ("/static/live.css", "200"),
        ("/login", "200"),
        ("/metrics", "401"),
        ("/runs", "401"),
        ("/agents", "401"),
        ("/runs/events", "401"),
        ("/nothing", "403"),
    ] {
        let (head, body) = guarded.get(path, "");
        assert_eq!(status(&head), expected, "{path}: {body}");
    }
    let (head, _) = guarded.http("GET", "/runs", "Accept: text/html\r\n", "");
    assert_eq!(status(&head), "303", "{head}");
    assert!(head.contains("location: /login?to=/runs"), "{head}");
    let (head, text) = guarded.get("/metrics", &guarded.admin);
    assert_eq!(status(&head), "200", "{text}");
    assert!(text.contains("phalanx_calls_refused_total"), "{text}");
}

#[tokio::test]
async fn reflection_needs_a_role_and_unknown_calls_are_closed() {
    use phalanx_proto::v1::{ListAgentsRequest, agent_link_client::AgentLinkClient};
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    let guarded = tokio::task::spawn_blocking(Guarded::start).await.unwrap();
    let ask = || tokio_stream::iter([ServerReflectionRequest::default()]);
    let mut client = ServerReflectionClient::new(guarded.at.channel().await);
    let refused = client.server_reflection_info(ask()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{refused}");
    let mut request = tonic::Request::new(ask());
    let header = format!("Bearer {}", guarded.admin).parse().unwrap();
    request.metadata_mut().insert("authorization", header);
    assert!(client.server_reflection_info(request).await.is_ok());
    let mut client = guarded.at.client().await;
    let refused = client.list_agents(ListAgentsRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    // An agent proves who it is in its session.
    let mut client = AgentLinkClient::new(guarded.at.channel().await);
    let answered = client.session(tokio_stream::empty()).await;
    let code = answered.err().map(|status| status.code());
    assert_ne!(code, Some(tonic::Code::Unauthenticated));
}

#[test]
fn each_role_may_do_what_it_says_and_no_more() {
    let guarded = Guarded::start();
    let _agent = guarded.fleet.agent("runner", &guarded.at.url(), 8);
    let roles = ["read", "run", "cancel-own", "admin"];
    let tokens = roles.map(|role| guarded.token(role, "team-a").1);
    let (read, run, cancel_own, admin) = (&tokens[0], &tokens[1], &tokens[2], &tokens[3]);
    let of_run = guarded.submit(run, "of-run");
    let own = guarded.submit(cancel_own, "own");
    for (token, role) in tokens.iter().zip(roles) {
        for arguments in [
            &["runs"][..],
            &["show", &of_run.id],
            &["logs", &of_run.id, "cell 1"],
            &["agents"],
        ] {
            let (code, _, stderr) = guarded.call(token, arguments);
            assert!(code != Some(2), "{role} {arguments:?}: {stderr}");
        }
    }
    let place = format!("place={}", guarded.fleet.path("none").display());
    let submitted = guarded.call(read, &["submit", "gate.yaml", "--input", &place]);
    refused(&submitted, "PHX0041", "needs the role `run`");
    refused(
        &guarded.call(read, &["rerun", &of_run.id]),
        "PHX0041",
        "`run`",
    );
    for token in [read, run] {
        let cancelled = guarded.call(token, &["cancel", &of_run.id]);
        refused(&cancelled, "PHX0041", "needs the role `cancel-own`");
    }
    let other = guarded.call(cancel_own, &["cancel", &of_run.id]);
    refused(&other, "PHX0041", "needs the role `admin`");
    let (code, _, stderr) = guarded.call(cancel_own, &["cancel", &own.id]);
    assert_eq!(code, Some(0), "{stderr}");
    let (code, _, stderr) = guarded.call(admin, &["cancel", &of_run.id]);
    assert_eq!(code, Some(0), "{stderr}");
    for token in [read, run, cancel_own] {
        let listed = guarded.call(token, &["token", "list"]);
        refused(&listed, "PHX0041", "needs the role `admin`");
    }
    // An administrator of a namespace isn't one of the coordinator.
    for arguments in [&["drain", "runner"][..], &["gc"]] {
        let called = guarded.call(admin, arguments);
        refused(&called, "PHX0041", "in all namespaces");
    }
    let (head, text) = guarded.get("/metrics", admin);
    assert_eq!(status(&head), "403", "{text}");
    let beyond = [
        "token",
        "create",
        "client",
        "--role",
        "read",
        "--namespace",
        "*",
        "--name",
        "x",
    ];
    refused(
        &guarded.call(admin, &beyond),
        "PHX0041",
        "of all namespaces",
    );
    let listed = guarded.json(admin, &["token", "list", "--format", "json"]);
    let listed = listed["tokens"].as_array().unwrap();
    assert!(listed.iter().all(|token| token["namespace"] == "team-a"));
    assert_eq!(listed.len(), roles.len());
    let (code, _, stderr) = guarded.call(&guarded.admin, &["drain", "runner"]);
    assert_eq!(code, Some(0), "{stderr}");
}

#[test]
fn what_is_in_another_namespace_is_not_even_listed() {
    let guarded = Guarded::start();
    let _agent = guarded.fleet.agent("runner", &guarded.at.url(), 8);
    let (_, a) = guarded.token("cancel-own", "team-a");
    let (_, b) = guarded.token("admin", "team-b");
    let (_, everywhere) = guarded.token("read", "*");
    let run = guarded.submit(&a, "theirs");
    run.wait_at_gate(&[1], 1);
    let ids = |token: &str| {
        let listed = guarded.json(token, &["runs", "--format", "json"]);
        let runs = listed["runs"].as_array().unwrap().iter();
        runs.map(|run| run["run"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&a), std::slice::from_ref(&run.id));
    assert_eq!(ids(&everywhere), std::slice::from_ref(&run.id));
    assert!(ids(&b).is_empty());
    for arguments in [
        &["show", &run.id][..],
        &["show", &run.id[..13]],
        &["watch", &run.id],
        &["logs", &run.id],
        &["cancel", &run.id],
        &["rerun", &run.id],
        &["export", &run.id, "--output", "x.phx"],
        &["artifacts", &run.id],
        &["why", &run.id, "cell 1"],
    ] {
        let called = guarded.call(&b, arguments);
        refused(&called, "", "no run");
    }
    let agents = guarded.json(&b, &["agents", "--format", "json"]);
    assert_eq!(agents["agents"][0]["attempts"], serde_json::json!([]));
    let agents = guarded.json(&a, &["agents", "--format", "json"]);
    assert_ne!(agents["agents"][0]["attempts"], serde_json::json!([]));
    let cell = {
        let shown = guarded.json(&a, &["show", &run.id, "--format", "json"]);
        shown["cells"][0]["id"].as_str().unwrap().to_owned()
    };
    for path in [
        format!("/runs/{}", run.id),
        format!("/runs/{}/events", run.id),
        format!("/runs/{}/timing", run.id),
        format!("/runs/{}/cells/{cell}", run.id),
        format!("/runs/{}/cells/{cell}/log?attempt=1", run.id),
        format!("/runs/{}/cells/{cell}/artifacts/1/1", run.id),
        format!("/compare?after={}", run.id),
    ] {
        let (head, body) = guarded.get(&path, &b);
        assert_eq!(status(&head), "404", "{path}: {body}");
    }
    for path in ["/runs", "/history", "/compare", "/agents"] {
        let (head, body) = guarded.get(path, &b);
        assert_eq!(status(&head), "200", "{path}");
        assert!(!body.contains(&run.id), "{path}");
    }
    let (_, body) = guarded.get("/runs", &everywhere);
    assert!(body.contains(&run.id));
    // Narrowed to one namespace, a token for all sees no more than that one.
    let mut narrowed = guarded.command(&everywhere, &["runs", "--format", "json"]);
    let output = narrowed
        .env("PHALANX_NAMESPACE", "team-b")
        .output()
        .unwrap();
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(listed["runs"], serde_json::json!([]));
    let mut other = guarded.command(&b, &["runs"]);
    let output = other.env("PHALANX_NAMESPACE", "team-a").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("not for namespace team-a"), "{stderr}");
    run.open_gate();
}

/// The command line looks for a run in its list first, so this asks the coordinator itself.
#[tokio::test]
async fn a_run_of_another_namespace_is_not_found_whatever_asks_for_it() {
    use phalanx_proto::v1;
    use tonic::{Code, Request};
    let (guarded, run, b) = tokio::task::spawn_blocking(|| {
        let guarded = Guarded::start();
        let (_, a) = guarded.token("run", "team-a");
        let (_, b) = guarded.token("admin", "team-b");
        let run = guarded.submit(&a, "theirs").id;
        (guarded, run, b)
    })
    .await
    .unwrap();
    let mut client = guarded.at.client().await;
    let bearer: tonic::metadata::AsciiMetadataValue = format!("Bearer {b}").parse().unwrap();
    macro_rules! by {
        ($message:expr) => {{
            let mut request = Request::new($message);
            request
                .metadata_mut()
                .insert("authorization", bearer.clone());
            request
        }};
    }
    let run_id = run.clone();
    let mut codes = Vec::new();
    let watch = v1::WatchRequest {
        run_id: run_id.clone(),
        ..Default::default()
    };
    codes.push(client.watch(by!(watch)).await.err().map(|s| s.code()));
    let cancel = v1::CancelRequest {
        run_id: run_id.clone(),
        ..Default::default()
    };
    codes.push(client.cancel(by!(cancel)).await.err().map(|s| s.code()));
    let rerun = v1::RerunRequest {
        run_id: run_id.clone(),
        ..Default::default()
    };
    codes.push(client.rerun(by!(rerun)).await.err().map(|s| s.code()));
    let logs = v1::LogsRequest {
        run_id: run_id.clone(),
        ..Default::default()
    };
    codes.push(client.logs(by!(logs)).await.err().map(|s| s.code()));
    let artifact = v1::ArtifactRequest {
        run_id: run_id.clone(),
        digest: "0".repeat(64),
    };
    codes.push(client.artifact(by!(artifact)).await.err().map(|s| s.code()));
    let submission = v1::GetSubmissionRequest {
        run_id: run_id.clone(),
    };
    codes.push(
        client
            .get_submission(by!(submission))
            .await
            .err()
            .map(|s| s.code()),
    );
    let why = v1::WhyRequest {
        run_id: run_id.clone(),
        cell: "cell 1".to_owned(),
    };
    codes.push(client.why(by!(why)).await.err().map(|s| s.code()));
    assert_eq!(codes, vec![Some(Code::NotFound); 7]);
    let short = v1::WatchRequest {
        run_id: run_id[..20].to_owned(),
        ..Default::default()
    };
    let status = client.watch(by!(short)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let waiting = v1::WaitingRequest { run_id };
    let waiting = client.waiting(by!(waiting)).await.unwrap().into_inner();
    assert!(waiting.groups.is_empty(), "{waiting:?}");
}

#[test]
fn a_workspace_of_another_namespace_has_to_be_sent_again() {
    let guarded = Guarded::start();
    let spec = "name: files\nworkspace: { include: [data] }\nphases: { p: [{ name: n, run: cat data }] }\n";
    fs::write(guarded.fleet.path("files.yaml"), spec).unwrap();
    fs::write(guarded.fleet.path("data"), "theirs").unwrap();
    let (_, a) = guarded.token("run", "team-a");
    let (_, b) = guarded.token("run", "team-b");
    let sent = |token: &str| {
        let (code, _, stderr) = guarded.call(token, &["submit", "files.yaml"]);
        assert_eq!(code, Some(0), "{stderr}");
        stderr.contains("sending the workspace")
    };
    let first = [sent(&a), sent(&a)];
    assert_eq!([first, [sent(&b), sent(&b)]], [[first[0], false]; 2]);
    assert!(first[0], "the client says what it sends");
}

#[test]
fn a_revoked_token_ends_what_it_is_used_for() {
    let guarded = Guarded::start();
    let _agent = guarded.fleet.agent("runner", &guarded.at.url(), 8);
    let (id, token) = guarded.token("run", "team-a");
    let run = guarded.submit(&token, "watched");
    run.wait_at_gate(&[1], 1);
    let mut watch = guarded.command(&token, &["watch", &run.id]);
    let watch = watch.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut watch = watch.unwrap();
    let mut page = guarded.open(
        "GET",
        &format!("/runs/{}/events", run.id),
        &bearer(&token),
        "",
    );
    let mut beginning = [0; 64];
    page.read_exact(&mut beginning).unwrap();
    assert!(beginning.starts_with(b"HTTP/1.1 200"));
    // The watch has begun when the coordinator counts it.
    let (_, admin) = (0, &guarded.admin);
    eventually("somebody watches", || {
        let (_, text) = guarded.get("/metrics", admin);
        text.contains("phalanx_watchers 1").then_some(())
    });
    let (code, _, stderr) = guarded.call(admin, &["token", "revoke", &id]);
    assert_eq!(code, Some(0), "{stderr}");
    let revoked = Instant::now();
    let status = eventually("the watch ends", || watch.try_wait().unwrap());
    assert!(revoked.elapsed() < CUT, "{:?}", revoked.elapsed());
    let mut said = String::new();
    watch
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert!(
        said.contains("revoked") && said.contains("PHX0040"),
        "{said}"
    );
    assert_eq!(status.code(), Some(2), "{said}");
    let mut rest = Vec::new();
    page.read_to_end(&mut rest).unwrap();
    assert!(revoked.elapsed() < CUT, "{:?}", revoked.elapsed());
    refused(&guarded.call(&token, &["runs"]), "PHX0040", "isn't valid");
    let listed = guarded.json(admin, &["token", "list", "--format", "json"]);
    let tokens = listed["tokens"].as_array().unwrap();
    let own = tokens.iter().find(|token| token["id"] == id.as_str());
    let own = own.unwrap();
    assert!(
        own["revoked"].is_string() && own["used"].is_string(),
        "{own}"
    );
    run.open_gate();
}

#[test]
fn tokens_are_made_in_the_state_directory_beside_a_running_coordinator() {
    let guarded = Guarded::start();
    let here = |arguments: &[&str]| guarded.fleet.phalanx(arguments).output().unwrap();
    let made = here(&[
        "token", "create", "client", "--role", "read", "--ttl", "2s", "--name", "brief",
    ]);
    assert!(made.status.success(), "{made:?}");
    let token = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let (code, _, stderr) = guarded.call(&token, &["runs"]);
    assert_eq!(code, Some(0), "{stderr}");
    eventually("it expires", || {
        let (code, _, stderr) = guarded.call(&token, &["runs"]);
        (code == Some(2) && stderr.contains("PHX0040")).then_some(())
    });
    let listed = here(&["token", "list"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(
        listed.contains("brief") && listed.contains("expired"),
        "{listed}"
    );
    assert!(!listed.contains(&token));
    let other = here(&[
        "token", "create", "client", "--role", "run", "--name", "o", "--ttl", "never",
    ]);
    let other = String::from_utf8(other.stdout).unwrap().trim().to_owned();
    let id = other.split('_').nth(1).unwrap();
    assert!(here(&["token", "revoke", id]).status.success());
    refused(&guarded.call(&other, &["runs"]), "PHX0040", "isn't valid");
    // A second start makes no second first token.
    let admin = guarded.admin.clone();
    let address = guarded.at.killed();
    let at = guarded.fleet.serve_at_with(&address, &["--access"]);
    let file = guarded.fleet.path("state/coordinator/admin.token");
    assert_eq!(fs::read_to_string(file).unwrap().trim(), admin);
    let mut runs = guarded.fleet.phalanx(&["runs"]);
    runs.env("PHALANX_COORDINATOR", at.url());
    let output = runs.env("PHALANX_TOKEN", &admin).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_stored_token_goes_to_its_coordinator_only() {
    let guarded = Guarded::start();
    let url = guarded.at.url();
    let login = |arguments: &[&str], token: &str| {
        let mut command = guarded.fleet.phalanx(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        // A command that doesn't read has ended.
        let _ = writeln!(input, "{token}");
        drop(input);
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let wrong = login(&["login", &url, "--token-file", "-"], "phx_wrong");
    refused(&wrong, "PHX0040", "isn't valid");
    let file = guarded.fleet.path(".config/phalanx/tokens.json");
    assert!(!file.exists(), "a wrong token isn't stored");
    let (code, _, stderr) = login(&["login", &url, "--token-file", "-"], &guarded.admin);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("role admin in all namespaces"), "{stderr}");
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (code, _, stderr) = guarded.call("", &["runs"]);
    assert_eq!(code, Some(0), "{stderr}");
    let (code, stdout, _) = guarded.call("", &["login", "--status"]);
    assert_eq!(code, Some(0));
    assert!(stdout.contains("first admin"), "{stdout}");
    // Another coordinator never sees it: this one only listens.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = format!("http://{}", listener.local_addr().unwrap());
    let heard = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let mut bytes = Vec::<u8>::new();
        let mut piece = [0; 4_096];
        while let Ok(read) = stream.read(&mut piece) {
            if read == 0 {
                break;
            }
            bytes.extend(&piece[..read]);
        }
        bytes
    });
    let mut asking = guarded.fleet.phalanx(&["--coordinator", &other, "runs"]);
    let output = asking.output().unwrap();
    assert!(!output.status.success());
    let heard = heard.join().unwrap();
    let secret = guarded.admin.as_bytes();
    assert!(!heard.windows(16).any(|part| part == &secret[20..36]));
    // A repository's settings can't send anybody anywhere.
    fs::write(
        guarded.fleet.path("phalanx.toml"),
        format!("coordinator = {other:?}\n"),
    )
    .unwrap();
    let output = guarded.fleet.phalanx(&["runs"]).output().unwrap();
    assert!(!output.status.success());
    fs::remove_file(guarded.fleet.path("phalanx.toml")).unwrap();
    let (code, _, _) = guarded.call("", &["logout"]);
    assert_eq!(code, Some(0));
    refused(&guarded.call("", &["runs"]), "PHX0040", "phalanx login");
    let (code, _, stderr) = login(&["login", "http://10.9.8.7:1", "--token-file", "-"], "x");
    assert_eq!(code, Some(2));
    assert!(stderr.contains("unencrypted"), "{stderr}");
}

#[test]
fn a_person_logs_in_on_a_page_and_its_buttons_follow_the_role() {
    let guarded = Guarded::start();
    let _agent = guarded.fleet.agent("runner", &guarded.at.url(), 8);
    let (_, run_token) = guarded.token("cancel-own", "team-a");
    let (_, read) = guarded.token("read", "team-a");
    let run = guarded.submit(&run_token, "pages");
    run.wait_at_gate(&[1], 1);
    let log_in = |token: &str| {
        let body = format!("token={token}&to=/runs/{}", run.id);
        let (head, body) = guarded.http("POST", "/login", "", &body);
        let line = head
            .lines()
            .find_map(|line| line.strip_prefix("set-cookie: "));
        (status(&head).to_owned(), line.map(str::to_owned), body)
    };
    let (code, cookie, body) = log_in("phx_wrong");
    assert_eq!((code.as_str(), cookie), ("401", None), "{body}");
    let session = |token: &str| {
        let (code, cookie, body) = log_in(token);
        assert_eq!(code, "303", "{body}");
        let cookie = cookie.unwrap();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"));
        assert!(!cookie.contains(&token[20..]));
        let pair = cookie.split(';').next().unwrap().to_owned();
        format!("Cookie: {pair}\r\n")
    };
    let page = |cookie: &str| {
        let (head, body) = guarded.http("GET", &format!("/runs/{}", run.id), cookie, "");
        assert_eq!(status(&head), "200", "{body}");
        body
    };
    let (reader, owner) = (session(&read), session(&run_token));
    let action = format!("/runs/{}/cancel", run.id);
    assert!(!page(&reader).contains(&action), "no button");
    let with_buttons = page(&owner);
    assert!(with_buttons.contains(&action));
    let token = with_buttons.split("data-token=\"").nth(1).unwrap();
    let token = token.split('"').next().unwrap();
    let press = |cookie: &str| {
        let body = format!("token={token}");
        let (head, body) = guarded.http("POST", &action, cookie, &body);
        (status(&head).to_owned(), body)
    };
    assert_eq!(press("").0, "401");
    let (code, body) = press(&reader);
    assert_eq!(code, "403");
    assert!(body.contains("needs the role `cancel-own`"), "{body}");
    let foreign = format!("{owner}Origin: http://evil.example\r\n");
    assert_eq!(press(&foreign).0, "403");
    assert_eq!(press(&owner).0, "303");
    let (head, _) = guarded.http("POST", "/logout", &owner, "");
    assert!(head.contains("Max-Age=0"), "{head}");
    let (head, _) = guarded.http("GET", "/runs", &owner, "");
    assert_eq!(status(&head), "401");
    run.open_gate();
}

#[test]
fn a_pool_of_a_namespace_runs_and_shows_nothing_of_others() {
    let fleet = Fleet::new();
    fs::create_dir_all(fleet.path(".config/phalanx")).unwrap();
    let settings = "[serve]\npools = [\"gpu=team-a\"]\n";
    fs::write(fleet.path(".config/phalanx/config.toml"), settings).unwrap();
    let guarded = Guarded::within(fleet);
    let allow = ["--allow", "all", "--label", "pool=gpu"];
    let _agent = guarded
        .fleet
        .agent_allowing(&allow, &[], "gpu", &guarded.at.url(), 8);
    let (_, a) = guarded.token("admin", "team-a");
    let (_, b) = guarded.token("admin", "team-b");
    let own = guarded.submit(&a, "own");
    own.wait_at_gate(&[1, 2, 3, 4], 1);
    let other = guarded.submit(&b, "other");
    eventually("it says why it waits", || {
        let (_, stdout, _) = guarded.call(&b, &["why", &other.id, "cell 1"]);
        stdout.contains("pools of other namespaces").then_some(())
    });
    assert!(other.waiters(1).is_empty());
    let names = |token: &str| {
        let listed = guarded.json(token, &["agents", "--format", "json"]);
        listed["agents"].as_array().unwrap().len()
    };
    assert_eq!((names(&a), names(&b)), (1, 0));
    refused(&guarded.call(&b, &["drain", "gpu"]), "PHX0007", "no agent");
    own.open_gate();
    let (code, _, stderr) = guarded.call(&a, &["drain", "gpu"]);
    assert_eq!(code, Some(0), "{stderr}");
}

#[test]
fn what_was_done_is_in_the_audit_log_and_a_changed_entry_is_found() {
    let guarded = Guarded::start();
    let (id, token) = guarded.token("run", "team-a");
    let run = guarded.submit(&token, "audited");
    guarded.call(&token, &["cancel", &run.id]);
    guarded.call(&guarded.admin, &["cancel", &run.id]);
    let wrong = format!("phx_0123456789abcdef_{}", "0".repeat(64));
    guarded.call(&wrong, &["runs"]);
    guarded.call(&guarded.admin, &["runs"]);
    let log = guarded.json(&guarded.admin, &["audit", "--format", "json"]);
    let entries = log["entries"].as_array().unwrap().clone();
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_owned();
    let told: Vec<(String, String, String)> = entries
        .iter()
        .map(|entry| {
            let call = text(entry, "call");
            let call = call.rsplit('/').next().unwrap().to_owned();
            let result: String = text(entry, "result").chars().take(7).collect();
            (text(entry, "name"), call, result)
        })
        .collect();
    let is = |name: &str, call: &str, result: &str| {
        let entry = (name.to_owned(), call.to_owned(), result.to_owned());
        assert!(told.contains(&entry), "{entry:?} in {told:?}");
    };
    is("the coordinator's first start", "token create", "ok");
    is("first admin", "CreateToken", "ok");
    is("run of team-a", "Submit", "ok");
    is("run of team-a", "Cancel", "refused");
    is("first admin", "Cancel", "ok");
    is("", "ListRuns", "refused");
    let reads = |(name, call, result): &&(String, String, String)| {
        name == "first admin" && call == "ListRuns" && result == "ok"
    };
    assert!(
        !told.iter().any(|entry| reads(&entry)),
        "reading isn't audited"
    );
    let submitted = entries
        .iter()
        .find(|entry| text(entry, "call").ends_with("Submit"));
    let submitted = submitted.unwrap();
    assert_eq!(text(submitted, "about"), format!("run {}", run.id));
    assert_eq!(text(submitted, "token"), id);
    assert_eq!(text(submitted, "namespace"), "team-a");
    assert!(text(submitted, "from").starts_with("127.0.0.1:"));
    let whole = log.to_string();
    assert!(!whole.contains(&token[22..]) && !whole.contains(&wrong[22..]));
    let (code, hash, stderr) = guarded.call(&guarded.admin, &["audit", "--verify"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(hash.trim().len(), 64);
    // An administrator of a namespace sees its part, which can't be checked.
    let (_, part) = guarded.token("admin", "team-a");
    let own = guarded.json(&part, &["audit", "--format", "json"]);
    let own = own["entries"].as_array().unwrap();
    assert!(!own.is_empty() && own.iter().all(|entry| entry["namespace"] == "team-a"));
    refused(
        &guarded.call(&part, &["audit", "--verify"]),
        "PHX0041",
        "in all namespaces",
    );
    refused(&guarded.call(&token, &["audit"]), "PHX0041", "`admin`");
    // On its machine, also beside the running coordinator.
    let here = guarded
        .fleet
        .phalanx(&["audit", "--since", "1h"])
        .output()
        .unwrap();
    let here = String::from_utf8(here.stdout).unwrap();
    assert!(
        here.contains("Submit") && here.contains("run of team-a"),
        "{here}"
    );
}

#[test]
fn who_sends_many_wrong_tokens_has_to_wait_and_others_do_not() {
    let guarded = Guarded::start();
    let (_, body) = guarded.get("/runs", &guarded.admin);
    let wrong = |n: u32| format!("phx_{n:016x}_{}", "0".repeat(64));
    let statuses: Vec<String> = (0..30)
        .map(|n| status(&guarded.get("/runs", &wrong(n)).0).to_owned())
        .collect();
    assert!(
        statuses.iter().any(|status| status == "429"),
        "{statuses:?}"
    );
    // A token that was valid before isn't held up by its neighbours.
    let (head, _) = guarded.get("/runs", &guarded.admin);
    assert_eq!(status(&head), "200", "{body}");
    let (head, _) = guarded.get("/healthz", "");
    assert_eq!(status(&head), "200");
}

#[test]
fn a_token_is_nowhere_but_where_it_was_put() {
    let guarded = Guarded::start();
    let _agent = guarded.fleet.agent("runner", &guarded.at.url(), 8);
    let (id, token) = guarded.token("cancel-own", "team-a");
    let run = guarded.submit(&token, "canary");
    run.open_gate();
    let (code, _, said) = guarded.call(&token, &["watch", &run.id]);
    assert_eq!(code, Some(0), "{said}");
    let mut texts = vec![said];
    for arguments in [
        &["show", &run.id, "--format", "json"][..],
        &["runs"],
        &["logs", &run.id],
        &["export", &run.id, "--output", "run.phx"],
        &["agents"],
        &["gc"],
    ] {
        let (_, stdout, stderr) = guarded.call(&token, arguments);
        texts.extend([stdout, stderr]);
    }
    let (_, stdout, stderr) = guarded.call(&guarded.admin, &["token", "list"]);
    assert!(stdout.contains(&id));
    texts.extend([stdout, stderr]);
    for path in ["/runs", "/agents", "/metrics", "/history"] {
        texts.push(guarded.get(path, &guarded.admin).1);
    }
    texts.push(guarded.get(&format!("/runs/{}", run.id), &token).1);
    for text in &texts {
        assert!(!text.contains(&token[22..]), "{text}");
        assert!(!text.contains(&guarded.admin[22..]), "{text}");
    }
    fn files(folder: &std::path::Path, into: &mut Vec<std::path::PathBuf>) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => files(&entry.path(), into),
                false => into.push(entry.path()),
            }
        }
    }
    let mut all = Vec::new();
    files(&guarded.fleet.path(""), &mut all);
    assert!(all.iter().any(|path| path.ends_with("serve.log")));
    assert!(all.iter().any(|path| path.ends_with("journal.db")));
    for path in all {
        let Ok(bytes) = fs::read(&path) else { continue };
        let has = |token: &str| {
            let part = &token.as_bytes()[22..54];
            bytes.windows(part.len()).any(|window| window == part)
        };
        assert!(!has(&token), "{}", path.display());
        let own = path.ends_with("admin.token");
        assert_eq!(has(&guarded.admin), own, "{}", path.display());
    }
}
