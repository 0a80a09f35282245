//! A closed agent: what its cells are refused, how that is told, and what they still can do.

use crate::rig::{Ended, Rig, spec, steps};
use crate::server;
use phalanx_agent::policy::Policy;
use phalanx_agent::runtime::contract::Addresses;
use phalanx_agent::runtime::fake::script::{Script, ServiceScript};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::policy::rules::CLOSED;
use phalanx_shared::policy::{Allow, Rule, Rules};

fn allowing(rules: &[(Rule, &[&str])]) -> Policy {
    let mut all = Rules::closed(CLOSED);
    for (rule, items) in rules {
        let items = items.iter().map(ToString::to_string).collect();
        all.set(*rule, Allow::Only(items), "p.toml:3");
    }
    Policy::of(all)
}

fn running() -> Policy {
    let mut rules = Rules::closed(CLOSED);
    rules.set(Rule::Run, Allow::All, "p.toml:1");
    Policy::of(rules)
}

async fn closed(mut rig: Rig) -> Ended {
    rig.policy = Policy::closed();
    rig.run().await
}

#[tokio::test]
async fn what_a_definition_asks_for_is_refused_before_anything_is_done_for_it() {
    for (asks, said) in [
        ("privileged: true", "`privileged: true` (rule `privileged`"),
        (
            "cap_add: [SYS_ADMIN]",
            "capability SYS_ADMIN (rule `capabilities`",
        ),
        ("devices: [/dev/kvm]", "device /dev/kvm (rule `devices`"),
        (
            "security_opt: ['seccomp:unconfined']",
            "rule `security_opt`",
        ),
        (
            "network_mode: host",
            "the network namespace of its host (rule `namespaces`",
        ),
        ("pid: host", "the pid namespace of its host"),
        (
            "volumes: ['/etc:/x']",
            "the path /etc of its host (rule `paths`",
        ),
        (
            "volumes: ['/var/run/docker.sock:/s']",
            "the container engine's socket",
        ),
        (
            "env_file: [/etc/passwd]",
            "the path /etc/passwd of its host",
        ),
        ("cgroup_parent: /x", "rule `cgroup_parent`"),
        (
            "annotations: { a: b }",
            "`annotations` (rule `engine_options`",
        ),
    ] {
        let text = format!(
            "services:\n  a:\n    image: a\n    {asks}\nphases: {{ main: [{{ exec: {{ service: a, command: [x] }} }}] }}\n"
        );
        let ended = closed(spec(&text)).await;
        assert_eq!(ended.outcome(), Outcome::Errored, "{asks}");
        let reason = ended.reason("main/0");
        assert!(reason.contains(said), "{asks}: {reason}");
        // Its place, where the rule comes from, and how to allow it.
        for part in ["test.yaml:6:5", CLOSED, "who runs the agent can allow it"] {
            assert!(reason.contains(part), "{part}: {reason}");
        }
        let idle = |call: &&String| !call.starts_with("open") && !call.starts_with("close");
        let done: Vec<_> = ended.calls.iter().filter(idle).collect();
        assert!(done.is_empty(), "{asks}: {done:?}");
    }
}

#[tokio::test]
async fn what_only_the_cell_knows_is_refused_when_it_is_evaluated() {
    let mut rig = spec(
        "services:\n  a:\n    image: \"${{ matrix.image }}\"\nphases: { main: [{ exec: { service: a, command: [x] } }] }\n",
    );
    rig.matrix
        .insert("image".to_owned(), "ghcr.io/a/b:1".into());
    rig.prepend("strategy: { matrix: { image: [x] } }\n");
    let ended = closed(rig).await;
    assert_eq!(ended.outcome(), Outcome::Errored);
    let reason = ended.reason("main/0");
    assert!(reason.contains("images of registry ghcr.io"), "{reason}");
    assert!(
        reason.contains("adding \"ghcr.io\" to `registries`"),
        "{reason}"
    );
}

#[tokio::test]
async fn requests_to_the_agents_machine_are_refused_and_those_to_the_cells_services_are_not() {
    let url = server::start().await;
    let ended = closed(steps("- http: { get: '${{ inputs.url }}/text' }").url(&url)).await;
    assert_eq!(ended.outcome(), Outcome::Errored);
    let reason = ended.reason("main/0");
    for part in [url.as_str(), "requests to loopback (rule `http`"] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    let port = url.trim_start_matches("http://").parse().unwrap();
    let script = ServiceScript {
        addresses: Addresses {
            ports: vec![("80".to_owned(), port)],
            ..Addresses::default()
        },
        ..ServiceScript::default()
    };
    let rig = spec(
        "services: { web: { image: web, ports: ['80'] } }\nphases: { main: [{ http: { get: '${{ services.web.url }}/text' } }] }\n",
    );
    let ended = closed(rig.script(Script::default().service("web", script))).await;
    assert_eq!(ended.outcome(), Outcome::Passed, "{:?}", ended.summary());
    let mut rig = steps("- http: { get: '${{ inputs.url }}/text' }").url(&url);
    rig.policy = allowing(&[(Rule::Http, &["loopback"])]);
    assert_eq!(rig.run().await.outcome(), Outcome::Passed);
}

#[tokio::test]
async fn commands_inherit_only_what_the_policy_names() {
    let expect = |what: &str| format!("- {{ run: env, expect: [\"{what}\"] }}");
    // Cargo sets it for tests.
    let has = "stdout.contains('CARGO_MANIFEST_DIR=')";
    for (policy, expected) in [
        (Policy::open(), expect(has)),
        (
            running(),
            expect(&format!("!{has} && stdout.contains('PATH=')")),
        ),
    ] {
        let mut rig = steps(&expected);
        rig.policy = policy;
        let ended = rig.run().await;
        assert_eq!(ended.outcome(), Outcome::Passed, "{:?}", ended.summary());
    }
}

#[tokio::test]
async fn a_command_runs_only_in_directories_that_are_allowed() {
    let place = tempfile::tempdir().unwrap();
    let shared = place.path().canonicalize().unwrap();
    std::fs::create_dir(shared.join("inner")).unwrap();
    std::os::unix::fs::symlink("/etc", shared.join("out")).unwrap();
    let run = |directory: &str| {
        let directory = shared.join(directory).display().to_string();
        format!("- {{ run: {{ script: 'pwd', workdir: {directory} }} }}")
    };
    let ended = {
        let mut rig = steps(&run("inner"));
        rig.policy = running();
        rig.run().await
    };
    assert_eq!(ended.outcome(), Outcome::Errored);
    assert!(
        ended.reason("main/0").contains("rule `paths`"),
        "{:?}",
        ended.summary()
    );
    let mut rules = running().own().clone();
    let items = Allow::Only(vec![shared.display().to_string()]);
    rules.set(Rule::Paths, items, "p.toml:3");
    for (directory, outcome) in [("inner", Outcome::Passed), ("out", Outcome::Failed)] {
        let mut rig = steps(&run(directory));
        rig.policy = Policy::of(rules.clone());
        let ended = rig.run().await;
        assert_eq!(
            ended.outcome(),
            outcome,
            "{directory}: {:?}",
            ended.summary()
        );
    }
}
