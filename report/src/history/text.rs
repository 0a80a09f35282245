//! The history of a spec, a cell or a step for a terminal.

use super::band::Band;
use super::detail::{CellHistory, Series, StepHistory};
use super::overview::{Axis, Overview, RunLine, Slower, Trouble};
use super::series::{Shift, Verdict, blocks};
use crate::style::{Style, Tone};
use crate::text::{clean, duration, fit, plural};
use phalanx_shared::id::RunId;
use phalanx_shared::outcome::Outcome;

/// Number of entries of a list that are shown.
const SHOWN: usize = 12;

/// Returns a history at a glance.
pub fn overview(overview: &Overview, style: Style) -> String {
    let mut out = Vec::new();
    let runs = &overview.runs;
    let title = format!("{}: {}", clean(&overview.spec), plural(runs.len(), "run"));
    out.push(style.paint(Tone::Strong, &title));
    run_lines(&mut out, overview, style);
    section(&mut out, style, "what fails:", &overview.troubles, |one| {
        trouble(one, style)
    });
    section(
        &mut out,
        style,
        "could not be judged:",
        &overview.infrastructure,
        |one| {
            let times = plural(one.times, "cell");
            let text = format!(
                "{times} in {}, last in {}: {}",
                plural(one.runs, "run"),
                one.newest,
                clean(&one.reason)
            );
            vec![style.paint(Tone::Warn, &text)]
        },
    );
    section(
        &mut out,
        style,
        "times that changed:",
        &overview.shifts,
        |one| vec![slower(one)],
    );
    let stale = &overview.ledger.stale;
    section(
        &mut out,
        style,
        "not verified by the newest run:",
        stale,
        |one| vec![one.text()],
    );
    if overview.ledger.never > 0 {
        let text = format!(
            "  {} of coverage row and cell not verified by any of these runs",
            plural(overview.ledger.never, "pair")
        );
        out.push(style.paint(Tone::Dim, &text));
    }
    if overview.without_steps > 0 {
        let text = format!(
            "the steps of {} are left out, there are too many",
            plural(overview.without_steps, "run")
        );
        out.push(style.paint(Tone::Warn, &text));
    }
    out.iter().map(|line| format!("{line}\n")).collect()
}

/// Adds a section, unless there is nothing in it; long ones are cut.
fn section<T>(
    out: &mut Vec<String>,
    style: Style,
    title: &str,
    entries: &[T],
    lines: impl Fn(&T) -> Vec<String>,
) {
    if entries.is_empty() {
        return;
    }
    out.push(String::new());
    out.push(style.paint(Tone::Strong, title));
    for entry in entries.iter().take(SHOWN) {
        out.extend(lines(entry).into_iter().map(|line| format!("  {line}")));
    }
    if entries.len() > SHOWN {
        out.push(format!(
            "  … ({} more, with --format json)",
            entries.len() - SHOWN
        ));
    }
}

fn run_lines(out: &mut Vec<String>, overview: &Overview, style: Style) {
    let marks: String = overview
        .runs
        .iter()
        .map(|run| style.paint(tone(run.outcome), mark(run)))
        .collect();
    let walls: Vec<Option<u64>> = overview.runs.iter().map(|run| Some(run.wall_us)).collect();
    out.push(format!("  outcomes  {marks}"));
    out.push(format!(
        "  time      {}  {}",
        blocks(&walls),
        band(overview.wall.as_ref())
    ));
    if let Some(text) = shifted(overview.wall_shift.as_ref(), overview.runs.as_slice()) {
        out.push(style.paint(Tone::Warn, &format!("            {text}")));
    }
    for run in overview.runs.iter().rev().take(5) {
        let word = run.outcome.map_or("unfinished", Outcome::as_str);
        let changed = if run.changed {
            ", another plan than the run before"
        } else {
            ""
        };
        out.push(format!(
            "  {}  {}  {} of {} ok in {}{changed}",
            run.run,
            style.paint(tone(run.outcome), &fit(word, 9)),
            run.ok,
            plural(run.cells, "cell"),
            duration(run.wall_us),
        ));
    }
}

fn tone(outcome: Option<Outcome>) -> Tone {
    outcome.map_or(Tone::Dim, Tone::from)
}

/// Returns the character of a run's outcome.
pub fn mark(run: &RunLine) -> &'static str {
    match run.outcome {
        Some(Outcome::Passed) => "·",
        Some(Outcome::Flaky) => "~",
        Some(Outcome::Failed) => "F",
        Some(Outcome::Errored) => "E",
        Some(Outcome::Skipped) => "s",
        Some(Outcome::Cancelled) => "c",
        None => "…",
    }
}

/// Formats the band of some times.
pub fn band(band: Option<&Band>) -> String {
    match band {
        Some(band) => format!(
            "median {}, usually {} to {}",
            duration(band.median_us),
            duration(band.low_us),
            duration(band.high_us)
        ),
        None => format!(
            "fewer than {} times of ok runs: no noise band",
            super::band::LEAST
        ),
    }
}

fn shifted(shift: Option<&Shift>, runs: &[RunLine]) -> Option<String> {
    let shift = shift?;
    let run = runs.get(shift.since).map_or("", |run| run.run.as_str());
    Some(format!("{} since run {run}", change(shift)))
}

/// Formats a change of times: `12.1s instead of 8.03s (+51 %)`.
pub fn change(shift: &Shift) -> String {
    let share = (shift.after_us as f64 / shift.before_us.max(1) as f64 - 1.0) * 100.0;
    format!(
        "{} instead of {} ({share:+.0} %)",
        duration(shift.after_us),
        duration(shift.before_us)
    )
}

fn slower(one: &Slower) -> String {
    let what = one
        .step
        .as_deref()
        .or(one.cell.as_deref())
        .unwrap_or_default();
    format!(
        "{}: {} since run {}",
        clean(what),
        change(&one.shift),
        one.run
    )
}

/// Formats a verdict: `broken since run 0193…`.
pub fn verdict_text(verdict: Verdict, since: Option<&RunId>) -> String {
    let run = since.map_or("", RunId::as_str);
    match verdict {
        Verdict::Unknown => "not judged by any run".to_owned(),
        Verdict::Steady => "steady".to_owned(),
        Verdict::New { .. } => format!("new: failed in run {run} only"),
        Verdict::Broken { .. } => format!("broken since run {run}"),
        Verdict::Always => "failed in every run".to_owned(),
        Verdict::Fixed { .. } => format!("fixed since run {run}"),
        Verdict::Flaky {
            unsteady,
            of,
            since: None,
        } => format!("flaky: {unsteady} of {of}"),
        Verdict::Flaky { unsteady, of, .. } => format!("flaky since run {run}: {unsteady} of {of}"),
    }
}

fn verdict_tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Broken { .. } | Verdict::New { .. } | Verdict::Always => Tone::Bad,
        Verdict::Flaky { .. } => Tone::Warn,
        Verdict::Fixed { .. } | Verdict::Steady => Tone::Good,
        Verdict::Unknown => Tone::Dim,
    }
}

fn trouble(one: &Trouble, style: Style) -> Vec<String> {
    let step = one.step.as_deref().unwrap_or("outside the steps");
    let said = style.paint(
        verdict_tone(one.verdict),
        &verdict_text(one.verdict, one.since.as_ref()),
    );
    let cells = plural(one.cells.len(), "cell");
    let mut lines = vec![
        format!("{said}  {}", clean(step)),
        format!("  {cells}: {}  {}", clean(&one.place), one.line),
    ];
    match (&one.axis, one.verdict) {
        (Some(axis), _) => lines.push(format!("  {}", self::axis(axis))),
        (None, Verdict::Flaky { .. }) if one.cells.len() > 1 => {
            lines.push("  on no axis value more than on others".to_owned());
        }
        _ => {}
    }
    lines
}

/// Formats where flakiness occurs: `only with db=mysql: 8 of 30, elsewhere 0 of 60`.
pub fn axis(axis: &Axis) -> String {
    let word = if axis.outside.0 == 0 {
        "only"
    } else {
        "mostly"
    };
    let text = format!(
        "{word} with {}={}: {} of {}, elsewhere {} of {}",
        axis.axis, axis.value, axis.inside.0, axis.inside.1, axis.outside.0, axis.outside.1
    );
    clean(&text).into_owned()
}

fn series(one: &Series, width: usize, style: Style) -> String {
    let said = verdict_text(one.verdict, one.since.as_ref());
    let time = one
        .median_us
        .map(|time| format!("  {}", duration(time)))
        .unwrap_or_default();
    let shift = one
        .shift
        .as_ref()
        .map(|shift| format!(", {}", change(shift)))
        .unwrap_or_default();
    format!(
        "{}  {}  {}{time}  {}{shift}",
        fit(&clean(&one.title), width),
        one.line,
        one.times,
        style.paint(verdict_tone(one.verdict), &said),
    )
}

fn widest(all: &[Series]) -> usize {
    let widths = all
        .iter()
        .map(|one| console::measure_text_width(&clean(&one.title)));
    widths.max().unwrap_or(0).min(60)
}

/// Returns the history of a cell.
pub fn cell(cell: &CellHistory, style: Style) -> String {
    let mut out = vec![style.paint(Tone::Strong, &clean(&cell.name))];
    out.push(format!("  {}", series(&cell.series, 0, style).trim_start()));
    out.push(format!("  {}", band(cell.series.band.as_ref())));
    for run in cell.runs.iter().rev().take(SHOWN) {
        let word = run.outcome.map_or("no outcome", Outcome::as_str);
        let time = run.elapsed_us.map(duration).unwrap_or_default();
        let why = match (&run.step, &run.reason) {
            (Some(step), _) => clean(step).into_owned(),
            (None, Some(reason)) => clean(reason).into_owned(),
            (None, None) => String::new(),
        };
        let word = style.paint(tone(run.outcome), &fit(word, 10));
        out.push(
            format!("  {}  {word}  {time:>7}  {why}", run.run)
                .trim_end()
                .to_owned(),
        );
    }
    out.push(String::new());
    out.push(style.paint(Tone::Strong, "steps:"));
    let width = widest(&cell.steps);
    out.extend(
        cell.steps
            .iter()
            .map(|step| format!("  {}", series(step, width, style))),
    );
    out.iter().map(|line| format!("{line}\n")).collect()
}

/// Returns the history of a step.
pub fn step(step: &StepHistory, style: Style) -> String {
    let mut out = vec![style.paint(Tone::Strong, &clean(&step.step))];
    out.extend(
        step.axis
            .as_ref()
            .map(|axis| format!("  flaky {}", self::axis(axis))),
    );
    let width = widest(&step.cells);
    out.extend(
        step.cells
            .iter()
            .take(100)
            .map(|cell| format!("  {}", series(cell, width, style))),
    );
    if step.cells.len() > 100 {
        out.push(format!(
            "  … ({} more, with --format json)",
            plural(step.cells.len() - 100, "cell")
        ));
    }
    out.iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::planted::{Cell, Run, history};
    use super::*;
    use phalanx_shared::outcome::Outcome::{Failed, Passed};

    #[test]
    fn a_break_and_a_flake_read_differently() {
        let run = |number: usize| {
            let broken = if number >= 5 { Failed } else { Passed };
            let flaky = if number % 3 == 1 { Failed } else { Passed };
            let mut cells = vec![
                Cell::of(&[("db", "pg")], broken, 3.0),
                Cell::of(&[("db", "mysql")], flaky, 2.0),
            ];
            cells[1].steps[0].0 = "pay";
            Run::of(number, cells)
        };
        let runs: Vec<Run> = (0..9).map(run).collect();
        let found = super::super::overview::overview("shop", &history(&runs), runs[8].at(9.0));
        let text = overview(&found, Style::PLAIN);
        for line in [
            "shop: 9 runs",
            "  outcomes  ·F··FFFFF",
            "  broken since run run-005  test > check",
            "    1 cell: pg  ·····FFFF",
            "  flaky: 3 of 9  test > pay",
            "    1 cell: mysql  ·F··F··F·",
            "  run-008  failed     1 of 2 cells ok in 3.00s",
        ] {
            assert!(text.lines().any(|known| known == line), "{line}\n{text}");
        }
    }
}
