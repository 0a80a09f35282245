//! `phalanx token create agent`: makes a token by which agents get their identity, at a coordinator or directly in the
//! state directory of this machine's.

use super::connect::{self, Reached};
use super::error::CliError;
use super::serve::tls_settings;
use super::{Context, exit, say};
use crate::config::place::STATE_DIR;
use crate::config::server::{CA, COORDINATOR, DATABASE, LISTEN};
use phalanx_coordinator::identity::core::Grant;
use phalanx_coordinator::identity::{IdentityError, create_token_beside};
use phalanx_coordinator::serve::server::identities_path;
use phalanx_proto::v1::CreateAgentTokenRequest;
use phalanx_proto::v1::identities_client::IdentitiesClient;
use phalanx_shared::error_code::ErrorCode;
use phalanx_shared::language::quantity;
use phalanx_shared::time::Timestamp;
use std::time::Duration;

/// Make a token by which agents get their identity (phalanx agent --enrol)
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Pool of the agents; they get the label `pool=NAME`
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Add a label that the agents have; repeatable. They may have no others, except those of their machines
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// Maximum slots of each agent
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    slots: Option<u32>,
    /// Time within which agents must enrol: 15m, 24h
    #[arg(long, value_name = "TIME", default_value = "15m")]
    ttl: String,
    /// How many agents may enrol with it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<u8, CliError> {
    let ttl = quantity::duration(&args.ttl).filter(|ttl| ttl.as_secs() > 0);
    let ttl = ttl.ok_or_else(|| {
        CliError::usage(format!("--ttl {}: not a time", args.ttl)).with_help("write 15m or 24h")
    })?;
    let uses = args.uses;
    let (token, expires) = match context.settings.get(&COORDINATOR) {
        url if url.is_empty() => here(args, ttl, context).await?,
        url => remote(args, ttl, &url, context).await?,
    };
    say::to_stdout(format!("{token}\n"))?;
    let agents = phalanx_report::text::plural(uses as usize, "agent");
    context.voice.note(&format!(
        "for {agents}, until {}; it is shown only now: phalanx agent --coordinator https://HOST:PORT --enrol @FILE",
        expires.to_rfc3339()
    ));
    Ok(exit::OK)
}

async fn remote(
    args: Args,
    ttl: Duration,
    url: &str,
    context: &Context,
) -> Result<(String, Timestamp), CliError> {
    let credential = connect::credential(&context.settings, url)?;
    let Reached(channel) = connect::reach(url, &context.settings.get(&CA)).await?;
    let request = CreateAgentTokenRequest {
        pool: args.pool.unwrap_or_default(),
        labels: args.labels,
        slots: args.slots.unwrap_or_default(),
        ttl_s: ttl.as_secs(),
        uses: args.uses,
    };
    let mut client = IdentitiesClient::with_interceptor(channel, credential);
    let made = client.create_agent_token(request).await?.into_inner();
    Ok((made.token, Timestamp(made.expires_us)))
}

/// Makes the token beside this machine's coordinator, whether it runs or not.
async fn here(
    args: Args,
    ttl: Duration,
    context: &Context,
) -> Result<(String, Timestamp), CliError> {
    let settings = &context.settings;
    let directory = settings.get(&STATE_DIR).join("coordinator");
    let listen = settings.get(&LISTEN).parse();
    let bound = listen.unwrap_or_else(|_| ([127, 0, 0, 1], 0).into());
    let tls = tls_settings(settings, &directory, bound)?;
    let elsewhere = !settings.get(&DATABASE).is_empty();
    let journal = identities_path(&directory, elsewhere);
    let grant = Grant {
        pool: args.pool,
        labels: args.labels,
        slots: args.slots,
    };
    let made = create_token_beside(&tls, &journal, grant, ttl, args.uses, super::now()).await;
    let made = made.map_err(|error| match error {
        IdentityError::Store(error) => CliError::errored(error.to_string())
            .with_help("to ask a coordinator elsewhere: phalanx --coordinator https://HOST:PORT token create agent")
            .explained_by(ErrorCode::Journal),
        error => CliError::usage(error.to_string())
            .with_help("to ask a coordinator elsewhere: phalanx --coordinator https://HOST:PORT token create agent")
            .explained_by(ErrorCode::Identity),
    })?;
    Ok((made.token.reveal(), made.expires))
}
