//! The `phalanx` command. Each subcommand has its own file with `Args` and `run`.
//!
//! Every command about a run speaks gRPC to a coordinator: a remote one (`--coordinator`), the one of this machine's
//! state directory, or the one that `run` starts for itself ([`connect`]). There is only this path. Messages go to
//! standard error and data to standard output ([`say`]). Exit codes are in [`exit`].

pub mod agent;
pub mod agent_token;
pub mod agents;
mod ahead;
pub mod artifacts;
pub mod attach;
pub mod audit;
pub mod cancel;
pub mod compare;
pub mod completions;
pub mod config;
pub mod connect;
pub mod demo_server;
pub mod diagnostics;
pub mod display;
pub mod docs;
pub mod drain;
pub mod error;
pub mod exit;
pub mod explain;
pub mod export;
pub mod follow;
pub mod gc;
pub mod history;
pub mod identities;
pub mod init;
pub mod interrupt;
pub mod journal;
pub mod login;
pub mod logs;
pub mod options;
pub mod past;
pub mod pick;
pub mod plan;
mod policy;
pub mod ready;
pub mod reports;
pub mod repro;
pub mod rerun;
pub mod rules;
pub mod run;
mod runs;
pub mod say;
pub mod scale_hint;
pub mod schema;
pub mod screen;
pub mod secrets;
pub mod selection;
pub mod self_check;
pub mod serve;
pub mod show;
pub mod snapshots;
pub mod source;
pub mod submit;
pub mod timing;
pub mod token;
pub mod tui;
pub mod upload;
pub mod validate;
pub mod watch;
pub mod web;
pub mod why;

use crate::config::output::{COLOR, COVERAGE_AXIS, Color, LOG_FILTER, LOG_FORMAT, LogFormat};
use crate::config::server::MAX_CELLS;
use crate::config::{Flag, Layers, Machine, Settings};
use crate::telemetry;
use clap::{Parser, Subcommand};
use error::CliError;
use phalanx_otlp::{Meters, Signal, Target, Tracer};
use phalanx_report::view::RunView;
use phalanx_report::view::coverage::CELL_AXIS;
use phalanx_shared::error_code::ErrorCode;
use phalanx_shared::run_state::RunState;
use phalanx_shared::time::Timestamp;
use say::Voice;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// Run end-to-end test matrices: each cell gets its own stack, and all cells run in parallel
#[derive(Parser, Debug)]
#[command(name = "phalanx", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 passed; 1 a cell failed, or every step was skipped; 2 the call or an input is wrong;
3 it could not be judged (errored); 130 cancelled.

Examples:
  phalanx init                                   a first spec, of what this directory has
  phalanx validate spec.yaml                     all that is wrong with a spec, at once
  phalanx plan spec.yaml                         the cells that it makes
  phalanx run spec.yaml --only 'database=mysql'  run some of them
  phalanx show                                   the newest run again, in full
  phalanx rerun --failed                         its failed cells once more";

/// How long the last export of metrics may take.
const METRICS_WITHIN: Duration = Duration::from_secs(2);

/// Flags of all commands.
#[derive(clap::Args, Debug)]
struct Global {
    /// When to colour output (default: on a terminal, unless NO_COLOR is set)
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        help_heading = "Output"
    )]
    color: Option<Color>,
    /// Same as --color never
    #[arg(long, global = true, conflicts_with = "color", help_heading = "Output")]
    no_color: bool,
    /// Print only failures and the summary
    #[arg(
        long,
        short,
        global = true,
        conflicts_with = "verbose",
        help_heading = "Output"
    )]
    quiet: bool,
    /// Print services, phases, every check, all cells of a finding and the critical path
    #[arg(long, short, global = true, help_heading = "Output")]
    verbose: bool,
    /// Coordinator to ask instead of this machine's runs (https://HOST:PORT, http://HOST:PORT, unix:PATH)
    #[arg(long, global = true, value_name = "URL", help_heading = "Where")]
    coordinator: Option<String>,
    /// What the coordinator at https:// is known by: a PEM file with its CA, or `sha256:` and a fingerprint
    #[arg(
        long,
        global = true,
        value_name = "FILE|FINGERPRINT",
        help_heading = "Where"
    )]
    ca: Option<String>,
    /// Directory for journals, logs and identities
    #[arg(long, global = true, value_name = "DIR", value_hint = clap::ValueHint::DirPath, help_heading = "Where")]
    state_dir: Option<String>,
}

impl Global {
    fn flags(&self) -> Vec<Flag> {
        let color = self
            .color
            .map(|color| crate::config::Choice::word(color).to_owned());
        let color = color.or_else(|| self.no_color.then(|| "never".to_owned()));
        let flags = [
            (
                "color",
                if self.no_color {
                    "--no-color"
                } else {
                    "--color"
                },
                color,
            ),
            ("coordinator", "--coordinator", self.coordinator.clone()),
            ("ca", "--ca", self.ca.clone()),
            ("state_dir", "--state-dir", self.state_dir.clone()),
        ];
        flags
            .into_iter()
            .filter_map(|(key, name, value)| {
                Some(Flag {
                    key,
                    name,
                    value: value?,
                })
            })
            .collect()
    }
}

/// The commands, in the order of typical use.
#[derive(Subcommand, Debug)]
enum Command {
    Init(init::Args),
    /// Check a spec: report all errors at once, with places and suggestions
    Validate(validate::Args),
    Plan(plan::Args),
    Run(run::Args),
    Submit(submit::Args),
    Runs(runs::Args),
    Show(show::Args),
    Compare(compare::Args),
    History(history::Args),
    Logs(logs::Args),
    Artifacts(artifacts::Args),
    Timing(timing::Args),
    Export(export::Args),
    Watch(watch::Args),
    Rerun(rerun::Args),
    Repro(repro::Args),
    Cancel(cancel::Args),
    Why(why::Args),
    Attach(attach::Args),
    Agents(agents::Args),
    Drain(drain::Args),
    ScaleHint(scale_hint::Args),
    Journal(journal::Args),
    Snapshots(snapshots::Args),
    Gc(gc::Args),
    Serve(serve::Args),
    Agent(agent::Args),
    Login(login::Args),
    Logout(login::Logout),
    Token(token::Args),
    Audit(audit::Args),
    DemoServer(demo_server::Args),
    Config(config::Args),
    #[command(name = "self")]
    SelfCheck(self_check::Args),
    Explain(explain::Args),
    Schema(schema::Args),
    Completions(completions::Args),
    #[command(hide = true)]
    Docs(docs::Args),
}

/// What every command receives.
#[derive(Debug)]
pub struct Context {
    /// The settings, including the flags of this call.
    pub settings: Settings,
    /// Output style and verbosity.
    pub voice: Voice,
    /// Exporter of traces, if one is configured.
    pub tracer: Option<Tracer>,
    /// Exporter of metrics, if one is configured.
    pub meters: Option<Meters>,
}

/// Runs the command that the arguments name. Returns the exit code.
pub fn main() -> u8 {
    let cli = Cli::parse();
    let mut voice = Voice {
        color: cli.global.color.unwrap_or(Color::Auto),
        quiet: cli.global.quiet,
        verbose: cli.global.verbose,
    };
    let result = load(&cli).and_then(|settings| {
        voice.color = settings.get(&COLOR);
        let (tracer, meters) = start_logging(&settings, &cli.command, voice)?;
        let context = Context {
            settings,
            voice,
            tracer,
            meters,
        };
        dispatch(cli.command, &context)
    });
    result.unwrap_or_else(|error| {
        voice.error(&error);
        error.code
    })
}

fn load(cli: &Cli) -> Result<Settings, CliError> {
    let mut flags = cli.global.flags();
    match &cli.command {
        Command::Run(args) => flags.extend(args.flags()),
        Command::Rerun(args) => flags.extend(args.flags()),
        Command::Repro(args) => flags.extend(args.flags()),
        Command::Show(args) => flags.extend(args.flags()),
        Command::Serve(args) => flags.extend(args.flags()),
        _ => {}
    }
    let directory = std::env::current_dir()
        .map_err(|error| CliError::usage(format!("there is no current directory: {error}")))?;
    let layers = Layers::of_call(&directory, flags);
    Settings::load(&layers, Machine::here()).map_err(|errors| {
        CliError::usage(errors.to_string())
            .with_help("phalanx config lists the settings")
            .explained_by(ErrorCode::Setting)
    })
}

/// Starts logging. Returns the exporters of traces and of metrics for commands that run something.
fn start_logging(
    settings: &Settings,
    command: &Command,
    voice: Voice,
) -> Result<(Option<Tracer>, Option<Meters>), CliError> {
    let service = match command {
        Command::Run(_) | Command::Rerun(_) | Command::Repro(_) | Command::Serve(_) => {
            Some("phalanx")
        }
        Command::Agent(_) => Some("phalanx-agent"),
        _ => None,
    };
    // An unusable backend must not prevent the run.
    let variable = |name: &str| std::env::var(name).ok();
    let target = |signal| match service {
        None => (None, None),
        Some(_) => Target::read(signal, variable)
            .map_or_else(|why| (None, Some(why)), |target| (target, None)),
    };
    let (traces, untraced) = target(Signal::Traces);
    let (metrics, unmeasured) = match command {
        // An agent measures nothing.
        Command::Agent(_) => (None, None),
        _ => target(Signal::Metrics),
    };
    let tracer = Option::zip(traces, service).map(|(target, name)| Tracer::new(target, name));
    let meters =
        Option::zip(metrics, service).map(|(target, name)| Meters::new(target, name, variable));
    let filter = settings.get(&LOG_FILTER);
    let filter = match (filter.as_str(), command) {
        ("", Command::Serve(_) | Command::Agent(_)) => "info",
        // Within one program, a connection breaks only because the program ends.
        ("", _) => "warn,phalanx_agent::link=error",
        (given, _) => given,
    };
    let format = match settings.get(&LOG_FORMAT) {
        LogFormat::Text => telemetry::Format::Text,
        LogFormat::Json => telemetry::Format::Json,
    };
    let colors = voice.stderr_style().colors;
    let lines = telemetry::Lines(say::to_stderr);
    telemetry::init(filter, format, colors, lines, tracer.as_ref()).map_err(CliError::usage)?;
    if let Some(why) = untraced {
        tracing::warn!("nothing is traced: {why}");
    } else if let Some(why) = unmeasured {
        tracing::warn!("no metrics are sent: {why}");
    }
    Ok((tracer, meters))
}

fn dispatch(command: Command, context: &Context) -> Result<u8, CliError> {
    match command {
        Command::Init(args) => init::run(&args, context),
        Command::Validate(args) => Ok(validate::run(&args)),
        Command::Plan(args) => plan::run(&args, context),
        Command::Schema(args) => schema::run(&args),
        Command::Run(args) => wait(measured(context, Box::pin(run::run(args, context)))),
        Command::Submit(args) => wait(submit::run(args, context)),
        Command::Runs(args) => wait(runs::run(args, context)),
        Command::Show(args) => wait(show::run(args, context)),
        Command::Compare(args) => wait(compare::run(args, context)),
        Command::History(args) => wait(history::run(args, context)),
        Command::Logs(args) => wait(logs::run(args, context)),
        Command::Artifacts(args) => wait(artifacts::run(args, context)),
        Command::Timing(args) => wait(timing::run(args, context)),
        Command::Export(args) => wait(export::run(args, context)),
        Command::Watch(args) => wait(watch::run(args, context)),
        Command::Rerun(args) => wait(measured(context, Box::pin(rerun::run(args, context)))),
        Command::Repro(args) => wait(measured(context, Box::pin(repro::run(args, context)))),
        Command::Cancel(args) => wait(cancel::run(args, context)),
        Command::Why(args) => wait(why::run(args, context)),
        Command::Attach(args) => wait(attach::run(args, context)),
        Command::Agents(args) => wait(agents::run(args, context)),
        Command::Drain(args) => wait(drain::run(args, context)),
        Command::ScaleHint(args) => wait(scale_hint::run(args, context)),
        Command::Journal(args) => wait(journal::run(args, context)),
        Command::Snapshots(args) => wait(snapshots::run(args, context)),
        Command::Gc(args) => wait(gc::run(args, context)),
        Command::Serve(args) => wait(measured(context, Box::pin(serve::run(args, context)))),
        Command::Agent(args) => wait(agent::run(args, context)),
        Command::Login(args) => wait(login::run(args, context)),
        Command::Logout(args) => login::logout(&args, context),
        Command::Token(args) => wait(token::run(args, context)),
        Command::Audit(args) => wait(audit::run(args, context)),
        Command::DemoServer(args) => wait(demo_server::run(args, context)),
        Command::Config(args) => config::run(&args, context),
        Command::SelfCheck(args) => wait(self_check::run(args, context)),
        Command::Explain(args) => explain::run(&args, context),
        Command::Completions(args) => completions::run(&args),
        Command::Docs(args) => docs::run(&args),
    }
}

/// Sends metrics while a command works, and the last ones after it.
async fn measured(
    context: &Context,
    work: Pin<Box<dyn Future<Output = Result<u8, CliError>> + '_>>,
) -> Result<u8, CliError> {
    let Some(meters) = &context.meters else {
        return work.await;
    };
    meters.start();
    let result = work.await;
    meters.finish(METRICS_WITHIN).await;
    result
}

/// Blocks until a command's future completes.
fn wait(work: impl Future<Output = Result<u8, CliError>>) -> Result<u8, CliError> {
    wait_boxed(Box::pin(work))
}

// One type for all commands: the runtime is compiled once and not for each of them.
fn wait_boxed(
    work: Pin<Box<dyn Future<Output = Result<u8, CliError>> + '_>>,
) -> Result<u8, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| CliError::errored(format!("can't start: {error}")))?;
    let result = runtime.block_on(work);
    // Background tasks must not delay the exit.
    runtime.shutdown_background();
    result
}

/// Returns the view of a run, with the coverage axis of the settings.
fn view(context: &Context, state: &RunState, now: Timestamp) -> Result<RunView, CliError> {
    let axis = context.settings.get(&COVERAGE_AXIS);
    let axes = state
        .plan
        .as_ref()
        .map(|plan| plan.axes.as_slice())
        .unwrap_or_default();
    if !axis.is_empty() && axis != CELL_AXIS && !axes.contains(&axis) {
        let error = CliError::usage(format!(
            "the coverage axis `{axis}` is not an axis of the matrix"
        ));
        let choices = axes.iter().map(String::as_str).chain([CELL_AXIS]);
        return Err(error.with_help(format!(
            "choose one of {}",
            choices.collect::<Vec<_>>().join(", ")
        )));
    }
    let axis = (!axis.is_empty()).then_some(axis.as_str());
    Ok(RunView::of(state, now, axis))
}

/// Returns the configured limit on the cells of a plan; `None` if there is none.
fn max_cells(settings: &Settings) -> Option<usize> {
    let most = settings.get(&MAX_CELLS);
    (most > 0).then(|| usize::try_from(most).unwrap_or(usize::MAX))
}

/// Returns the current time; read once per decision.
pub(crate) fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_microsecond())
}
