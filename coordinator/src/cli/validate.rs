//! `phalanx validate SPEC`: all that is wrong with a spec, at once. Plans nothing and runs nothing.

use super::diagnostics::{self, Style};
use crate::spec_file;
use phalanx_shared::spec::Loaded;
use phalanx_shared::spec::model::{Action, Spec, Step};
use std::io::Write;

/// What the command takes.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The spec's file; `-` is standard input.
    pub spec: String,
    /// How findings are printed.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

/// How findings are printed.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// With the text underlined.
    Human,
    /// `{"valid", "diagnostics"}`.
    Json,
    /// Workflow commands of GitHub Actions.
    Github,
}

/// Validates; the exit code is 0, or 2 if there is an error.
pub fn run(args: &Args) -> u8 {
    let loaded = spec_file::load(&args.spec);
    // A closed pipe is the reader's choice.
    let _ = match args.format {
        Format::Human => human(&args.spec, &loaded),
        Format::Json => {
            let report = serde_json::json!({
                "valid": loaded.spec.is_some(),
                "diagnostics": diagnostics::json(&loaded.diagnostics, &loaded.sources),
            });
            writeln!(std::io::stdout().lock(), "{report:#}")
        }
        Format::Github => {
            let text = diagnostics::github(&loaded.diagnostics, &loaded.sources);
            write!(std::io::stdout().lock(), "{text}")
        }
    };
    exit_code(&loaded)
}

/// Prints what is wrong with a spec to standard error; for commands that need it to be right.
pub fn complain(loaded: &Loaded) {
    let style = Style::of(&std::io::stderr());
    let text = diagnostics::render(&loaded.diagnostics, &loaded.sources, style);
    let _ = write!(std::io::stderr().lock(), "{text}");
}

fn exit_code(loaded: &Loaded) -> u8 {
    if loaded.spec.is_some() { 0 } else { 2 }
}

fn human(path: &str, loaded: &Loaded) -> std::io::Result<()> {
    complain(loaded);
    let count = diagnostics::count(&loaded.diagnostics);
    match &loaded.spec {
        Some(spec) if count.is_empty() => {
            writeln!(std::io::stdout().lock(), "{path}: {}", summary(spec))
        }
        Some(spec) => writeln!(
            std::io::stdout().lock(),
            "{path}: {} ({count})",
            summary(spec)
        ),
        None => writeln!(std::io::stderr().lock(), "{path}: {count}"),
    }
}

/// One line on what the spec holds.
fn summary(spec: &Spec) -> String {
    let steps = spec
        .phases
        .iter()
        .map(|phase| count_steps(&phase.steps))
        .sum();
    let counts = [
        (spec.strategy.axes.len(), "axis", "axes"),
        (spec.services.len(), "service", "services"),
        (spec.phases.len(), "phase", "phases"),
        (steps, "step", "steps"),
        (spec.coverage.len(), "coverage row", "coverage rows"),
    ];
    let words: Vec<String> = counts
        .iter()
        .filter(|(count, ..)| *count > 0)
        .map(|(count, one, many)| format!("{count} {}", if *count == 1 { one } else { many }))
        .collect();
    format!("{} is valid: {}", spec.name, words.join(", "))
}

fn count_steps(steps: &[Step]) -> usize {
    let inner = |step: &Step| match &step.action {
        Action::Steps(steps) | Action::Parallel(steps) => count_steps(steps),
        _ => 1,
    };
    steps
        .iter()
        .map(|step| inner(step) + count_steps(&step.otherwise))
        .sum()
}
