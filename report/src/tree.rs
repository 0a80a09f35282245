//! A cell in full: each attempt with its services, and its phases, groups and steps as a tree.

use super::style::{Style, Tone};
use super::text::{
    Line, bytes, captured, cases_text, cell_title, clean, duration, failure, plural, printed,
    restored, short_key,
};
use super::view::{AttemptView, CellView, SnapshotReport, StepKind, StepView};
use phalanx_shared::language::quantity::spelled_bytes;
use phalanx_shared::outcome::Outcome;
use std::fmt::Write;

/// Returns the cell's lines. `verbose` also shows checks that held.
pub fn render(cell: &CellView, style: Style, verbose: bool) -> String {
    let mut out = String::new();
    let outcome = cell.outcome.map_or("unfinished", Outcome::as_str);
    let tone = cell.outcome.map_or(Tone::Busy, Tone::from);
    let elapsed = cell
        .elapsed_us
        .map(|elapsed| format!(" in {}", duration(elapsed)))
        .unwrap_or_default();
    let _ = writeln!(
        out,
        "{} ... {}{elapsed} (cell {})",
        style.paint(Tone::Strong, &cell_title(cell)),
        style.paint(tone, outcome),
        cell.id
    );
    if let Some(reason) = &cell.reason {
        let _ = writeln!(out, "  {}", style.paint(tone, &clean(reason)));
    }
    for reason in &cell.returned {
        let _ = writeln!(out, "  an offer came to nothing: {}", clean(reason));
    }
    for attempt in &cell.attempts {
        attempt_lines(&mut out, attempt, style, verbose);
    }
    out
}

fn attempt_lines(out: &mut String, attempt: &AttemptView, style: Style, verbose: bool) {
    let outcome = attempt.outcome.map_or("unfinished", Outcome::as_str);
    let tone = attempt.outcome.map_or(Tone::Busy, Tone::from);
    let elapsed = attempt
        .elapsed_us
        .map(|elapsed| format!(" in {}", duration(elapsed)))
        .unwrap_or_default();
    let _ = writeln!(
        out,
        "\nattempt {} on {} ... {}{elapsed}",
        attempt.attempt,
        clean(&attempt.agent),
        style.paint(tone, outcome)
    );
    if let Some(reason) = &attempt.reason {
        let _ = writeln!(out, "  {}", style.paint(tone, &clean(reason)));
    }
    for service in &attempt.services {
        let state = serde_json::to_value(service.state).ok();
        let state = state
            .as_ref()
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let detail = service
            .detail
            .as_deref()
            .map(|detail| format!(" ({})", clean(detail)))
            .unwrap_or_default();
        let restarted = service
            .restarted()
            .map(|restarted| format!(", {restarted}"))
            .unwrap_or_default();
        let line = format!(
            "  service {} {state}{detail}{restarted}",
            clean(&service.name)
        );
        let _ = writeln!(out, "{}", style.paint(Tone::Dim, &line));
    }
    for seen in &attempt.snapshots {
        let line = snapshot_line(seen);
        let _ = writeln!(out, "{}", style.paint(Tone::Dim, &line));
    }
    let mut steps = attempt.steps.as_slice();
    while let Some((step, rest)) = steps.split_first() {
        let passed = steps.iter().take_while(|next| is_passed_case(next)).count();
        if passed > FOLDED && !verbose {
            let (_, rest) = steps.split_at(passed);
            let indent = "  ".repeat(step.depth + 1);
            let text = format!(
                "{} ... {}",
                plural(passed, "case"),
                style.paint(Tone::Good, "passed")
            );
            let _ = writeln!(out, "{indent}{text}");
            steps = rest;
            continue;
        }
        let unreached = steps.iter().take_while(|next| is_like(step, next)).count();
        match unreached {
            0 | 1 => {
                step_lines(out, step, style, verbose);
                steps = rest;
            }
            _ if verbose => {
                step_lines(out, step, style, verbose);
                steps = rest;
            }
            many => {
                let (folded, rest) = steps.split_at(many);
                folded_lines(out, folded, style);
                steps = rest;
            }
        }
    }
    for artifact in &attempt.artifacts {
        let line = match &artifact.lack {
            None => format!(
                "  artifact {} ({})",
                clean(&artifact.name),
                spelled_bytes(artifact.size)
            ),
            Some(lack) => format!(
                "  artifact {} not kept: {}",
                clean(&artifact.from),
                clean(&lack.reason)
            ),
        };
        let tone = match artifact.is_kept() {
            true => Tone::Dim,
            false => Tone::Warn,
        };
        let _ = writeln!(out, "{}", style.paint(tone, &line));
    }
    for note in &attempt.notes {
        let _ = writeln!(out, "  note: {}", clean(note));
    }
    if let Some(done) = &attempt.clean_up {
        let mut line = format!(
            "  clean-up: {} removed in {}",
            plural(done.removed as usize, "object"),
            duration(done.elapsed_us)
        );
        for kept in &done.kept {
            line += &format!(
                "; kept {} at {}",
                clean(&kept.service),
                clean(&kept.address)
            );
        }
        let _ = writeln!(out, "{}", style.paint(Tone::Dim, &line));
        if !done.left.is_empty() {
            let line = format!("  could not remove {}", clean(&done.left.join(", ")));
            let _ = writeln!(out, "{}", style.paint(Tone::Bad, &line));
        }
    }
}

/// Returns what became of a snapshot.
fn snapshot_line(seen: &SnapshotReport) -> String {
    let state: &str = seen.state.into();
    let mut line = format!("  snapshot of {}: {state}", clean(&seen.path));
    if !seen.key.is_empty() {
        let _ = write!(line, ", {}", short_key(&seen.key));
    }
    if let Some(run) = &seen.run {
        let _ = write!(line, " of run {}", clean(run.as_str()));
    }
    if seen.bytes > 0 {
        let _ = write!(line, ", {}", bytes(seen.bytes));
    }
    if seen.elapsed_us > 0 {
        let _ = write!(line, ", in {}", duration(seen.elapsed_us));
    }
    if let Some(reason) = &seen.reason {
        let _ = write!(line, ": {}", clean(reason));
    }
    line
}

/// Passed test cases in a row that are shown one by one.
const FOLDED: usize = 10;

fn is_passed_case(step: &StepView) -> bool {
    step.is_case() && step.outcome == Some(Outcome::Passed)
}

/// Returns whether a step wasn't reached for the same reason as the first one, which wasn't either.
fn is_like(first: &StepView, next: &StepView) -> bool {
    first.unreached && next.unreached && first.reason == next.reason
}

/// Writes one line for steps that were not reached. A phase or a group counts by the steps in it.
fn folded_lines(out: &mut String, steps: &[StepView], style: Style) {
    let Some(first) = steps.first() else { return };
    let leaves = steps.iter().filter(|step| step.kind == StepKind::Step);
    let count = leaves.count().max(1);
    let indent = "  ".repeat(steps.iter().map(|step| step.depth).min().unwrap_or(0) + 1);
    let reason = first.reason.as_deref().unwrap_or("no reason given");
    let _ = writeln!(
        out,
        "{indent}{} ... {}: {}",
        plural(count, "step"),
        style.paint(Tone::Warn, first.word()),
        clean(reason)
    );
}

fn step_lines(out: &mut String, step: &StepView, style: Style, verbose: bool) {
    let indent = "  ".repeat(step.depth + 1);
    let outcome = step.word();
    let tone = step.outcome.map_or(Tone::Busy, Tone::from);
    let name = clean(&step.name);
    let name = match step.kind {
        StepKind::Phase => style.paint(Tone::Strong, &name),
        StepKind::Group | StepKind::Step => name.into_owned(),
    };
    let mut facts = Vec::new();
    if let Some(of) = step.restored.as_ref().filter(|_| step.is_restored()) {
        let from = restored(of);
        let from = from.strip_prefix("restored ").unwrap_or(&from);
        facts.push(format!("{from}, took {} then", duration(of.elapsed_us)));
    } else if step.outcome != Some(Outcome::Skipped) {
        facts.push(duration(step.elapsed_us));
    }
    if let Some(cases) = &step.cases {
        facts.push(cases_text(cases));
    }
    if step.tries > 1 {
        facts.push(format!("{} tries", step.tries));
    }
    if step.polls > 1 {
        facts.push(plural(step.polls as usize, "poll"));
    }
    let facts = if facts.is_empty() {
        String::new()
    } else {
        format!(" {}", facts.join(", "))
    };
    let reason = match (&step.reason, step.outcome) {
        (Some(reason), Some(Outcome::Skipped | Outcome::Flaky | Outcome::Cancelled)) => {
            format!(": {}", clean(reason))
        }
        _ => String::new(),
    };
    let _ = writeln!(
        out,
        "{indent}{name} ... {}{facts}{reason}",
        style.paint(tone, outcome)
    );
    let bad = step.outcome.is_some_and(|outcome| !outcome.is_ok());
    if bad && step.reported {
        for Line { tone, text } in failure(step) {
            let _ = writeln!(out, "{indent}    {}", style.paint(tone, &text));
        }
        return;
    }
    if verbose {
        for check in &step.checks {
            let _ = writeln!(
                out,
                "{indent}    {}",
                style.paint(Tone::Dim, &format!("held: {}", clean(&check.expression)))
            );
        }
    }
    for Line { tone, text } in captured(&step.captured, verbose) {
        let _ = writeln!(out, "{indent}    {}", style.paint(tone, &text));
    }
    let output = step.output.iter();
    for Line { tone, text } in output.flat_map(|output| printed(output, verbose)) {
        let _ = writeln!(out, "{indent}    {}", style.paint(tone, &text));
    }
}
