//! How an attempt ends: cancel, timeouts, secrets that hold, stacks that are kept, nothing left.

use crate::rig::{spec, steps};
use crate::server;
use phalanx_agent::runtime::contract::{Addresses, Fault, RuntimeError};
use phalanx_agent::runtime::fake::FakeRuntime;
use phalanx_agent::runtime::fake::script::{Printed, Script, ServiceScript};
use phalanx_shared::event::{Culprit, EventKind, Output};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::plan::Keep;
use std::sync::Arc;
use std::time::Duration;

#[tokio::test]
async fn the_last_two_events_are_the_verdict_and_the_clean_up() {
    let ended = steps("- { run: exit 1 }\n").run().await;
    let kinds: Vec<&EventKind> = ended.events.iter().rev().take(2).collect();
    assert!(matches!(kinds[0], EventKind::TornDown { .. }), "{kinds:?}");
    assert!(
        matches!(kinds[1], EventKind::AttemptFinished { .. }),
        "{kinds:?}"
    );
    assert!(matches!(ended.events[0], EventKind::AttemptStarted { .. }));
    let attempts = ended.state.path().join("attempts");
    assert_eq!(
        std::fs::read_dir(attempts).unwrap().count(),
        0,
        "the scratch directory is left"
    );
}

#[tokio::test]
async fn a_cancel_ends_the_step_runs_always_steps_and_cleans_up() {
    let mut running = spec(
        r#"
services: { db: { image: db } }
phases:
  main: [{ run: sleep 60 }, { run: "true" }]
  end: [{ always: true, run: "true" }]
"#,
    )
    .begin();
    running.until_started("main/0").await;
    running.cancel(Duration::from_secs(20), false);
    let ended = running.end().await;
    assert_eq!(
        ended.finished(),
        (
            Outcome::Cancelled,
            Some("cancelled: by the test".to_owned())
        )
    );
    assert_eq!(ended.step("main/0").outcome, Outcome::Cancelled);
    assert_eq!(ended.reason("main/1"), "cancelled: by the test");
    assert_eq!(ended.step("end/0").outcome, Outcome::Passed);
    assert_eq!(ended.violations, Vec::<String>::new());
}

#[tokio::test]
async fn a_second_cancel_skips_the_always_steps() {
    let mut running = spec(
        "phases: { main: [{ run: sleep 60 }], end: [{ always: true, run: sleep 60 }, { always: true, run: 'true' }] }\n",
    )
    .begin();
    running.until_started("main/0").await;
    running.cancel(Duration::from_secs(50), false);
    running.until_started("end/0").await;
    running.cancel(Duration::ZERO, true);
    let ended = running.end().await;
    assert_eq!(ended.outcome(), Outcome::Cancelled);
    assert_eq!(ended.step("end/0").outcome, Outcome::Cancelled);
    assert_eq!(ended.step("end/1").outcome, Outcome::Skipped);
}

#[tokio::test]
async fn a_timeout_of_a_step_kills_what_it_ran_with_its_descendants() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("alive");
    let ended = steps(&format!(
        "- {{ run: \"(setsid sh -c 'sleep 3; touch {0}') & sleep 60\", timeout: 200ms }}\n",
        file.display()
    ))
    .run()
    .await;
    assert_eq!(ended.outcome(), Outcome::Failed);
    assert_eq!(ended.reason("main/0"), "timed out after 200ms");
    // The grandchild would have written it by then.
    tokio::time::sleep(Duration::from_millis(3500)).await;
    assert!(!file.exists());
}

#[tokio::test]
async fn the_cells_timeout_is_failed_or_before_any_step_ran_errored() {
    let mut rig = steps("- { run: sleep 60 }\n- { run: \"true\" }\n");
    rig.timeout = Duration::from_millis(300);
    let ended = rig.run().await;
    assert_eq!(ended.outcome(), Outcome::Failed);
    assert_eq!(ended.reason("main/0"), "the cell timed out after 300ms");
    let by_time = |kind: &&EventKind| match kind {
        EventKind::PhaseFinished { timed_out, .. }
        | EventKind::AttemptFinished { timed_out, .. } => *timed_out,
        _ => false,
    };
    assert_eq!(ended.events.iter().filter(by_time).count(), 2);

    let script = Script::default().service(
        "db",
        ServiceScript {
            start_delay: Duration::from_secs(60),
            ..ServiceScript::default()
        },
    );
    let mut rig = spec(
        "services: { db: { image: db } }\nphases: { main: [{ exec: { service: db, command: [x] } }] }\n",
    )
    .script(script);
    rig.timeout = Duration::from_millis(300);
    let ended = rig.run().await;
    assert_eq!(ended.outcome(), Outcome::Errored);
    assert!(
        ended.reason("main/0").contains("before any step ran"),
        "{}",
        ended.reason("main/0")
    );
}

#[tokio::test]
async fn secrets_and_secret_captures_are_in_nothing_that_leaves_the_cell() {
    let url = server::start().await;
    let script = Script::default().service(
        "web",
        ServiceScript {
            output: vec![Printed::line(
                Duration::ZERO,
                "the licence is canary-7f3a-license",
            )],
            ..ServiceScript::default()
        },
    );
    let mut rig = steps(
        r#"
- wait: { service: web, until: ready }
- id: key
  http: { get: "${{ inputs.url }}/key" }
  capture: { value: { secret: json.key } }
  expect: [json.key == 'made-at-run-time-0815']
- name: "show ${{ secrets.license_key }}"
  http: { post: "${{ inputs.url }}/echo", headers: { X-Key: "${{ steps.key.value }}" }, body: "k=${{ secrets.license_key }}" }
  expect: ["json.headers['x-key'] == 'other'", "json.body == 'none'"]
- { always: true, run: { script: 'echo "$K" >&2; printf "%s" "$K" | base64; exit 1', env: { K: "${{ secrets.license_key }}" } } }
"#,
    )
    .url(&url)
    .secret("license_key", "canary-7f3a-license")
    .script(script);
    rig.prepend(
        "secrets: [license_key]\nservices: { web: { image: web, ready: { log: licence } } }\n",
    );
    let ended = rig.run().await;
    assert_eq!(ended.outcome(), Outcome::Failed);
    assert_eq!(
        ended.step("main/1").outcome,
        Outcome::Passed,
        "{:#?}",
        ended.detail()
    );
    let everything = ended.everything();
    for hidden in [
        "canary-7f3a-license",
        "made-at-run-time-0815",
        "Y2FuYXJ5LTdmM2EtbGljZW5zZ",
    ] {
        assert!(!everything.contains(hidden), "{hidden} in {everything}");
    }
    assert!(ended.step("main/2").name.contains("show ***"));
}

#[tokio::test]
async fn the_output_of_a_step_whose_secret_capture_fails_is_withheld() {
    let url = server::start().await;
    let ended = steps(
        r#"
- http: { get: "${{ inputs.url }}/key" }
  capture: { value: { secret: json.other } }
  expect: [json.key == 'x']
- { always: true, name: short, run: echo abc, capture: { value: { secret: stdout.trim() } } }
- { always: true, name: early, http: { get: "${{ inputs.url }}/key" }, poll: { until: json.key == 'x', timeout: 100ms }, capture: { value: { secret: json.key } } }
"#,
    )
    .url(&url)
    .run()
    .await;
    assert_eq!(ended.outcome(), Outcome::Failed);
    assert!(
        !ended.everything().contains("made-at-run-time-0815"),
        "{}",
        ended.everything()
    );
    let failure = ended.step("main/0").failure.clone().unwrap();
    assert_eq!(failure.response, None);
    assert!(
        failure.notes[0].contains("bytes) is withheld"),
        "{failure:?}"
    );
    assert!(
        ended.reason("main/1").contains("at least 8 characters"),
        "{}",
        ended.reason("main/1")
    );
}

#[tokio::test]
async fn a_kept_stack_is_told_with_its_addresses() {
    let script = Script::default().service(
        "web",
        ServiceScript {
            addresses: Addresses {
                host: "web".to_owned(),
                ip: Some("10.0.0.2".parse().unwrap()),
                ipv6: None,
                ports: vec![("80".to_owned(), "10.0.0.2:80".parse().unwrap())],
            },
            ..ServiceScript::default()
        },
    );
    let mut rig = spec(
        "services: { web: { image: web, ports: [80] } }\nphases: { main: [{ wait: { service: web, until: ready } }, { run: exit 1 }] }\n",
    )
    .script(script);
    rig.keep = Keep::OnFailure { ttl_s: 60 };
    let ended = rig.run().await;
    let Some(EventKind::TornDown { kept, .. }) = ended.events.last() else {
        panic!("{:?}", ended.events.last());
    };
    assert_eq!(
        kept.iter().map(|k| k.address.as_str()).collect::<Vec<_>>(),
        ["http://10.0.0.2:80"]
    );
    assert!(
        ended.calls.iter().any(|call| call.contains("close")),
        "{:?}",
        ended.calls
    );
}

#[tokio::test]
async fn a_workspace_is_the_cells_own_copy() {
    let shared = tempfile::tempdir().unwrap();
    std::fs::write(shared.path().join("a.txt"), "from the workspace").unwrap();
    let mut rig =
        steps("- { run: cat a.txt; echo x > b.txt, expect: [stdout == 'from the workspace'] }\n");
    rig.workspace = Some(shared.path().to_owned());
    rig.run().await.passed();
    assert!(!shared.path().join("b.txt").exists());
}

#[tokio::test]
async fn a_secret_that_is_too_short_to_mask_ends_the_attempt_before_it_begins() {
    let mut rig = steps("- { run: \"true\" }\n").secret("pin", "1234");
    rig.prepend("secrets: [pin]\n");
    let ended = rig.run().await;
    let (outcome, reason) = ended.finished();
    assert_eq!(outcome, Outcome::Errored);
    assert!(reason.unwrap().contains("secret pin"));
}

#[tokio::test]
async fn an_engine_that_hangs_is_given_up_at_the_cells_timeout_and_a_cancel_is_heard() {
    let hangs = || Script {
        open_delay: Duration::from_secs(3600),
        ..Script::default()
    };
    let yaml = "services: { db: { image: db } }\nphases: { main: [{ run: 'true' }] }\n";
    let mut rig = spec(yaml).script(hangs());
    rig.timeout = Duration::from_millis(300);
    let (outcome, reason) = rig.run().await.finished();
    assert_eq!(outcome, Outcome::Errored);
    assert!(reason.unwrap().contains("before its stack was open"));

    let mut running = spec(yaml).script(hangs()).begin();
    running
        .until(|kind| matches!(kind, EventKind::AttemptStarted { .. }))
        .await;
    running.cancel(Duration::ZERO, false);
    assert_eq!(running.end().await.outcome(), Outcome::Cancelled);
}

#[tokio::test]
async fn what_is_open_is_closed_when_another_stack_hangs_or_fails_while_it_is_opened() {
    let hangs = Script {
        open_delay: Duration::from_secs(3600),
        ..Script::default()
    };
    let fails = Script {
        open_error: Some(RuntimeError::new(Fault::Engine, "no subnet is free")),
        ..Script::default()
    };
    let (short, long) = (Duration::from_millis(300), Duration::from_secs(50));
    for (script, timeout, why) in [
        (hangs, short, "before its stack was open"),
        (fails, long, "no subnet is free"),
    ] {
        let beside = FakeRuntime::new(Script::default());
        let yaml = "services: { db: { image: db } }\nphases: { main: [{ exec: { service: db, command: [a] } }] }\n";
        let mut rig = spec(yaml).script(script);
        rig.processes = Some(Arc::new(beside.clone()));
        rig.timeout = timeout;
        let ended = rig.run().await;
        assert_eq!(ended.outcome(), Outcome::Errored);
        assert!(ended.everything().contains(why), "{}", ended.everything());
        assert!(
            beside.calls().iter().any(|call| call == "close"),
            "{:?}",
            beside.calls()
        );
        assert!(beside.open_stacks().is_empty());
        assert_eq!(beside.violations(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn what_passed_commands_printed_is_kept_masked_and_only_then() {
    let secret = "hidden-value-0815";
    let script = Script::default().service(
        "job",
        ServiceScript {
            output: vec![Printed::line(
                Duration::ZERO,
                &format!("did it with {secret}"),
            )],
            exit: Some(phalanx_agent::runtime::fake::script::ExitScript {
                after: Duration::from_millis(20),
                code: 0,
                oom: false,
            }),
            ..ServiceScript::default()
        },
    );
    let mut rig = steps(
        r#"
- run: "echo one; printf 'to \\033[31mhidden-\\033[0mvalue-0815\\n' >&2"
- run: "true"
- exec: { service: w, command: [echo, of a service] }
- container: { run: job }
- { run: "echo 'late-made-secret;2'", capture: { made: { secret: "stdout.split(';')[0]" } } }
- { run: "for i in $(seq 3000); do echo line $i hidden-value-0815; done" }
- { run: "echo no >&2; exit 1", continue-on-failure: true }
- { run: "test -e done || { touch done; echo again; exit 1; }; echo at last", retry: { times: 1 } }
"#,
    )
    .script(script)
    .secret("key", secret);
    rig.prepend(
        "services:\n  w: { process: [sleep, '60'] }\n  job: { image: job, start: manual }\n",
    );
    let ended = rig.run().await;
    let output = |path: &str| ended.step(path).output.clone();
    let printed = |stdout: &str, stderr: &str| {
        Some(Output {
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
            left_out: 0,
        })
    };
    assert_eq!(output("main/0"), printed("one\n", "to ***\n"));
    let silent = serde_json::to_string(ended.step("main/1")).unwrap();
    assert!(!silent.contains("output"), "{silent}");
    assert_eq!(output("main/2"), printed("of a service\n", ""));
    assert_eq!(
        output("main/3").unwrap().stdout.trim_end(),
        "did it with ***"
    );
    assert_eq!(output("main/4"), printed("***;2\n", ""));
    let long = output("main/5").unwrap().stdout;
    assert!(long.starts_with("line 1 ***\nline 2 ***\n"), "{long}");
    assert!(long.ends_with("line 3000 ***\n"), "{long}");
    assert!(long.contains("bytes in all"), "{long}");
    assert!(long.len() < 4_200, "{}", long.len());
    assert_eq!(output("main/6"), None, "its failure shows it");
    assert_eq!(ended.step("main/7").outcome, Outcome::Flaky);
    assert_eq!(output("main/7"), printed("at last\n", ""));
    let outputs = ended.steps().into_iter().map(|step| &step.output);
    let outputs = serde_json::to_string(&outputs.collect::<Vec<_>>()).unwrap();
    for piece in ["hidden-", "value-0815", "late-made"] {
        assert!(!outputs.contains(piece), "{piece} in {outputs}");
    }
}

#[tokio::test]
async fn captured_values_are_told_masked_and_bounded_and_what_is_made_of_a_secret_is_hidden() {
    let mut rig = steps(
        r#"
- id: made
  run: "echo '{\"count\": 3, \"user\": \"ann\", \"token\": \"hidden-value-0815\"}'"
  capture:
    count: fromJSON(stdout).count
    user: fromJSON(stdout).user
    whole: stdout.trim()
    long: "[stdout, stdout, stdout, stdout, stdout, stdout, stdout, stdout, stdout, stdout, stdout, stdout, stdout, stdout, stdout, stdout, stdout, stdout, stdout, stdout, stdout, stdout, stdout, stdout, stdout, stdout, stdout, stdout]"
    half: "secrets.key.split('-')[0]"
    of_half: half + "!"
- id: again
  run: "true"
  capture: { part: "steps.made.half + 'x'", fine: steps.made.count }
- use: shows
  with: { word: "${{ steps.again.part }}", other: "${{ steps.made.user }}" }
- foreach: { letter: "${{ [steps.made.half] }}" }
  run: "true"
  capture: { letter: letter }
- run: echo late-made-secret
  capture: { made: { secret: stdout.trim() }, cut: "stdout.split('-')[0]", fine: exit_code }
- run: "exit 3"
  capture: { never: exit_code }
  continue-on-failure: true
"#,
    )
    .secret("key", "hidden-value-0815");
    rig.prepend(
        r#"
secrets: [key]
define:
  shows:
    params: { word: {}, other: {} }
    steps: [{ id: s, run: "true", capture: { word: params.word, other: params.other } }]
    capture: { word: steps.s.word, other: steps.s.other }
"#,
    );
    let ended = rig.run().await;
    let captured = |path: &str| -> Vec<(String, String)> {
        let captured = ended.step(path).captured.iter();
        let short = |value: &str| value.chars().take(40).collect();
        captured
            .map(|one| (one.name.clone(), short(&one.value)))
            .collect()
    };
    let pairs = |expected: &[(&str, &str)]| -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        expected.iter().map(owned).collect()
    };
    let made = captured("main/0");
    let of = |name: &str| &made.iter().find(|(known, _)| known == name).unwrap().1;
    assert_eq!(
        (of("count").as_str(), of("user").as_str()),
        ("3", r#""ann""#)
    );
    assert_eq!(
        (of("half").as_str(), of("of_half").as_str()),
        ("***", "***")
    );
    let long = ended
        .step("main/0")
        .captured
        .iter()
        .find(|one| one.name == "long");
    let long = long.unwrap();
    assert_eq!(long.value.chars().count(), 1_000);
    assert!(long.left_out > 500, "{}", long.left_out);
    assert_eq!(captured("main/1"), pairs(&[("fine", "3"), ("part", "***")]));
    let shown = pairs(&[("other", r#""ann""#), ("word", "***")]);
    assert_eq!(
        (captured("main/2/0"), captured("main/2")),
        (shown.clone(), shown)
    );
    let item = ended
        .steps()
        .into_iter()
        .find(|step| step.path.starts_with("main/3["));
    assert_eq!(item.unwrap().captured[0].value, "***");
    let late = pairs(&[("cut", "***"), ("fine", "0"), ("made", "***")]);
    assert_eq!(captured("main/4"), late);
    assert_eq!(captured("main/5"), pairs(&[]), "it failed");
    let all: Vec<_> = ended
        .steps()
        .into_iter()
        .map(|step| &step.captured)
        .collect();
    let all = serde_json::to_string(&all).unwrap();
    for piece in ["hidden", "value-0815", "late-made"] {
        assert!(!all.contains(piece), "{piece} in {all}");
    }
}

#[tokio::test]
async fn a_failure_names_the_service_or_the_step_that_it_follows_from() {
    let ended = steps(
        r#"
- { id: placed, run: "exit 1", capture: { id: exit_code }, continue-on-failure: true }
- { id: paid, run: "echo ${{ steps.placed.id }}", capture: { id: exit_code } }
- { run: "echo ${{ steps.paid.id }}" }
"#,
    )
    .run()
    .await;
    let placed = Some(Culprit::Step {
        id: "placed".to_owned(),
        outcome: Outcome::Failed,
    });
    assert_eq!(ended.step("main/0").culprit, None);
    assert_eq!(ended.step("main/1").culprit, placed);
    assert_eq!(ended.step("main/2").culprit, placed, "the first of a chain");
}

#[tokio::test]
async fn of_a_cell_whose_commands_print_much_the_first_is_kept() {
    let ended = steps(
        r#"
- foreach: { n: "${{ lists.range(60) }}" }
  run: "head -c 6000 /dev/zero | tr '\\0' x; head -c 5000 /dev/zero | tr '\\0' y >&2"
- run: echo a word
"#,
    )
    .run()
    .await;
    ended.passed();
    let outputs: Vec<Output> = ended
        .steps()
        .into_iter()
        .filter_map(|step| step.output.clone())
        .collect();
    let kept: usize = outputs
        .iter()
        .map(|o| o.stdout.len() + o.stderr.len())
        .sum();
    assert!((200 << 10..=256 << 10).contains(&kept), "{kept}");
    let last_kept = outputs.iter().rposition(|o| o.left_out == 0).unwrap();
    let first_left = outputs.iter().position(|o| o.left_out > 0).unwrap();
    assert_eq!(first_left, last_kept + 1, "it ends at one place");
    assert_eq!(outputs[first_left].left_out, 11_000);
    assert_eq!(outputs.last().unwrap().left_out, 7);
}

#[tokio::test]
async fn a_command_that_is_ended_from_outside_shows_what_it_printed() {
    let prints = ServiceScript {
        output: vec![Printed::line(Duration::ZERO, "migrating hidden-value-0815")],
        ..ServiceScript::default()
    };
    let script = Script::default()
        .service("job", prints.clone())
        .service("other", prints);
    let mut running = spec(
        r#"
services: { job: { image: job, start: manual }, other: { image: job, start: manual } }
phases:
  main:
    - { container: { run: job }, timeout: 1s, continue-on-failure: true }
    - { timeout: 1s, continue-on-failure: true, steps: [{ run: "echo in a group hidden-value-0815; sleep 60" }] }
    - { timeout: 1s, continue-on-failure: true, steps: [{ run: "echo token-of-today; sleep 60", capture: { t: { secret: stdout } } }] }
    - { timeout: 1s, continue-on-failure: true, steps: [{ container: { run: other } }] }
    - { run: "echo until cancelled; sleep 60" }
"#,
    )
    .script(script)
    .secret("key", "hidden-value-0815")
    .begin();
    running.until_started("main/4").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    running.cancel(Duration::from_secs(20), false);
    let ended = running.end().await;
    let failure = |path: &str| ended.step(path).failure.clone().unwrap();
    let response = |path: &str| failure(path).response.unwrap_or_default();
    assert_eq!(ended.reason("main/0"), "timed out after 1s");
    assert_eq!(
        response("main/0").trim_end(),
        "stdout until then:\nmigrating ***"
    );
    assert_eq!(response("main/1/0"), "stdout until then:\nin a group ***\n");
    let withheld = failure("main/2/0");
    assert_eq!(withheld.response, None);
    assert!(withheld.notes[0].contains("is withheld"), "{withheld:?}");
    assert!(!ended.everything().contains("token-of-today\\n"));
    assert_eq!(ended.step("main/4").outcome, Outcome::Cancelled);
    assert_eq!(response("main/4"), "stdout until then:\nuntil cancelled\n");
}
