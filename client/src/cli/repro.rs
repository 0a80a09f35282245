//! `phalanx repro`: runs one cell of an earlier run on this machine, as it was, and names what can't be the same.

mod account;
mod files;
mod images;

use super::attach::quoted;
use super::connect::Connection;
use super::error::CliError;
use super::export::submission;
use super::follow;
use super::interrupt::{Interrupts, guarded, unless};
use super::ready::patiently;
use super::run::{How, LocalArgs, attend};
use super::source;
use super::upload::upload;
use super::{Context, connect, exit, pick, say, secrets};
use crate::config::Flag;
use account::Account;
use files::Workspace;
use images::Image;
use phalanx_coordinator::submission::planner::{self, Loaded};
use phalanx_proto::v1;
use phalanx_shared::diagnostic::Source;
use phalanx_shared::error_code::ErrorCode;
use phalanx_shared::id::RunId;
use phalanx_shared::plan::PlannedCell;
use phalanx_shared::run_state::RunState;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Run one cell of an earlier run on this machine, and name what can't be the same
// These flags mean nothing for one cell that this command attends.
#[derive(clap::Args, Clone, Debug)]
#[command(
    mut_arg("detach", |flag| flag.hide(true)),
    mut_arg("fail_fast", |flag| flag.hide(true)),
    mut_arg("max_parallel", |flag| flag.hide(true)),
    mut_arg("agents", |flag| flag.hide(true))
)]
#[command(after_help = "\
Uses the spec, the inputs and the files that expressions read as they were submitted. The workspace is the same if its
files are still here: the run's own copy, or a directory with the same content. Containers are created from the images
that ran then, whatever their tags name now, if the engine has them or can pull them by digest. Before it starts, it lists what is the
same (=) and what differs (≠).

Examples:
  phalanx repro last 'mysql / v2.0'                 run the cell here
  phalanx repro last 'mysql / v2.0' --keep          and leave its stack for `phalanx attach`
  phalanx repro --file r.phx 'mysql / v2.0'         a cell of a run that CI exported
  phalanx repro last 6f2a --print                   only print what would be the same and what not")]
pub struct Args {
    /// Id of the run, or its beginning or end; `last` is the newest. Not with --file
    #[arg(required_unless_present = "file")]
    run: Option<String>,
    /// Cell: id, beginning of an id, or name
    cell: Option<String>,
    /// Read a run that `phalanx export` wrote: phalanx repro --file FILE CELL
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, conflicts_with = "coordinator")]
    file: Option<PathBuf>,
    /// Print what would run, what differs and the command for the current files; run nothing
    #[arg(long)]
    print: bool,
    /// Directory that the workspace's files are taken from [default: the spec's own]
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    workspace: Option<PathBuf>,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    local: LocalArgs,
}

impl Args {
    /// Returns the settings that the flags give.
    pub fn flags(&self) -> impl Iterator<Item = Flag> {
        self.local.flags().chain(self.how.flags())
    }

    /// With a file there is no run to name, so the first word is the cell.
    fn untangled(mut self) -> Result<(Args, String), CliError> {
        if self.file.is_some() {
            if self.cell.is_some() {
                let message = "the file is the run: name only a cell";
                return Err(CliError::usage(message).with_help("phalanx repro --file FILE CELL"));
            }
            self.cell = self.run.take();
        }
        let Some(cell) = self.cell.take() else {
            let message = "which cell? phalanx show names the cells of a run";
            return Err(CliError::usage(message).with_help("phalanx repro RUN CELL"));
        };
        if self.how.detaches() {
            let message = "a repro runs in this command: it can't be detached";
            return Err(
                CliError::usage(message).with_help("phalanx rerun RUN --cell CELL --detach")
            );
        }
        Ok((self, cell))
    }
}

/// The cell as it ran, and everything that it was made from.
struct Original {
    run: RunId,
    cell: PlannedCell,
    /// Newest attempt at the cell: its number, and the agent's name.
    attempt: Option<(u32, String)>,
    submission: v1::SubmitRequest,
    loaded: Loaded,
    /// Files that expressions read.
    read: BTreeMap<String, String>,
    /// Image of each container, by service.
    images: BTreeMap<String, Image>,
}

/// Runs the command. Returns the exit code of the new run.
pub async fn run(args: Args, context: &Context) -> Result<u8, CliError> {
    let (args, cell) = args.untangled()?;
    super::reports::check(args.how.reports())?;
    let options = args.how.options(context)?;
    let given = args.how.secrets()?;
    let mut interrupts = Interrupts::listen()?;
    let opening = source::open(context, args.run.as_deref(), args.file.as_deref());
    let (connection, run) = unless(&mut interrupts, opening).await?;
    let found = unless(&mut interrupts, original(&connection, run, &cell, context)).await;
    connection.close().await;
    let original = found?;
    let declared: Vec<String> = original.secrets();
    let given = given.of_spec(&declared)?;
    if !args.print {
        // Before anything is pulled.
        secrets::demand(&declared, &given)?;
    }
    let workspace = files::find(&original, args.workspace.as_deref(), context).await?;
    let looking = images::look(&original.images, !args.print, context);
    let here = unless(&mut interrupts, async { Ok(looking.await) }).await?;
    let account = Account {
        original: &original,
        workspace: &workspace,
        here: &here,
        missing_secrets: declared
            .iter()
            .filter(|name| !given.contains_key(*name))
            .cloned()
            .collect(),
    };
    if args.print {
        let text = account.text();
        return guarded(true, async { say::to_stdout(text).map(|()| exit::OK) }).await;
    }
    if !context.voice.quiet {
        say::to_stderr(&account.text());
    }
    if let Workspace::Missing { why, .. } = &workspace {
        let error = CliError::usage(format!("the workspace is not here: {why}")).with_help(
            "check out the files as they were and name their directory: --workspace DIR",
        );
        return Err(error.explained_by(ErrorCode::WorkspaceGone));
    }
    let containers = original.has_containers();
    let starting = connect::for_local(context, containers, original.cell.runs_on.clone());
    let connection = unless(&mut interrupts, starting).await?;
    let mut request = request(&original, &workspace);
    request.images = here.pins(&original.images).collect();
    request.options = Some(options);
    request.secrets = given.into_iter().collect();
    let submitted = start(&connection, request, workspace, &mut interrupts, context).await;
    match submitted {
        Ok(run) => attend(connection, run, &args.how, &mut interrupts, context).await,
        Err(error) => {
            connection.close().await;
            Err(error)
        }
    }
}

/// Brings the workspace to the new run's coordinator and submits.
async fn start(
    connection: &Connection,
    request: v1::SubmitRequest,
    workspace: Workspace,
    interrupts: &mut Interrupts,
    context: &Context,
) -> Result<RunId, CliError> {
    match workspace {
        Workspace::Kept { archive, .. } => connection.adopt(&archive)?,
        Workspace::Packed { packed, .. } => {
            unless(interrupts, upload(connection.client(), *packed, None)).await?;
        }
        Workspace::None | Workspace::Missing { .. } => {}
    }
    let client = connection.client();
    let answer = patiently(context.voice, interrupts, || {
        let (mut client, request) = (client.clone(), request.clone());
        async move { client.submit(request).await }
    });
    Ok(RunId::from(answer.await?.run_id))
}

fn request(original: &Original, workspace: &Workspace) -> v1::SubmitRequest {
    let submission = &original.submission;
    let mut origin: serde_json::Map<String, Value> =
        serde_json::from_slice(&submission.origin_json).unwrap_or_default();
    origin.insert(
        "repro_of".to_owned(),
        json!({ "run": original.run, "cell": original.cell.id }),
    );
    let read = original.read.iter().map(|(name, text)| Source {
        name: name.clone(),
        text: text.clone(),
    });
    v1::SubmitRequest {
        files: submission.files.clone(),
        inputs_json: submission.inputs_json.clone(),
        cells: vec![original.cell.id.to_string()],
        workspace_digest: workspace.digest().unwrap_or_default().to_owned(),
        origin_json: Value::Object(origin).to_string().into_bytes(),
        read: read.map(Into::into).collect(),
        ..v1::SubmitRequest::default()
    }
}

async fn original(
    connection: &Connection,
    run: RunId,
    cell: &str,
    context: &Context,
) -> Result<Original, CliError> {
    let submission = submission(connection, &run).await?;
    let (state, now) = follow::fetch(connection.client(), run.clone()).await?;
    let view = super::view(context, &state, now)?;
    let id = pick::pick_cell(&view, cell)?.id.clone();
    let planned = state.planned(&id).cloned();
    let cell = planned.ok_or_else(|| CliError::errored("the run's plan lacks the cell"))?;
    let attempt = state.cells.get(&id).and_then(|cell| cell.newest());
    let attempt = attempt.map(|attempt| (attempt.attempt, attempt.agent_name.clone()));
    let images = match &attempt {
        Some((attempt, _)) => images::of(connection, &run, &id, *attempt).await?,
        None => BTreeMap::new(),
    };
    Ok(Original {
        loaded: loaded(&submission)?,
        read: read(&state),
        run,
        cell,
        attempt,
        submission,
        images,
    })
}

/// Reads the spec as it was submitted.
fn loaded(submission: &v1::SubmitRequest) -> Result<Loaded, CliError> {
    let files = submission.files.iter().cloned().map(Into::into).collect();
    let submission = phalanx_coordinator::journal::Submission {
        files,
        ..Default::default()
    };
    planner::load(&submission).map_err(|refusal| {
        let first = refusal.diagnostics.first();
        let why = first.map_or("it has no spec", |found| found.message.as_str());
        CliError::errored(format!("this version can't read the run's spec: {why}"))
            .with_help("use the version of Phalanx that ran it")
    })
}

fn read(state: &RunState) -> BTreeMap<String, String> {
    let plan = state.plan.as_ref();
    plan.map(|plan| plan.files.clone()).unwrap_or_default()
}

impl Original {
    fn secrets(&self) -> Vec<String> {
        let names = self.loaded.spec.secrets.iter();
        names.map(|name| name.text.clone()).collect()
    }

    fn has_containers(&self) -> bool {
        let spec = &self.loaded.spec;
        spec.compose.is_some() || spec.services.iter().any(|service| !service.process)
    }

    /// Returns the spec's path as it was given, if it was recorded.
    fn path(&self) -> Option<String> {
        let origin: Value = serde_json::from_slice(&self.submission.origin_json).ok()?;
        let path = origin.get("path")?.as_str()?;
        (!path.is_empty()).then(|| path.to_owned())
    }
}
