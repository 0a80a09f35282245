//! All reports of one made-up run of 27 cells, as snapshots, and what must hold for any run.
#![allow(clippy::unwrap_used)]

mod sample;

use phalanx_report::live::{Size, Waits, frame};
use phalanx_report::style::Style;
use phalanx_report::terminal::Detail;
use phalanx_report::view::{CellView, RunView};
use phalanx_report::{github, json, junit, markdown, plain, terminal, text};
use phalanx_shared::outcome::Outcome;

const ALL: i64 = i64::MAX / 4;

fn view() -> RunView {
    let events = sample::events(27, 9);
    let (state, now) = sample::state(&events, ALL);
    RunView::of(&state, now, None)
}

fn detail(verbose: bool) -> Detail {
    Detail {
        width: 100,
        style: Style::PLAIN,
        verbose,
    }
}

#[test]
fn the_terminal_shows_failures_skips_coverage_and_times() {
    insta::assert_snapshot!(terminal::render(&view(), detail(true)));
}

#[test]
fn the_markdown_summary_shows_the_same() {
    insta::assert_snapshot!(markdown::render(&view(), markdown::GITHUB));
}

#[test]
fn a_markdown_page_keeps_to_its_bytes_breaks_no_table_and_says_what_it_leaves_out() {
    let events = sample::events(500, 40);
    let (state, now) = sample::state(&events, ALL);
    let mut view = RunView::of(&state, now, Some("cell"));
    view.cells[3].name = "a | b\n| c |".repeat(400);
    view.cells[3].outcome = Some(Outcome::Errored);
    let whole = markdown::render(&view, markdown::GITHUB);
    assert!(!whole.contains("left out") && whole.len() < markdown::GITHUB);
    for budget in [0, 300, 1_000, 3_000, 10_000, 30_000, 100_000] {
        let page = markdown::render(&view, budget);
        assert!(page.len() <= budget, "{} of {budget}", page.len());
        assert!(
            budget < 1_000 || page.contains("left out: the page may have"),
            "{budget}"
        );
        let mut columns = None;
        for line in page.lines() {
            let bars = line.replace("\\|", "").matches('|').count();
            match (line.starts_with('|'), columns) {
                (true, None) => columns = Some(bars),
                (true, Some(columns)) => assert_eq!(bars, columns, "{budget}: {line}"),
                (false, _) => columns = None,
            }
        }
        assert_eq!(
            page.matches("<details>").count(),
            page.matches("</details>").count()
        );
        assert!(page.is_empty() || page.ends_with('\n'));
    }
}

#[test]
fn junit_has_a_suite_per_cell_and_a_case_per_step() {
    let mut view = view();
    let mut index = 0;
    view.cells.retain(|_| {
        index += 1;
        [5, 7, 14].contains(&index) // one of each kind is enough to read
    });
    insta::assert_snapshot!(junit::render(&view).unwrap());
}

#[test]
fn annotations_point_at_the_line_of_the_spec_once_for_equal_failures() {
    insta::assert_snapshot!(github::annotations(&view()));
}

#[test]
fn the_json_report_is_the_view() {
    let mut value: serde_json::Value =
        serde_json::from_str(&json::render(&view()).unwrap()).unwrap();
    // One cell of each kind is enough to read.
    let cells = value["cells"].as_array().unwrap();
    let kept: Vec<_> = [4, 6, 13].iter().map(|i| cells[*i].clone()).collect();
    value["cells"] = kept.into();
    insta::assert_snapshot!(serde_json::to_string_pretty(&value).unwrap());
}

#[test]
fn plain_lines_name_cell_step_outcome_and_reason() {
    let events = sample::events(27, 9);
    let mut state = phalanx_shared::run_state::RunState::new(events[0].run.clone());
    let mut lines = Vec::new();
    for event in &events {
        state.apply(event);
        lines.extend(plain::lines(&state, event, false));
    }
    insta::assert_snapshot!(text::lines_text(&lines, Style::PLAIN));
}

#[test]
fn the_live_table_of_27_cells_in_a_small_terminal() {
    let events = sample::events(27, 9);
    let (state, now) = sample::state(&events, 9_500_000);
    let size = Size {
        width: 80,
        height: 24,
    };
    insta::assert_snapshot!(frame(&state, &Waits::new(), now, size, Style::PLAIN).join("\n"));
}

#[test]
fn the_live_table_of_500_cells_in_a_large_terminal() {
    let events = sample::events(500, 40);
    let (state, now) = sample::state(&events, 40_000_000);
    let size = Size {
        width: 200,
        height: 50,
    };
    insta::assert_snapshot!(frame(&state, &Waits::new(), now, size, Style::PLAIN).join("\n"));
}

#[test]
fn no_frame_is_larger_than_its_screen() {
    let events = sample::events(120, 16);
    for at in [0, 500_000, 4_000_000, 20_000_000, ALL] {
        let (state, now) = sample::state(&events, at);
        for width in [1, 8, 20, 40, 49, 50, 60, 79, 80, 81, 120, 300] {
            for height in [1, 2, 3, 5, 6, 10, 24, 60, 200] {
                let lines = frame(
                    &state,
                    &Waits::new(),
                    now,
                    Size { width, height },
                    Style::PLAIN,
                );
                assert!(
                    lines.len() <= height.saturating_sub(1).max(1),
                    "{width}x{height} at {at}"
                );
                let widest = lines
                    .iter()
                    .map(|line| console::measure_text_width(line))
                    .max()
                    .unwrap();
                assert!(
                    widest < width.max(32),
                    "{width}x{height} at {at}: {widest} {lines:#?}"
                );
            }
        }
    }
}

#[test]
fn times_of_one_report_agree_with_each_other() {
    let view = view();
    let slowest = view.timing.slowest.clone().unwrap();
    assert_eq!(
        view.timing.sum_us,
        view.cells.iter().filter_map(|c| c.elapsed_us).sum::<u64>()
    );
    assert!(
        view.cells
            .iter()
            .all(|c| c.elapsed_us.unwrap_or(0) <= slowest.elapsed_us)
    );
    assert!(slowest.elapsed_us <= view.timing.wall_us);
    let mut end = 0;
    for segment in &slowest.critical_path {
        assert!(
            segment.began_us + 20_000 >= end,
            "{segment:?} overlaps what is before it"
        );
        assert!(
            segment.began_us <= end + 20_000,
            "a hole before {segment:?}"
        );
        end = segment.began_us + segment.elapsed_us;
    }
}

#[test]
fn the_coverage_axis_is_the_one_along_which_rows_differ() {
    let view = view();
    let coverage = view.coverage.unwrap();
    assert_eq!(coverage.axis, "proxmox_service");
    let row = |key: &str| coverage.rows.iter().find(|row| row.key == key).unwrap();
    let words = |key: &str| {
        row(key)
            .entries
            .iter()
            .map(|e| e.state.as_str())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        words("mock"),
        ["passed", "not run", "passed"],
        "the worst counts: one cell errored before its first step"
    );
    assert_eq!(words("keepalive"), ["passed", "not run", "skipped"]);
    assert_eq!(words("transition"), ["failed", "not run", "skipped"]);
}

#[test]
fn a_run_of_skips_alone_says_so() {
    let mut view = view();
    assert!(!view.only_skips());
    for step in view
        .cells
        .iter_mut()
        .flat_map(|c| &mut c.attempts)
        .flat_map(|a| &mut a.steps)
    {
        step.outcome = Some(Outcome::Skipped);
    }
    view.steps_by_outcome = Default::default();
    for step in view.cells.iter().flat_map(|cell| cell.steps()) {
        view.steps_by_outcome.add(step.outcome);
    }
    assert!(view.only_skips());
    assert!(terminal::render(&view, detail(false)).contains("nothing was tested"));
}

#[test]
fn a_run_of_one_cell_does_not_name_it_at_each_skip() {
    let all = view();
    let mut one = view();
    let skipped = |cell: &&CellView| cell.steps().any(|s| s.outcome == Some(Outcome::Skipped));
    let name = all.cells.iter().find(skipped).unwrap().name.clone();
    one.cells.retain(|cell| cell.name == name);
    for group in &mut one.skips {
        group
            .steps
            .values_mut()
            .for_each(|cells| cells.retain(|cell| *cell == name));
        group.steps.retain(|_, cells| !cells.is_empty());
    }
    one.skips.retain(|group| !group.steps.is_empty());
    let skips = |view: &RunView| {
        let told = terminal::render(view, detail(true));
        let from = told.split_once("skipped:\n").unwrap().1;
        from.split("\n\n").next().unwrap().to_owned()
    };
    assert!(skips(&all).contains(&name));
    let told = skips(&one);
    assert!(!told.contains(&name) && !told.contains(" cell"), "{told}");
    assert!(told.contains(" step"), "{told}");
}

/// A run whose cells are all ok and that failed by `max-skips`.
fn too_many_skips() -> RunView {
    let events = sample::events(27, 9);
    let (state, now) = sample::state(&events, ALL);
    let mut view = RunView::of(&state, now, None);
    (view.outcome, view.max_skips) = (Some(Outcome::Failed), Some(1));
    view.cells
        .retain(|cell| cell.outcome.is_some_and(Outcome::is_ok));
    view.cells_by_outcome = Default::default();
    for cell in &view.cells {
        view.cells_by_outcome.add(cell.outcome);
    }
    view
}

#[test]
fn a_run_that_failed_by_its_skips_alone_is_green_in_no_report() {
    let mut view = too_many_skips();
    let why = text::too_many_skips(&view).unwrap();
    assert!(why.contains("`max-skips` allows 1"), "{why}");
    assert!(terminal::render(&view, detail(false)).contains(&why));
    assert!(phalanx_report::html::render(&view, None).contains(&format!("{why}.")));
    let xml = junit::render(&view).unwrap();
    assert!(xml.contains("failures=\"1\"") && xml.contains("name=\"(run)\""));
    assert!(xml.contains(&why), "{xml}");
    view.cells_by_outcome.failed = 1;
    assert_eq!(text::too_many_skips(&view), None, "the cell decided");
    view.cells_by_outcome.failed = 0;
    view.outcome = None;
    assert_eq!(text::too_many_skips(&view), None, "the run isn't over");
}
