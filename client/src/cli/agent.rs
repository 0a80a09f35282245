//! `phalanx agent`: does the same as the program `phalanx-agent`.

use super::Context;
use super::error::CliError;
use super::exit;
use super::policy;
use super::rules::file;
use crate::config::place::STATE_DIR;
use crate::config::server::{CA, COORDINATOR};
use crate::config::{Settings, fleet};
use crate::demo;
use crate::local;
use phalanx_agent::command::AgentArgs;
use phalanx_agent::supervisor::StartError;
use phalanx_shared::error_code::ErrorCode;
use std::process::ExitCode;
use std::time::Duration;

/// How long the export of the program's remaining spans may take at the end.
const TRACE_WITHIN: Duration = Duration::from_secs(2);

/// Run an agent: take cells from a coordinator and run them on this machine
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  phalanx agent --coordinator https://10.0.0.5:7180 --enrol @token    the first time (phalanx token create agent)
  phalanx agent --coordinator https://10.0.0.5:7180                   from then on
  phalanx agent --coordinator http://10.0.0.5:7180 --label gpu --slots 8
  phalanx agent --coordinator http://10.0.0.5:7180 --allow run
  phalanx agent --policy runner.toml policy")]
pub struct Args {
    #[command(flatten)]
    agent: AgentArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Command {
    Policy(policy::Args),
}

/// Runs until the agent is drained.
pub async fn run(args: Args, context: &Context) -> Result<u8, CliError> {
    let agent = configured(args.agent, &context.settings);
    if let Some(Command::Policy(args)) = &args.command {
        let policy = agent.policy();
        let policy = policy.map_err(|error| CliError::usage(error.to_string()))?;
        return policy::show(args, policy.own(), context);
    }
    let coordinator = context.settings.get(&COORDINATOR);
    if coordinator.is_empty() {
        return Err(CliError::usage("an agent of which coordinator?")
            .with_help("phalanx agent --coordinator https://HOST:PORT"));
    }
    let state_dir = context.settings.get(&STATE_DIR);
    let own = std::env::current_exe()
        .map_err(|error| CliError::errored(format!("this program's own path: {error}")))?;
    let demo_server = demo::command(&own);
    if let Some(tracer) = &context.tracer {
        tracer.start();
    }
    let ended = phalanx_agent::command::run(&coordinator, &state_dir, agent, demo_server).await;
    if let Some(tracer) = &context.tracer {
        tracer.finish(TRACE_WITHIN).await;
    }
    let code = ended.map_err(|error| {
        let failed = CliError::errored(error.to_string());
        match error {
            StartError::Enrol(_) => failed.explained_by(ErrorCode::Identity),
            _ => failed,
        }
    })?;
    Ok(if code == ExitCode::SUCCESS {
        exit::OK
    } else {
        exit::ERRORED
    })
}

/// Fills in from the settings what the command line leaves open.
fn configured(mut args: AgentArgs, settings: &Settings) -> AgentArgs {
    let overcommit = |setting| Some(settings.get(setting));
    args.slots = args.slots.or(Some(settings.get(&fleet::SLOTS).max(1)));
    args.cpu_overcommit = args
        .cpu_overcommit
        .or_else(|| overcommit(&fleet::CPU_OVERCOMMIT));
    args.memory_overcommit = args
        .memory_overcommit
        .or_else(|| overcommit(&fleet::MEMORY_OVERCOMMIT));
    args.snapshot_mib = args
        .snapshot_mib
        .or_else(|| Some(settings.get(&fleet::SNAPSHOTS_MIB)));
    args.snapshot_days = args
        .snapshot_days
        .or_else(|| Some(settings.get(&fleet::SNAPSHOTS_DAYS)));
    if args.rules.is_none() {
        args.policy = args.policy.or_else(|| file(settings));
    }
    args.ca = settings.get(&CA);
    args.docker = args.docker.or_else(|| Some(local::of_agents(settings)));
    args
}
