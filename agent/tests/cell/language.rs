//! Scopes, captures, loops, skips: what the sequence and the evaluation make together.

use crate::rig::{spec, steps};
use crate::server;
use phalanx_shared::outcome::Outcome;

#[tokio::test]
async fn instances_of_a_loop_are_read_by_their_keys() {
    let ended = steps(
        r#"
- id: vm
  name: machine
  foreach: { v: [101, 102] }
  run: "echo ${{ v }}"
  capture: { out: int(stdout.trim()) }
- id: named
  foreach: { it: [{ name: a, x: 1 }, { name: b, x: 2 }] }
  expect: [it.x > 0]
  capture: { x: it.x }
- expect: ["steps.vm[101].out == 101", "steps.named['b'].x == 2", "[101, 102].all(n, steps.vm[n].out == n)", "steps.vm[102].outcome == 'passed'"]
"#,
    )
    .run()
    .await;
    ended.passed();
    assert_eq!(ended.step("main/0[101]").name, "machine [101]");
    assert_eq!(ended.step("main/1[b]").outcome, Outcome::Passed);
}

#[tokio::test]
async fn a_define_runs_with_its_parameters_sees_outward_and_offers_its_captures() {
    let ended = spec(
        r#"
define:
  twofold: { params: [x], value: x * 2 }
  order:
    params: { sku: {}, count: { default: 1 } }
    steps:
      - { id: placed, expect: [params.count >= 1], capture: { id: "params.sku + '-' + string(params.count) + '-' + string(steps.before.n)" } }
    capture: { id: steps.placed.id, twice: twofold(params.count) }
phases:
  main:
    - { id: before, expect: ["true"], capture: { n: "7" } }
    - { id: one, name: "order ${{ 'a' }}", use: order, with: { sku: book, count: 2 }, expect: [id == 'book-2-7', twice == 4], capture: { again: id + '!' } }
    - { use: order, with: { sku: lamp }, expect: [id == 'lamp-1-7'] }
    - { expect: [steps.one.id == 'book-2-7', steps.one.again == 'book-2-7!'] }
"#,
    );
    let ended = ended.run().await;
    ended.passed();
    assert_eq!(ended.step("main/1/0").outcome, Outcome::Passed);
    assert_eq!(ended.step("main/1").action, "use");
}

#[tokio::test]
async fn a_loop_over_a_group_is_a_scope_of_its_own() {
    let ended = steps(
        r#"
- foreach: { v: [1, 2] }
  name: "round"
  steps:
    - { id: inner, expect: ["true"], capture: { x: v * 10 } }
    - { expect: [steps.inner.x == v * 10] }
"#,
    )
    .run()
    .await;
    ended.passed();
    assert_eq!(ended.step("main/0[2]/1").outcome, Outcome::Passed);
    assert_eq!(ended.step("main/0[2]").name, "round [2]");
}

#[tokio::test]
async fn phases_and_groups_are_transparent_and_parallel_steps_are_seen_by_later_ones() {
    let ended = spec(
        r#"
phases:
  setup:
    - steps: [{ steps: [{ id: deep, expect: ["true"], capture: { x: "1" } }] }]
  main:
    - parallel:
        - { id: a, run: "sleep 0.2; echo a", capture: { out: stdout.trim() } }
        - { id: b, run: "sleep 0.2; echo b", capture: { out: stdout.trim() } }
        - steps: [{ id: c, expect: [steps.deep.x == 1], capture: { y: "2" } }, { expect: [steps.c.y == 2] }]
    - { expect: [steps.a.out + steps.b.out == 'ab', steps.c.y == 2, steps.deep.x == 1] }
"#,
    )
    .run()
    .await;
    ended.passed();
    let group = ended.step("main/0");
    assert!(group.elapsed_us < 390_000, "one after the other: {group:?}");
}

#[tokio::test]
async fn when_false_gives_the_reason_or_the_expression_and_its_values() {
    let mut rig = steps(
        r#"
- { when: matrix.version != 'v1', reason: "${{ matrix.version }} has none", expect: ["true"] }
- { when: matrix.version == 'v2' && true, expect: ["true"] }
- { foreach: { kind: [a, b] }, when: kind == 'b', reason: "not ${{ kind }}", expect: ["true"] }
- { when: "false", foreach: { kind: [a, b] }, reason: none of them, expect: ["true"] }
"#,
    );
    rig.prepend("strategy: { matrix: { version: [v1] } }\n");
    rig.matrix.insert("version".to_owned(), "v1".into());
    let ended = rig.run().await;
    ended.passed();
    assert_eq!(ended.reason("main/0"), "v1 has none");
    let shown = ended.reason("main/1");
    assert!(
        shown.starts_with("when: matrix.version == 'v2' && true (")
            && shown.contains("matrix.version = \"v1\""),
        "{shown}"
    );
    assert_eq!(ended.reason("main/2[a]"), "not a");
    assert_eq!(ended.step("main/2[b]").outcome, Outcome::Passed);
    assert_eq!(ended.reason("main/3"), "none of them");
}

#[tokio::test]
async fn skip_is_asked_after_the_action_and_skips_the_group() {
    let url = server::start().await;
    let ended = steps(
        r#"
- verifies: route
  steps:
    - { http: { get: "${{ inputs.url }}/status/404" }, skip: { if: status == 404, reason: "no route, ${{ status }}" }, expect: [status == 200] }
    - { run: exit 1 }
- { run: "true" }
"#,
    )
    .url(&url);
    let ended = spec_with_rows(ended).run().await;
    ended.passed();
    for path in ["main/0", "main/0/0", "main/0/1"] {
        assert_eq!(ended.reason(path), "no route, 404", "{path}");
        assert_eq!(ended.step(path).verifies, ["route"], "{path}");
    }
}

#[tokio::test]
async fn a_skip_fails_in_a_run_that_was_submitted_after_its_last_day() {
    let yaml = r#"
phases:
  dated:
    when: "false"
    reason: not yet
    until: 2026-06-30
    steps: [{ run: "true" }]
  main:
    - { name: a, when: "false", reason: bug 1, until: 2026-06-30, run: exit 1 }
  more:
    - { name: b, steps: [{ run: "true" }], skip: { if: "true", reason: bug 2, until: 2026-06-30 } }
  last:
    - { name: c, when: "true", until: 2026-06-30, run: "true" }
"#;
    let yaml = yaml.replace(
        "    reason: not yet",
        "    continue-on-failure: true\n    reason: not yet",
    );
    let yaml = yaml.replace("{ name: a,", "{ name: a, continue-on-failure: true,");
    let at = |micros: i64| {
        let mut rig = spec(&yaml);
        rig.submitted = Some(phalanx_shared::time::Timestamp(micros));
        rig
    };
    // The last microsecond of the day.
    let ended = at(1_782_863_999_999_999).run().await;
    ended.passed();
    assert_eq!(ended.reason("main/0"), "bug 1");
    let ended = at(1_782_864_000_000_000).run().await;
    assert_eq!(ended.step("main/0").outcome, Outcome::Failed);
    let told = "the skip ended with 2026-06-30 (the run was submitted on 2026-07-01): bug 1; make the step run, or move the date at";
    assert!(
        ended.reason("main/0").starts_with(told),
        "{}",
        ended.reason("main/0")
    );
    // A job without a time, as from an older coordinator, has no day that is over.
    spec(&yaml).run().await.passed();
}

fn spec_with_rows(mut rig: crate::rig::Rig) -> crate::rig::Rig {
    rig.prepend("coverage: { route: The route }\n");
    rig
}

#[tokio::test]
async fn a_step_that_reads_a_capture_of_a_skipped_step_is_skipped() {
    let ended = steps(
        r#"
- { id: token, when: "false", reason: no tokens here, expect: ["true"], capture: { value: "1" } }
- { name: in a check, expect: [steps.token.value == 1] }
- { name: "in a name ${{ steps.token.value }}", run: "true" }
- { name: in a command, run: "echo ${{ steps.token.value }}" }
- { id: again, name: in a capture, expect: ["true"], capture: { x: steps.token.value } }
- { name: of the second hand, expect: [steps.again.x == 1] }
- { name: in a group, steps: [{ foreach: { v: ["${{ steps.token.value }}"] }, run: "true" }] }
- { name: only the outcome, expect: [steps.token.outcome == 'skipped', steps.token.reason == 'no tokens here', "steps.token.?value.orValue(5) == 5"] }
"#,
    )
    .run()
    .await;
    ended.passed();
    for n in 1..5 {
        assert_eq!(
            ended.reason(&format!("main/{n}")),
            "needs token, skipped: no tokens here",
            "{n}"
        );
    }
    assert!(
        ended
            .reason("main/5")
            .starts_with("needs again, skipped: needs token"),
        "{}",
        ended.reason("main/5")
    );
    assert_eq!(
        ended.reason("main/6/0"),
        "needs token, skipped: no tokens here"
    );
    assert_eq!(ended.step("main/7").outcome, Outcome::Passed);
}

#[tokio::test]
async fn captures_are_evaluated_when_first_used_and_an_error_fails_the_step() {
    let ended = steps(
        r#"
- { name: unused because a check fails first, run: exit 3, capture: { x: int(stdout) }, continue-on-failure: true }
- { name: at the end, run: "true", capture: { x: int(stdout) }, continue-on-failure: true }
- { name: in a check, run: "echo 5", capture: { x: int(stdout.trim()), y: x + 1 }, expect: [y == 6] }
"#,
    )
    .run()
    .await;
    assert_eq!(
        ended.reason("main/0"),
        "check failed: exit_code == 0 (exit_code = 3)"
    );
    assert!(
        ended.reason("main/1").starts_with("capture x has no value"),
        "{}",
        ended.reason("main/1")
    );
    assert_eq!(
        ended.step("main/2").outcome,
        Outcome::Passed,
        "{}",
        ended.reason("main/2")
    );
}

#[tokio::test]
async fn an_error_in_a_check_is_a_failure_of_it_and_all_checks_are_evaluated() {
    let ended = steps("- { run: echo hi, expect: [\"stdout.split(' ')[5] == 'x'\", \"stdout == 'no'\", \"stdout.trim() == 'hi'\"] }\n")
        .run()
        .await;
    let step = ended.step("main/0");
    let passed: Vec<bool> = step.checks.iter().map(|check| check.passed).collect();
    assert_eq!(passed, [true, false, false, true]);
    assert!(step.checks[1].error.is_some());
    assert!(
        ended.reason("main/0").ends_with("(and 1 more)"),
        "{}",
        ended.reason("main/0")
    );
}

#[tokio::test]
async fn else_runs_the_other_side() {
    let ended = steps(
        r#"
- { when: "false", run: exit 1, else: [{ id: other, run: echo hi, capture: { x: stdout.trim() } }] }
- { expect: [steps.other.x == 'hi'] }
"#,
    )
    .run()
    .await;
    ended.passed();
    assert_eq!(ended.step("main/0/else/0").outcome, Outcome::Passed);
}

#[tokio::test]
async fn rows_of_a_group_count_for_everything_inside() {
    let mut rig = steps(
        r#"
- { verifies: route, steps: [{ run: "true", verifies: other }, { foreach: { k: [other] }, verifies: "${{ k }}", when: "false", reason: r, run: "true" }] }
"#,
    );
    rig.prepend("coverage: { route: R, other: O }\n");
    let ended = rig.run().await;
    ended.passed();
    assert_eq!(ended.step("main/0/0").verifies, ["route", "other"]);
    assert_eq!(ended.step("main/0/1").verifies, ["route", "other"]);
}

#[tokio::test]
async fn always_steps_run_after_a_failure_and_the_cell_says_what_failed() {
    let ended = spec(
        r#"
phases:
  main: [{ name: broken, run: "echo oops >&2; exit 4" }, { name: rest, run: "true" }]
  end: [{ name: cleanup, always: true, run: "true" }]
"#,
    )
    .run()
    .await;
    let (outcome, reason) = ended.finished();
    assert_eq!(outcome, Outcome::Failed);
    assert_eq!(
        reason.unwrap(),
        "broken: check failed: exit_code == 0 (exit_code = 4): oops"
    );
    assert_eq!(ended.step("end/0").outcome, Outcome::Passed);
    let failure = ended.step("main/0").failure.clone().unwrap();
    assert!(failure.response.unwrap().contains("stderr:\noops"));
}
