//! `phalanx audit`: shows who did what with a coordinator, and checks that nothing of it was changed.

use super::connect::{self, Reached};
use super::error::CliError;
use super::runs::Format;
use super::token::here_at;
use super::{Context, exit, say};
use crate::config::server::{CA, COORDINATOR};
use crate::credential::Authorized;
use phalanx_coordinator::access::audit::{Audit, Check, Entry, Happened};
use phalanx_proto::v1::access_client::AccessClient;
use phalanx_proto::v1::{AuditEntry, ListAuditRequest};
use phalanx_report::style::Tone;
use phalanx_report::table::Table;
use phalanx_report::text::clean;
use phalanx_shared::error_code::ErrorCode;
use phalanx_shared::language::quantity;
use phalanx_shared::time::Timestamp;
use serde_json::json;

/// Entries that are asked for at once.
const PAGE: u32 = 1_000;

/// Show who did what with a coordinator
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
With --coordinator (or the setting `coordinator`) the coordinator is asked. Without, the log of this machine's coordinator is
read from its state directory.

Examples:
  phalanx audit --since 24h
  phalanx audit --format json > audit.json
  phalanx audit --verify    check the whole log, and print its newest hash to keep elsewhere")]
pub struct Args {
    /// Only entries that are newer than this: 90m, 24h
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Check that no entry was changed, removed or inserted
    #[arg(long, conflicts_with = "since")]
    verify: bool,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<u8, CliError> {
    let since = match &args.since {
        None => Timestamp(0),
        Some(text) => ago(text)?,
    };
    let mut log = Log::of(context).await?;
    let mut check = Check::default();
    let mut table = Table::new(["AT", "WHO", "NAMESPACE", "FROM", "CALL", "ABOUT", "RESULT"]);
    let mut listed = Vec::new();
    let mut next = 1;
    loop {
        let entries = log.page(next, since, args.verify).await?;
        let Some(last) = entries.last() else { break };
        next = last.number + 1;
        for entry in &entries {
            match (args.verify, args.format) {
                (true, _) => check.next(entry).map_err(broken)?,
                (false, Format::Table) => row(&mut table, entry),
                (false, Format::Json) => listed.push(as_json(entry)),
            }
        }
    }
    if args.verify {
        let (entries, hash) = check.end();
        context.voice.note(&format!(
            "{}, and each follows the one before; the newest hash is the next line",
            match entries {
                1 => "1 entry".to_owned(),
                many => format!("{many} entries"),
            }
        ));
        say::to_stdout(format!("{hash}\n"))?;
        return Ok(exit::OK);
    }
    match args.format {
        Format::Table if next == 1 => context.voice.note("the audit log is empty"),
        Format::Table => say::to_stdout(context.voice.table(&table))?,
        Format::Json => say::to_stdout(format!("{:#}\n", json!({ "entries": listed })))?,
    }
    Ok(exit::OK)
}

fn ago(text: &str) -> Result<Timestamp, CliError> {
    let age = quantity::duration(text).ok_or_else(|| {
        CliError::usage(format!("--since {text}: not a time")).with_help("write 90m or 24h")
    })?;
    let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
    Ok(Timestamp(super::now().0.saturating_sub(age)))
}

/// The log isn't what was written.
fn broken(found: String) -> CliError {
    CliError {
        code: exit::FAILED,
        ..CliError::errored(format!("the audit log was tampered with: {found}"))
    }
}

fn who(happened: &Happened) -> String {
    match happened.name.as_str() {
        "" => "somebody unknown".to_owned(),
        name => clean(name).into_owned(),
    }
}

fn row(table: &mut Table, entry: &Entry) {
    let happened = &entry.happened;
    let tone = if happened.result == "ok" {
        Tone::Good
    } else {
        Tone::Bad
    };
    let plain = |text: &str| (Tone::Plain, clean(text).into_owned());
    table.row([
        (Tone::Dim, entry.at.to_rfc3339()),
        (Tone::Plain, who(happened)),
        plain(&happened.namespace),
        plain(&happened.from),
        plain(&happened.call),
        plain(&happened.about),
        (tone, clean(&happened.result).into_owned()),
    ]);
}

fn as_json(entry: &Entry) -> serde_json::Value {
    let Happened {
        token,
        name,
        namespace,
        from,
        call,
        about,
        result,
    } = &entry.happened;
    json!({
        "number": entry.number,
        "at": entry.at.to_rfc3339(),
        "token": token,
        "name": name,
        "namespace": namespace,
        "from": from,
        "call": call,
        "about": about,
        "result": result,
        "hash": entry.hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
    })
}

/// Where the log is.
enum Log {
    /// At a coordinator.
    Remote(Box<AccessClient<Authorized>>),
    /// In the database of this machine's coordinator.
    Here(Audit),
}

impl Log {
    async fn of(context: &Context) -> Result<Log, CliError> {
        let url = context.settings.get(&COORDINATOR);
        if url.is_empty() {
            return Ok(Log::Here(here_at(context).await?.audit().clone()));
        }
        let credential = connect::credential(&context.settings, &url)?;
        let Reached(channel) = connect::reach(&url, &context.settings.get(&CA)).await?;
        Ok(Log::Remote(Box::new(credential.access_client(channel))))
    }

    async fn page(
        &mut self,
        from: u64,
        since: Timestamp,
        whole: bool,
    ) -> Result<Vec<Entry>, CliError> {
        match self {
            Log::Here(audit) => audit.list(from, since, None, PAGE).await.map_err(|error| {
                CliError::errored(error.to_string()).explained_by(ErrorCode::Journal)
            }),
            Log::Remote(client) => {
                let request = ListAuditRequest {
                    from,
                    since_us: since.0,
                    limit: PAGE,
                    whole,
                };
                let answer = client.list_audit(request).await?.into_inner();
                Ok(answer.entries.into_iter().map(entry).collect())
            }
        }
    }
}

fn entry(wire: AuditEntry) -> Entry {
    let AuditEntry {
        number,
        at_us,
        token,
        name,
        namespace,
        from,
        call,
        about,
        result,
        hash,
    } = wire;
    Entry {
        number,
        at: Timestamp(at_us),
        happened: Happened {
            token,
            name,
            namespace,
            from,
            call,
            about,
            result,
        },
        hash,
    }
}
