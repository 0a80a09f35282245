//! `phalanx validate SPEC…`: reports all mistakes of specs at once. It also plans a spec with the defaults of its
//! inputs, because many mistakes show only then: an empty axis, an `exclude` that matches nothing, a `when` that is
//! never true. It looks for the files that services need, and whether they travel. Runs nothing.

use super::diagnostics::{self, Style};
use crate::prepare;
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
    /// Paths to the specs; `-` for standard input
    #[arg(required = true, value_name = "SPEC")]
    pub specs: Vec<String>,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

/// Output format of findings.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text with the place underlined.
    Human,
    /// `{"valid", "diagnostics"}`; of several specs `{"valid", "specs": [{"spec", "valid", "diagnostics"}]}`.
    Json,
    /// Workflow commands of GitHub Actions.
    Github,
}

/// Runs the command. Returns 0, or 2 if there is an error in any spec.
pub fn run(args: &Args) -> u8 {
    let mut all = Vec::new();
    for path in &args.specs {
        let loaded = checked(path);
        // A closed pipe is the reader's choice.
        let _ = match args.format {
            Format::Human => human(path, &loaded),
            Format::Json => Ok(()),
            Format::Github => {
                let text = diagnostics::github(&loaded.diagnostics, &loaded.sources);
                write!(std::io::stdout().lock(), "{text}")
            }
        };
        all.push((path, loaded));
    }
    if args.format == Format::Json {
        let _ = writeln!(std::io::stdout().lock(), "{:#}", json(&all));
    }
    match all.iter().all(|(_, loaded)| loaded.spec.is_some()) {
        true => 0,
        false => 2,
    }
}

/// Loads a spec and plans it.
pub fn checked(path: &str) -> Loaded {
    let mut loaded = spec_file::load(path);
    planned(path, &mut loaded);
    loaded
}

/// Returns the findings of all specs.
fn json(all: &[(&String, Loaded)]) -> serde_json::Value {
    let report = |loaded: &Loaded| {
        serde_json::json!({
            "valid": loaded.spec.is_some(),
            "diagnostics": diagnostics::json(&loaded.diagnostics, &loaded.sources),
        })
    };
    if let [(_, only)] = all {
        return report(only);
    }
    let specs: Vec<_> = all
        .iter()
        .map(|(path, loaded)| {
            let mut report = report(loaded);
            report["spec"] = path.as_str().into();
            report
        })
        .collect();
    let valid = all.iter().all(|(_, loaded)| loaded.spec.is_some());
    serde_json::json!({ "valid": valid, "specs": specs })
}

/// Adds what planning with the defaults finds. A spec that requires an input, or whose `require` fails with the
/// defaults, can't be planned like that, but isn't wrong; its workspace is looked at all the same.
fn planned(path: &str, loaded: &mut Loaded) {
    let (Some(spec), Ok(root)) = (&loaded.spec, spec_file::folder(path)) else {
        return;
    };
    let submission = Submission {
        files: loaded.sources.files.clone(),
        ..Submission::default()
    };
    let wanting = spec.inputs.iter().any(|input| input.default.is_none());
    let prepared = match wanting {
        true => prepare::workspace_of(&submission, &root).map(|warnings| (warnings, None)),
        false => prepare::prepare(submission, &root, None)
            .map(|prepared| (prepared.warnings, Some(prepared.plan))),
    };
    match prepared {
        Ok((warnings, plan)) => {
            let new = |warning: &Diagnostic| !loaded.diagnostics.contains(warning);
            let found: Vec<Diagnostic> = warnings.into_iter().filter(new).collect();
            loaded.diagnostics.extend(found);
            if let Some(plan) = plan {
                loaded.diagnostics.extend(plan::advice(spec, &plan));
            }
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
