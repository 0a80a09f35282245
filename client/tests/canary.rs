//! A canary: puts a secret everywhere a spec can have one, in every form that masking knows. Then searches every byte
//! that the program left behind for it: the whole state directory (journal with its -wal, spool, logs), its output and
//! its reports. The captured secret differs from the given one, so that both ways in are tested.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod collector;

use collector::Collector;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Given with `--secret-file`. JSON, URLs and Base64 escape its characters differently.
const GIVEN: &str = "canary+Given/7f3a=9 c1\"d&e";
/// Produced by the system under test, and captured as `{secret: …}`.
const CAPTURED: &str = "canaryCaptured-5b1d0e77a2";
/// Proves that the searched files were written at all.
const HARMLESS: &str = "harmless-words-around";

/// Services print the secret's file: a spec may name a secret in an environment.
const SPEC: &str = r#"
name: canary
secrets: [given]
strategy: { matrix: { end: [passes, fails] } }
cell: { resources: { cpus: 0.05, memory: 16MiB } }
services:
  loud:
    process:
      - sh
      - -euc
      - |
        echo "harmless-words-around raw $GIVEN"
        echo "harmless-words-around raw $GIVEN" >&2
        printf %s "$GIVEN" | base64 -w 0; echo
        printf 'ab%s' "$GIVEN" | base64 -w 0; echo
        printf 'a%s' "$GIVEN" | base64 -w 0; echo
        echo "url $(printf %s "$GIVEN" | sed 's,+,%2B,g; s,/,%2F,g; s,=,%3D,g; s, ,%20,g; s,",%22,g; s,&,%26,g')"
        head=$(printf %s "$GIVEN" | head -c 9); tail=$(printf %s "$GIVEN" | tail -c +10)
        printf 'split %s' "$head"; sleep 0.5; printf '%s\n' "$tail"
        echo all is said
        exec sleep 600
    environment:
      GIVEN: "${{ secrets.given }}"
    ready: { log: all is said, timeout: 30s }
  shop:
    process: ["${{ phalanx.demo_server }}", --port, "${{ port.http }}"]
    ports: [http]
    ready: { http: { get: "${{ services.shop.url }}/health" } }
sessions:
  shop: { base: "${{ services.shop.url }}", headers: { X-Key: "${{ secrets.given }}" } }
defaults: { http: { session: shop } }
phases:
  passes:
    - id: body
      name: "in a name: ${{ secrets.given }}"
      http: { post: "/echo", query: { q: "${{ secrets.given }}" }, json: { given: "${{ secrets.given }}" } }
      capture: { again: json.body }
      expect: ["body.contains('harmless') || body.size() > 0", "json.body.contains('canary')"]
    - id: token
      run: "printf %s canaryCaptured-; printf '%s\\n' 5b1d0e77a2"
      capture: { value: { secret: stdout.trim() } }
    - name: "captured, in a name: ${{ steps.token.value }}"
      run:
        script: 'echo "harmless-words-around $GIVEN"; echo "$TOKEN" >&2; printf %s "$GIVEN$TOKEN" | base64 -w 0'
        env: { GIVEN: "${{ secrets.given }}", TOKEN: "${{ steps.token.value }}" }
      expect: ["stdout.contains('harmless')", exit_code == 0]
    - name: leaves files behind
      run:
        script: |
          echo "harmless-words-around $GIVEN and $TOKEN" > "kept-$TOKEN.txt"
          head -c 65530 /dev/zero | tr '\0' x > long.txt
          echo "$GIVEN" >> long.txt
        env: { GIVEN: "${{ secrets.given }}", TOKEN: "${{ steps.token.value }}" }
      artifacts: [{ from: "*.txt", name: "of ${{ secrets.given }}" }, "none-${{ secrets.given }}", "../${{ secrets.given }}"]
    - wait: { service: loud, until: ready }
    - name: skips with a secret reason
      when: "false"
      reason: "because of ${{ secrets.given }} and ${{ steps.token.value }}"
      expect: ["true"]
    - http: { get: /events }
  fails:
    - name: a failing check shows its parts
      continue-on-failure: true
      when: matrix.end == 'fails'
      http: { post: /echo, json: { given: "${{ secrets.given }}", token: "${{ steps.token.value }}" } }
      expect:
        - "json.body == 'other ' + secrets.given"
        - "steps.token.value + secrets.given == json.headers['x-key']"
        - "steps.body.again == ''"
        - "[secrets.given, steps.token.value] == []"
    - name: an error names what it got
      continue-on-failure: true
      when: matrix.end == 'fails'
      http: { get: "http://127.0.0.1:1/${{ secrets.given }}?token=${{ steps.token.value }}" }
    - name: so does a URL that is none
      continue-on-failure: true
      when: matrix.end == 'fails'
      http: { session: none, get: "nothing://${{ secrets.given }}/${{ steps.token.value }}" }
    - name: and a command that isn't there
      continue-on-failure: true
      when: matrix.end == 'fails'
      run: { command: ["/nowhere/${{ secrets.given }}", "${{ steps.token.value }}"] }
    - name: a step that fails with words
      when: matrix.end == 'fails'
      run:
        script: 'echo "harmless-words-around $GIVEN $TOKEN"; echo "$TOKEN$GIVEN" >&2; exit 7'
        env: { GIVEN: "${{ secrets.given }}", TOKEN: "${{ steps.token.value }}" }
"#;

#[test]
fn no_form_of_a_secret_is_left_in_anything_that_a_run_writes() {
    canary(&[]);
}

#[test]
fn nor_when_the_agents_are_processes_with_spools_of_their_own() {
    canary(&["--agents-as-processes"]);
}

fn canary(more: &[&str]) {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    fs::write(at("canary.yaml"), SPEC).unwrap();
    let collector = Collector::start();
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("given");
    fs::write(&secret, GIVEN).unwrap();
    let phalanx = |arguments: &[&str]| -> Output {
        Command::new(env!("CARGO_BIN_EXE_phalanx"))
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", place.path())
            .env("TMPDIR", at("tmp"))
            .env("PHALANX_STATE_DIR", at("state"))
            // Log as much as possible.
            .env("PHALANX_LOG", "trace")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint)
            .current_dir(place.path())
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    fs::create_dir(at("tmp")).unwrap();
    let given = format!("given={}", secret.display());
    let mut arguments = vec!["run", "canary.yaml", "--verbose", "--slots", "2"];
    arguments.extend(["--secret-file", &given]);
    for report in ["junit=junit.xml", "json=report.json", "markdown=report.md"] {
        arguments.extend(["--report", report]);
    }
    arguments.extend(more);
    let run = phalanx(&arguments);
    let text = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(1), "{text}");
    let runs: serde_json::Value =
        serde_json::from_slice(&phalanx(&["runs", "--format", "json"]).stdout).unwrap();
    let id = runs["runs"][0]["run"].as_str().unwrap();
    for (name, arguments) in [
        ("show", &["show", "--verbose"][..]),
        ("show-json", &["show", "--format", "json"]),
        ("cell", &["show", "--cell", "fails", "--verbose"]),
        ("logs", &["logs", id, "passes"]),
        ("artifacts", &["artifacts", id, "--out", "fetched"]),
    ] {
        let said = phalanx(arguments);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert_eq!(said.status.code(), Some(0), "{name}: {text}");
        fs::write(
            at(&format!("{name}.out")),
            [said.stdout, said.stderr].concat(),
        )
        .unwrap();
    }
    fs::write(at("run.out"), [run.stdout, run.stderr].concat()).unwrap();
    let exported = phalanx(&["export", "--output", "run.phx"]);
    assert_eq!(exported.status.code(), Some(0));
    let content = Command::new("gunzip")
        .arg("-c")
        .stdin(fs::File::open(at("run.phx")).unwrap())
        .output()
        .unwrap();
    fs::write(at("exported.out"), content.stdout).unwrap();

    fs::write(at("spans"), collector.bytes()).unwrap();
    let mut files = Vec::new();
    files_below(place.path(), &mut files);
    let mut found = Vec::new();
    for (file, bytes) in &files {
        for (form, pattern) in forms() {
            if let Some(position) = position(bytes, &pattern) {
                let around = &bytes[position.saturating_sub(120)..bytes.len().min(position + 120)];
                found.push(format!(
                    "{form} in {} at {position}: {}",
                    file.display(),
                    String::from_utf8_lossy(around)
                ));
            }
        }
    }
    assert!(found.is_empty(), "{text}\n{}", found.join("\n\n"));
    shown(&files);
}

/// Checks that the search covered the right files: each kind exists and contains the text around the secrets.
fn shown(files: &[(PathBuf, Vec<u8>)]) {
    let holds = |of: &dyn Fn(&str) -> bool, words: &str| {
        files.iter().any(|(file, bytes)| {
            of(&file.to_string_lossy()) && position(bytes, words.as_bytes()).is_some()
        })
    };
    for name in [
        "junit.xml",
        "report.json",
        "report.md",
        "run.out",
        "show.out",
        "show-json.out",
        "cell.out",
        "artifacts.out",
        "long.txt",
    ] {
        assert!(holds(&|file| file.ends_with(name), "***"), "{name}");
    }
    for words in [HARMLESS, "raw ***", "url ***", "split ***"] {
        assert!(holds(&|file| file.ends_with("logs.out"), words), "{words}");
    }
    // An export keeps chunks as they arrived, so what was written in two parts is in two of its lines.
    for words in [HARMLESS, "raw ***", "url ***"] {
        assert!(
            holds(&|file| file.ends_with("exported.out"), words),
            "{words} in the export"
        );
    }
    for words in [
        "***?token=***: can't connect",
        "| ******",
        "captured, in a name: ***",
    ] {
        assert!(holds(&|file| file.ends_with("run.out"), words), "{words}");
    }
    for words in ["captured, in a name: ***", "because of *** and ***"] {
        assert!(holds(&|file| file.ends_with("spans"), words), "{words}");
    }
    assert!(holds(&|file| file.contains("journal.db"), HARMLESS));
    assert!(holds(&|file| file.contains("/logs/"), HARMLESS));
}

/// Collects the files below a directory with their names. The spec is the user's own file, so it may contain the
/// secret.
fn files_below(directory: &Path, out: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        // Names of files are searched, too.
        let mut bytes = path.to_string_lossy().into_owned().into_bytes();
        if kind.is_dir() {
            files_below(&path, out);
        } else if kind.is_file() && !path.ends_with("canary.yaml") {
            bytes.push(b'\n');
            bytes.extend(fs::read(&path).unwrap());
        }
        out.push((path, bytes));
    }
}

fn position(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes
        .windows(pattern.len())
        .position(|window| window == pattern)
}

/// Returns the forms that must appear nowhere, made by an implementation of the encodings that is independent of the
/// masks.
fn forms() -> Vec<(String, Vec<u8>)> {
    let mut forms = Vec::new();
    for (name, secret) in [("given", GIVEN), ("captured", CAPTURED)] {
        let mut add = |form: &str, text: String| {
            forms.push((format!("{name}, {form}"), text.into_bytes()));
        };
        add("raw", secret.to_owned());
        let json = serde_json::to_string(secret).unwrap();
        let json = json.trim_matches('"').to_owned();
        let twice = serde_json::to_string(&json).unwrap();
        add("JSON twice", twice.trim_matches('"').to_owned());
        add("JSON", json);
        add("XML", secret.replace('&', "&amp;").replace('"', "&quot;"));
        let percent = |space: &str| -> String {
            let one = |byte: u8| match byte {
                b' ' => space.to_owned(),
                byte if byte.is_ascii_alphanumeric() || byte == b'-' => {
                    char::from(byte).to_string()
                }
                byte => format!("%{byte:02X}"),
            };
            secret.bytes().map(one).collect()
        };
        add("URL", percent("%20"));
        add("form", percent("+"));
        for before in 0..3usize {
            // Only the characters that depend on the secret alone.
            let padded = [vec![0; before], secret.as_bytes().to_vec()].concat();
            let text = base64(&padded);
            let from = (before * 8).div_ceil(6);
            let to = padded.len() * 8 / 6;
            add(&format!("base64 after {before}"), text[from..to].to_owned());
        }
    }
    forms
}

fn base64(bytes: &[u8]) -> String {
    let alphabet: Vec<char> = ('A'..='Z')
        .chain('a'..='z')
        .chain('0'..='9')
        .chain(['+', '/'])
        .collect();
    let bits: Vec<u8> = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1))
        .collect();
    bits.chunks(6)
        .map(|six| {
            let value = six.iter().fold(0, |sum, bit| sum << 1 | usize::from(*bit));
            alphabet[value << (6 - six.len())]
        })
        .collect()
}
