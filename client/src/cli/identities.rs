//! `phalanx agents identities` and `phalanx agents revoke`: who has enrolled, and who may not come any more.

use super::connect::{self, Reached};
use super::error::CliError;
use super::runs::Format;
use super::{Context, exit, say};
use crate::config::server::{CA, COORDINATOR};
use crate::credential::Authorized;
use phalanx_proto::v1::identities_client::IdentitiesClient;
use phalanx_proto::v1::{IdentityInfo, ListIdentitiesRequest, RevokeIdentityRequest};
use phalanx_report::style::Tone;
use phalanx_report::table::Table;
use phalanx_report::text::clean;
use phalanx_shared::time::Timestamp;
use serde_json::json;

/// List the identities of agents: those that enrolled, and those that were revoked
#[derive(clap::Args, Clone, Debug)]
pub struct List {
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Refuse an agent for good: its connections end within seconds, and its cells run elsewhere
#[derive(clap::Args, Clone, Debug)]
pub struct Revoke {
    /// Id of the agent, as `phalanx agents` shows it
    agent: String,
    /// Reason, shown to the agent and in lists
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

async fn client(context: &Context) -> Result<IdentitiesClient<Authorized>, CliError> {
    let url = context.settings.get(&COORDINATOR);
    if url.is_empty() {
        return Err(CliError::usage("which coordinator?")
            .with_help("phalanx --coordinator https://HOST:PORT agents"));
    }
    let credential = connect::credential(&context.settings, &url)?;
    let Reached(channel) = connect::reach(&url, &context.settings.get(&CA)).await?;
    Ok(IdentitiesClient::with_interceptor(channel, credential))
}

/// Lists the identities.
pub async fn list(args: List, context: &Context) -> Result<u8, CliError> {
    let mut client = client(context).await?;
    let listed = client.list_identities(ListIdentitiesRequest {}).await?;
    let identities = listed.into_inner().identities;
    match args.format {
        Format::Table if identities.is_empty() => context.voice.note("no agent has enrolled"),
        Format::Table => {
            say::to_stdout(context.voice.table(&table(&identities, super::now())))?;
        }
        Format::Json => {
            let all: Vec<_> = identities.iter().map(as_json).collect();
            say::to_stdout(format!("{:#}\n", json!({ "identities": all })))?;
        }
    }
    Ok(exit::OK)
}

/// Revokes an identity.
pub async fn revoke(args: Revoke, context: &Context) -> Result<u8, CliError> {
    let mut client = client(context).await?;
    let request = RevokeIdentityRequest {
        agent_id: args.agent.clone(),
        reason: args.reason.unwrap_or_default(),
    };
    client.revoke_identity(request).await?;
    context.voice.note(&format!(
        "agent {} is revoked: its connections end, and it stays out",
        clean(&args.agent)
    ));
    Ok(exit::OK)
}

fn state(identity: &IdentityInfo, now: Timestamp) -> (Tone, String) {
    let expires = Timestamp(identity.expires_us);
    match identity.standing.as_str() {
        "good" if expires > now => (Tone::Good, format!("until {}", expires.to_rfc3339())),
        "good" => (Tone::Warn, format!("expired {}", expires.to_rfc3339())),
        other => (Tone::Bad, format!("{other}: {}", clean(&identity.reason))),
    }
}

fn table(identities: &[IdentityInfo], now: Timestamp) -> Table {
    let mut table = Table::new(["AGENT", "VALID", "POOL", "LABELS", "SLOTS", "CERTIFICATE"]);
    for identity in identities {
        let (tone, valid) = state(identity, now);
        let slots = match identity.slots {
            0 => "any".to_owned(),
            slots => format!("at most {slots}"),
        };
        table.row([
            (Tone::Plain, identity.agent_id.clone()),
            (tone, valid),
            (Tone::Plain, identity.pool.clone()),
            (Tone::Plain, identity.labels.join(" ")),
            (Tone::Plain, slots),
            (Tone::Dim, format!("number {}", identity.generation)),
        ]);
    }
    table
}

fn as_json(identity: &IdentityInfo) -> serde_json::Value {
    json!({
        "agent": identity.agent_id,
        "standing": identity.standing,
        "reason": identity.reason,
        "pool": identity.pool,
        "labels": identity.labels,
        "slots": identity.slots,
        "generation": identity.generation,
        "expires": Timestamp(identity.expires_us).to_rfc3339(),
    })
}
