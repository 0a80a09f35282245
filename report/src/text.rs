//! Text for people: durations, counts, fixed-width table cells, and the lines that describe a failure. Text from
//! outside goes through [`clean`], so that it can't control the terminal.

use super::style::{Style, Tone};
use super::view::{AttemptView, CellView, Counts, RunView, StepView};
use crate::view::coverage::CoverageEntry;
use console::measure_text_width;
use indexmap::{IndexMap, IndexSet};
use phalanx_shared::event::{Captured, Output, Restored, SnapshotState};
use phalanx_shared::mask::plain;
use phalanx_shared::outcome::Outcome;
use std::borrow::Cow;

/// A line in one tone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Meaning of the line.
    pub tone: Tone,
    /// Text without a line break.
    pub text: String,
}

impl Line {
    /// Returns a line in this tone.
    pub fn new(tone: Tone, text: impl Into<String>) -> Line {
        Line {
            tone,
            text: text.into(),
        }
    }
}

/// Returns why a run fails although none of its cells does: more steps were skipped than the spec allows. `None` if that
/// didn't decide.
pub fn too_many_skips(view: &RunView) -> Option<String> {
    let decided = view.outcome == Some(Outcome::Failed) && view.cells_by_outcome.failed == 0;
    let most = view.max_skips.filter(|_| decided)?;
    let skipped = plural(view.steps_by_outcome.skipped, "skipped step");
    Some(format!(
        "{skipped}, and `max-skips` allows {most}: the run fails"
    ))
}

/// Joins lines to a text; each line ends with a line break.
pub fn lines_text(lines: &[Line], style: Style) -> String {
    lines
        .iter()
        .map(|line| style.paint(line.tone, &line.text) + "\n")
        .collect()
}

/// Formats a duration: `0.31s`, `12.3s`, `3m05s`, `1h02m`.
pub fn duration(micros: u64) -> String {
    let tenths = micros / 100_000;
    let seconds = micros / 1_000_000;
    match seconds {
        0..10 => format!("{:.2}s", (micros / 10_000) as f64 / 100.0),
        10..60 => format!("{}.{}s", seconds, tenths % 10),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// Returns a number with its noun: `1 cell`, `2 cells`.
pub fn plural(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}

/// Returns the counts of all outcomes that occur: `24 passed, 2 failed, 1 skipped`.
pub fn counts(counts: &Counts) -> Vec<(Tone, String)> {
    const ORDER: [Option<Outcome>; 7] = [
        Some(Outcome::Passed),
        Some(Outcome::Flaky),
        Some(Outcome::Failed),
        Some(Outcome::Errored),
        Some(Outcome::Cancelled),
        Some(Outcome::Skipped),
        None,
    ];
    let mut parts: Vec<(Tone, String)> = ORDER
        .into_iter()
        .filter(|outcome| counts.of(*outcome) > 0)
        .map(|outcome| {
            let word = outcome.map_or("unfinished", Outcome::as_str);
            let tone = outcome.map_or(Tone::Warn, Tone::from);
            (tone, format!("{} {word}", counts.of(outcome)))
        })
        .collect();
    if counts.restored > 0 {
        let after_passed = usize::from(counts.passed > 0);
        let text = format!("{} restored", counts.restored);
        parts.insert(after_passed, (Tone::Good, text));
    }
    if counts.not_run > 0 {
        parts.push((Tone::Warn, format!("{} not run", counts.not_run)));
    }
    parts
}

/// Returns from what a step was restored: `restored from snapshot 0a1b2c3d4e5f (run 7)`.
pub fn restored(restored: &Restored) -> String {
    let Restored { key, run, .. } = restored;
    format!(
        "restored from snapshot {} (run {})",
        short_key(key),
        clean(run.as_str())
    )
}

/// Returns the beginning of a snapshot's key, by which people know it.
pub fn short_key(key: &str) -> Cow<'_, str> {
    clean(key.get(..12).unwrap_or(key))
}

/// Returns what became of the snapshots of a run: what was restored from each, what was saved, and what couldn't be used.
pub fn snapshots(view: &RunView) -> Vec<String> {
    /// Maximum number of lines.
    const LINES: usize = 20;
    let mut from: IndexMap<&str, (&Restored, usize, IndexSet<&str>)> = IndexMap::new();
    // Size of each snapshot, and the longest time that copying its files took.
    let mut copied: IndexMap<&str, (u64, u64)> = IndexMap::new();
    let mut events = Vec::new();
    for cell in &view.cells {
        for step in cell.steps().filter(|step| step.is_restored()) {
            if let Some(of) = &step.restored {
                let known = from
                    .entry(of.key.as_str())
                    .or_insert((of, 0, IndexSet::new()));
                known.1 += 1;
                known.2.insert(cell.id.as_str());
            }
        }
        let newest = cell.newest().into_iter();
        let waited = |attempt: &&AttemptView| {
            let mut seen = attempt.snapshots.iter();
            seen.any(|seen| seen.state == SnapshotState::Waiting)
        };
        // The time of a cell that waited for another one is mostly that.
        let own = newest.clone().filter(|attempt| !waited(attempt));
        for seen in own.flat_map(|attempt| &attempt.snapshots) {
            if seen.state == SnapshotState::Restored {
                let (size, took) = copied.entry(seen.key.as_str()).or_default();
                *size = (*size).max(seen.bytes);
                *took = (*took).max(seen.elapsed_us);
            }
        }
        for seen in newest.flat_map(|attempt| &attempt.snapshots) {
            let key = short_key(&seen.key);
            let took = duration(seen.elapsed_us);
            let name = clean(&cell.name);
            let reason = seen.reason.as_deref().unwrap_or("no reason given");
            let reason = clean(reason);
            match seen.state {
                SnapshotState::Saved => events.push(format!(
                    "saved {key} in {name}: {} in {took}",
                    bytes(seen.bytes)
                )),
                SnapshotState::Unsaved => events.push(format!("not saved in {name}: {reason}")),
                SnapshotState::Discarded => {
                    events.push(format!("{key} was discarded in {name}: {reason}"));
                }
                SnapshotState::Missed | SnapshotState::Waiting | SnapshotState::Restored => {}
            }
        }
    }
    let lines = from.into_values().map(|(of, steps, cells)| {
        let (steps, cells) = (plural(steps, "step"), plural(cells.len(), "cell"));
        let copied = copied.get(of.key.as_str());
        let copied = copied.map_or_else(String::new, |(size, took)| {
            format!(": {} in {}", bytes(*size), duration(*took))
        });
        format!("{steps} in {cells} {}{copied}", restored(of))
    });
    let mut lines: Vec<String> = lines.chain(events).collect();
    if lines.len() > LINES {
        let more = lines.len() - LINES;
        lines.truncate(LINES);
        lines.push(format!("… ({more} more)"));
    }
    lines
}

/// Returns a size as people read it: `1.2 GiB`.
pub fn bytes(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss)] // A number for people.
    let mib = bytes as f64 / 1_048_576.0;
    match mib {
        mib if mib >= 1_024.0 => format!("{:.1} GiB", mib / 1_024.0),
        mib if mib >= 1.0 => format!("{mib:.0} MiB"),
        _ => format!("{} KiB", bytes.div_ceil(1_024)),
    }
}

/// Returns the counts of test cases: `14 cases: 12 passed, 2 failed`.
pub fn cases_text(cases: &Counts) -> String {
    let parts: Vec<String> = counts(cases).into_iter().map(|(_, text)| text).collect();
    format!("{}: {}", plural(cases.total, "case"), parts.join(", "))
}

/// Returns the text without colours and other escape sequences (masks find secrets in spite of them). Remaining control
/// characters become visible, tabs become spaces.
pub fn clean(text: &str) -> Cow<'_, str> {
    let harmless = |c: char| !c.is_control() && !is_direction(c);
    if text.chars().all(harmless) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in plain(text).chars() {
        match c {
            '\t' => out.push_str("    "),
            c if harmless(c) => out.push(c),
            c => out.extend(c.escape_unicode()),
        }
    }
    Cow::Owned(out)
}

/// Returns whether the character reorders the text after it on the screen.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Fits a text into exactly `width` columns: padded, or cut in the middle because names differ at their ends.
pub fn fit(text: &str, width: usize) -> String {
    let measured = measure_text_width(text);
    if measured <= width {
        return format!("{text}{}", " ".repeat(width - measured));
    }
    if width <= 1 {
        return "…".repeat(width);
    }
    let tail_width = (width - 1) / 2;
    let mut tail_start = text.len();
    for (at, _) in text.char_indices().rev() {
        if measure_text_width(text.get(at..).unwrap_or_default()) > tail_width {
            break;
        }
        tail_start = at;
    }
    let tail = text.get(tail_start..).unwrap_or_default();
    let head_width = width - 1 - measure_text_width(tail);
    let mut head_end = 0;
    for (at, c) in text.char_indices() {
        let end = at + c.len_utf8();
        if measure_text_width(text.get(..end).unwrap_or_default()) > head_width {
            break;
        }
        head_end = end;
    }
    let cut = format!("{}…{tail}", text.get(..head_end).unwrap_or_default());
    let measured = measure_text_width(&cut);
    format!("{cut}{}", " ".repeat(width.saturating_sub(measured)))
}

/// Returns the lines below a failed step's headline, which help to find the cause.
pub fn failure(step: &StepView) -> Vec<Line> {
    let mut lines = Vec::new();
    let details = step.failure.as_ref();
    if let Some(place) = details.and_then(|details| details.place.as_deref()) {
        lines.push(Line::new(Tone::Dim, format!("at {}", clean(place))));
    }
    let failed_checks = step.checks.iter().filter(|check| !check.passed);
    if let Some(reason) = &step.reason
        && !failed_checks.clone().any(|check| check.is_reason(reason))
    {
        block(&mut lines, Tone::Bad, "", reason);
    }
    for check in failed_checks {
        lines.push(Line::new(
            Tone::Bad,
            format!("check failed: {}", clean(&check.expression)),
        ));
        if let Some(error) = &check.error {
            block(&mut lines, Tone::Bad, "    ", error);
        }
        let widest = check
            .parts
            .iter()
            .map(|part| measure_text_width(&part.text))
            .max();
        let widest = widest.unwrap_or(0).min(40);
        for part in &check.parts {
            let text = clean(&part.text);
            let pad = " ".repeat(widest.saturating_sub(measure_text_width(&text)));
            lines.push(Line::new(
                Tone::Plain,
                format!("    {text}{pad} = {}", clean(&part.value)),
            ));
        }
    }
    let passed = step.checks.iter().filter(|check| check.passed).count();
    if passed > 0 && passed < step.checks.len() {
        lines.push(Line::new(
            Tone::Dim,
            format!("({} passed)", plural(passed, "other check")),
        ));
    }
    let Some(details) = details else {
        return lines;
    };
    for (title, text) in [
        ("request", &details.request),
        (title_of_response(step), &details.response),
    ] {
        if let Some(text) = text {
            lines.push(Line::new(Tone::Strong, format!("{title}:")));
            block(&mut lines, Tone::Plain, "| ", text);
        }
    }
    for note in &details.notes {
        block(&mut lines, Tone::Plain, "", note);
    }
    for tail in &details.logs {
        lines.push(Line::new(
            Tone::Strong,
            format!("last lines of {}:", clean(&tail.service)),
        ));
        for line in &tail.lines {
            block(&mut lines, Tone::Dim, "| ", line);
        }
    }
    lines
}

/// Returns the title of a failure's response. A test case has none, but a stack trace and what it printed.
pub(crate) fn title_of_response(step: &StepView) -> &'static str {
    match step.is_case() {
        true => "details",
        false => "response",
    }
}

/// Lines to show of each output of a passed step, unless all are wanted.
const LAST: usize = 10;

/// Returns the output of a passed step's command: all that was kept, or the last lines.
pub fn printed(output: &Output, all: bool) -> Vec<Line> {
    let mut lines = Vec::new();
    for (title, text) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        if text.is_empty() {
            continue;
        }
        lines.push(Line::new(Tone::Dim, format!("{title}:")));
        let count = text.lines().count();
        let before = if all { 0 } else { count.saturating_sub(LAST) };
        if before > 0 {
            let more = format!("… ({} before, with --verbose)", plural(before, "line"));
            lines.push(Line::new(Tone::Dim, more));
        }
        let rest: Vec<&str> = text.lines().skip(before).map(last_seen).collect();
        let rest = rest.join("\n");
        block(&mut lines, Tone::Dim, "| ", &rest);
    }
    if output.left_out > 0 {
        let text = format!(
            "printed {}, not kept: the steps before it printed as much as is kept of a cell",
            plural(output.left_out as usize, "byte")
        );
        lines.push(Line::new(Tone::Dim, text));
    }
    lines
}

/// Characters to show of each captured value, unless all are wanted.
const VALUE: usize = 120;

/// Returns the values that a step captured: all that was kept, or the beginning of each.
pub fn captured(captured: &[Captured], all: bool) -> Vec<Line> {
    let lines = captured.iter().map(|one| {
        let most = if all { usize::MAX } else { VALUE };
        let (name, (value, cut)) = (clean(&one.name), shown_value(&one.value, most));
        let cut = u64::try_from(cut).unwrap_or(u64::MAX);
        let text = match one.left_out.saturating_add(cut) {
            0 => format!("captured {name} = {value}"),
            bytes => {
                let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                format!(
                    "captured {name} = {value}… ({} more)",
                    plural(bytes, "byte")
                )
            }
        };
        Line::new(Tone::Dim, text)
    });
    lines.collect()
}

/// Returns the first characters of a value in one line, and the number of bytes that follow.
fn shown_value(value: &str, most: usize) -> (std::borrow::Cow<'_, str>, usize) {
    let end = value
        .char_indices()
        .nth(most)
        .map_or(value.len(), |(at, _)| at);
    let head = value.get(..end).unwrap_or_default();
    (clean(head), value.len() - head.len())
}

/// Returns what a terminal would finally show of a line that overwrites itself, as progress bars do.
fn last_seen(line: &str) -> &str {
    let line = line.trim_end_matches('\r');
    line.rsplit_once('\r').map_or(line, |(_, last)| last)
}

fn block(lines: &mut Vec<Line>, tone: Tone, prefix: &str, text: &str) {
    for line in text.lines() {
        lines.push(Line::new(
            tone,
            format!("{prefix}{}", clean(line)).trim_end(),
        ));
    }
}

/// Returns `phase > step`, the title of a step in lines and headlines.
pub fn step_title(phase: &str, name: &str) -> String {
    if phase == name {
        clean(name).into_owned()
    } else {
        format!("{} > {}", clean(phase), clean(name))
    }
}

/// Returns the cell's title in lists of failures.
pub fn cell_title(cell: &CellView) -> String {
    let mark = if cell.experimental {
        " (experimental)"
    } else {
        ""
    };
    format!("{}{mark}", clean(&cell.name))
}

/// Returns the text of a coverage entry: the state, or the number of cells in each state, with the numbers of the
/// reasons.
pub fn entry_text(entry: &CoverageEntry, reasons: &IndexSet<&str>) -> String {
    let parts: Vec<String> = entry
        .parts
        .iter()
        .map(|part| {
            let number = part
                .short_reason()
                .and_then(|reason| reasons.get_index_of(reason));
            let number = number
                .map(|index| format!(" [{}]", index + 1))
                .unwrap_or_default();
            let restored = match part.restored {
                0 => String::new(),
                all if all == part.cells => " (restored)".to_owned(),
                some => format!(" ({some} restored)"),
            };
            let state = part.state.as_str();
            match entry.parts.len() {
                1 => format!("{state}{restored}{number}"),
                _ => format!("{} {state}{restored}{number}", part.cells),
            }
        })
        .collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_two_or_three_telling_digits() {
        let shown = [
            4_000,
            310_000,
            9_999_999,
            12_340_000,
            185_000_000,
            3_725_000_000,
        ]
        .map(duration);
        assert_eq!(
            shown,
            ["0.00s", "0.31s", "9.99s", "12.3s", "3m05s", "1h02m"]
        );
    }

    #[test]
    fn a_name_is_cut_in_the_middle_to_the_exact_width() {
        assert_eq!(fit("local / v4.5.8 / ipv4 / pve", 14), "local /… / pve");
        assert_eq!(fit("pve", 5), "pve  ");
        assert_eq!(measure_text_width(&fit("日本語日本語日本語", 8)), 8);
    }

    #[test]
    fn of_a_passed_command_empty_lines_stay_and_progress_is_seen_as_on_a_terminal() {
        let output = Output {
            stdout: "a\n\n 5 %\r50 %\r99 %\r\nb\r\n".to_owned(),
            left_out: 3,
            ..Output::default()
        };
        let shown: Vec<String> = printed(&output, true).into_iter().map(|l| l.text).collect();
        let left =
            "printed 3 bytes, not kept: the steps before it printed as much as is kept of a cell";
        assert_eq!(shown, ["stdout:", "| a", "|", "| 99 %", "| b", left]);
    }

    #[test]
    fn escape_sequences_from_outside_do_not_reach_the_terminal() {
        assert_eq!(clean("\u{1b}[31mx\ty\u{1b}[0m"), "x    y");
        assert_eq!(clean("\u{1b}[2Ja\rb\u{7}"), "a\\u{d}b\\u{7}");
        assert_eq!(clean("a\u{202e}b"), "a\\u{202e}b");
    }
}
