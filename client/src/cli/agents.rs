//! `phalanx agents`: lists the agents of a coordinator.

use super::error::CliError;
use super::runs::Format;
use super::{Context, connect, exit, identities, say};
use phalanx_proto::v1::{self, AgentState, AgentSummary, Resources};
use phalanx_report::style::Tone;
use phalanx_report::table::Table;
use phalanx_report::text::{duration, plural};
use phalanx_shared::time::Timestamp;
use serde_json::json;

/// List agents: labels, slots, reservations, when each was last heard
#[derive(clap::Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Command {
    Identities(identities::List),
    Revoke(identities::Revoke),
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<u8, CliError> {
    match args.command {
        None => {}
        Some(Command::Identities(args)) => return identities::list(args, context).await,
        Some(Command::Revoke(args)) => return identities::revoke(args, context).await,
    }
    let connection = connect::to_coordinator(context).await?;
    let answer = connection
        .client()
        .list_agents(v1::ListAgentsRequest {})
        .await?;
    let agents = answer.into_inner().agents;
    connection.close().await;
    match args.format {
        Format::Table if agents.is_empty() => context.voice.note("no agent is connected"),
        Format::Table => {
            say::to_stdout(context.voice.table(&table(&agents, super::now())))?;
        }
        Format::Json => {
            let agents: Vec<_> = agents.iter().map(json).collect();
            say::to_stdout(format!("{:#}\n", json!({ "agents": agents })))?;
        }
    }
    Ok(exit::OK)
}

fn state(agent: &AgentSummary) -> (Tone, &'static str) {
    match AgentState::try_from(agent.state) {
        Ok(AgentState::Connected) => (Tone::Good, "connected"),
        Ok(AgentState::Draining) => (Tone::Warn, "draining"),
        Ok(AgentState::Disconnected) => (Tone::Warn, "disconnected"),
        Ok(AgentState::Lost) => (Tone::Bad, "lost"),
        Ok(AgentState::Unspecified) | Err(_) => (Tone::Plain, "unknown"),
    }
}

fn table(agents: &[AgentSummary], now: Timestamp) -> Table {
    let mut table = Table::new([
        "AGENT", "STATE", "SLOTS", "CPUS", "MEMORY", "LABELS", "HEARD", "VERSION", "ID",
    ]);
    for agent in agents {
        let (tone, word) = state(agent);
        let word = if agent.reason.is_empty() {
            word.to_owned()
        } else {
            format!("{word}: {}", agent.reason)
        };
        let (has, reserved) = (
            agent.resources.unwrap_or_default(),
            agent.reserved.unwrap_or_default(),
        );
        let heard = now.since(Timestamp(agent.heard_us));
        table.row([
            (Tone::Plain, agent.name.clone()),
            (tone, word),
            (
                Tone::Plain,
                format!("{}/{}", agent.attempts.len(), agent.slots),
            ),
            (Tone::Plain, format!("{}/{}", cpus(&reserved), cpus(&has))),
            (
                Tone::Plain,
                format!("{}/{}", memory(&reserved), memory(&has)),
            ),
            (Tone::Plain, agent.labels.join(" ")),
            (
                Tone::Dim,
                format!(
                    "{} ago",
                    duration(u64::try_from(heard.as_micros()).unwrap_or(u64::MAX))
                ),
            ),
            (Tone::Dim, agent.version.clone()),
            (Tone::Dim, agent.agent_id.clone()),
        ]);
    }
    table
}

fn cpus(resources: &Resources) -> String {
    format!("{}", resources.millicpus as f64 / 1000.0)
}

fn memory(resources: &Resources) -> String {
    format!(
        "{:.1}GiB",
        resources.memory_bytes as f64 / f64::from(1 << 30)
    )
}

fn json(agent: &AgentSummary) -> serde_json::Value {
    let resources = |resources: Option<Resources>| {
        let resources = resources.unwrap_or_default();
        json!({ "millicpus": resources.millicpus, "memory_bytes": resources.memory_bytes, "subnets": resources.subnets })
    };
    json!({
        "id": agent.agent_id,
        "name": agent.name,
        "version": agent.version,
        "state": state(agent).1,
        "reason": agent.reason,
        "labels": agent.labels,
        "slots": agent.slots,
        "attempts": agent.attempts.iter().map(|token| json!({ "run": token.run, "cell": token.cell, "attempt": token.attempt })).collect::<Vec<_>>(),
        "resources": resources(agent.resources),
        "reserved": resources(agent.reserved),
        "images": agent.images,
        "snapshots": agent.snapshots,
        "heard": Timestamp(agent.heard_us).to_rfc3339(),
    })
}

/// Describes how many cells an agent still runs, for `drain`.
pub(super) fn still(attempts: u32) -> String {
    plural(attempts as usize, "cell")
}
