//! Artifacts from an agent to a coordinator and to a client: over kills and cuts, within limits, and without a way out of
//! a directory or into a browser.

use crate::proxy::Proxy;
use crate::rig::{Coordinator, Fleet, eventually};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Bytes of a file that takes a while to travel.
const LARGE: u64 = 48 << 20;

fn write(fleet: &Fleet, name: &str, spec: &str) {
    fs::write(fleet.path(name), spec).unwrap();
}

/// Returns all files below a directory whose path has this part.
fn files(of: &Path, part: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(of).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&path, part)),
            _ if path.to_string_lossy().contains(part) => found.push(path),
            _ => {}
        }
    }
    found
}

fn submit(fleet: &Fleet, at: &Coordinator, spec: &str) -> String {
    let (code, stdout, stderr) = fleet.call(at, &["submit", spec]);
    assert_eq!(code, Some(0), "{stderr}");
    stdout.trim().to_owned()
}

fn artifacts(fleet: &Fleet, at: &Coordinator, run: &str, more: &[&str]) -> Vec<Value> {
    let mut arguments = vec!["artifacts", run, "--format", "json"];
    arguments.extend(more);
    let listed = fleet.json(at, &arguments);
    listed["artifacts"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_survives_a_coordinator_that_is_killed_while_it_travels() {
    let fleet = Fleet::new();
    let mut at = fleet.serve();
    let proxy = Proxy::start(at.address).await;
    let _agent = fleet.agent("a", &proxy.address, 1);
    fleet.wait_for_state(&at, "a", "connected");
    let spec = format!(
        "name: large\nphases: {{ p: [{{ run: head -c {LARGE} /dev/urandom > large.bin; sha256sum large.bin > sum, artifacts: [large.bin, sum] }}] }}\n"
    );
    write(&fleet, "large.yaml", &spec);
    let run = submit(&fleet, &at, "large.yaml");
    let state = fleet.path("state");
    let partial = || {
        let parts = files(&state, "/artifacts/incoming/");
        let sizes = parts.iter().filter_map(|path| path.metadata().ok());
        sizes.map(|file| file.len()).max().filter(|size| *size > 0)
    };
    eventually("the artifact is on its way", partial);
    // Nothing arrives any more, so it is certainly not complete.
    proxy.swallow();
    let arrived = partial().unwrap_or(LARGE);
    assert!(arrived < LARGE, "the file was too small for this test");
    let address = at.killed();
    proxy.cut();
    at = fleet.serve_at(&address);
    proxy.heal();
    fleet.wait_for_state(&at, "a", "connected");
    let (_, _, stderr) = fleet.call(&at, &["watch", &run, "-q"]);
    let shown = fleet.json(&at, &["show", &run, "--format", "json"]);
    assert_eq!(shown["outcome"], "passed", "{stderr}\n{shown:#}");
    let attempts = shown["cells"][0]["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 1, "the step didn't run again");
    let out = fleet.path("out");
    let listed = artifacts(&fleet, &at, &run, &["--out", out.to_str().unwrap()]);
    assert_eq!(listed.len(), 2, "{listed:#?}");
    let cell = fs::read_dir(&out).unwrap().next().unwrap().unwrap().path();
    let sum = fs::read_to_string(cell.join("sum")).unwrap();
    assert_eq!(sum.split(' ').next(), listed[0]["digest"].as_str());
    assert_eq!(cell.join("large.bin").metadata().unwrap().len(), LARGE);
    assert_eq!(
        files(&state, "/artifacts/incoming/"),
        Vec::<PathBuf>::new(),
        "nothing half-written is left"
    );
    // The content leaves with its run.
    eventually("the run is old enough", || {
        let (code, _, stderr) = fleet.call(&at, &["gc", "--older-than", "1s"]);
        assert_eq!(code, Some(0), "{stderr}");
        files(&state, "/artifacts/").is_empty().then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_agent_sent_by_half_is_removed() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let proxy = Proxy::start(at.address).await;
    let mut agent = fleet.agent("a", &proxy.address, 1);
    fleet.wait_for_state(&at, "a", "connected");
    let spec = format!(
        "name: half\nphases: {{ p: [{{ run: head -c {LARGE} /dev/zero > large.bin, artifacts: large.bin }}] }}\n"
    );
    write(&fleet, "half.yaml", &spec);
    let run = submit(&fleet, &at, "half.yaml");
    let state = fleet.path("state");
    let partial = || files(&state, "/artifacts/incoming/");
    eventually("the artifact is on its way", || {
        (!partial().is_empty()).then_some(())
    });
    proxy.swallow();
    agent.kill();
    // Its death is told through the same network.
    proxy.heal();
    eventually("nothing half-written is left", || {
        partial().is_empty().then_some(())
    });
    let (code, _, stderr) = fleet.call(&at, &["cancel", &run]);
    assert_eq!(code, Some(0), "{stderr}");
}

#[test]
fn limits_of_the_coordinator_refuse_an_artifact_and_not_its_cell() {
    let fleet = Fleet::new();
    let at = fleet.serve_within(&[("PHALANX_ARTIFACTS__FILE_MIB", "1")], 4096);
    let _agent = fleet.agent("a", &at.url(), 1);
    fleet.wait_for_state(&at, "a", "connected");
    write(
        &fleet,
        "limits.yaml",
        "name: limits\nphases: { p: [{ run: head -c 3000000 /dev/zero > big; echo fine > small, artifacts: [big, small] }] }\n",
    );
    let run = submit(&fleet, &at, "limits.yaml");
    fleet.call(&at, &["watch", &run, "-q"]);
    let shown = fleet.json(&at, &["show", &run, "--format", "json"]);
    assert_eq!(shown["outcome"], "passed");
    let listed = artifacts(&fleet, &at, &run, &[]);
    let reason = listed[0]["lack"]["reason"].as_str().unwrap();
    assert!(reason.contains("artifacts.file_mib"), "{reason}");
    assert_eq!(listed[0]["lack"]["problem"], "cut");
    assert_eq!(listed[1]["name"], "small");
    assert!(listed[1]["lack"].is_null());
}

#[test]
fn pages_serve_artifacts_as_nothing_that_runs() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let _agent = fleet.agent("a", &at.url(), 1);
    fleet.wait_for_state(&at, "a", "connected");
    write(
        &fleet,
        "pages.yaml",
        "name: pages\nphases: { p: [{ run: \"echo '<script>alert(1)</script>' > x.html; printf '\\\\211PNG\\\\r\\\\n\\\\032\\\\n....' > x.png\", artifacts: [x.html, x.png] }] }\n",
    );
    let run = submit(&fleet, &at, "pages.yaml");
    fleet.call(&at, &["watch", &run, "-q"]);
    let shown = fleet.json(&at, &["show", &run, "--format", "json"]);
    let cell = shown["cells"][0]["id"].as_str().unwrap();
    let page = format!("/runs/{run}/cells/{cell}");
    let (_, body) = at.get(&page);
    assert!(body.contains(&format!("{page}/artifacts/1/1")), "{body}");
    assert!(body.contains("<img class=\"shot\""), "{body}");
    let get = |path: &str| {
        let mut stream = std::net::TcpStream::connect(&at.http).unwrap();
        let host = &at.http;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).to_lowercase()
    };
    let html = get(&format!("{page}/artifacts/1/1"));
    for header in [
        "200 ok",
        "content-type: text/plain; charset=utf-8",
        "content-disposition: inline; filename=\"x.html\"",
        "content-security-policy: default-src 'none'; sandbox",
        "x-content-type-options: nosniff",
    ] {
        assert!(html.contains(header), "{header}: {html}");
    }
    assert!(get(&format!("{page}/artifacts/1/2")).contains("content-type: image/png"));
    for missing in ["1/3", "2/1", "1/../../x"] {
        let answer = get(&format!("{page}/artifacts/{missing}"));
        assert!(answer.contains("404 not found"), "{missing}: {answer}");
    }
}

#[test]
fn a_local_run_lists_fetches_exports_and_shows_its_artifacts() {
    let fleet = Fleet::new();
    write(
        &fleet,
        "local.yaml",
        r#"
name: local
strategy: { matrix: { n: [one, two] } }
phases:
  p:
    - run: |
        mkdir -p out
        printf '\211PNG\r\n\032\n....' > out/shot.png
        echo "cell ${{ matrix.n }}" > "out/odd: name\\.txt"
      artifacts: [{ from: "out/**", name: "files" }, none.log]
"#,
    );
    let call = |arguments: &[&str]| {
        let output = fleet.phalanx(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {stderr}");
        (stdout, stderr)
    };
    let (_, stderr) = call(&["run", "local.yaml", "--report", "html=run.html"]);
    assert!(stderr.contains("4 artifacts"), "{stderr}");
    assert!(stderr.contains("no file matches none.log"), "{stderr}");
    let html = fs::read_to_string(fleet.path("run.html")).unwrap();
    // Both cells have the same picture, and the page holds it once.
    assert_eq!(html.matches("id=\"file-").count(), 1);
    assert!(html.contains("img-src data:"));
    let (table, _) = call(&["artifacts"]);
    for word in [
        "files/shot.png",
        "image/png",
        "files/odd_ name_.txt",
        "not kept: no file matches none.log",
    ] {
        assert!(table.contains(word), "{word}: {table}");
    }
    call(&["artifacts", "last", "--out", "all"]);
    let text = fs::read_to_string(fleet.path("all/one/files/odd_ name_.txt")).unwrap();
    assert_eq!(text, "cell one\n");
    call(&["artifacts", "last", "two", "--out", "two"]);
    assert!(fleet.path("two/files/shot.png").is_file());
    // What somebody put there leads nowhere.
    let outside = fleet.path("outside.txt");
    fs::write(&outside, "untouched").unwrap();
    let victim = fleet.path("two/files/odd_ name_.txt");
    fs::remove_file(&victim).unwrap();
    std::os::unix::fs::symlink(&outside, &victim).unwrap();
    call(&["artifacts", "last", "two", "--out", "two"]);
    assert_eq!(fs::read_to_string(&outside).unwrap(), "untouched");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "cell two\n");
    fs::remove_dir_all(fleet.path("two/files")).unwrap();
    std::os::unix::fs::symlink(fleet.path("."), fleet.path("two/files")).unwrap();
    let output = fleet
        .phalanx(&["artifacts", "last", "two", "--out", "two"])
        .output()
        .unwrap();
    assert_ne!(output.status.code(), Some(0), "{output:?}");

    call(&["export", "--output", "r.phx"]);
    let (listed, _) = call(&[
        "artifacts",
        "--file",
        "r.phx",
        "--out",
        "from-file",
        "--format",
        "json",
    ]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["artifacts"].as_array().unwrap().len(), 6);
    let text = fs::read_to_string(fleet.path("from-file/two/files/odd_ name_.txt")).unwrap();
    assert_eq!(text, "cell two\n");
    let (shown, _) = call(&["show", "--file", "r.phx", "--cell", "one"]);
    assert!(shown.contains("artifact files/shot.png"), "{shown}");
}
