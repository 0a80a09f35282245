//! Tests each rule of the language about which step is next, on the core alone.

use super::*;
use phalanx_shared::cancel::CancelOrder;

use Outcome::{Cancelled, Errored, Failed, Flaky, Passed, Skipped};

fn run(yaml: &str, script: &[(&str, &[Outcome])]) -> Performer {
    Performer::new(yaml, script).run()
}

#[test]
fn steps_run_in_order_and_a_cell_of_passed_steps_is_passed() {
    let ran = run(
        "phases: { one: [{ name: a, run: x }, { name: b, run: x }], two: [{ name: c, run: x }] }",
        &[],
    );
    assert_eq!(ran.acted, ["a", "b", "c"]);
    assert_eq!(
        ran.lines(),
        ["one/0 passed", "one/1 passed", "two/0 passed"]
    );
    assert_eq!(ran.finished, Some((Passed, None)));
}

#[test]
fn after_a_failure_the_rest_of_the_phase_and_later_phases_are_skipped() {
    let ran = run(
        "phases: { one: [{ name: a, run: x }, { name: b, steps: [{ name: c, run: x }] }], two: [{ name: d, run: x }] }",
        &[("a", &[Failed])],
    );
    assert_eq!(
        ran.lines(),
        [
            "one/0 failed: a was failed",
            "one/1 skipped: after failed step a",
            "one/1/0 skipped: after failed step a",
            "two/0 skipped: after failed step a",
        ]
    );
    assert_eq!(
        ran.finished,
        Some((Failed, Some("a: a was failed".to_owned())))
    );
}

#[test]
fn always_steps_of_this_and_later_phases_run_after_a_failure_in_order() {
    let ran = run(
        "phases: { one: [{ name: a, run: x }, { name: b, run: x, always: true }], two: [{ name: c, run: x }, { name: d, run: x, always: true }] }",
        &[("a", &[Failed])],
    );
    assert_eq!(ran.acted, ["a", "b", "d"]);
    assert_eq!(ran.of("two/0"), "two/0 skipped: after failed step a");
    assert_eq!(ran.outcome(), Failed);
}

#[test]
fn always_steps_can_only_make_things_worse() {
    let ran = run(
        "phases: { one: [{ name: a, run: x }, { name: b, run: x, always: true }] }",
        &[("a", &[Failed]), ("b", &[Errored])],
    );
    assert_eq!(ran.outcome(), Errored);
}

#[test]
fn an_always_phase_runs_whole_after_a_failure() {
    let ran = run(
        "phases: { one: [{ name: a, run: x }], two: { always: true, steps: [{ name: b, run: x }, { name: c, run: x }] } }",
        &[("a", &[Failed])],
    );
    assert_eq!(ran.acted, ["a", "b", "c"]);
}

#[test]
fn continue_on_failure_lets_what_follows_run_and_the_cell_still_fails() {
    let ran = run(
        "phases: { one: [{ name: g, continue-on-failure: true, steps: [{ name: a, run: x }, { name: b, run: x }] }, { name: c, run: x }] }",
        &[("a", &[Failed])],
    );
    assert_eq!(ran.acted, ["a", "c"]);
    assert_eq!(ran.of("one/0"), "one/0 failed: a: a was failed");
    assert_eq!(ran.of("one/0/1"), "one/0/1 skipped: after failed step a");
    assert_eq!(ran.outcome(), Failed);
}

#[test]
fn a_phase_with_continue_on_failure_lets_later_phases_run() {
    let ran = run(
        "phases: { one: { continue-on-failure: true, steps: [{ name: a, run: x }] }, two: [{ name: b, run: x }] }",
        &[("a", &[Failed])],
    );
    assert_eq!(ran.acted, ["a", "b"]);
    assert_eq!(ran.outcome(), Failed);
}

#[test]
fn when_false_skips_the_step_and_everything_inside_each_with_its_rows() {
    let ran = Performer::new(
        "coverage: { r: R, s: S }\nphases: { one: [{ name: g, when: 'false', verifies: r, steps: [{ name: a, verifies: s, run: x }, { name: d, use: d }] }, { name: z, run: x }] }\ndefine: { d: { steps: [{ name: inner, run: x }] } }",
        &[],
    )
    .when("g", false)
    .run();
    let skipped: Vec<String> = ran
        .results
        .iter()
        .map(|result| {
            format!(
                "{} {} {}",
                result.path,
                result.outcome,
                result.verifies.join("+")
            )
        })
        .collect();
    assert_eq!(
        skipped,
        [
            "one/0 skipped r",
            "one/0/0 skipped r+s",
            "one/0/1 skipped r",
            "one/0/1/0 skipped r",
            "one/1 passed "
        ]
    );
    assert_eq!(ran.outcome(), Passed);
}

#[test]
fn a_phase_whose_when_is_false_is_skipped_with_everything_inside() {
    let ran = Performer::new(
        "phases: { one: { when: 'false', steps: [{ name: a, run: x }] } }",
        &[],
    )
    .when("one", false)
    .run();
    assert_eq!(ran.lines(), ["one/0 skipped: when of one"]);
    assert_eq!(
        ran.finished,
        Some((Skipped, Some("when of one".to_owned())))
    );
}

#[test]
fn else_is_a_branch_and_nothing_is_skipped() {
    let yaml =
        "phases: { one: [{ name: b, when: 'true', run: x, else: [{ name: other, run: x }] }] }";
    let ran = Performer::new(yaml, &[]).when("b", false).run();
    assert_eq!(ran.acted, ["other"]);
    assert_eq!(ran.lines(), ["one/0/else/0 passed", "one/0 passed"]);
    let ran = Performer::new(yaml, &[]).run();
    assert_eq!(ran.lines(), ["one/0 passed"]);
}

#[test]
fn instances_run_in_order_each_with_its_key_and_a_failed_one_ends_the_loop() {
    let yaml =
        "phases: { one: [{ name: n, foreach: { v: [a, 2, c] }, run: x }, { name: z, run: x }] }";
    let ran = run(yaml, &[("n", &[Passed, Failed])]);
    assert_eq!(
        ran.lines(),
        [
            "one/0[a] passed",
            "one/0[2] failed: n was failed",
            "one/0[c] skipped: after failed step n [2]",
            "one/1 skipped: after failed step n [2]",
        ]
    );
    assert_eq!(ran.results[0].name, "n [a]");
}

#[test]
fn a_loop_with_continue_on_failure_goes_on() {
    let ran = run(
        "phases: { one: [{ name: n, continue-on-failure: true, foreach: { v: [a, b] }, run: x }, { name: z, run: x }] }",
        &[("n", &[Failed])],
    );
    assert_eq!(ran.acted, ["n", "n", "z"]);
    assert_eq!(ran.outcome(), Failed);
}

#[test]
fn an_empty_list_and_equal_keys_are_told() {
    let ran = run(
        "phases: { one: [{ name: n, foreach: { v: [] }, run: x }] }",
        &[],
    );
    assert_eq!(ran.lines(), ["one/0 skipped: foreach over an empty list"]);
    let ran = run(
        "phases: { one: [{ name: n, foreach: { v: [a, a] }, run: x }] }",
        &[],
    );
    assert_eq!(ran.outcome(), Failed);
    assert!(ran.lines()[0].contains("same key `a`"), "{:?}", ran.lines());
}

#[test]
fn skip_skips_the_group_it_stands_in_from_there_on_and_as_a_whole() {
    let ran = run(
        "phases: { one: [{ name: g, steps: [{ name: a, run: x }, { name: b, run: x }, { name: c, run: x }] }, { name: z, run: x }] }",
        &[("b", &[Skipped])],
    );
    assert_eq!(
        ran.lines(),
        [
            "one/0/0 passed",
            "one/0/1 skipped: b was skipped",
            "one/0/2 skipped: b was skipped",
            "one/0 skipped: b was skipped",
            "one/1 passed",
        ]
    );
    assert_eq!(ran.outcome(), Passed);
}

#[test]
fn skip_in_a_phase_skips_only_the_step_for_a_phase_is_no_group() {
    let ran = run(
        "phases: { one: [{ name: a, run: x }, { name: b, run: x }] }",
        &[("a", &[Skipped])],
    );
    assert_eq!(
        ran.lines(),
        ["one/0 skipped: a was skipped", "one/1 passed"]
    );
}

#[test]
fn a_group_is_failed_before_it_is_skipped() {
    let ran = run(
        "phases: { one: [{ name: g, steps: [{ name: a, continue-on-failure: true, run: x }, { name: b, run: x }] }] }",
        &[("a", &[Failed]), ("b", &[Skipped])],
    );
    assert!(
        ran.of("one/0").starts_with("one/0 failed"),
        "{:?}",
        ran.lines()
    );
}

#[test]
fn retry_repeats_a_failed_step_and_passing_then_is_flaky() {
    let yaml = "phases: { one: [{ name: a, retry: { times: 2, delay: 1s }, run: x }] }";
    let ran = run(yaml, &[("a", &[Failed, Failed])]);
    assert_eq!((ran.outcome(), ran.results[0].tries), (Flaky, 3));
    let ran = run(yaml, &[("a", &[Failed, Failed, Failed])]);
    assert_eq!(ran.outcome(), Failed);
    let ran = run(yaml, &[("a", &[Errored])]);
    assert_eq!((ran.outcome(), ran.results[0].tries), (Errored, 1));
}

#[test]
fn a_retried_group_runs_its_steps_again_and_is_flaky() {
    let ran = run(
        "phases: { one: [{ name: g, retry: { times: 1 }, steps: [{ name: a, run: x }, { name: b, run: x }] }] }",
        &[("b", &[Failed])],
    );
    assert_eq!(ran.acted, ["a", "b", "a", "b"]);
    assert_eq!(ran.outcome(), Flaky);
}

#[test]
fn parallel_runs_all_to_their_end_whatever_one_comes_to() {
    let mut ran = Performer::new(
        "phases: { one: [{ name: p, parallel: [{ name: a, run: x }, { name: b, run: x }, { name: c, steps: [{ name: d, run: x }, { name: e, run: x }] }] }, { name: z, run: x }] }",
        &[("b", &[Failed])],
    );
    ran.input(Input::Start);
    assert_eq!(ran.acted, ["a", "b", "d"]);
    ran.end(1);
    let ran = ran.finish();
    assert_eq!(ran.acted, ["a", "b", "d", "e"]);
    assert_eq!(ran.of("one/0"), "one/0 failed: b: b was failed");
    assert_eq!(ran.of("one/1"), "one/1 skipped: after failed step b");
}

#[test]
fn a_use_is_concluded_in_its_own_checks_after_its_body_passed() {
    let yaml =
        "define: { d: { steps: [{ name: a, run: x }] } }\nphases: { one: [{ name: u, use: d }] }";
    assert_eq!(run(yaml, &[("end of u", &[Failed])]).outcome(), Failed);
    let ran = run(yaml, &[("a", &[Failed])]);
    assert_eq!(ran.of("one/0"), "one/0 failed: a: a was failed");
}

#[test]
fn a_cancel_ends_the_step_in_progress_and_runs_always_steps_within_the_grace() {
    let mut ran = Performer::new(
        "phases: { one: [{ name: a, run: x }, { name: b, run: x }, { name: c, always: true, run: x }, { name: d, always: true, run: x }] }",
        &[],
    );
    ran.input(Input::Start);
    ran.input(cancel(false));
    assert_eq!(ran.acted, ["a", "c"]);
    assert!(ran.fire(|timer| *timer == Timer::Grace));
    let ran = ran.finish();
    assert_eq!(ran.of("one/0"), "one/0 cancelled: cancelled: by hand");
    assert_eq!(ran.of("one/1"), "one/1 skipped: cancelled: by hand");
    assert!(ran.of("one/2").starts_with("one/2 cancelled"));
    assert!(ran.of("one/3").starts_with("one/3 skipped"));
    assert_eq!(ran.outcome(), Cancelled);
}

#[test]
fn a_forced_cancel_runs_nothing_any_more() {
    let mut ran = Performer::new(
        "phases: { one: [{ name: a, run: x }, { name: c, always: true, run: x }] }",
        &[],
    );
    ran.input(Input::Start);
    ran.input(cancel(true));
    assert_eq!(ran.acted, ["a"]);
    assert_eq!(ran.outcome(), Cancelled);
}

#[test]
fn a_cancel_before_the_start_skips_everything() {
    let mut ran = Performer::new("phases: { one: [{ name: a, run: x }] }", &[]);
    ran.input(cancel(false));
    ran.input(Input::Start);
    assert_eq!(ran.lines(), ["one/0 skipped: cancelled: by hand"]);
    assert_eq!(ran.outcome(), Cancelled);
}

#[test]
fn the_cells_timeout_fails_the_step_in_progress_and_is_errored_before_any_ran() {
    let mut ran = Performer::new(
        "phases: { one: [{ name: a, run: x }, { name: b, run: x }] }",
        &[],
    );
    ran.input(Input::Start);
    assert!(ran.fire(|timer| *timer == Timer::Cell));
    assert_eq!(ran.of("one/0"), "one/0 failed: the cell timed out after 1h");
    assert_eq!(ran.outcome(), Failed);

    let spec = parse("phases: { one: [{ name: a, run: x }] }");
    let limits = Limits {
        cell: Duration::from_secs(60),
        grace: Duration::from_secs(1),
    };
    let mut core = Sequence::new(spec, limits);
    core.handle(Input::Start, Now::default());
    let node = NodeId(2);
    core.handle(
        Input::Opened {
            node: NodeId(1),
            result: Ok(Opening::default()),
        },
        Now::default(),
    );
    core.handle(
        Input::Opened {
            node,
            result: Ok(Opening::default()),
        },
        Now::default(),
    );
    // No `Acting` was sent: the step still waits for its services.
    let effects = core.handle(Input::Fired(Timer::Cell), Now::default());
    let finished = effects.iter().any(|effect| {
        matches!(effect, Effect::Finish(Judgement { outcome: Errored, reason: Some(reason), timed_out: true, .. }) if reason.contains("before any step ran"))
    });
    assert!(finished, "{effects:#?}");
}

#[test]
fn a_groups_timeout_fails_the_step_in_progress_and_skips_the_rest_of_the_group() {
    let mut ran = Performer::new(
        "phases: { one: [{ name: g, timeout: 1m, continue-on-failure: true, steps: [{ name: i, continue-on-failure: true, steps: [{ name: a, run: x }, { name: b, run: x }] }, { name: c, run: x }, { name: d, always: true, run: x }] }, { name: z, run: x }] }",
        &[],
    );
    ran.input(Input::Start);
    assert!(ran.fire(|timer| matches!(timer, Timer::Limit(_))));
    let ran = ran.finish();
    assert_eq!(ran.acted, ["a", "d", "z"]);
    assert_eq!(
        ran.of("one/0/0/0"),
        "one/0/0/0 failed: g timed out after 1m"
    );
    assert_eq!(
        ran.of("one/0/1"),
        "one/0/1 skipped: after g timed out after 1m"
    );
    assert_eq!(ran.outcome(), Failed);
}

#[test]
fn a_timeout_waits_for_files_that_are_being_kept_and_the_step_keeps_its_outcome() {
    let yaml =
        "phases: { one: { timeout: 1m, steps: [{ name: a, run: x }, { name: b, run: x }] } }";
    let limit = |timer: &Timer| matches!(timer, Timer::Limit(_));
    let mut ran = Performer::new(yaml, &[]);
    ran.input(Input::Start);
    ran.judge(0);
    ran.now += Duration::from_secs(7);
    assert!(ran.fire(limit));
    assert!(ran.lines().is_empty(), "{:?}", ran.lines());
    let put_off = ran.armed.iter().find(|(timer, _)| limit(timer)).unwrap().1;
    assert_eq!(put_off.as_secs(), 7);
    ran.end(0);
    assert_eq!(ran.of("one/0"), "one/0 passed");
    assert!(ran.results[0].elapsed_us < 1_000_000, "{:?}", ran.results);
    // What was put off is over once.
    assert!(ran.fire(limit));
    assert!(ran.fire(limit));
    assert_eq!(ran.of("one/1"), "one/1 failed: one timed out after 1m");

    // However long it takes, timeouts are put off by a minute at most, and the step that has passed has passed.
    let mut ran = Performer::new(yaml, &[]);
    ran.input(Input::Start);
    ran.judge(0);
    ran.now += Duration::from_secs(70);
    assert!(ran.fire(limit));
    ran.now += Duration::from_secs(70);
    assert!(ran.fire(limit));
    assert_eq!(ran.of("one/0"), "one/0 passed");
    assert_eq!(ran.outcome(), Failed);
}

#[test]
fn a_step_that_only_keeps_its_files_is_ended_with_its_own_outcome_and_by_no_service() {
    let yaml = "phases: { one: [{ name: a, run: x }, { name: b, run: x }] }";
    let mut ran = Performer::new(yaml, &[]);
    ran.input(Input::Start);
    ran.judge(0);
    ran.input(down());
    assert!(ran.lines().is_empty());
    ran.end(0);
    assert_eq!(ran.of("one/0"), "one/0 passed");
    assert!(ran.of("one/1").contains("db exited"), "{:?}", ran.lines());

    let mut ran = Performer::new(yaml, &[("a", &[Failed])]);
    ran.input(Input::Start);
    ran.judge(0);
    ran.input(cancel(true));
    assert_eq!(ran.of("one/0"), "one/0 failed: a was failed");
    assert!(ran.acting.is_empty(), "it is stopped");
    assert_eq!(ran.outcome(), Failed);
}

#[test]
fn a_service_that_goes_down_fails_the_steps_in_progress_or_else_the_next_one() {
    let yaml = "phases: { one: [{ name: a, run: x, retry: { times: 1, delay: 1s } }, { name: b, run: x }] }";
    let mut ran = Performer::new(yaml, &[]);
    ran.input(Input::Start);
    ran.input(down());
    assert_eq!(
        ran.of("one/0"),
        "one/0 failed: service db exited unexpectedly"
    );
    assert_eq!(ran.outcome(), Failed);

    let mut ran = Performer::new(yaml, &[]);
    ran.input(down());
    ran.input(Input::Start);
    assert_eq!(ran.acted, Vec::<String>::new());
    assert_eq!(
        ran.of("one/0"),
        "one/0 failed: service db exited unexpectedly"
    );
}

fn cancel(force: bool) -> Input {
    Input::Cancelled(CancelOrder {
        grace: Duration::from_secs(5),
        reason: "by hand".to_owned(),
        force,
    })
}

fn down() -> Input {
    Input::ServiceDown(Box::new(Down {
        root: "db".to_owned(),
        service: "db".to_owned(),
        outcome: Failed,
        reason: "service db exited unexpectedly".to_owned(),
        failure: Failure::default(),
    }))
}
