//! `phalanx drain`: makes an agent finish its cells and accept no new ones.

use super::error::CliError;
use super::{Context, connect, exit};
use phalanx_proto::v1;

/// Drain an agent: let it finish its cells and accept no new ones
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Id or name of the agent
    agent: String,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<u8, CliError> {
    let connection = connect::to_coordinator(context).await?;
    let request = v1::DrainAgentRequest {
        agent: args.agent.clone(),
    };
    let answer = connection.client().drain_agent(request).await?.into_inner();
    connection.close().await;
    let rest = super::agents::still(answer.attempts);
    context.voice.note(&format!(
        "{} takes nothing new; it still finishes {rest}",
        args.agent
    ));
    Ok(exit::OK)
}
