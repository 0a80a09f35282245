//! What a spec may do on an agent's host, and what it sees there.

use crate::engine_lab::{IDLE, Lab};
use crate::rig::{Coordinator, Fleet, Process};
use crate::{Need, Test};
use std::fs;

pub fn tests() -> Vec<Test> {
    vec![
        (
            Need::Nothing,
            "an agent without host commands starts none, and reads no file beside the workspace for a container",
            no_host_commands,
        ),
        (
            Need::Nothing,
            "a closed agent gives nothing of its host and asks nothing of its coordinator",
            closed_by_default,
        ),
        (
            Need::Nothing,
            "a cell that no policy allows says which rule and line, and goes to an agent that allows it",
            why_a_cell_waits,
        ),
        (
            Need::Nothing,
            "a coordinator narrows what its agents allow, and allows nothing more",
            narrowed,
        ),
        (
            Need::Nothing,
            "runs of this machine are open, and a policy file narrows them",
            policy_of_runs_here,
        ),
        (
            Need::Engine,
            "an agent without host commands still runs containers, with the mounts that are documented",
            containers_still_run,
        ),
        (
            Need::Nothing,
            "a coordinator's own secret goes only to specs that name it, and is masked",
            own_secrets,
        ),
        (
            Need::Nothing,
            "a command sees its agent's environment without what is Phalanx's",
            environment,
        ),
    ]
}

fn agent(fleet: &Fleet, at: &Coordinator, within: &[&str]) -> Process {
    let agent = fleet.agent_within(within, "a", &at.url(), 4);
    fleet.wait_for_state(at, "a", "connected");
    agent
}

const FORBIDDING: [&str; 4] = ["sh", "-c", "exec \"$@\" --no-host-commands", "sh"];

fn run(fleet: &Fleet, at: &Coordinator, spec: &str) -> (Option<i32>, String) {
    fs::write(fleet.path("s.yaml"), spec).unwrap();
    let (code, stdout, stderr) = fleet.call(at, &["run", "s.yaml"]);
    (code, stdout + &stderr)
}

fn no_host_commands() {
    let fleet = Fleet::new();
    let victim = fleet.path("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("secret.txt"), "HOST-ONLY=content\n").unwrap();
    let victim = victim.display();
    let at = fleet.serve();
    let _agent = agent(&fleet, &at, &FORBIDDING);
    let refused =
        "policy refuses commands and processes on its host (rule `run`, --no-host-commands)";
    let touch = format!("touch {victim}/written");
    // The cell waits for an agent that allows it. What isn't known before the cell runs is refused by the agent.
    let impatient = "strategy: { queue-timeout: 2s }";
    for spec in [
        format!("name: r\n{impatient}\nphases: {{ t: [ {{ run: \"{touch}\" }} ] }}\n"),
        format!(
            "name: w\nphases: {{ t: [ {{ when: '1 == 1', reason: r, run: \"{touch}\" }} ] }}\n"
        ),
        format!(
            "name: p\n{impatient}\nservices: {{ p: {{ process: [sh, -c, \"{touch}; sleep 60\"] }} }}\nphases: {{ t: [ {{ exec: {{ service: p, command: ['true'] }} }} ] }}\n"
        ),
        format!(
            "name: m\nservices: {{ p: {{ process: [sh, -c, \"{touch}; sleep 60\"], start: manual }} }}\nphases: {{ t: [ {{ container: {{ start: p }} }} ] }}\n"
        ),
    ] {
        let (code, said) = run(&fleet, &at, &spec);
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains(refused), "{said}");
    }
    // No file of the host is read for the environment or image of a container.
    for service in [
        "image: 'x:1', env_file: [../victim/secret.txt]".to_owned(),
        "build: { context: ../victim, dockerfile_inline: \"FROM x\" }".to_owned(),
    ] {
        let spec = format!(
            "name: f\nservices: {{ x: {{ {service} }} }}\nphases: {{ t: [ {{ exec: {{ service: x, command: ['true'] }} }} ] }}\n"
        );
        let (code, said) = run(&fleet, &at, &spec);
        assert!(matches!(code, Some(1..=3)), "{service}: {code:?} {said}");
        assert!(
            !said.contains("HOST-ONLY") && said.contains("workspace"),
            "{service}: {said}"
        );
    }
    let names = fs::read_dir(fleet.path("victim")).unwrap().count();
    assert_eq!(names, 1);
}

/// Starts an agent that is told nothing, or has a policy file.
fn closed(fleet: &Fleet, at: &Coordinator, policy: Option<&str>) -> Process {
    let flags: Vec<String> = policy.map_or_else(Vec::new, |text| {
        let file = fleet.path("policy.toml");
        fs::write(&file, text).unwrap();
        vec!["--policy".to_owned(), file.display().to_string()]
    });
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let agent = fleet.agent_allowing(&flags, &[], "a", &at.url(), 4);
    fleet.wait_for_state(at, "a", "connected");
    agent
}

/// What the script `policy.py` of the audit tries, one by one, known before the cell runs and only while it runs.
fn closed_by_default() {
    let fleet = Fleet::new();
    let victim = fleet.path("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("secret.txt"), "HOST-ONLY=content\n").unwrap();
    let out = victim.display();
    let at = fleet.serve();
    let _agent = closed(&fleet, &at, None);
    let pages = &at.http;
    for (asks, rule) in [
        (format!("volumes: ['{out}:/host']"), "paths"),
        ("volumes: ['/:/host']".to_owned(), "engine_socket"),
        (
            "volumes: ['/var/run/docker.sock:/s']".to_owned(),
            "engine_socket",
        ),
        ("privileged: true".to_owned(), "privileged"),
        ("cap_add: [SYS_ADMIN]".to_owned(), "capabilities"),
        (
            "security_opt: ['apparmor:unconfined']".to_owned(),
            "security_opt",
        ),
        ("pid: host".to_owned(), "namespaces"),
        (format!("env_file: [{out}/secret.txt]"), "paths"),
    ] {
        for (when, started) in [
            ("", "exec: { service: x, command: ['true'] }"),
            (", start: manual", "container: { start: x }"),
        ] {
            let spec = format!(
                "name: a\nstrategy: {{ queue-timeout: 2s }}\nservices: {{ x: {{ image: x, {asks}{when} }} }}\nphases: {{ t: [ {{ {started} }} ] }}\n"
            );
            let (code, said) = run(&fleet, &at, &spec);
            assert_eq!(code, Some(3), "{asks}: {said}");
            let named = format!("(rule `{rule}`, the default of an agent)");
            assert!(said.contains(&named), "{asks}: {said}");
            assert!(!said.contains("HOST-ONLY"), "{said}");
        }
    }
    // Requests into the coordinator, by any name of this machine.
    let port = pages.rsplit(':').next().unwrap();
    for url in [
        format!("http://{pages}/metrics"),
        format!("http://localhost:{port}/metrics"),
        at.url(),
    ] {
        let spec = format!("name: s\nphases: {{ t: [ {{ http: {{ get: '{url}' }} }} ] }}\n");
        let (code, said) = run(&fleet, &at, &spec);
        assert_eq!(code, Some(3), "{url}: {said}");
        assert!(said.contains("(rule `http`, "), "{url}: {said}");
    }
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 1);
}

fn why_a_cell_waits() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let _agent = closed(&fleet, &at, Some("# ours\nrun = false\n"));
    let spec = "name: r\nphases: { t: [ { run: 'true' } ] }\n";
    fs::write(fleet.path("s.yaml"), spec).unwrap();
    let (code, id, said) = fleet.call(&at, &["submit", "s.yaml"]);
    assert_eq!(code, Some(0), "{said}");
    let (_, why, said) = fleet.call(&at, &["why", id.trim(), "r"]);
    let line = format!("(rule `run`, {}:2)", fleet.path("policy.toml").display());
    assert!(
        why.contains(&line) && why.contains("agent a: its policy refuses"),
        "{why} {said}"
    );
    // An agent that allows it takes the cell.
    let allowing = fleet.agent_allowing(&["--allow", "run"], &[], "b", &at.url(), 4);
    let (code, _, said) = fleet.call(&at, &["watch", id.trim()]);
    assert_eq!(code, Some(0), "{said}");
    drop(allowing);
}

fn narrowed() {
    let fleet = Fleet::new();
    let file = fleet.path("narrow.toml");
    fs::write(&file, "run = false\nprivileged = true\n").unwrap();
    let narrow = ("PHALANX_SERVE__AGENT_POLICY", file.to_str().unwrap());
    let at = fleet.serve_within(&[narrow], 1_024);
    let _agent = fleet.agent_allowing(&["--allow", "run"], &[], "a", &at.url(), 4);
    fleet.wait_for_state(&at, "a", "connected");
    // Placement and the agent say the same.
    for (asks, rule) in [
        ("run: 'true'", "rule `run`, the coordinator's "),
        (
            "when: '1 == 1', reason: r, run: 'true'",
            "rule `run`, the coordinator's ",
        ),
    ] {
        let spec = format!(
            "name: n\nstrategy: {{ queue-timeout: 2s }}\nphases: {{ t: [ {{ {asks} }} ] }}\n"
        );
        let (code, said) = run(&fleet, &at, &spec);
        assert_eq!(code, Some(3), "{asks}: {said}");
        assert!(
            said.contains(rule) && said.contains("narrow.toml:1"),
            "{asks}: {said}"
        );
    }
    // What the coordinator allows is no permission.
    let spec = "name: n\nstrategy: { queue-timeout: 2s }\nservices: { x: { image: x, privileged: true, start: manual } }\nphases: { t: [ { container: { start: x } } ] }\n";
    let (code, said) = run(&fleet, &at, spec);
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("(rule `privileged`, the default of an agent)"),
        "{said}"
    );
}

fn policy_of_runs_here() {
    let fleet = Fleet::new();
    let spec = "name: r\nphases: { t: [ { run: 'true' } ] }\n";
    fs::write(fleet.path("s.yaml"), spec).unwrap();
    let file = fleet.path("own.toml");
    fs::write(&file, "default = \"refuse\"\n").unwrap();
    let call = |arguments: &[&str]| {
        let output = fleet
            .phalanx(arguments)
            .env("PHALANX_POLICY", &file)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout) + &text(output.stderr),
        )
    };
    let (code, said) = call(&["run", "s.yaml"]);
    assert_eq!(code, Some(2), "{said}");
    let named = format!(
        "this machine's policy refuses commands and processes on its host (rule `run`, {}:1)",
        file.display()
    );
    assert!(said.contains(&named), "{said}");
    fs::write(&file, "default = \"refuse\"\nrun = true\n").unwrap();
    let (code, said) = call(&["run", "s.yaml"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = call(&[
        "agent",
        "--allow",
        "privileged",
        "policy",
        "--format",
        "json",
    ]);
    assert_eq!(code, Some(0), "{said}");
    let shown: serde_json::Value = serde_json::from_str(&said).unwrap();
    let rule = |name: &str| {
        let all = shown["rules"].as_array().unwrap().iter();
        let mut found = all.filter(|rule| rule["rule"] == name);
        found.next().unwrap().clone()
    };
    assert_eq!(rule("run")["origin"], format!("{}:2", file.display()));
    assert_eq!(rule("privileged")["allow"], true);
    assert_eq!(rule("privileged")["origin"], "--allow");
    assert_eq!(rule("paths")["allow"], serde_json::json!([]));
    fs::write(&file, "runn = true\n").unwrap();
    for arguments in [&["run", "s.yaml"][..], &["agent", "policy"]] {
        let (code, said) = call(arguments);
        assert_eq!(code, Some(2), "{said}");
        assert!(
            said.contains("own.toml:1: there is no rule `runn`"),
            "{said}"
        );
    }
}

fn containers_still_run() {
    let lab = Lab::new();
    let fleet = Fleet::new();
    fs::create_dir(fleet.path("shared")).unwrap();
    let at = fleet.serve();
    let _agent = agent(&fleet, &at, &FORBIDDING);
    let (image, shared) = (&lab.image, fleet.path("shared"));
    let spec = format!(
        "name: c\nservices: {{ x: {{ image: '{image}', command: {IDLE}, volumes: ['{}:/shared'], stop_grace_period: 1s }} }}\nphases: {{ t: [ {{ exec: {{ service: x, script: 'echo here > /shared/mark' }} }} ] }}\n",
        shared.display()
    );
    let (code, said) = run(&fleet, &at, &spec);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(fs::read_to_string(shared.join("mark")).unwrap(), "here\n");
}

fn own_secrets() {
    let fleet = Fleet::new();
    let value = "COORDINATORS-OWN-KEY-1";
    let at = fleet.serve_within(&[("PHALANX_SECRET_prodkey", value)], 1_024);
    let _agent = agent(&fleet, &at, &[]);
    let step =
        "run: { script: 'echo \"got <$K>\" >&2; exit 1', env: { K: '${{ secrets.prodkey }}' } }";
    let (code, said) = run(
        &fleet,
        &at,
        &format!("name: o\nsecrets: [prodkey]\nphases: {{ t: [ {{ {step} }} ] }}\n"),
    );
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("got <***>") && !said.contains(value),
        "{said}"
    );
    let (code, said) = run(
        &fleet,
        &at,
        &format!("name: o\nphases: {{ t: [ {{ {step} }} ] }}\n"),
    );
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("prodkey") && !said.contains(value), "{said}");
    // It isn't in any environment either.
    let (code, said) = run(
        &fleet,
        &at,
        "name: e\nphases: { t: [ { run: \"env | grep -i prodkey\", expect: [exit_code == 1] } ] }\n",
    );
    assert_eq!(code, Some(0), "{said}");
}

fn environment() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let within = [
        "env",
        "AWS_SECRET_ACCESS_KEY=agents-own",
        "PHALANX_SECRET_prodkey=COORDINATORS-OWN-KEY-1",
    ];
    let _agent = agent(&fleet, &at, &within);
    let expect = "expect: [\"stdout.contains('AWS_SECRET_ACCESS_KEY=agents-own')\", \"!stdout.contains('COORDINATORS-OWN')\", \"!stdout.contains('PHALANX_SECRET')\"]";
    let (code, said) = run(
        &fleet,
        &at,
        &format!("name: e\nphases: {{ t: [ {{ run: env, {expect} }} ] }}\n"),
    );
    assert_eq!(code, Some(0), "{said}");
}
