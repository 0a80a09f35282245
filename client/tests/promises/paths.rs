//! Paths that lead out of their allowed directory: links that a container or a process created in the workspace.

use crate::engine_lab::{IDLE, Lab};
use crate::place::Place;
use crate::{Need, Test};
use std::fs;
use std::path::{Path, PathBuf};

pub fn tests() -> Vec<Test> {
    vec![
        (
            Need::Engine,
            "cp follows no link of a container out of the workspace",
            cp_of_containers,
        ),
        (
            Need::Engine,
            "a mount or an env file that became a link out of the workspace is refused",
            mounts_and_env_files,
        ),
        (
            Need::Nothing,
            "cp and workdir follow no link of a process out of the workspace",
            cp_of_processes,
        ),
        (
            Need::Nothing,
            "a process's side of cp is relative to its directory, with and without a slash",
            cp_is_relative,
        ),
    ]
}

const HOST_ONLY: &str = "HOST-ONLY=content";

/// A directory of the host beside the workspace, which no cell may reach.
fn victim(beside: &Path) -> PathBuf {
    let victim = beside.join("victim");
    fs::create_dir_all(&victim).unwrap();
    fs::write(victim.join("secret.txt"), HOST_ONLY).unwrap();
    victim
}

fn unharmed(victim: &Path) {
    let names: Vec<_> = fs::read_dir(victim)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["secret.txt"]);
    let text = fs::read_to_string(victim.join("secret.txt")).unwrap();
    assert_eq!(text, HOST_ONLY);
}

fn cp_of_containers() {
    let lab = Lab::new();
    let victim = victim(lab.path());
    let out = victim.display();
    let (image, idle) = (&lab.image, IDLE);
    // A link that is copied out, and one made through a mount of the workspace.
    for (volumes, script, first) in [
        (
            "[]",
            format!("busybox ln -s {out} /evil; echo evil > /payload"),
            r#"{ cp: { from: "x:/evil", to: out } }"#,
        ),
        (
            r#"["./:/work"]"#,
            format!("busybox ln -s {out} /work/out; echo evil > /payload"),
            r#"{ run: "true" }"#,
        ),
    ] {
        let spec = format!(
            r#"
name: escape
workspace: {{ include: ["s.yaml"] }}
services: {{ x: {{ image: {image}, command: {idle}, volumes: {volumes}, stop_grace_period: 1s }} }}
phases:
  t:
    - exec: {{ service: x, script: "{script}" }}
    - {first}
    - {{ cp: {{ from: "x:/payload", to: out/written }}, continue-on-failure: true }}
    - {{ cp: {{ from: "x:/tmp", to: out/tree }}, continue-on-failure: true }}
    - {{ cp: {{ from: out/secret.txt, to: "x:/stolen" }}, continue-on-failure: true }}
    - {{ cp: {{ from: out, to: "x:/stolen" }}, continue-on-failure: true }}
    - {{ exec: {{ service: x, script: "echo $(busybox ls /stolen) there" }}, expect: [stdout == " there\n" || stdout == "there\n"] }}
"#
        );
        lab.write("s.yaml", &spec);
        let (code, _, stderr) = lab.call(&["run", "s.yaml"]);
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.matches("it leads out by").count() >= 4, "{stderr}");
        assert!(!stderr.contains("HOST-ONLY"), "{stderr}");
        assert!(!stderr.contains(" there ="), "{stderr}");
        unharmed(&victim);
    }
}

fn mounts_and_env_files() {
    let lab = Lab::new();
    let victim = victim(lab.path());
    let out = victim.display();
    lab.write("conf/own.txt", "own");
    lab.write("app.env", "A=1");
    let (image, idle) = (&lab.image, IDLE);
    let spec = format!(
        r#"
name: mounts
workspace: {{ include: ["conf/**", app.env] }}
services:
  x: {{ image: {image}, command: {idle}, volumes: ["./:/work"], stop_grace_period: 1s }}
  y: {{ image: {image}, command: {idle}, volumes: ["./conf:/conf"], stop_grace_period: 1s }}
  z: {{ image: {image}, command: {idle}, env_file: [app.env], start: manual, stop_grace_period: 1s }}
phases:
  t:
    - {{ exec: {{ service: y, script: "cat /conf/own.txt" }}, expect: [stdout == 'own'] }}
    - exec: {{ service: x, script: "cd /work; busybox mv conf old; busybox ln -s {out} conf; busybox rm app.env; busybox ln -s {out}/secret.txt app.env" }}
    - {{ container: {{ start: z }}, continue-on-failure: true }}
    - container: {{ restart: y }}
    - exec: {{ service: y, script: "cat /conf/secret.txt >&2; exit 1" }}
"#
    );
    lab.write("s.yaml", &spec);
    let (code, _, stderr) = lab.call(&["run", "s.yaml"]);
    assert!(matches!(code, Some(1 | 3)), "{code:?} {stderr}");
    assert!(stderr.contains("the mount of ./conf"), "{stderr}");
    assert!(stderr.contains("env_file app.env"), "{stderr}");
    assert!(!stderr.contains("HOST-ONLY"), "{stderr}");
    unharmed(&victim);
}

fn cp_of_processes() {
    let place = Place::new();
    let victim = victim(place.path());
    let out = victim.display();
    let spec = format!(
        r#"
name: escape
workspace: {{ include: ["s.yaml"] }}
services: {{ w: {{ process: [sleep, "600"] }} }}
phases:
  t:
    - run: "ln -s {out} out; echo evil > payload"
    - {{ cp: {{ from: "w:/payload", to: out/written }}, continue-on-failure: true }}
    - {{ cp: {{ from: out/secret.txt, to: "w:/stolen" }}, continue-on-failure: true }}
    - {{ cp: {{ from: "w:/out/secret.txt", to: stolen }}, continue-on-failure: true }}
    - {{ run: {{ script: "cat secret.txt >&2; exit 9", workdir: out }}, continue-on-failure: true }}
    - {{ exec: {{ service: w, script: "cat secret.txt >&2; exit 9", workdir: out }}, continue-on-failure: true }}
    - run: "test ! -e stolen"
"#
    );
    place.write("s.yaml", spec);
    let said = place.call(&["run", "s.yaml"]);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    assert!(
        said.stderr.matches("leads out").count() >= 5,
        "{}",
        said.stderr
    );
    assert!(!said.stderr.contains("HOST-ONLY"), "{}", said.stderr);
    let last = "FAILED escape | t > run: test ! -e";
    assert!(!said.stderr.contains(last), "{}", said.stderr);
    unharmed(&victim);
}

fn cp_is_relative() {
    let place = Place::of_field("ux");
    // The file is there when the service is ready, and the step that shows long output isn't the matter here.
    for name in ["cp-process.yaml", "cp-relative.yaml"] {
        let ready = "sleep 60\"], ready: { exec: [test, -f, shot.png] } }";
        place.replace(name, "sleep 60\"] }", ready);
        place.replace(name, "    - run: \"seq 1 100000; exit 1\"\n", "");
    }
    let with = "name: cp\nworkspace: { include: [todo.py] }\n";
    place.replace("cp-relative.yaml", "name: cp\n", with);
    place.replace("cp-process.yaml", "[\"cp.yaml\"]", "[todo.py]");
    for name in ["cp-process.yaml", "cp-relative.yaml"] {
        let said = place.call(&["run", name]);
        assert_eq!(said.code, Some(0), "{name}: {}", said.stderr);
    }
}
