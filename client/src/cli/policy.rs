//! `phalanx agent policy`: shows what specs may do on an agent.

use super::error::CliError;
use super::runs::Format;
use super::{Context, exit, say};
use phalanx_report::style::Tone;
use phalanx_report::table::Table;
use phalanx_shared::policy::{Allow, Rules};
use serde_json::json;

/// Show what specs may do on this agent, and where each rule comes from
///
/// Takes the same flags as the agent, before `policy`: `phalanx agent --policy FILE policy`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Prints the rules of an agent.
pub fn show(args: &Args, rules: &Rules, context: &Context) -> Result<u8, CliError> {
    let text = match args.format {
        Format::Json => {
            let all = rules.all().map(|(rule, ruling)| {
                json!({ "rule": rule, "allow": ruling.allow, "origin": ruling.origin, "doc": rule.doc() })
            });
            format!("{:#}\n", json!({ "rules": all.collect::<Vec<_>>() }))
        }
        Format::Table => {
            let mut table = Table::new(["RULE", "ALLOWED", "FROM", "ABOUT"]);
            for (rule, ruling) in rules.all() {
                let tone = match &ruling.allow {
                    Allow::All => Tone::Warn,
                    Allow::Only(_) => Tone::Plain,
                };
                table.row([
                    (Tone::Strong, rule.name().to_owned()),
                    (tone, ruling.allow.to_string()),
                    (Tone::Plain, ruling.origin.clone()),
                    (Tone::Dim, rule.doc().to_owned()),
                ]);
            }
            context.voice.table(&table)
        }
    };
    say::to_stdout(text)?;
    Ok(exit::OK)
}
