//! `phalanx self check`: says what works on this machine and what doesn't, with fixes.

use super::error::CliError;
use super::runs::Format;
use super::{Context, exit, say};
use crate::config::place::STATE_DIR;
use crate::config::server::{HTTP, LISTEN, LOG_RESERVE_MIB};
use crate::local::{self, Finding, Verdict, Wish};
use phalanx_report::style::Tone;
use phalanx_report::table::Table;
use serde_json::json;

/// About this installation
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Command {
    Check(CheckArgs),
}

/// Try what runs need on this machine: engine, permissions, disk, networks, ports, clocks
///
/// Each check does what a run does: it runs a command below a supervisor, makes a network in the engine and removes it.
/// Exits with 3 if something doesn't work; warnings don't count.
#[derive(clap::Args, Clone, Debug)]
struct CheckArgs {
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<u8, CliError> {
    let Command::Check(args) = args.command;
    let settings = &context.settings;
    let wish = Wish {
        state_dir: settings.get(&STATE_DIR),
        docker: local::of_agents(settings),
        reserve_bytes: settings
            .get(&LOG_RESERVE_MIB)
            .0
            .map(|mib| mib.saturating_mul(1 << 20)),
        policy: super::rules::of_this_machine(settings).map_err(|error| error.to_string()),
        ports: vec![
            ("serve.listen", settings.get(&LISTEN)),
            ("serve.http", settings.get(&HTTP)),
        ]
        .into_iter()
        // An empty address is none.
        .filter(|(_, address)| !address.is_empty())
        .collect(),
    };
    let findings = local::checkup(&wish).await;
    let works = findings
        .iter()
        .all(|finding| finding.verdict != Verdict::Fails);
    let text = match args.format {
        Format::Json => {
            let version = env!("CARGO_PKG_VERSION");
            format!(
                "{:#}\n",
                json!({ "version": version, "works": works, "checks": findings })
            )
        }
        Format::Table => table(&findings, context),
    };
    say::to_stdout(text)?;
    Ok(if works { exit::OK } else { exit::ERRORED })
}

fn table(findings: &[Finding], context: &Context) -> String {
    let mut table = Table::new(["CHECK", "RESULT", "FOUND"]);
    for finding in findings {
        let (tone, word) = match finding.verdict {
            Verdict::Works => (Tone::Good, "works"),
            Verdict::Warning => (Tone::Warn, "warning"),
            Verdict::Fails => (Tone::Bad, "fails"),
        };
        table.row([
            (Tone::Strong, finding.check.to_owned()),
            (tone, word.to_owned()),
            (Tone::Plain, finding.found.clone()),
        ]);
    }
    let mut text = format!("phalanx {}\n\n", env!("CARGO_PKG_VERSION"));
    text += &context.voice.table(&table);
    let fixes = findings
        .iter()
        .filter_map(|finding| Some((finding.check, finding.fix.as_ref()?)));
    for (check, fix) in fixes {
        text += &format!("\n{check}: {fix}");
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}
