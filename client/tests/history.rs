//! Runs of a small spec over time, by the real program: `compare`, `history`, dates of skips and the limit on skips.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A directory with a spec and its runs.
struct Place(tempfile::TempDir);

/// What a command said.
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Place {
    fn with(spec: &str) -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        place.write("spec.yaml", spec);
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    fn call(&self, arguments: &[&str]) -> Said {
        let Output {
            status,
            stdout,
            stderr,
        } = Command::new(env!("CARGO_BIN_EXE_phalanx"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path())
            .env("PHALANX_STATE_DIR", self.path().join("state"))
            .current_dir(self.path())
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Said {
            code: status.code(),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
        }
    }

    /// Runs the spec with a text as its input, and expects an exit code.
    fn run(&self, word: &str, code: i32) {
        let said = self.call(&["run", "spec.yaml", "--input", &format!("word={word}")]);
        assert_eq!(said.code, Some(code), "{}", said.stderr);
    }

    /// Returns the ids of the runs, the oldest first.
    fn ids(&self) -> Vec<String> {
        let said = self.call(&["runs", "--format", "json"]);
        let runs: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
        let runs = runs["runs"].as_array().unwrap().iter().rev();
        runs.map(|run| run["run"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// Two cells; the one of `mysql` fails if the input is `bad`.
const SPEC: &str = r#"
name: shop
inputs: { word: { default: good } }
strategy: { matrix: { db: [pg, mysql] } }
coverage: { pay: Payment }
phases:
  test:
    - { name: pay, run: 'test "${{ inputs.word }}${{ matrix.db }}" != badmysql', verifies: pay }
"#;

#[test]
fn a_break_is_told_by_its_run_and_a_comparison_names_it_first() {
    let place = Place::with(SPEC);
    for (word, code) in [("good", 0), ("good", 0), ("bad", 1), ("bad", 1)] {
        place.run(word, code);
    }
    let ids = place.ids();

    let said = place.call(&["history", "shop"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    for line in [
        "shop: 4 runs".to_owned(),
        "  outcomes  ··FF".to_owned(),
        format!("  broken since run {}  test > pay", ids[2]),
        "    1 cell: mysql  ··FF".to_owned(),
        format!("  not verified since run {}: mysql (pay)", ids[1]),
    ] {
        assert!(
            said.stdout.lines().any(|known| known == line),
            "{line}\n{}",
            said.stdout
        );
    }
    let said = place.call(&["history", "spec.yaml", "mysql", "--format", "json"]);
    let cell: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(
        (&cell["verdict"], &cell["since"]),
        (&"broken".into(), &ids[2].as_str().into())
    );
    let said = place.call(&["history", "shop", "pay", "--last", "2"]);
    assert!(
        said.stdout.contains("failed in every run"),
        "{}",
        said.stdout
    );

    let said = place.call(&["compare", &ids[1], "last"]);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    let failure = said.stdout.find("new failures:").unwrap();
    let input = said.stdout.find("word: good → bad").unwrap();
    assert!(failure < input, "{}", said.stdout);
    assert!(
        said.stdout.contains("too little history"),
        "{}",
        said.stdout
    );
    let said = place.call(&["compare", &ids[2], &ids[1], "--format", "json"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let fixed: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(fixed["gone"][0]["cells"], serde_json::json!(["mysql"]));
    let said = place.call(&["compare", &ids[1], &ids[3], "--format", "markdown"]);
    assert!(
        said.stdout.starts_with("### 1 new failure\n"),
        "{}",
        said.stdout
    );
}

#[test]
fn a_name_that_is_none_is_told_with_the_closest() {
    let place = Place::with(SPEC);
    let said = place.call(&["history", "shop"]);
    assert_eq!(said.code, Some(2), "{}", said.stdout);
    place.run("good", 0);
    let said = place.call(&["history", "shpo"]);
    assert!(
        said.stderr.contains("did you mean `shop`?"),
        "{}",
        said.stderr
    );
    let said = place.call(&["history", "shop", "nothing"]);
    assert_eq!(said.code, Some(2));
    assert!(
        said.stderr.contains("no cell and no step `nothing`"),
        "{}",
        said.stderr
    );
}

#[test]
fn a_changed_line_of_the_spec_is_shown() {
    let place = Place::with(SPEC);
    place.run("good", 0);
    place.write("spec.yaml", &SPEC.replace("Payment", "Payments"));
    place.run("good", 0);
    let ids = place.ids();
    let said = place.call(&["compare", &ids[0], &ids[1]]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    for line in [
        "- coverage: { pay: Payment }",
        "+ coverage: { pay: Payments }",
    ] {
        assert!(said.stdout.contains(line), "{line}\n{}", said.stdout);
    }
}

#[test]
fn a_skip_whose_last_day_is_over_fails_and_names_day_and_place() {
    let spec = |when: &str, skip: &str| {
        format!(
            r#"
name: dated
phases:
  test:
    - {{ name: first, run: "true" }}
    - {{ name: by when, when: "false", reason: bug 12, until: {when}, run: "true" }}
    - {{ name: by skip, run: "true", skip: {{ if: "true", reason: bug 13, until: {skip} }} }}
"#
        )
    };
    let place = Place::with(&spec("9999-12-31", "9999-12-31"));
    let said = place.call(&["run", "spec.yaml"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    place.write("spec.yaml", &spec("2020-02-29", "9999-12-31"));
    let said = place.call(&["run", "spec.yaml"]);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    for part in [
        "the skip ended with 2020-02-29 (the run was submitted on ",
        "spec.yaml:6:",
        ": bug 12;",
    ] {
        assert!(said.stderr.contains(part), "{part}\n{}", said.stderr);
    }
    place.write("spec.yaml", &spec("9999-12-31", "2020-02-29"));
    let said = place.call(&["run", "spec.yaml"]);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    assert!(said.stderr.contains(": bug 13;"), "{}", said.stderr);
    place.write("spec.yaml", &spec("2026-02-30", "9999-12-31"));
    let said = place.call(&["validate", "spec.yaml"]);
    assert_eq!(said.code, Some(2), "{}", said.stderr);
    let told = format!("{}{}", said.stdout, said.stderr);
    assert!(
        told.contains("`until` takes a date such as `2026-12-31`"),
        "{told}"
    );
}

#[test]
fn a_run_with_more_skips_than_allowed_fails_and_says_so() {
    let spec = |most: u32| {
        format!(
            r#"
name: limited
strategy: {{ max-skips: {most}, matrix: {{ db: [pg, mysql] }} }}
phases:
  test:
    - {{ name: always, run: "true" }}
    - {{ name: group, when: "matrix.db == 'pg'", reason: only pg, steps: [{{ run: "true" }}, {{ run: "true" }}] }}
"#
        )
    };
    let place = Place::with(&spec(1));
    let said = place.call(&["run", "spec.yaml"]);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    let told = "2 skipped steps, and `max-skips` allows 1: the run fails";
    assert!(said.stderr.contains(told), "{}", said.stderr);
    let said = place.call(&["show", "--format", "markdown"]);
    assert!(said.stdout.contains("2 skipped steps"), "{}", said.stdout);
    place.write("spec.yaml", &spec(2));
    let said = place.call(&["run", "spec.yaml"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
}
