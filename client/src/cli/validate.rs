//! `phalanx validate SPEC`: reports all mistakes of a spec at once. It also plans the spec with the defaults of its
//! inputs, because many mistakes show only then: an empty axis, an `exclude` that matches nothing, a `when` that is
//! never true. Runs nothing.

use super::diagnostics::{self, Style};
use crate::prepare::prepare;
use crate::spec_file;
use phalanx_coordinator::journal::Submission;
use phalanx_shared::diagnostic::Diagnostic;
use phalanx_shared::language::Loaded;
use phalanx_shared::language::model::{Action, Spec, Step};
use phalanx_shared::plan;
use std::io::Write;

/// Arguments of the command.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Path to the spec; `-` for standard input
    pub spec: String,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

/// Output format of findings.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text with the place underlined.
    Human,
    /// `{"valid", "diagnostics"}`.
    Json,
    /// Workflow commands of GitHub Actions.
    Github,
}

/// Runs the command. Returns 0, or 2 if there is an error.
pub fn run(args: &Args) -> u8 {
    let mut loaded = spec_file::load(&args.spec);
    planned(&args.spec, &mut loaded);
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

/// Adds what planning with the defaults finds. A spec that requires an input, or whose `require` fails with the
/// defaults, can't be planned like that, but isn't wrong.
fn planned(path: &str, loaded: &mut Loaded) {
    let (Some(spec), Ok(root)) = (&loaded.spec, spec_file::folder(path)) else {
        return;
    };
    if spec.inputs.iter().any(|input| input.default.is_none()) {
        return;
    }
    let submission = Submission {
        files: loaded.sources.files.clone(),
        ..Submission::default()
    };
    match prepare(submission, &root, None) {
        Ok(prepared) => {
            let new = |warning: &Diagnostic| !loaded.diagnostics.contains(warning);
            let found = prepared.warnings.into_iter().filter(new);
            let found: Vec<Diagnostic> = found.collect();
            loaded.diagnostics.extend(found);
            loaded
                .diagnostics
                .extend(plan::advice(spec, &prepared.plan));
        }
        Err(refusal) => {
            let required = |problem: &Diagnostic| {
                let mut wanted = spec.require.iter().map(|require| Some(require.that.span));
                wanted.any(|span| span == problem.span)
            };
            if !refusal.diagnostics.iter().all(required) {
                loaded.diagnostics.extend(refusal.diagnostics);
                loaded.spec = None;
            }
        }
    }
    loaded
        .diagnostics
        .sort_by_key(|found| found.span.map(|span| (span.file, span.offset)));
}

/// Prints the mistakes of a spec to standard error, for commands that need a valid spec.
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

/// Summarizes the spec in one line.
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
