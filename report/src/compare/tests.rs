#![allow(clippy::unwrap_used)]
use super::*;
use crate::history::planted::{Cell, Random, Run, history};
use crate::style::Style;
use crate::view::ServiceReport;
use phalanx_shared::event::ServiceState;
use phalanx_shared::outcome::Outcome::{Errored, Failed, Passed, Skipped};
use serde_json::json;

fn cell(db: &'static str, image: &'static str, outcome: Outcome, seconds: f64) -> Cell {
    Cell::of(&[("db", db), ("image", image)], outcome, seconds)
}

fn side<'a>(view: &'a RunView, plan: &'a Plan, files: &'a [(String, String)]) -> Side<'a> {
    Side {
        view,
        plan: Some(plan),
        files,
    }
}

fn compared(old: &Run, new: &Run, history: &History) -> Comparison {
    let (old_plan, new_plan) = (old.state().plan.unwrap(), new.state().plan.unwrap());
    let (old, new) = (old.view(), new.view());
    compare(
        &side(&old, &old_plan, &[]),
        &side(&new, &new_plan, &[]),
        history,
    )
}

#[test]
fn a_new_failure_comes_first_and_an_old_one_is_only_counted() {
    let old = Run::of(
        1,
        vec![
            cell("pg", "v1", Passed, 1.0),
            cell("mysql", "v1", Failed, 1.0),
        ],
    );
    let mut broken = cell("pg", "v1", Failed, 1.0);
    broken.steps = vec![("migrate", Failed, 1.0)];
    let new = Run::of(2, vec![broken, cell("mysql", "v1", Failed, 1.0)]);
    let found = compared(&old, &new, &History::default());
    let [failure] = found.new.as_slice() else {
        panic!("{:#?}", found.new);
    };
    assert!(failure.cause.contains("migrate"), "{}", failure.cause);
    assert_eq!(
        (failure.cells.as_slice(), failure.new_cells),
        (&["pg / v1".to_owned()][..], 0)
    );
    assert_eq!((found.still, found.regression()), (1, Some(Failed)));
    let text = text::terminal(&found, Style::PLAIN);
    assert!(text.contains("1 new failure, 1 as before"), "{text}");
}

#[test]
fn the_same_failure_in_a_further_cell_is_new_there() {
    let old = Run::of(
        1,
        vec![
            cell("pg", "v1", Failed, 1.0),
            cell("mysql", "v1", Passed, 1.0),
        ],
    );
    let new = Run::of(
        2,
        vec![
            cell("pg", "v1", Failed, 1.0),
            cell("mysql", "v1", Failed, 1.0),
        ],
    );
    let found = compared(&old, &new, &History::default());
    assert_eq!(found.new[0].cells, ["mysql / v1"]);
}

#[test]
fn what_could_not_be_judged_is_a_regression_of_its_own_and_a_fix_is_none() {
    let old = Run::of(
        1,
        vec![
            cell("pg", "v1", Passed, 1.0),
            cell("mysql", "v1", Failed, 1.0),
        ],
    );
    let new = Run::of(
        2,
        vec![
            cell("pg", "v1", Errored, 1.0),
            cell("mysql", "v1", Passed, 1.0),
        ],
    );
    let found = compared(&old, &new, &History::default());
    assert_eq!(found.regression(), Some(Errored));
    assert_eq!(found.gone[0].cells, ["mysql / v1"]);
    let back = compared(&new, &old, &History::default());
    assert_eq!(back.regression(), Some(Failed));
    let same = compared(&old, &old.clone(), &History::default());
    assert_eq!((same.regression(), same.new.len()), (None, 0));
}

#[test]
fn cells_are_matched_by_the_axes_that_both_runs_have() {
    let old = Run::of(
        1,
        vec![
            Cell::of(&[("db", "pg")], Passed, 1.0),
            Cell::of(&[("db", "mysql")], Passed, 1.0),
        ],
    );
    let new = Run::of(
        2,
        vec![
            cell("pg", "v1", Failed, 1.0),
            cell("maria", "v1", Passed, 1.0),
        ],
    );
    let found = compared(&old, &new, &History::default());
    assert_eq!((found.cells.by_id, found.cells.by_values), (0, 1));
    assert_eq!(found.cells.only_before, ["mysql"]);
    assert_eq!(found.cells.only_after, ["maria / v1"]);
    assert_eq!(
        (found.new[0].cells.as_slice(), found.new[0].new_cells),
        (&["pg / v1".to_owned()][..], 0)
    );
}

#[test]
fn changes_stand_in_the_order_in_which_to_look() {
    let mut old = Run::of(1, vec![cell("pg", "v1", Passed, 1.0)]);
    old.plan = json!({ "inputs": { "tag": "1.0", "same": 1 }, "files": { "a.json": "{}" } });
    let mut new = Run::of(2, vec![cell("pg", "v1", Passed, 1.0)]);
    new.plan = json!({ "inputs": { "tag": "1.1", "same": 1 }, "max_parallel": 3, "files": { "a.json": "{ }" } });
    let (old_plan, new_plan) = (old.state().plan.unwrap(), new.state().plan.unwrap());
    let file = |text: &str| vec![("spec.yaml".to_owned(), text.to_owned())];
    let (old_files, new_files) = (file("a\nb\nc\n"), file("a\nx\nc\nd\n"));
    let (old, new) = (old.view(), new.view());
    let found = compare(
        &side(&old, &old_plan, &old_files),
        &side(&new, &new_plan, &new_files),
        &History::default(),
    );
    let told: Vec<String> = found
        .changes
        .iter()
        .map(|one| format!("{:?} {}", one.kind, one.what))
        .collect();
    assert_eq!(
        told,
        [
            "Input tag",
            "Spec spec.yaml",
            "Spec file a.json, which an expression reads",
            "Spec max-parallel",
        ]
    );
    assert_eq!(found.changes[1].lines, ["- b", "+ x", "+ d"]);
    let shown = serde_json::to_string(&found).unwrap();
    assert!(
        !shown.contains("{ }"),
        "the contents of files that expressions read stay out"
    );
}

#[test]
fn an_image_with_another_digest_is_told_though_its_tag_is_the_same() {
    let with_image = |number: usize, digest: &str| {
        let mut view = Run::of(number, vec![cell("pg", "v1", Passed, 1.0)]).view();
        view.cells[0].attempts[0].services.push(ServiceReport {
            name: "db".to_owned(),
            state: ServiceState::Ready,
            detail: None,
            image: Some(format!("postgres@sha256:{digest}")),
            restarts: Vec::new(),
            history: Vec::new(),
        });
        view
    };
    let (old, new) = (with_image(1, "aa"), with_image(2, "bb"));
    let side = |view| Side {
        view,
        plan: None,
        files: &[],
    };
    let found = compare(&side(&old), &side(&new), &History::default());
    let [change] = found.changes.as_slice() else {
        panic!("{:#?}", found.changes);
    };
    assert_eq!(
        (change.kind, change.what.as_str()),
        (ChangeKind::Image, "db")
    );
    assert_eq!(change.after.as_deref(), Some("postgres@sha256:bb"));
}

#[test]
fn a_step_that_passed_and_is_skipped_now_is_told() {
    let old = Run::of(1, vec![cell("pg", "v1", Passed, 1.0)]);
    let new = Run::of(2, vec![cell("pg", "v1", Skipped, 0.0)]);
    let found = compared(&old, &new, &History::default());
    assert_eq!(found.no_longer[0].step, "test > check");
    assert_eq!(found.regression(), None);
}

#[test]
fn only_times_outside_their_noise_are_told_and_too_little_history_is_said() {
    let mut random = Random(2);
    let mut run = |number: usize, slow: bool| {
        let mysql = if slow { 30.0 } else { 20.0 };
        Run::of(
            number,
            vec![
                cell("pg", "v1", Passed, random.around(20.0, 0.5)),
                cell("mysql", "v1", Passed, random.around(mysql, 0.5)),
            ],
        )
    };
    let past: Vec<Run> = (0..8).map(|number| run(number, false)).collect();
    let (same, slow) = (run(9, false), run(10, true));
    let all = history(&past);
    assert_eq!(compared(&past[7], &same, &all).times.outside, []);
    let found = compared(&past[7], &slow, &all);
    let names: Vec<&str> = found
        .times
        .outside
        .iter()
        .map(|one| one.what.as_str())
        .collect();
    assert_eq!(names, ["mysql / v1", "test > check"]);
    assert!(
        !found
            .times
            .wall
            .band
            .unwrap()
            .holds(found.times.wall.after_us)
    );
    let few = compared(&past[1], &slow, &history(&past[..2]));
    assert_eq!(few.times.outside, []);
    let text = text::terminal(&few, Style::PLAIN);
    assert!(
        text.contains("too little history to tell noise from change: 2 earlier runs"),
        "{text}"
    );
    let text = text::markdown(&found);
    assert!(text.starts_with("### no new failure\n"), "{text}");
    assert!(text.contains("- mysql / v1: "), "{text}");
}

#[test]
fn what_came_onto_the_critical_path_is_told() {
    let steps = |name: &'static str| {
        let mut cell = cell("pg", "v1", Passed, 1.0);
        cell.steps = vec![("check", Passed, 5.0), (name, Passed, 4.0)];
        cell
    };
    let found = compared(
        &Run::of(1, vec![steps("a")]),
        &Run::of(2, vec![steps("b")]),
        &History::default(),
    );
    let told: Vec<(OnPath, &str)> = found
        .critical_path
        .iter()
        .map(|one| (one.change, one.what.as_str()))
        .collect();
    assert_eq!(
        told,
        [(OnPath::Came, "test > b"), (OnPath::Left, "test > a")]
    );
}

#[test]
fn a_later_run_that_is_not_ok_without_a_new_failure_is_a_regression_too() {
    let cells = || vec![cell("pg", "v1", Passed, 1.0)];
    let plan = Run::of(1, cells()).state().plan.unwrap();
    let old = Run::of(1, cells()).view();
    let later = |change: &dyn Fn(&mut RunView)| {
        let mut new = Run::of(2, cells()).view();
        change(&mut new);
        let (before, after) = (side(&old, &plan, &[]), side(&new, &plan, &[]));
        compare(&before, &after, &History::default())
    };
    let told = |found: &Comparison| {
        let text = text::markdown(found);
        text.lines().next().unwrap().to_owned()
    };
    let skips = later(&|new| (new.outcome, new.max_skips) = (Some(Failed), Some(0)));
    assert_eq!(skips.regression(), Some(Failed));
    assert!(told(&skips).contains("but the later run failed: 0 skipped steps, and `max-skips`"));
    let cancelled = later(&|new| {
        new.outcome = Some(Outcome::Cancelled);
        new.cancelled = Some("by ann".to_owned());
    });
    assert_eq!(cancelled.regression(), Some(Outcome::Cancelled));
    assert_eq!(
        told(&cancelled),
        "### no new failure, but the later run was cancelled: by ann"
    );
    let unfinished = later(&|new| new.outcome = None);
    assert_eq!(unfinished.regression(), Some(Errored));
    assert_eq!(
        told(&unfinished),
        "### no new failure, but the later run isn't finished"
    );
    let mut broken = old.clone();
    broken.outcome = Some(Failed);
    let side = |view| side(view, &plan, &[]);
    let both = compare(&side(&broken), &side(&broken), &History::default());
    assert_eq!((both.regression(), both.unwell()), (None, None));
}

#[test]
fn the_sentence_says_how_many_failures_follow_from_others() {
    let old = Run::of(1, vec![cell("pg", "v1", Passed, 1.0)]);
    let new = Run::of(2, vec![cell("pg", "v1", Failed, 1.0)]);
    let mut found = compared(&old, &new, &History::default());
    let one = found.new[0].clone();
    for (follows, told) in [
        (
            &[false, true][..],
            "1 new failure and 1 that follows from other failures",
        ),
        (
            &[false, false, true, true],
            "2 new failures and 2 that follow from other failures",
        ),
        (
            &[true, true],
            "2 new failures that follow from other failures",
        ),
    ] {
        let with = |follows: &bool| NewFailure {
            follows: *follows,
            ..one.clone()
        };
        found.new = follows.iter().map(with).collect();
        let text = text::markdown(&found);
        assert_eq!(text.lines().next().unwrap(), format!("### {told}"));
    }
}
