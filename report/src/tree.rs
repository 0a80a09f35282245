//! A cell in full: each attempt with its services, and its phases, groups and steps as a tree.

use super::style::{Style, Tone};
use super::text::{Line, cell_title, clean, duration, failure, plural, printed};
use super::view::{AttemptView, CellView, StepKind, StepView};
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
        let line = format!("  service {} {state}{detail}", clean(&service.name));
        let _ = writeln!(out, "{}", style.paint(Tone::Dim, &line));
    }
    for step in &attempt.steps {
        step_lines(out, step, style, verbose);
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
    if step.outcome != Some(Outcome::Skipped) {
        facts.push(duration(step.elapsed_us));
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
    let output = step.output.iter();
    for Line { tone, text } in output.flat_map(|output| printed(output, verbose)) {
        let _ = writeln!(out, "{indent}    {}", style.paint(tone, &text));
    }
}
