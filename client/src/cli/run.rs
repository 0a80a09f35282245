//! `phalanx run`: runs a spec's matrix, from its cells to a report.

use super::connect::Connection;
use super::error::CliError;
use super::follow::{Followed, Left, OnInterrupt, Shown, fetch, follow};
use super::interrupt::{Interrupts, unless};
use super::options::Options;
use super::ready::Ready;
use super::reports::{Evidence, Report};
use super::secrets::{self, SecretArgs};
use super::{Context, connect, exit, past, reports, say, web};
use crate::config::Flag;
use crate::config::server::COORDINATOR;
use phalanx_proto::v1;
use phalanx_report::history::Short;
use phalanx_report::history::expected::RUNS;
use phalanx_report::history::ledger::{ledger, lines};
use phalanx_report::terminal::{self, Detail};
use phalanx_report::text::plural;
use phalanx_report::view::RunView;
use phalanx_shared::error_code::ErrorCode;
use phalanx_shared::id::{CellId, RunId};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::CellState;
use std::collections::HashSet;
use std::path::PathBuf;

/// Run a spec's matrix and report
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  phalanx run spec.yaml                                     all cells
  phalanx run spec.yaml --input version=v2.0                with an input
  phalanx run spec.yaml --only 'database=mysql,version=v2*' some cells
  phalanx run spec.yaml --report junit=junit.xml --report json=- | jq .outcome
  phalanx run spec.yaml --keep on-failure --ttl 2h          keep failed stacks for `phalanx attach`
  phalanx run spec.yaml --failed                            cells that failed last time, with the current files
  phalanx run --resume                                      continue a run that was killed")]
pub struct Args {
    /// Path to the spec; `-` for standard input
    #[arg(value_hint = clap::ValueHint::FilePath, required_unless_present_any = ["resume", "keep"])]
    spec: Option<String>,
    #[command(flatten)]
    selection: super::selection::Selection,
    /// Run only cells that weren't ok in the newest run of a spec of this name, with the current files
    #[arg(long, conflicts_with = "resume")]
    failed: bool,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    local: LocalArgs,
    /// Resume a killed local run without repeating finished cells: the given run, or the newest one
    #[arg(long, value_name = "RUN", num_args = 0..=1, default_missing_value = "last", conflicts_with_all = ["spec", "detach"])]
    resume: Option<String>,
}

/// How to run cells and report, for `run` and `rerun`.
#[derive(clap::Args, Clone, Debug)]
pub struct How {
    #[command(flatten)]
    options: Options,
    /// Submit, print the run's id and exit, as `phalanx submit` does (needs --coordinator)
    #[arg(long, help_heading = "Running")]
    detach: bool,
    /// Write a report at the end, also after Ctrl-C: junit, ctrf, json, markdown or html; `-` for standard output
    #[arg(long = "report", value_name = "KIND=FILE", help_heading = "Output")]
    reports: Vec<Report>,
    /// Fetch the run's artifacts to this directory at the end: DIR/CELL/NAME. JUnit and CTRF name them as attachments
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath, conflicts_with = "detach", help_heading = "Output")]
    artifacts: Option<PathBuf>,
    /// Axis for the columns of the coverage table; `cell` for one column per cell
    #[arg(long, value_name = "AXIS", help_heading = "Output")]
    coverage_axis: Option<String>,
    /// Show the run on pages while it goes on, and print their address; loopback only [default: a free port]
    #[arg(long, value_name = "ADDRESS:PORT", num_args = 0..=1, require_equals = true, default_missing_value = web::DEFAULT, conflicts_with = "detach", help_heading = "Output")]
    web: Option<String>,
    /// Show the run on the full screen: grid, findings, steps and logs; `?` lists the keys
    #[arg(long, conflicts_with = "detach", help_heading = "Output")]
    tui: bool,
    #[command(flatten)]
    secrets: SecretArgs,
}

/// The agents of a local run.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct LocalArgs {
    /// Maximum concurrent cells per agent
    #[arg(long, value_name = "N", help_heading = "Local agents")]
    slots: Option<String>,
    /// Number of agents to start
    #[arg(long, value_name = "N", help_heading = "Local agents")]
    agents: Option<String>,
    /// Run agents as child processes instead of tasks of this process
    #[arg(long, help_heading = "Local agents")]
    agents_as_processes: bool,
}

impl LocalArgs {
    /// Returns the settings that the flags give.
    pub fn flags(&self) -> impl Iterator<Item = Flag> {
        let flag = |key, name, value: Option<String>| value.map(|value| Flag { key, name, value });
        [
            flag("slots", "--slots", self.slots.clone()),
            flag("agents", "--agents", self.agents.clone()),
            flag(
                "agents_as_processes",
                "--agents-as-processes",
                self.agents_as_processes.then(|| "true".to_owned()),
            ),
        ]
        .into_iter()
        .flatten()
    }
}

impl How {
    /// Returns the reports to write.
    pub fn reports(&self) -> &[Report] {
        &self.reports
    }

    /// Returns whether the command only submits.
    pub fn detaches(&self) -> bool {
        self.detach
    }

    /// Reads the values of secrets from the flags.
    pub fn secrets(&self) -> Result<secrets::Given, CliError> {
        self.secrets.read()
    }

    /// Returns the setting that the flags give.
    pub fn flags(&self) -> Option<Flag> {
        super::show::coverage_axis_flag(self.coverage_axis.as_deref())
    }

    /// Returns the options of a submission, or an error if the flags can't be followed.
    pub fn options(&self, context: &Context) -> Result<v1::Options, CliError> {
        web::address(self.web.as_deref(), context)?;
        self.options.to_wire(self.detach, context)
    }
}

impl Args {
    /// Returns the settings that the flags give.
    pub fn flags(&self) -> impl Iterator<Item = Flag> {
        self.local.flags().chain(self.how.flags())
    }

    /// Moves a spec that `--keep` took as its value back to its place. Returns an error if there is none.
    fn untangled(mut self) -> Result<Args, CliError> {
        self.how.options.untangle(&mut self.spec);
        if self.spec.is_none() && self.resume.is_none() {
            return Err(CliError::usage("which spec? phalanx run SPEC"));
        }
        Ok(self)
    }
}

/// Runs the command. Returns the exit code of the run.
pub async fn run(args: Args, context: &Context) -> Result<u8, CliError> {
    let args = args.untangled()?;
    reports::check(&args.how.reports)?;
    let options = args.how.options(context)?;
    let secrets = args.how.secrets()?;
    // From here on Ctrl-C doesn't kill the program, so everything that it starts is also ended.
    let mut interrupts = Interrupts::listen()?;
    let (connection, run) = match (&args.spec, &args.resume) {
        (Some(spec), _) => {
            let preparing = Ready::prepare(spec, &args.selection, context);
            let mut ready = unless(&mut interrupts, preparing).await?;
            if args.failed {
                unless(&mut interrupts, failed_before(&mut ready, context)).await?;
            }
            ready.request.options = Some(options);
            let secrets = secrets.of_spec(&ready.secrets)?;
            if context.settings.get(&COORDINATOR).is_empty() {
                secrets::demand(&ready.secrets, &secrets)?;
            }
            ready.request.secrets = secrets;
            let connecting = connect::for_run(context, ready.containers);
            let connection = unless(&mut interrupts, connecting).await?;
            match ready.submit(&connection, &mut interrupts, context).await {
                Ok(run) => (connection, run),
                Err(error) => {
                    connection.close().await;
                    return Err(error);
                }
            }
        }
        (None, text) => {
            let resumed = connect::resume(context, text.as_deref(), secrets);
            unless(&mut interrupts, resumed).await?
        }
    };
    attend(connection, run, &args.how, &mut interrupts, context).await
}

/// Keeps only the cells that weren't ok in the newest run of a spec of this name.
async fn failed_before(ready: &mut Ready, context: &Context) -> Result<(), CliError> {
    let spec = ready.spec.clone();
    let runs = connect::list(context, connect::PICK_AMONG, false).await?;
    let Some(newest) = runs.iter().find(|run| run.spec == spec) else {
        return Err(CliError::usage(format!("there is no run of {spec} yet"))
            .with_help("run it without --failed"));
    };
    let (connection, run) = connect::to_run(context, Some(&newest.run_id)).await?;
    let fetched = fetch(connection.client(), run.clone()).await;
    connection.close().await;
    let (state, _) = fetched?;
    let not_ok = |cell: &CellState| !cell.outcome.is_some_and(|outcome| outcome.is_ok());
    let failed: HashSet<CellId> = state
        .cells
        .iter()
        .filter(|(_, cell)| not_ok(cell))
        .map(|(id, _)| id.clone())
        .collect();
    if failed.is_empty() {
        return Err(CliError::usage(format!(
            "no cell failed in the newest run of {spec} ({run}): there is nothing to run again"
        )));
    }
    let gone = ready.narrow(&failed);
    if ready.cells() == 0 {
        return Err(CliError::usage(format!(
            "none of the {} that failed in run {run} is among the cells selected now",
            plural(failed.len(), "cell")
        )));
    }
    let others = match gone {
        0 => String::new(),
        gone => format!("; {gone} that failed are not selected now, or not in the spec any more"),
    };
    context.voice.note(&format!(
        "{} that failed in run {run}, with the files as they are now{others}",
        plural(ready.cells(), "cell")
    ));
    Ok(())
}

/// Follows a run that this command started to its end, or detaches from it.
pub async fn attend(
    connection: Connection,
    run: RunId,
    how: &How,
    interrupts: &mut Interrupts,
    context: &Context,
) -> Result<u8, CliError> {
    if how.detach {
        connection.close().await;
        say::to_stdout(format!("{run}\n"))?;
        return Ok(exit::OK);
    }
    if let Some(address) = web::address(how.web.as_deref(), context)?
        && let Err(error) = web::serve(&connection, &run, address).await
    {
        connection.close().await;
        return Err(error);
    }
    let shown = match Shown::new(context.voice, how.tui) {
        Ok(shown) => shown,
        Err(error) => {
            connection.close().await;
            return Err(error);
        }
    };
    let earlier = past::before(context.settings.clone(), run.clone(), RUNS);
    let followed = follow(
        connection.client(),
        run,
        OnInterrupt::Cancel,
        interrupts,
        shown,
        earlier,
    )
    .await;
    if matches!(followed.left, Left::Interrupted) {
        connection.abandon().await;
        return conclude(followed, &how.reports, &Evidence::default(), context);
    }
    let evidence = reports::evidence_for(
        &how.reports,
        how.artifacts.as_deref(),
        &connection,
        &followed,
        context,
        interrupts,
    )
    .await;
    let concluded = conclude(followed, &how.reports, &evidence, context);
    connection.close().await;
    concluded
}

/// Maximum number of lines about what wasn't verified for long.
const UNVERIFIED: usize = 5;

/// Prints the end of a run and writes its reports. Returns the exit code.
pub fn conclude(
    followed: Followed,
    reports: &[Report],
    evidence: &Evidence,
    context: &Context,
) -> Result<u8, CliError> {
    let mut view = super::view(context, &followed.state, super::now())?;
    if let Some(mut history) = followed.history {
        history.add(Short::from(&view));
        view.unverified = lines(&ledger(&history, super::now()), UNVERIFIED);
    }
    let voice = context.voice;
    if !view.cells.is_empty() {
        let detail = Detail {
            width: voice.stderr_width(),
            style: voice.stderr_style(),
            verbose: voice.verbose,
        };
        say::to_stderr(&terminal::render_with(
            &view,
            evidence.logs.as_ref(),
            detail,
        ));
    }
    explain(&view, context);
    let written = reports::write(reports, &view, evidence);
    if let Left::Lost(error) = followed.left {
        return Err(error);
    }
    written?;
    Ok(if followed.interrupted {
        exit::INTERRUPTED
    } else {
        exit::of_run(&view)
    })
}

/// Names the page about the run's outcome: for errored cells always, because their cause is outside the system under
/// test.
fn explain(view: &RunView, context: &Context) {
    let code = match view.outcome {
        Some(Outcome::Errored) => ErrorCode::Errored,
        Some(Outcome::Failed) if context.voice.verbose => ErrorCode::Failed,
        Some(Outcome::Cancelled) if context.voice.verbose => ErrorCode::Cancelled,
        _ => return,
    };
    context.voice.note(&format!("phalanx explain {code}"));
}
