//! `phalanx config`: shows every setting with its value and origin.

use super::error::CliError;
use super::runs::Format;
use super::{Context, exit, say};
use crate::config::{ALL, Shown};
use phalanx_report::style::Tone;
use phalanx_report::table::Table;
use serde_json::json;

/// Show settings: value, unit and origin of each
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Layers, each over the one before: defaults, /etc/phalanx/config.toml, ~/.config/phalanx/config.toml, phalanx.toml of the
project (the nearest one upwards; nothing that redirects work, secrets or state), PHALANX_* variables (keep.ttl_s is
PHALANX_KEEP__TTL_S), flags.")]
pub struct Args {
    /// Setting to print, as its bare value
    key: Option<String>,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<u8, CliError> {
    let shown = context.settings.shown();
    let text = match (&args.key, args.format) {
        (Some(key), _) => {
            let found = shown.iter().find(|shown| shown.key == key);
            let found = found.ok_or_else(|| unknown(key))?;
            format!("{}\n", found.value)
        }
        (None, Format::Json) => format!("{:#}\n", json!({ "settings": shown })),
        (None, Format::Table) => table(&shown, context),
    };
    say::to_stdout(text)?;
    Ok(exit::OK)
}

fn unknown(key: &str) -> CliError {
    let near = ALL
        .iter()
        .min_by_key(|setting| strsim::damerau_levenshtein(setting.key(), key));
    let error = CliError::usage(format!("there is no setting `{key}`"));
    match near {
        Some(setting) => error.with_help(format!("did you mean `{}`?", setting.key())),
        None => error,
    }
}

fn table(shown: &[Shown], context: &Context) -> String {
    let mut table = Table::new(["SETTING", "VALUE", "FROM", "WHAT IT IS"]);
    for setting in shown {
        let unit = if setting.unit.is_empty() {
            String::new()
        } else {
            format!(" {}", setting.unit)
        };
        let value = if setting.value.is_empty() {
            "(none)"
        } else {
            &setting.value
        };
        let tone = if setting.origin == "default" {
            Tone::Dim
        } else {
            Tone::Good
        };
        table.row([
            (Tone::Strong, setting.key.to_owned()),
            (Tone::Plain, format!("{value}{unit}")),
            (tone, setting.origin.clone()),
            (Tone::Dim, setting.doc.to_owned()),
        ]);
    }
    context.voice.table(&table)
}
