//! Inputs and the selection of cells, for `plan` and `run`.

use super::error::CliError;
use crate::spec_file;
use phalanx_shared::diagnostic::Diagnostic;
use phalanx_shared::language::parse;
use serde_json::{Map, Value};
use std::path::PathBuf;

/// Selects cells and inputs.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Selection {
    /// Set an input; the value is parsed as its declared type. May be repeated
    #[arg(
        long = "input",
        short = 'i',
        value_name = "NAME=VALUE",
        help_heading = "Cells"
    )]
    input: Vec<String>,
    /// Read inputs from a YAML or JSON file; --input takes precedence
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, help_heading = "Cells")]
    inputs_file: Option<PathBuf>,
    /// Select cells by axis values; `*` matches any text, several values of an axis are alternatives
    #[arg(long, value_name = "AXIS=VALUE,…", help_heading = "Cells")]
    only: Vec<String>,
    /// Select a cell: id, beginning of an id, or name. May be repeated
    #[arg(long = "cell", value_name = "CELL", help_heading = "Cells")]
    cell: Vec<String>,
}

impl Selection {
    /// Returns the filters as written.
    pub fn only(&self) -> &[String] {
        &self.only
    }

    /// Returns the cells as written.
    pub fn cells(&self) -> &[String] {
        &self.cell
    }

    /// Returns the inputs that were passed.
    pub fn inputs(&self) -> Result<Map<String, Value>, CliError> {
        let mut inputs = match &self.inputs_file {
            Some(file) => file_inputs(&file.to_string_lossy())?,
            None => Map::new(),
        };
        let mut given: Vec<&str> = Vec::new();
        for text in &self.input {
            let Some((name, value)) = text.split_once('=') else {
                return Err(CliError::usage(format!("--input {text}: write NAME=VALUE")));
            };
            if given.contains(&name) {
                return Err(CliError::usage(format!("--input {name} is given twice")));
            }
            given.push(name);
            inputs.insert(name.to_owned(), Value::String(value.to_owned()));
        }
        Ok(inputs)
    }
}

fn file_inputs(path: &str) -> Result<Map<String, Value>, CliError> {
    let source = spec_file::read(path)
        .map_err(|why| CliError::usage(format!("can't read the inputs file {path}: {why}")))?;
    let mut findings: Vec<Diagnostic> = Vec::new();
    let node = parse::parse(0, &source.text, &mut findings);
    match node.map(|node| node.to_json()) {
        Some(Value::Object(map)) if findings.is_empty() => Ok(map),
        _ => {
            let finding = findings.first();
            let why = finding.map_or("it must be a map of inputs", |finding| {
                finding.message.as_str()
            });
            let line = finding
                .and_then(|finding| finding.span)
                .map(|span| format!("{path}:{}:{}", span.line, span.column));
            Err(CliError::usage(format!(
                "{}: {why}",
                line.unwrap_or_else(|| path.to_owned())
            )))
        }
    }
}
