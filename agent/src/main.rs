//! The `phalanx-agent` binary: answers its hidden subcommands, otherwise runs an agent.

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Exit code of an agent that can't start; `phalanx agent` uses the same.
const ERRORED: u8 = 3;

/// Takes cells from a Phalanx coordinator and runs them on this machine
#[derive(Parser)]
#[command(name = "phalanx-agent", version)]
struct Cli {
    /// Coordinator address: `http://HOST:PORT` or `unix:PATH`
    #[arg(long, value_name = "URL", env = "PHALANX_COORDINATOR")]
    coordinator: String,
    /// Directory for the agent's state, which survives restarts
    #[arg(long, value_name = "DIR", env = "PHALANX_STATE_DIR")]
    state_dir: PathBuf,
    #[command(flatten)]
    args: phalanx_agent::command::AgentArgs,
}

fn main() -> ExitCode {
    if let Some(code) = phalanx_agent::entry::hidden_command() {
        return code;
    }
    phalanx_agent::limits::raise_open_files();
    // An error means that a provider is already installed. Without a provider HTTPS would panic.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let filter = EnvFilter::try_from_env("PHALANX_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    run(Cli::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::from(ERRORED)
    })
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let agent =
        phalanx_agent::command::run(&cli.coordinator, &cli.state_dir, cli.args, demo_server());
    Ok(runtime.block_on(agent)?)
}

/// Returns the command of the demo server: a subcommand of the `phalanx` program, which is installed beside this one.
fn demo_server() -> Vec<String> {
    let own = std::env::current_exe().unwrap_or_default();
    let program = own.with_file_name("phalanx");
    vec![
        program.to_string_lossy().into_owned(),
        "demo-server".to_owned(),
    ]
}
