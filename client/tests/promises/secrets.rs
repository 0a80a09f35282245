//! Secrets appear in no output, whatever the way, and reach only those that need them.

use crate::place::{Place, Said, ended};
use crate::{Need, Test};
use std::net::TcpListener;

pub fn tests() -> Vec<Test> {
    vec![
        (
            Need::Nothing,
            "a secret in a value that is shortened is masked in every report",
            field_cut,
        ),
        (
            Need::Nothing,
            "no way into a report shows a part of a secret, whatever the renderer",
            every_way,
        ),
        (
            Need::Nothing,
            "every usual form of a secret is masked in logs, reports and files, and what can't be is what the documentation says",
            forms,
        ),
        (
            Need::Nothing,
            "a secret that is a word of the event format or a service's name breaks nothing",
            words,
        ),
        (
            Need::Nothing,
            "a local run without a secret's value ends at once and says how to give it",
            missing,
        ),
        (
            Need::Nothing,
            "a secret that the spec does not declare is refused with a suggestion",
            undeclared,
        ),
        (
            Need::Nothing,
            "a secret too short to mask is refused before anything starts, without its value",
            short,
        ),
        (
            Need::Nothing,
            "a rerun without a secret's value ends at once and names it",
            rerun,
        ),
        (
            Need::Nothing,
            "a project's settings redirect neither work nor secrets",
            redirected,
        ),
        (
            Need::Nothing,
            "a user's own settings may name a coordinator",
            users_file,
        ),
        (
            Need::Nothing,
            "validate warns of a secret among a command's words",
            words_of_commands,
        ),
    ]
}

/// Returns the output of every renderer for the newest run, and the output of the run itself.
fn rendered(place: &Place, run: &Said) -> Vec<(String, String)> {
    let mut all = vec![
        ("stdout".to_owned(), run.stdout.clone()),
        ("stderr".to_owned(), run.stderr.clone()),
    ];
    for file in ["o.json", "o.xml", "o.md"] {
        all.push((file.to_owned(), place.read(file)));
    }
    let runs = place.call(&["runs", "--format", "json"]).stdout;
    let runs: serde_json::Value = serde_json::from_str(&runs).unwrap();
    let id = runs["runs"][0]["run"].as_str().unwrap();
    for arguments in [
        &["show", "--verbose"][..],
        &["show", "--format", "json"],
        &["logs", id, "1"],
    ] {
        let said = place.call(arguments);
        all.push((arguments.join(" "), said.stdout + &said.stderr));
    }
    all
}

fn run_with_reports(place: &Place, secrets: &[&str]) -> Said {
    let reports = ["json=o.json", "junit=o.xml", "markdown=o.md"];
    let mut arguments = vec!["run", "spec.yaml", "--verbose"];
    for report in reports {
        arguments.extend(["--report", report]);
    }
    for secret in secrets {
        arguments.extend(["--secret-file", secret]);
    }
    // Set the variable as GitHub does, so that annotations are printed.
    ended(place.phalanx(&arguments).env("GITHUB_ACTIONS", "true"))
}

/// Checks that no eight consecutive characters of the secret appear anywhere.
fn assert_hidden(secret: &str, texts: &[(String, String)]) {
    for (what, text) in texts {
        for at in 0..=secret.len() - 8 {
            let part = &secret[at..at + 8];
            if let Some(found) = text.find(part) {
                let from = text.floor_char_boundary(found.saturating_sub(200));
                let to = text.ceil_char_boundary((found + 100).min(text.len()));
                panic!("{part} is in {what}: {}", &text[from..to]);
            }
        }
    }
}

fn field_cut() {
    let place = Place::of_field("secret-cut-in-failed-check");
    let said = run_with_reports(&place, &["TOKEN=token.txt"]);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    let secret = place.read("token.txt");
    let all = rendered(&place, &said);
    assert_hidden(secret.trim(), &all);
    for (what, text) in &all[1..4] {
        assert!(text.contains("***"), "{what}: {text}");
    }
}

/// Long enough that every limit cuts it, and without characters that an encoding changes.
const LONG: &str = "Zq7kilo9bravo3Xy5delta8Wv1echo4Ut6foxtrot2Sr0golf7Qp3hotel5On9india1Ml8juliet6";

const WAYS: &str = r#"
name: ways
secrets: [long]
strategy: { matrix: { x: [1] } }
workspace: { include: [server.py] }
services:
  web:
    process: [python3, server.py, "${{ port.http }}"]
    ports: [http]
    environment: { TOKEN: "${{ secrets.long }}" }
    ready: { http: { get: "${{ services.web.url }}/ready" } }
phases:
  ways:
    - name: halves with colours between
      run: { script: 'A=$(printf %s "$T" | head -c 20); B=$(printf %s "$T" | tail -c +21); printf "\033[31m%s\033[0m\033[1m%s\033[0m\n" "$A" "$B"; printf "\033[31m%s\033[0m%s\n" "$A" "$B" >&2; exit 1', env: { T: "${{ secrets.long }}" } }
      continue-on-failure: true
    - name: broken over lines
      run: { script: 'printf %s "$T" | fold -w 6 >&2; exit 1', env: { T: "${{ secrets.long }}" } }
      continue-on-failure: true
    - name: at the beginning of what is shown of an output
      run: { script: 'printf %s "$T"; head -c 4060 /dev/zero | tr "\0" x; exit 1', env: { T: "${{ secrets.long }}" } }
      continue-on-failure: true
    - name: at the end of what is shown of a body
      http: { get: "${{ services.web.url }}/long" }
      expect: [status == 201, "body == ''", "json == {}"]
      continue-on-failure: true
    - name: at the end of what is shown of a request
      http: { post: "${{ services.web.url }}/long", body: "PADDING${{ secrets.long }}", headers: { X-Key: "${{ secrets.long }}" } }
      expect: ["headers['x-none'] == ''"]
      continue-on-failure: true
    - name: in an event of a stream
      sse: { get: "${{ services.web.url }}/events", until: "event.data == 'never'", timeout: 1s }
      continue-on-failure: true
    - name: in the last answer of a poll
      http: { get: "${{ services.web.url }}/short" }
      poll: { until: "json.token == 'x' + secrets.long", timeout: 300ms, interval: 100ms }
      continue-on-failure: true
    - name: in values of all kinds
      expect:
        - "secrets.long == ''"
        - "[secrets.long, secrets.long, secrets.long, secrets.long, secrets.long] == []"
        - "{secrets.long: {secrets.long: [secrets.long]}} == {}"
        - "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' + secrets.long == ''"
        - "secrets.long + 1 == 2"
        - "secrets.long"
        - "[secrets.long].all(x, x == '')"
        - "{'a': 1}[secrets.long] == 1"
      continue-on-failure: true
    - foreach: { key: ["${{ secrets.long }}", "other"] }
      name: "for ${{ key }}"
      run: "true"
    - run: { command: ["false", "                                         ", "${{ secrets.long }}"] }
      continue-on-failure: true
    - name: "a name that holds a secret near the place where names are cut: ${{ secrets.long }}"
      run: { command: ["/nowhere/${{ secrets.long }}"], workdir: "/nowhere/${{ secrets.long }}" }
      continue-on-failure: true
    - name: skipped
      when: secrets.long == ''
      run: "true"
    - name: skipped with a reason
      when: "false"
      reason: "because of ${{ secrets.long }}"
      run: "true"
    - name: a wrong setting
      http: { get: "${{ services.web.url }}/short" }
      timeout: "${{ secrets.long }}"
      continue-on-failure: true
    - name: no URL
      http: { get: "nothing://${{ secrets.long }}/${{ secrets.long }}" }
      continue-on-failure: true
    - name: captured in the step that shows it
      http: { get: "${{ services.web.url }}/made" }
      capture: { made: { secret: json.token } }
      expect: ["json == {}", "body == ''"]
      continue-on-failure: true
    - name: the service's own log
      exec: { service: web, command: [sh, -c, "exit 3"] }
"#;

const SERVER: &str = r#"
import http.server, json, os, sys, time
T = os.environ["TOKEN"]
MADE = T[::-1]
def say(text):
    sys.stdout.write(text); sys.stdout.flush()
say("\x1b[32m" + T[:30] + "\x1b[0m"); time.sleep(0.05); say("\x1b[1m" + T[30:] + "\x1b[0m\n")
for c in T: say(c)
say("\n")
for i in range(0, len(T), 6): say(T[i:i+6] + "\n")
say("x" * 1970 + T + "\n")
class H(http.server.BaseHTTPRequestHandler):
    def log_message(self, *a): pass
    def answer(self):
        kind = "application/json"
        if self.path == "/long": body = "x" * 4060 + T + "y" * 5000
        elif self.path == "/events":
            kind = "text/event-stream"
            body = "data: " + "x" * 420 + T + T + T + "\n\n"
        elif self.path == "/made": body = json.dumps({"padding": "p" * 4030, "token": MADE})
        else: body = json.dumps({"token": T, "list": [T] * 9})
        body = body.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Token", T)
        self.end_headers()
        self.wfile.write(body)
    do_GET = answer
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"])); self.answer()
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), H).serve_forever()
"#;

fn every_way() {
    let place = Place::new();
    place.write("spec.yaml", WAYS.replace("PADDING", &"y".repeat(4_060)));
    place.write("server.py", SERVER);
    place.write("long.txt", LONG);
    let said = run_with_reports(&place, &["long=long.txt"]);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    let all = rendered(&place, &said);
    assert_hidden(LONG, &all);
    let made: String = LONG.chars().rev().collect();
    assert_hidden(&made, &all);
    // All ways were used, and the output says where a secret was.
    let json: serde_json::Value = serde_json::from_str(&place.read("o.json")).unwrap();
    let told = json.to_string();
    for name in [
        "halves with colours between",
        "broken over lines",
        "in an event of a stream",
        "in the last answer of a poll",
        "captured in the step that shows it",
        "the service's own log",
    ] {
        assert!(told.contains(name), "{name}: {told}");
    }
    assert!(told.matches("***").count() > 20, "{told}");
    let logs = &all
        .iter()
        .find(|(what, _)| what.starts_with("logs"))
        .unwrap()
        .1;
    assert!(logs.contains("***"), "{logs}");
}

fn words() {
    let place = Place::new();
    place.write(
        "spec.yaml",
        "name: words
secrets: [a, b, c, d, e, f]
services:
  postgres: { process: [sh, -c, 'echo hello; exec sleep 600'], ready: { log: hello } }
phases:
  assertions:
    - { name: one, exec: { service: postgres, command: ['true'] } }
    - { name: two, run: { script: 'test -n \"$A\" && echo \"$A\"', env: { A: '${{ secrets.a + secrets.b + secrets.c + secrets.d + secrets.e + secrets.f }}' } } }
    - { name: three, foreach: { key: ['${{ secrets.b }}', '${{ secrets.c }}'] }, run: 'true' }
",
    );
    let values = [
        ("a", "attempt_finished"),
        ("b", "step_finished"),
        ("c", "cancelled"),
        ("d", "postgres"),
        ("e", "assertions"),
        ("f", "torn_down"),
    ];
    let secrets = values.map(|(name, value)| {
        place.write(name, value);
        format!("{name}={name}")
    });
    let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
    let said = run_with_reports(&place, &secrets);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let json: serde_json::Value = serde_json::from_str(&place.read("o.json")).unwrap();
    assert_eq!(json["outcome"], "passed", "{json:#}");
    let shown = place.call(&["show", "--verbose"]);
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    let text = json.to_string();
    assert!(!text.contains("could not be masked"), "{text}");
    // Both instances appear and remain separate.
    for path in ["[***]", "[***2]"] {
        let watched = place.call(&["show", "--format", "json"]).stdout;
        assert!(
            text.contains(path) || watched.contains(path),
            "{path}: {json:#}"
        );
    }
}

fn missing() {
    let place = Place::of_field("missing-secret");
    let said = place.call(&["run", "spec.yaml"]);
    assert_eq!(said.code, Some(2), "{}", said.stderr);
    for part in ["`API_KEY`", "--secret-env", "--secret-file"] {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
    let runs = place.call(&["runs", "--format", "json"]).stdout;
    assert!(!runs.contains("missing-secret"), "nothing began: {runs}");
}

fn undeclared() {
    let place = Place::of_field("missing-secret");
    place.write("key.txt", "a-key-of-some-length");
    let said = place.call(&["run", "spec.yaml", "--secret-file", "API_KYE=key.txt"]);
    assert_eq!(said.code, Some(2), "{}", said.stderr);
    assert!(
        said.stderr.contains("API_KYE") && said.stderr.contains("did you mean `API_KEY`?"),
        "{}",
        said.stderr
    );
    let arguments = ["run", "spec.yaml", "--secret-env", "API_KEY"];
    let said = ended(
        place
            .phalanx(&arguments)
            .env("API_KEY", "a-key-of-some-length"),
    );
    assert_eq!(said.code, Some(0), "{}", said.stderr);
}

fn short() {
    let place = Place::of_field("missing-secret");
    let arguments = ["run", "spec.yaml"];
    let said = ended(
        place
            .phalanx(&arguments)
            .env("PHALANX_SECRET_API_KEY", "qx7!z"),
    );
    assert_eq!(said.code, Some(2), "{}", said.stderr);
    assert!(
        said.stderr.contains("`API_KEY`") && said.stderr.contains("8 characters"),
        "{}",
        said.stderr
    );
    assert!(!said.stderr.contains("qx7!z"), "{}", said.stderr);
}

fn rerun() {
    let place = Place::of_field("ux");
    let spec = "secret-rerun-hangs.yaml";
    let with = |arguments: &[&str]| {
        ended(
            place
                .phalanx(arguments)
                .env("ADMIN_TOKEN", "letmein-letmein"),
        )
    };
    let cell = "memory / v4";
    let said = with(&["run", spec, "--cell", cell, "--secret-env", "ADMIN_TOKEN"]);
    assert_eq!(
        said.code,
        Some(1),
        "one check of the spec is wrong: {}",
        said.stderr
    );
    let said = place.call(&["rerun", "--failed"]);
    assert_eq!(said.code, Some(2), "{}", said.stderr);
    for part in ["`ADMIN_TOKEN`", "--secret-env", "--secret-file"] {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
    let said = with(&[
        "rerun",
        "--failed",
        "--secret-env",
        "ADMIN_TOKN=ADMIN_TOKEN",
    ]);
    assert_eq!(said.code, Some(2), "{}", said.stderr);
    assert!(
        said.stderr.contains("did you mean `ADMIN_TOKEN`?"),
        "{}",
        said.stderr
    );
    let said = with(&["rerun", "--failed", "--secret-env", "ADMIN_TOKEN"]);
    assert_eq!(said.code, Some(1), "it ran: {}", said.stderr);
    assert!(said.stderr.contains("json.api"), "{}", said.stderr);
}

fn redirected() {
    let place = Place::new();
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    stranger.set_nonblocking(true).unwrap();
    let address = stranger.local_addr().unwrap();
    place.write(
        "checkout/phalanx.toml",
        format!("coordinator = \"http://{address}\"\n[docker]\nhost = \"tcp://{address}\"\n"),
    );
    place.write(
        "checkout/sub/s.yaml",
        "name: s\nsecrets: [deploy]\nphases: { t: [ { run: \"true\" } ] }\n",
    );
    let mut command = place.phalanx(&["run", "s.yaml"]);
    let said = ended(
        command
            .current_dir(place.path().join("checkout/sub"))
            .env("PHALANX_SECRET_deploy", "production-password-1")
            .env("PHALANX_SECRET_other", "not-even-named-by-the-spec"),
    );
    assert_eq!(said.code, Some(2), "{}", said.stderr);
    for part in [
        "`coordinator`",
        "`docker.host`",
        "phalanx.toml",
        "PHALANX_COORDINATOR",
        "--coordinator",
    ] {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
    let connected = stranger.accept();
    assert!(
        connected.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock),
        "nobody spoke to the stranger"
    );
}

fn users_file() {
    let place = Place::new();
    place.write(
        ".config/phalanx/config.toml",
        "coordinator = \"http://127.0.0.1:1\"\n",
    );
    place.write("s.yaml", "name: s\nphases: { t: [ { run: \"true\" } ] }\n");
    let said = place.call(&["run", "s.yaml"]);
    assert_eq!(said.code, Some(3), "{}", said.stderr);
    assert!(said.stderr.contains("127.0.0.1:1"), "{}", said.stderr);
}

fn words_of_commands() {
    let place = Place::new();
    place.write(
        "s.yaml",
        "name: s
secrets: [key]
vars: { harmless: 1 }
services:
  p: { process: [sh, -c, 'echo ${{ secrets.key }}; exec sleep 9'] }
  c: { image: 'x:1', command: ['--key=${{ secrets.key }}'] }
phases:
  t:
    - run: { script: 'echo ${{ secrets.key }}' }
    - exec: { service: c, command: [echo, '${{ secrets.key }}'] }
    - run: { script: 'cat', env: { K: '${{ secrets.key }}' } }
    - exec: { service: c, script: cat, stdin: '${{ secrets.key }}' }
",
    );
    let said = place.call(&["validate", "s.yaml"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let warned = said.stdout + &said.stderr;
    // There is one finding for all of them; values given by `env` and `stdin` give none.
    let unbroken: String = warned.split("\n  | ").collect();
    for part in [
        "4 warnings",
        "`secrets.key` is among the words of a command",
        "4 places",
    ] {
        assert!(unbroken.contains(part), "{part}: {warned}");
    }
    assert!(
        warned.contains("stdin") && warned.contains("env"),
        "{warned}"
    );
}

/// A password that encodings change, and one with a line break.
const PLAIN: &str = "plain/Secret Value+42";
const LINES: &str = "Zq7-kilo\"bra'vo\nsecond-line-of-9876";

/// A form in which a secret may appear, with its name.
type Shape = (&'static str, String);

/// Returns the forms that must be masked, and those that the documentation excludes.
fn shapes() -> (Vec<Shape>, Vec<Shape>) {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    let hex = hex::encode(PLAIN);
    let json = |text: &str| serde_json::to_string(text).unwrap();
    let percent: String = PLAIN
        .bytes()
        .map(|byte| match byte.is_ascii_alphanumeric() {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect();
    let pieces: Vec<&str> = PLAIN
        .as_bytes()
        .chunks(6)
        .map(|six| std::str::from_utf8(six).unwrap())
        .collect();
    let (first, second) = LINES.split_once('\n').unwrap();
    let masked = vec![
        ("plain", PLAIN.to_owned()),
        ("lines", LINES.to_owned()),
        ("first line", first.to_owned()),
        ("second line", second.to_owned()),
        ("json", json(LINES)),
        ("json twice", json(&json(LINES))),
        ("url", percent.clone()),
        ("form", percent.replace("%20", "+")),
        ("base64", STANDARD.encode(PLAIN)),
        (
            "base64 behind a name",
            STANDARD.encode(format!("user:{PLAIN}")),
        ),
        ("base64 for urls", URL_SAFE.encode(format!("xx{PLAIN}"))),
        ("hex", hex.clone()),
        ("hex in capitals", hex.to_uppercase()),
        ("xml", LINES.replace('"', "&quot;").replace('\'', "&apos;")),
        ("shell", LINES.replace('\'', "'\\''")),
        ("folded", pieces.join("\n")),
        (
            "colours",
            format!("\u{1b}[31m{}\u{1b}[0m{}", &PLAIN[..9], &PLAIN[9..]),
        ),
        (
            "no width",
            format!("{}\u{200b}{}", &PLAIN[..9], &PLAIN[9..]),
        ),
        ("in a sentence", format!("password={PLAIN}; and on")),
    ];
    let shown = vec![
        ("backwards", PLAIN.chars().rev().collect()),
        ("letters", PLAIN.chars().map(|c| format!("{c} ")).collect()),
        ("half", PLAIN[..8].to_owned()),
    ];
    (masked, shown)
}

fn forms() {
    let outside = tempfile::tempdir().unwrap();
    let place = Place::new();
    let (masked, shown) = shapes();
    let text: String = masked
        .iter()
        .chain(&shown)
        .map(|(name, shape)| format!("{name} <<{shape}>>\n"))
        .collect();
    let file = outside.path().join("forms");
    std::fs::write(&file, text).unwrap();
    let file = file.display();
    place.write(
        "spec.yaml",
        format!(
            "name: forms
secrets: [plain, lines]
strategy: {{ matrix: {{ x: [1] }} }}
services:
  svc: {{ process: [sh, -c, 'cat {file}; echo all; exec sleep 60'], env: {{ A: '${{{{ secrets.plain + secrets.lines }}}}' }}, ready: {{ log: '^all$' }} }}
phases:
  t:
    - {{ name: fails, run: 'cat {file}; cat {file} >&2; exit 1', continue-on-failure: true }}
    - {{ name: checks, run: 'cat {file}', expect: [\"stdout == ''\"], continue-on-failure: true }}
    - {{ exec: {{ service: svc, command: [\"true\"] }} }}
"
        ),
    );
    let secrets = [("plain", PLAIN), ("lines", LINES)].map(|(name, value)| {
        let path = outside.path().join(name);
        std::fs::write(&path, value).unwrap();
        format!("{name}={}", path.display())
    });
    let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
    let said = run_with_reports(&place, &secrets);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    let mut all = rendered(&place, &said);
    let logs = all.last().unwrap().1.clone();
    for (path, bytes) in crate::peers::files_below(place.path())
        .into_iter()
        .filter(|path| !path.ends_with("spec.yaml"))
        .map(|path| (path.display().to_string(), std::fs::read(&path).unwrap()))
    {
        all.push((path, String::from_utf8_lossy(&bytes).into_owned()));
    }
    for (name, shape) in &masked {
        // The surrounding text is there; the remains of encodings at its edges reveal nothing.
        let line = logs.split(&format!("{name} <<")).nth(1);
        let line = line.unwrap_or_else(|| panic!("{name}: {logs}"));
        assert!(
            line.split(">>").next().unwrap().contains("***"),
            "{name}: {logs}"
        );
        for (what, text) in &all {
            assert!(!text.contains(shape.as_str()), "{name} is in {what}");
        }
    }
    for (name, shape) in &shown {
        assert!(
            logs.contains(shape.trim()),
            "{name} is masked now: say so in docs/operations.md: {logs}"
        );
    }
}
