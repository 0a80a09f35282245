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
    let refused = "this agent doesn't allow commands and processes on its host";
    let touch = format!("touch {victim}/written");
    for spec in [
        format!("name: r\nphases: {{ t: [ {{ run: \"{touch}\" }} ] }}\n"),
        format!(
            "name: p\nservices: {{ p: {{ process: [sh, -c, \"{touch}; sleep 60\"] }} }}\nphases: {{ t: [ {{ exec: {{ service: p, command: ['true'] }} }} ] }}\n"
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
