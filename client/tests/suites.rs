//! Test suites as they are: a program writes its results, and each of its cases is reported like a step.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use serde_json::Value;
use std::fs;
use std::process::{Command, Stdio};

/// What a run said: exit code, standard error, and the JSON report.
struct Said {
    code: Option<i32>,
    stderr: String,
    report: Value,
    place: tempfile::TempDir,
}

impl Said {
    fn steps(&self) -> &Vec<Value> {
        self.report["cells"][0]["attempts"][0]["steps"]
            .as_array()
            .unwrap()
    }

    fn step(&self, path: &str) -> &Value {
        let found = self.steps().iter().find(|step| step["path"] == path);
        found.unwrap_or_else(|| panic!("no step {path}: {:#?}", self.steps()))
    }

    /// Returns names and outcomes of the test cases.
    fn cases(&self) -> Vec<(&str, &str)> {
        let cases = self.steps().iter().filter(|step| step["action"] == "case");
        cases
            .map(|step| {
                (
                    step["name"].as_str().unwrap(),
                    step["outcome"].as_str().unwrap(),
                )
            })
            .collect()
    }

    fn show(&self, arguments: &[&str]) -> String {
        let output = phalanx(&self.place)
            .arg("show")
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

fn phalanx(place: &tempfile::TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_phalanx"));
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", place.path())
        .env("PHALANX_STATE_DIR", place.path().join("state"))
        .env("PHALANX_SECRET_token", "suite-secret-71ad")
        .current_dir(place.path())
        .stdin(Stdio::null());
    command
}

fn run(spec: &str) -> Said {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("spec.yaml"), spec).unwrap();
    let arguments = ["run", "spec.yaml", "--report", "json=report.json"];
    let output = phalanx(&place).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = fs::read(place.path().join("report.json")).unwrap_or_default();
    let report =
        serde_json::from_slice(&report).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    Said {
        code: output.status.code(),
        stderr,
        report,
        place,
    }
}

/// A suite of four cases that exits with `code`.
fn suite(code: u8, more: &str) -> String {
    format!(
        r#"
name: shop
coverage: {{ orders: Orders work, bills: Bills work }}
secrets: [token]
phases:
  test:
    - name: the suite
      run:
        env: {{ TOKEN: "${{{{ secrets.token }}}}" }}
        script: |
          mkdir -p out
          cat > out/junit.xml <<EOF
          <testsuites><testsuite name="s" tests="4" failures="1"><testcase classname="t.orders" name="create" time="0.01"/>
          <testcase classname="t.orders" name="pay[a/b]"><failure message="expected 201&#10;got $TOKEN">trace of pay
          with $TOKEN</failure></testcase>
          <testcase classname="t.bills" name="send"><flakyFailure message="once"/></testcase>
          <testcase classname="t.bills" name="stream"><skipped message="no stream here"/></testcase></testsuite></testsuites>
          EOF
          exit {code}
      results: {{ junit: "out/*.xml" }}
      verifies: {{ orders: "t.orders::*", bills: ["t.bills::send", "t.bills::none"] }}
{more}"#
    )
}

#[test]
fn each_case_is_a_step_in_every_report_and_verifies_its_row() {
    let said = run(&suite(1, ""));
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    let expected = [
        ("t.orders::create", "passed"),
        ("t.orders::pay[a/b]", "failed"),
        ("t.bills::send", "flaky"),
        ("t.bills::stream", "skipped"),
    ];
    assert_eq!(said.cases(), expected);
    let suite = said.step("test/0");
    assert_eq!(suite["cases"]["failed"], 1);
    assert_eq!(suite["reported"], false, "its cases say it all");
    let reason = "1 of 4 cases failed: t.orders::pay[a/b]: expected 201";
    assert_eq!(suite["reason"], reason);
    let pay = said.step("test/0/t.orders::pay%5Ba%2Fb%5D");
    assert_eq!(pay["reason"], "expected 201");
    let details = pay["failure"]["response"].as_str().unwrap();
    assert!(details.contains("trace of pay\nwith ***"), "{details}");
    let rows = said.report["coverage"]["rows"].as_array().unwrap();
    let states: Vec<&Value> = rows.iter().map(|row| &row["entries"][0]["state"]).collect();
    assert_eq!(states, ["failed", "flaky"]);
    assert!(said.stderr.contains("expected 201"), "{}", said.stderr);
    let findings = said.report["findings"]["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 1);
    let cell = said.show(&["--cell", said.report["cells"][0]["id"].as_str().unwrap()]);
    assert!(
        cell.contains("4 cases: 1 passed, 1 flaky, 1 failed, 1 skipped"),
        "{cell}"
    );
    assert!(cell.contains("details:"), "{cell}");
    let junit = said.show(&["--format", "junit"]);
    assert!(junit.contains("name=\"t.orders::pay[a/b]\""), "{junit}");
    for format in ["ctrf", "html", "markdown"] {
        let text = said.show(&["--format", format]);
        assert!(
            text.contains("t.orders::create") || format == "markdown",
            "{format}"
        );
        assert!(!text.contains("suite-secret"), "{format}");
    }
}

#[test]
fn exit_code_and_results_have_to_agree() {
    let said = run(&suite(0, ""));
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    let reason = said.step("test/0")["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("the exit code is 0, but 1 of 4 cases failed"),
        "{reason}"
    );
    assert_eq!(said.step("test/0")["checks"][0]["passed"], false);
    let green = "name: x\nphases: { t: [ { run: \"printf '1..1\\nok 1 - a\\n'; exit 7\", results: { tap: '-' } } ] }\n";
    let said = run(green);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    let reason = said.step("t/0")["reason"].as_str().unwrap();
    let expected = "check failed: exit_code == 0 (exit_code = 7), but no case failed (1 case)";
    assert_eq!(reason, expected);
}

#[test]
fn a_suite_without_trustworthy_results_never_passes() {
    for (script, results, reason) in [
        (
            "'true'",
            "{ junit: out.xml }",
            "wrote no out.xml in the workspace",
        ),
        (
            "echo '<testsuite' > o.xml",
            "{ junit: o.xml }",
            "broken JUnit XML",
        ),
        (
            "echo '<testsuite tests=\"2\"><testcase name=\"a\"/></testsuite>' > o.xml",
            "{ junit: o.xml }",
            "says that it has 2 cases, but 1 are there",
        ),
        (
            "echo '<testsuite/>' > o.xml",
            "{ junit: o.xml }",
            "no test case",
        ),
        (
            "printf '1..2\\nok 1\\n'",
            "{ tap: '-' }",
            "plans 2 tests, but 1 are there",
        ),
        ("ln -s /etc/passwd o.xml", "{ junit: o.xml }", "leads out"),
    ] {
        let script = script.replace('"', "\\\"").replace("\\n", "\\\\n");
        let said = run(&format!(
            "name: x\nphases: {{ t: [ {{ run: \"{script}\", results: {results} }} ] }}\n"
        ));
        assert_eq!(said.code, Some(3), "{script}: {}", said.stderr);
        let told = said.step("t/0")["reason"].as_str().unwrap();
        assert!(told.contains(reason), "{script}: {told}");
    }
}

#[test]
fn a_file_from_before_the_step_does_not_count() {
    let spec = "name: x\nphases:\n  t:\n    - run: \"echo '<testsuite><testcase name=\\\"a\\\"/></testsuite>' > o.xml\"\n    - run: 'true'\n      results: { junit: o.xml }\n";
    let said = run(spec);
    assert_eq!(said.code, Some(3), "{}", said.stderr);
    let reason = said.step("t/1")["reason"].as_str().unwrap();
    assert!(reason.contains("is from before the step"), "{reason}");
    assert!(said.cases().is_empty());
}

#[test]
fn a_spec_says_where_results_and_patterns_belong() {
    for (step, error) in [
        (
            "{ wait: { for: 1s }, results: { junit: a.xml } }",
            "does nothing without `exec`",
        ),
        (
            "{ run: a, verifies: { r: '*' } }",
            "only a step with `results`",
        ),
        (
            "{ run: a, results: { junit: /tmp/a.xml }, verifies: { r: '*' } }",
            "doesn't begin with `/`",
        ),
        (
            "{ run: a, results: { junit: a.xml, tap: b }, verifies: { r: '*' } }",
            "tap",
        ),
        (
            "{ run: a, results: { junit: a.xml, from: nobody }, verifies: { r: '*' } }",
            "no service `nobody`",
        ),
        (
            "{ run: a, results: { junit: a.xml }, verifies: { other: '*', r: '*' } }",
            "no row `other`",
        ),
    ] {
        let place = tempfile::tempdir().unwrap();
        let spec = format!("name: x\ncoverage: {{ r: R }}\nphases: {{ t: [ {step} ] }}\n");
        fs::write(place.path().join("spec.yaml"), spec).unwrap();
        let output = phalanx(&place)
            .args(["validate", "spec.yaml"])
            .output()
            .unwrap();
        let said = format!("{output:?}");
        assert!(
            !output.status.success() && said.contains(error),
            "{step}: {said}"
        );
    }
}

/// Returns a directory with a `python3` that has pytest.
fn python_with_pytest(place: &std::path::Path) -> String {
    let has = Command::new("python3")
        .args(["-c", "import pytest"])
        .output();
    if has.is_ok_and(|output| output.status.success()) {
        return std::env::var("PATH").unwrap();
    }
    let venv = place.join("venv");
    let made = Command::new("python3")
        .args(["-m", "venv"])
        .arg(&venv)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let pip = Command::new(venv.join("bin/pip"))
        .args(["install", "--quiet", "pytest"])
        .output()
        .unwrap();
    assert!(pip.status.success(), "{pip:?}");
    format!(
        "{}:/usr/local/bin:/usr/bin:/bin",
        venv.join("bin").display()
    )
}

#[test]
fn the_example_runs_an_untouched_pytest_suite() {
    let place = tempfile::tempdir().unwrap();
    let path = python_with_pytest(place.path());
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/pytest/spec.yaml");
    let report = place.path().join("report.json");
    let json = format!("json={}", report.display());
    let output = phalanx(&place)
        .env("PATH", path)
        .args(["run", example, "--report", &json])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let report: Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    let rows = report["coverage"]["rows"].as_array().unwrap();
    let states = |row: usize| -> Vec<&str> {
        let entries = rows[row]["entries"].as_array().unwrap().iter();
        entries
            .map(|entry| entry["state"].as_str().unwrap())
            .collect()
    };
    assert_eq!(
        (states(0), states(1)),
        (vec!["passed"; 2], vec!["skipped", "passed"])
    );
    for cell in report["cells"].as_array().unwrap() {
        let steps = cell["attempts"][0]["steps"].as_array().unwrap();
        let cases = steps.iter().filter(|step| step["action"] == "case");
        assert_eq!(cases.count(), 4, "{stderr}");
    }
}

#[test]
fn a_failed_case_of_the_example_keeps_a_picture_and_what_it_said() {
    let place = tempfile::tempdir().unwrap();
    let path = python_with_pytest(place.path());
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/pytest/spec.yaml");
    let output = phalanx(&place)
        .env("PATH", path)
        .args(["run", example, "--input", "broken=true"])
        .args(["--only", "version=v2", "--artifacts", "kept"])
        .args(["--report", "html=run.html", "--report", "junit=junit.xml"])
        .args(["--report", "ctrf=ctrf.json"])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let kept = place.path().join("kept/v2/evidence");
    let picture = fs::read(kept.join("test_an_order_is_stored[book].png")).unwrap();
    assert!(picture.starts_with(b"\x89PNG"));
    let said = fs::read_to_string(kept.join("test_an_order_is_stored[lamp].txt")).unwrap();
    assert!(said.contains("assert {'sku': 'lamp'} in"), "{said}");
    // The page holds both pictures, which are equal, once.
    let page = fs::read_to_string(place.path().join("run.html")).unwrap();
    assert_eq!(page.matches("id=\"file-").count(), 1);
    // The files belong to the cases that they are called by.
    let junit = fs::read_to_string(place.path().join("junit.xml")).unwrap();
    let (_, book) = junit.split_once("test_an_order_is_stored[book]\"").unwrap();
    let (book, _) = book.split_once("</testcase>").unwrap();
    assert!(
        book.contains("evidence/test_an_order_is_stored[book].png]]"),
        "{junit}"
    );
    assert!(!book.contains("[lamp]"), "{junit}");
    let ctrf: Value =
        serde_json::from_slice(&fs::read(place.path().join("ctrf.json")).unwrap()).unwrap();
    let tests = ctrf["results"]["tests"].as_array().unwrap();
    let attached = tests.iter().flat_map(|test| test["attachments"].as_array());
    assert_eq!(attached.map(Vec::len).sum::<usize>(), 4);
}
