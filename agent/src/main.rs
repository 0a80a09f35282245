//! The `phalanx-agent` binary: answers its hidden subcommands, otherwise runs an agent.

use clap::Parser;
use phalanx_otlp::{Signal, Target, Tracer};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Every event and message is many small allocations on one thread that another thread frees.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code of an agent that can't start; `phalanx agent` uses the same.
const ERRORED: u8 = 3;
/// How long the export of the program's remaining spans may take at the end.
const TRACE_WITHIN: Duration = Duration::from_secs(2);

/// Takes cells from a Phalanx coordinator and runs them on this machine
#[derive(Parser)]
#[command(name = "phalanx-agent", version)]
struct Cli {
    /// Coordinator address: `https://HOST:PORT`, `http://HOST:PORT` or `unix:PATH`
    #[arg(long, value_name = "URL", env = "PHALANX_COORDINATOR")]
    coordinator: String,
    /// Directory for the agent's state, which survives restarts
    #[arg(long, value_name = "DIR", env = "PHALANX_STATE_DIR")]
    state_dir: PathBuf,
    /// What a coordinator with TLS is known by, instead of by the token: a PEM file with its CA, or `sha256:` and a fingerprint
    #[arg(long, value_name = "FILE|FINGERPRINT", env = "PHALANX_CA")]
    ca: Option<String>,
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
    let cli = Cli::parse();
    let tracer = start_logging();
    run(cli, tracer).unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::from(ERRORED)
    })
}

/// Starts logging. Returns the exporter of this program's spans, if one is configured.
fn start_logging() -> Option<Tracer> {
    let target = Target::read(Signal::Traces, |name| std::env::var(name).ok());
    let (target, untraced) = target.map_or_else(|why| (None, Some(why)), |target| (target, None));
    let tracer = target.map(|target| Tracer::new(target, "phalanx-agent"));
    let filter = EnvFilter::try_from_env("PHALANX_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let most = filter.max_level_hint().unwrap_or(LevelFilter::TRACE);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(tracer.as_ref().map(|tracer| tracer.layer_of_phalanx(most)))
        .init();
    if let Some(why) = untraced {
        tracing::warn!("nothing is traced: {why}");
    }
    tracer
}

fn run(mut cli: Cli, tracer: Option<Tracer>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    cli.args.ca = cli.ca.take().unwrap_or_default();
    let agent =
        phalanx_agent::command::run(&cli.coordinator, &cli.state_dir, cli.args, demo_server());
    let ended = runtime.block_on(async {
        if let Some(tracer) = &tracer {
            tracer.start();
        }
        let ended = agent.await;
        if let Some(tracer) = &tracer {
            tracer.finish(TRACE_WITHIN).await;
        }
        ended
    });
    Ok(ended?)
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
