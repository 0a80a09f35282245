//! A project's first commands, through the real program: `phalanx init` in a directory with a Compose file, with a
//! workflow, and with neither; the spec validates and runs; `phalanx plan --format github` fans it out; `phalanx self check` says
//! what the machine lacks.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs `phalanx` in a directory. Returns exit code, standard output and standard error.
fn phalanx(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let state = folder.join(".state");
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_phalanx"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", folder)
        .env("PHALANX_STATE_DIR", &state)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn put(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap()
}

const WORKFLOW: &str = "\
on: push
jobs:
  test:
    runs-on: ubuntu-latest
    strategy:
      matrix:
        number: [1, 2]
        word: [one, \"two words\"]
        exclude: [{ number: 1, word: one }]
    env: { NUMBER: \"${{ matrix.number }}\", KEY: \"${{ secrets.KEY }}\" }
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
      - name: Check ${{ matrix.word }}
        env: { WORD: \"${{ matrix.word }}\" }
        run: |
          test -f data/file.txt
          words=(a b)  # bash, not sh
          test \"$NUMBER/$WORD/${words[1]}\" = \"${{ matrix.number }}/${{ matrix.word }}/b\"
      - if: matrix.number == 2
        working-directory: data
        run: grep -q content file.txt
";

#[test]
fn a_workflow_with_a_matrix_becomes_a_spec_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    put(folder, ".github/workflows/test.yml", WORKFLOW);
    put(folder, "data/file.txt", "content\n");
    put(folder, ".gitignore", "/target");
    let (code, _, stderr) = phalanx(folder, &["init"]);
    assert_eq!(code, 0, "{stderr}");
    for line in [
        ".github/workflows/test.yml:10: the job: the variable `KEY` is not taken over: `secrets.KEY` is not known here",
        ".github/workflows/test.yml:13: `uses: actions/setup-python@v5` is not taken over",
        "wrote phalanx.yaml from .github/workflows/test.yml",
        "added /.phalanx/ to .gitignore",
        "next: phalanx run phalanx.yaml",
    ] {
        assert!(stderr.contains(line), "{line} is not in:\n{stderr}");
    }
    assert!(read(folder, ".gitignore").starts_with("/target\n"));
    let schema: serde_json::Value =
        serde_json::from_str(&read(folder, ".phalanx/spec.schema.json")).unwrap();
    assert!(schema["properties"]["phases"].is_object());
    let spec = read(folder, "phalanx.yaml");
    assert!(spec.starts_with("# yaml-language-server: $schema=.phalanx/spec.schema.json\n"));
    let (code, stdout, stderr) = phalanx(folder, &["validate", "phalanx.yaml"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(!stdout.contains("warning"), "{stdout}\n{stderr}");
    let report = ["run", "phalanx.yaml", "--report", "html=.phalanx/run.html"];
    let (code, _, stderr) = phalanx(folder, &report);
    assert_eq!(code, 0, "{stderr}\n{spec}");
    assert!(stderr.contains("cells  3: 3 passed"), "{stderr}");
    assert!(stderr.contains("steps  6: 5 passed, 1 skipped"), "{stderr}");
}

#[test]
fn a_second_call_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (code, _, stderr) = phalanx(folder, &["init"]);
    assert_eq!(code, 0, "{stderr}");
    let mine = format!("{}# mine\n", read(folder, "phalanx.yaml"));
    put(folder, "phalanx.yaml", &mine);
    let before = read(folder, ".gitignore");
    let (code, _, stderr) = phalanx(folder, &["init", "--from-workflow", "missing.yml"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("phalanx.yaml is there already"), "{stderr}");
    assert_eq!(read(folder, "phalanx.yaml"), mine);
    assert_eq!(read(folder, ".gitignore"), before);
}

#[test]
fn the_first_spec_of_an_empty_directory_runs() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    assert_eq!(phalanx(folder, &["init"]).0, 0);
    let (code, _, stderr) = phalanx(folder, &["run", "phalanx.yaml"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("cells  3: 3 passed"), "{stderr}");
}

#[test]
fn a_compose_file_becomes_a_spec_that_validates() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let compose = "services:\n  db:\n    image: postgres:${PG:-17}\n    ports: [\"5432:5432\"]\n    volumes: [\"./sql:/sql\"]\n    env_file: db.env\n";
    put(folder, "docker-compose.yml", compose);
    put(folder, "sql/a.sql", "SELECT 1");
    put(folder, "db.env", "POSTGRES_PASSWORD=shop\n");
    let (code, _, stderr) = phalanx(folder, &["init"]);
    assert_eq!(code, 0, "{stderr}");
    let (code, stdout, stderr) = phalanx(folder, &["validate", "phalanx.yaml"]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    let (code, stdout, _) = phalanx(folder, &["plan", "phalanx.yaml"]);
    assert!(code == 0 && stdout.contains("17"), "{stdout}");
    // The Compose file is somewhere else: the spec would name its files wrongly.
    put(folder, "deploy/compose.yaml", compose);
    let (code, _, stderr) = phalanx(
        folder,
        &[
            "init",
            "-o",
            "x.yaml",
            "--from-compose",
            "deploy/compose.yaml",
        ],
    );
    assert_eq!(code, 2);
    assert!(stderr.contains("--output deploy/phalanx.yaml"), "{stderr}");
    // Without a name the spec stands beside it.
    put(folder, "deploy/sql/a.sql", "SELECT 1");
    put(folder, "deploy/db.env", "POSTGRES_PASSWORD=shop\n");
    let (code, _, stderr) = phalanx(folder, &["init", "--from-compose", "deploy/compose.yaml"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(folder.join("deploy/phalanx.yaml").is_file());
}

#[test]
fn the_file_that_compose_reads_over_another_is_named_too() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    put(folder, "compose.yml", "services: { a: { image: x } }\n");
    put(
        folder,
        "compose.override.yml",
        "services: { a: { image: y } }\n",
    );
    let (code, _, stderr) = phalanx(folder, &["init"]);
    assert_eq!(code, 0, "{stderr}");
    let spec = std::fs::read_to_string(folder.join("phalanx.yaml")).unwrap();
    assert!(spec.contains("compose.override.yml"), "{spec}");
    let (code, stdout, stderr) = phalanx(folder, &["validate", "phalanx.yaml"]);
    assert_eq!(code, 0, "{stdout}{stderr}");
}

#[test]
fn values_that_have_to_be_chosen_get_a_line_and_names_that_clash_no_axis() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let compose = "services:\n  a: { image: \"x:${TAG:-1}\", environment: { P: \"${DB_PASSWORD:?set it}\" } }\n  b: { image: \"y:${tag:-2}${INCLUDE:-x}\" }\n";
    put(folder, "compose.yaml", compose);
    put(folder, ".env.example", "DB_PASSWORD=\n");
    let (code, _, stderr) = phalanx(folder, &["init"]);
    assert_eq!(code, 0, "{stderr}");
    let spec = std::fs::read_to_string(folder.join("phalanx.yaml")).unwrap();
    assert!(spec.contains("DB_PASSWORD: change-me"), "{spec}");
    assert!(
        spec.contains("tag:") && !spec.contains("include:\n"),
        "{spec}"
    );
    let (code, stdout, _) = phalanx(folder, &["plan", "phalanx.yaml", "--format", "json"]);
    let plan: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, plan["cells"].as_array().unwrap().len()), (0, 1));
}

#[test]
fn printing_a_spec_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    put(folder, "w.yml", WORKFLOW);
    let (code, stdout, stderr) = phalanx(
        folder,
        &["init", "--output", "-", "--from-workflow", "w.yml"],
    );
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("strategy:"), "{stdout}");
    let names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["w.yml"]);
    let (code, _, stderr) = phalanx(
        folder,
        &[
            "init",
            "--output",
            "-",
            "--from-workflow",
            "w.yml",
            "--job",
            "no",
        ],
    );
    assert_eq!(code, 2);
    assert!(stderr.contains("the workflow has no job `no`"), "{stderr}");
}

#[test]
fn a_check_of_this_machine_says_what_does_not_work_and_how_to_fix_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    put(folder, "phalanx.toml", "");
    let nowhere = folder.join("nowhere.sock");
    let Output { status, stdout, .. } = Command::new(env!("CARGO_BIN_EXE_phalanx"))
        .args(["self", "check", "--format", "json"])
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", folder)
        .env("DOCKER_HOST", format!("unix://{}", nowhere.display()))
        .env("PHALANX_STATE_DIR", folder.join(".state"))
        .output()
        .unwrap();
    assert_eq!(status.code(), Some(3));
    let answer: serde_json::Value = serde_json::from_slice(&stdout).unwrap();
    assert_eq!(answer["works"], false);
    let checks = answer["checks"].as_array().unwrap();
    let verdict = |name: &str| {
        let check = checks.iter().find(|check| check["check"] == name);
        check.unwrap_or_else(|| panic!("no {name} in {answer:#}"))["verdict"].clone()
    };
    assert_eq!(verdict("state"), "works");
    assert_eq!(verdict("host commands"), "works");
    assert_eq!(verdict("engine"), "fails");
    let engine = checks
        .iter()
        .find(|check| check["check"] == "engine")
        .unwrap();
    assert!(engine["fix"].as_str().unwrap().contains("nowhere.sock"));
}

#[test]
fn a_matrix_for_github_selects_one_cell_per_job() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    put(
        folder,
        "spec.yaml",
        "name: s\nstrategy: { matrix: { db: [pg, my], name: [x], n: [1, 2] } }\nphases: { p: [{ run: \"true\" }] }\n",
    );
    let (code, stdout, stderr) = phalanx(folder, &["plan", "spec.yaml", "--format", "github"]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    let matrix: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let jobs = matrix["include"].as_array().unwrap();
    assert_eq!(jobs.len(), 4);
    assert_eq!(jobs[3]["db"], "my");
    assert_eq!(jobs[3]["n"], 2);
    assert_eq!(jobs[3]["name"], "my / x / 2");
    let cell = jobs[3]["cell"].as_str().unwrap();
    let (code, _, stderr) = phalanx(folder, &["run", "spec.yaml", "--cell", cell]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("cells  1: 1 passed"), "{stderr}");
    assert!(stderr.contains("my / x / 2 | "), "{stderr}");
    let list: Vec<String> = (0..257).map(|n| n.to_string()).collect();
    let many = format!(
        "name: s\nstrategy: {{ matrix: {{ n: [{}] }} }}\nphases: {{ p: [{{ run: \"true\" }}] }}\n",
        list.join(", ")
    );
    put(folder, "many.yaml", &many);
    let (code, _, stderr) = phalanx(folder, &["plan", "many.yaml", "--format", "github"]);
    assert_eq!(code, 2);
    assert!(
        stderr.contains("257 cells, and a matrix of GitHub at most 256 jobs"),
        "{stderr}"
    );
}
