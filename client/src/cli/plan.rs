//! `phalanx plan SPEC`: lists the cells of a spec with the given inputs, as a table, as JSON, or as a matrix for GitHub.
//! Runs nothing and needs no coordinator.

use super::error::CliError;
use super::ready::{prepared, warn};
use super::selection::Selection;
use super::{Context, exit, say};
use crate::prepare::Prepared;
use phalanx_report::style::Tone;
use phalanx_report::table::Table;
use phalanx_shared::expr::to_text;
use phalanx_shared::plan::{Plan, PlannedCell};
use serde_json::{Value, json};

/// List the cells of a spec
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  phalanx plan spec.yaml
  phalanx plan spec.yaml --format json | jq -r '.cells[].name'
  matrix=$(phalanx plan spec.yaml --format github) && echo \"matrix=$matrix\" >> \"$GITHUB_OUTPUT\"")]
pub struct Args {
    /// Path to the spec; `-` for standard input
    spec: String,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Table, help_heading = "Output")]
    format: Format,
    #[command(flatten)]
    selection: Selection,
}

/// Output format of a plan.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// A table for people.
    Table,
    /// JSON for programs.
    Json,
    /// A matrix for `fromJSON` in a workflow of GitHub: one job per cell.
    Github,
}

/// Maximum number of jobs that GitHub makes of one matrix.
const GITHUB_JOBS: usize = 256;

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<u8, CliError> {
    let plan = plan(args, context)?;
    let text = match args.format {
        Format::Json => format!("{:#}\n", json(&plan)),
        // On one line, as `$GITHUB_OUTPUT` takes it.
        Format::Github => format!("{}\n", github(&plan)?),
        Format::Table => table_text(&plan, context),
    };
    say::to_stdout(text)?;
    Ok(exit::OK)
}

fn plan(args: &Args, context: &Context) -> Result<Plan, CliError> {
    let max_cells = super::max_cells(&context.settings);
    let (prepared, _) = prepared(&args.spec, &args.selection, max_cells)?;
    let Prepared {
        submission,
        plan,
        warnings,
        ..
    } = prepared;
    warn(&warnings, &submission.files, context);
    Ok(plan)
}

fn json(plan: &Plan) -> Value {
    let cell = |cell: &PlannedCell| {
        json!({
            "id": cell.id,
            "name": cell.name,
            "matrix": cell.matrix,
            "runs_on": cell.runs_on,
            "experimental": cell.experimental,
        })
    };
    json!({
        "digest": plan.digest,
        "spec": plan.spec,
        "inputs": plan.inputs,
        "cells": plan.cells.iter().map(cell).collect::<Vec<_>>(),
    })
}

/// Returns a matrix with an entry for each cell: `cell` selects it (`phalanx run --cell`), `name` is for people, and the
/// values of its axes follow under their names. An axis that is called `cell` or `name` is left out; its value is in the
/// cell's name.
fn github(plan: &Plan) -> Result<Value, CliError> {
    if plan.cells.len() > GITHUB_JOBS {
        let error = CliError::usage(format!(
            "the plan has {} cells, and a matrix of GitHub at most {GITHUB_JOBS} jobs",
            plan.cells.len()
        ));
        return Err(error.with_help(
            "select fewer by --only, or let one job run them all: phalanx runs cells in parallel itself",
        ));
    }
    let entry = |cell: &PlannedCell| {
        let mut entry = serde_json::Map::new();
        entry.insert("cell".to_owned(), json!(cell.id));
        entry.insert("name".to_owned(), json!(cell.name));
        for (axis, value) in &cell.matrix {
            entry.entry(axis.clone()).or_insert_with(|| value.clone());
        }
        Value::Object(entry)
    };
    Ok(json!({ "include": plan.cells.iter().map(entry).collect::<Vec<_>>() }))
}

fn table_text(plan: &Plan, context: &Context) -> String {
    let count = match plan.cells.len() {
        1 => "1 cell".to_owned(),
        count => format!("{count} cells"),
    };
    let digest = plan.digest.get(..12).unwrap_or(&plan.digest);
    let head = format!("{}: {count}, plan {digest}\n\n", plan.spec);
    head + &context.voice.table(&table(plan))
}

/// Returns the keys of the matrix whose values aren't visible in the names of the cells.
fn untold(plan: &Plan) -> Vec<&str> {
    let mut keys: Vec<&str> = plan.axes.iter().map(String::as_str).collect();
    for key in plan.cells.iter().flat_map(|cell| cell.matrix.keys()) {
        if !keys.contains(&key.as_str()) {
            keys.push(key);
        }
    }
    keys.retain(|key| {
        let told = |cell: &PlannedCell| {
            cell.matrix
                .get(*key)
                .is_none_or(|value| cell.name.contains(&to_text(value)))
        };
        !plan.cells.iter().all(told)
    });
    keys
}

/// Formats a row for each cell. Omits columns that would be empty or repeat the name.
fn table(plan: &Plan) -> Table {
    let columns = untold(plan);
    let labels = plan.cells.iter().any(|cell| !cell.runs_on.is_empty());
    let experimental = plan.cells.iter().any(|cell| cell.experimental);
    let mut head = vec!["CELL".to_owned(), "NAME".to_owned()];
    head.extend(columns.iter().map(|key| (*key).to_owned()));
    head.extend(labels.then(|| "RUNS ON".to_owned()));
    head.extend(experimental.then(|| "EXPERIMENTAL".to_owned()));
    let mut table = Table::new(head);
    for cell in &plan.cells {
        let mut row = vec![
            (Tone::Dim, cell.id.to_string()),
            (Tone::Plain, cell.name.clone()),
        ];
        row.extend(columns.iter().map(|key| {
            (
                Tone::Plain,
                cell.matrix.get(*key).map(to_text).unwrap_or_default(),
            )
        }));
        row.extend(labels.then(|| (Tone::Plain, cell.runs_on.join(", "))));
        let mark = if cell.experimental {
            "experimental"
        } else {
            ""
        };
        row.extend(experimental.then(|| (Tone::Plain, mark.to_owned())));
        table.row(row);
    }
    table
}
