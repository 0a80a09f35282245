//! `phalanx artifacts`: lists the files that a run keeps, and fetches them.

use super::connect::Connection;
use super::error::CliError;
use super::follow::fetch;
use super::interrupt::guarded;
use super::runs::Format;
use super::{Context, exit, pick, say, source};
use phalanx_agent::beneath::{self, Root};
use phalanx_proto::v1;
use phalanx_report::artifacts::Attachments;
use phalanx_report::style::Tone;
use phalanx_report::table::Table;
use phalanx_report::text::{clean, plural};
use phalanx_report::view::{AttemptView, CellView, RunView};
use phalanx_shared::event::Artifact;
use phalanx_shared::id::RunId;
use phalanx_shared::language::model::{Artifact as Names, FileNames};
use phalanx_shared::language::quantity::spelled_bytes;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Mode of fetched files.
const MODE: u32 = 0o644;
/// Beginning of the names of files that are being fetched.
const PARTIAL: &str = ".phalanx-partial-";
/// Maximum number of files that are named because they could not be fetched.
const SHOWN: usize = 20;

/// List the files that a run keeps, or fetch them
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  phalanx artifacts                              the files of the newest run
  phalanx artifacts last 'mysql / v2.0'          those of one cell
  phalanx artifacts 0193 --out artifacts         fetch all: artifacts/CELL/NAME
  phalanx artifacts 0193 6f2a --out artifacts    fetch those of one cell: artifacts/NAME
  phalanx artifacts --file r.phx --format json   those in a file, for programs")]
pub struct Args {
    /// Id of the run, or its beginning or end; `last` is the newest [default: the newest]. Not with --file
    run: Option<String>,
    /// Cell: id, beginning of an id, or name [default: all]
    cell: Option<String>,
    /// Read a run that `phalanx export` wrote: phalanx artifacts --file FILE CELL
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, conflicts_with = "coordinator")]
    file: Option<PathBuf>,
    /// Attempt, from 1 [default: the newest of each cell]
    #[arg(long, value_name = "N")]
    attempt: Option<u32>,
    /// Directory to fetch the files to; files that are there already are replaced
    #[arg(long, short, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    out: Option<PathBuf>,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

impl Args {
    /// With a file there is no run to name, so the first word is the cell.
    fn untangled(mut self) -> Result<Args, CliError> {
        if self.file.is_some() {
            if self.cell.is_some() {
                return Err(CliError::usage("the file is the run: name only a cell")
                    .with_help("phalanx artifacts --file FILE CELL"));
            }
            self.cell = self.run.take();
        }
        Ok(self)
    }
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<u8, CliError> {
    let args = args.untangled()?;
    let leaves_files = args.file.is_some() || args.out.is_some();
    guarded(leaves_files, listed(args, context)).await
}

async fn listed(args: Args, context: &Context) -> Result<u8, CliError> {
    let (connection, run) =
        source::open(context, args.run.as_deref(), args.file.as_deref()).await?;
    let (state, now) = fetch(connection.client(), run.clone()).await?;
    let view = super::view(context, &state, now)?;
    let cell = args.cell.as_deref();
    let cell = cell.map(|cell| pick::pick_cell(&view, cell)).transpose()?;
    let listed = chosen(&view, cell, args.attempt);
    let fetched = match &args.out {
        Some(out) => fetch_all(&connection, &run, &listed, cell.is_some(), out).await,
        None => Ok(Fetched {
            paths: Vec::new(),
            missing: Vec::new(),
            early: 0,
        }),
    };
    connection.close().await;
    let fetched = fetched?;
    match args.format {
        Format::Table => {
            say::to_stdout(context.voice.table(&table(&listed)))?;
            if listed.is_empty() {
                context.voice.note(
                    "no artifacts: `artifacts` of steps, services and `cell` says what is kept",
                );
            }
            if let Some(out) = &args.out {
                let count = fetched.paths.iter().flatten().count();
                let files = plural(count, "file");
                context
                    .voice
                    .note(&format!("fetched {files} to {}", out.display()));
                if fetched.early > 0 {
                    let early = plural(fetched.early, "artifact");
                    context.voice.note(&format!(
                        "{early} may still be on the way: their attempts haven't ended"
                    ));
                }
            }
        }
        Format::Json => {
            let paths = fetched.paths.into_iter().chain(std::iter::repeat(None));
            let all = listed.iter().zip(paths);
            let all: Vec<Value> = all.map(|(file, path)| json(file, path)).collect();
            let all = json!({ "run": run.as_str(), "artifacts": all });
            say::to_stdout(format!("{all:#}\n"))?;
        }
    }
    for missing in fetched.missing.iter().take(SHOWN) {
        let missing = clean(missing);
        context.voice.note(&format!("not fetched: {missing}"));
    }
    match fetched.missing.len() {
        0 => Ok(exit::OK),
        missing => {
            let files = plural(missing, "file");
            Err(CliError::errored(format!("{files} could not be fetched")))
        }
    }
}

/// An artifact, and where it belongs.
struct Listed<'a> {
    cell: &'a CellView,
    attempt: u32,
    /// Whether the attempt has ended, so that its artifacts have arrived.
    over: bool,
    artifact: &'a Artifact,
}

/// Returns the artifacts of one cell or of all, of the newest attempts or of those with a number.
fn chosen<'a>(
    view: &'a RunView,
    cell: Option<&'a CellView>,
    attempt: Option<u32>,
) -> Vec<Listed<'a>> {
    let cells = view.cells.iter();
    let cells = cells.filter(|one| cell.is_none_or(|cell| cell.id == one.id));
    let is_wanted = |cell: &CellView, one: &AttemptView| match attempt {
        Some(number) => one.attempt == number,
        None => cell
            .attempts
            .last()
            .is_some_and(|last| last.attempt == one.attempt),
    };
    let attempts = cells.flat_map(|cell| {
        let attempts = cell.attempts.iter();
        attempts
            .filter(move |one| is_wanted(cell, one))
            .map(move |attempt| (cell, attempt))
    });
    attempts
        .flat_map(|(cell, attempt)| {
            attempt.artifacts.iter().map(move |artifact| Listed {
                cell,
                attempt: attempt.attempt,
                over: attempt.finished.is_some(),
                artifact,
            })
        })
        .collect()
}

fn table(files: &[Listed<'_>]) -> Table {
    let mut table = Table::new(["CELL", "NAME", "SIZE", "TYPE", "FROM"]);
    for file in files {
        let artifact = file.artifact;
        let (name, size, kind) = match &artifact.lack {
            None => (
                (Tone::Plain, artifact.name.clone()),
                spelled_bytes(artifact.size),
                artifact.media_type.clone(),
            ),
            Some(lack) => (
                (Tone::Warn, format!("not kept: {}", lack.reason)),
                String::new(),
                lack.problem.as_str().replace('_', " "),
            ),
        };
        table.row([
            (Tone::Plain, file.cell.name.clone()),
            name,
            (Tone::Plain, size),
            (Tone::Dim, kind),
            (Tone::Dim, artifact.from.clone()),
        ]);
    }
    table
}

fn json(file: &Listed<'_>, path: Option<PathBuf>) -> Value {
    let mut value = json!({
        "cell": { "id": file.cell.id, "name": file.cell.name },
        "attempt": file.attempt,
    });
    if let (Some(value), Ok(Value::Object(artifact))) =
        (value.as_object_mut(), serde_json::to_value(file.artifact))
    {
        value.extend(artifact);
        if let Some(path) = path {
            value.insert("file".to_owned(), path.display().to_string().into());
        }
    }
    value
}

/// What was fetched.
struct Fetched {
    /// The path of each file, in their order; `None` for those that are not there.
    paths: Vec<Option<PathBuf>>,
    /// Names of files that should be there, and why they are not.
    missing: Vec<String>,
    /// Number of files that may still arrive.
    early: usize,
}

/// Fetches all files that are kept. One that can't be had doesn't keep the others away.
async fn fetch_all(
    connection: &Connection,
    run: &RunId,
    files: &[Listed<'_>],
    one_cell: bool,
    out: &Path,
) -> Result<Fetched, CliError> {
    let failed =
        |error: io::Error| CliError::errored(format!("can't write to {}: {error}", out.display()));
    std::fs::create_dir_all(out).map_err(failed)?;
    let root = Root::open(out).map_err(failed)?;
    let (mut paths, mut missing, mut early) = (Vec::new(), Vec::new(), 0);
    let mut taken = Taken::default();
    for file in files {
        if !file.artifact.is_kept() {
            paths.push(None);
            continue;
        }
        let Listed { cell, artifact, .. } = file;
        let mut miss = |why: &str| {
            missing.push(format!("{} of {}: {why}", artifact.name, cell.name));
        };
        let path = match taken.path(file, one_cell) {
            Ok(path) => path,
            Err(why) => {
                miss(why);
                paths.push(None);
                continue;
            }
        };
        let path = match fetch_one(connection, run, artifact, &root, &path).await {
            Ok(()) => Some(out.join(path)),
            Err(Failed::Call(error)) => return Err(error),
            Err(Failed::File(error)) => {
                let path = out.join(&path);
                let message = format!("can't write {}: {error}", path.display());
                return Err(CliError::errored(message));
            }
            Err(Failed::NotThere) if !file.over => {
                early += 1;
                None
            }
            // Its agent died before the content was sent, or it is from a file that had no room for it.
            Err(Failed::NotThere) => {
                miss("it didn't arrive");
                None
            }
            Err(Failed::Digest) => {
                miss("what came isn't what was kept: its digest is another one");
                None
            }
        };
        paths.push(path);
    }
    Ok(Fetched {
        paths,
        missing,
        early,
    })
}

/// Fetches the artifacts of a run's newest attempts: `DIR/CELL/NAME`.
pub(super) async fn fetch_run(
    connection: &Connection,
    view: &RunView,
    out: &Path,
) -> Result<Attachments, CliError> {
    let files = chosen(view, None, None);
    let fetched = fetch_all(connection, &view.run, &files, false, out).await?;
    for missing in fetched.missing.iter().take(SHOWN) {
        let missing = clean(missing);
        say::to_stderr(&format!("artifact not fetched: {missing}\n"));
    }
    let paths = fetched.paths;
    let mut attachments = Attachments::default();
    for (file, path) in files.iter().zip(paths) {
        // Readers of reports look from a directory of their own.
        let path = path.map(|path| std::path::absolute(&path).unwrap_or(path));
        if let Some(path) = path {
            let (cell, id) = (file.cell.id.clone(), file.artifact.id);
            attachments.insert(cell, file.attempt, id, path.display().to_string());
        }
    }
    Ok(attachments)
}

/// Paths given so far.
#[derive(Default)]
struct Taken {
    cells: Vec<(String, String)>,
    names: FileNames,
}

impl Taken {
    /// Returns the path of a file below the directory. The journal may come from a file of somebody else, so a name that
    /// could lead out of the directory is refused here once more.
    fn path(&mut self, file: &Listed<'_>, one_cell: bool) -> Result<PathBuf, &'static str> {
        let name = &file.artifact.name;
        if let Some(problem) = Names::problem_of_name(name) {
            return Err(problem);
        }
        let name = match one_cell {
            true => name.clone(),
            false => format!("{}/{name}", self.directory(file.cell)),
        };
        Ok(PathBuf::from(self.names.free(&name)))
    }

    /// Returns the directory of a cell: its name as a file name, with the beginning of its id if two are alike.
    fn directory(&mut self, cell: &CellView) -> String {
        let id = cell.id.as_str();
        if let Some((_, known)) = self.cells.iter().find(|(of, _)| of == id) {
            return known.clone();
        }
        let safe = |c: char| match c {
            c if c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '=') => c,
            _ => '_',
        };
        let name: String = cell.name.chars().map(safe).take(100).collect();
        let name = name.trim_matches(['.', '_']).to_owned();
        let is_taken = self.cells.iter().any(|(_, known)| *known == name);
        let name = match name.is_empty() || is_taken {
            true => format!("{name}-{id}"),
            false => name,
        };
        self.cells.push((id.to_owned(), name.clone()));
        name
    }
}

/// Why a file could not be fetched.
enum Failed {
    Call(CliError),
    File(io::Error),
    /// The run hasn't got it.
    NotThere,
    Digest,
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Failed {
        Failed::File(error)
    }
}

/// Fetches one file. Nothing follows a link that somebody put into the directory. What is cut off isn't left there, and a
/// file that had the name stays until the new one is complete.
async fn fetch_one(
    connection: &Connection,
    run: &RunId,
    artifact: &Artifact,
    root: &Root,
    path: &Path,
) -> Result<(), Failed> {
    let directory = root.make(path.parent().unwrap_or(Path::new("")))?;
    let name = path.file_name().unwrap_or(OsStr::new("artifact"));
    let partial = OsString::from(format!("{PARTIAL}{}", artifact.id));
    let mut file = beneath::new_file(directory.as_fd(), &partial, MODE)?;
    let fetched = write(connection, run, artifact, &mut file).await;
    let fetched = fetched.and_then(|()| {
        let renamed = nix::fcntl::renameat(directory.as_fd(), &*partial, directory.as_fd(), name);
        renamed.map_err(|error| Failed::File(error.into()))
    });
    if fetched.is_err() {
        let _ = nix::unistd::unlinkat(
            directory.as_fd(),
            &*partial,
            nix::unistd::UnlinkatFlags::NoRemoveDir,
        );
    }
    fetched
}

async fn write(
    connection: &Connection,
    run: &RunId,
    artifact: &Artifact,
    file: &mut File,
) -> Result<(), Failed> {
    let pieces = content(connection, run, &artifact.digest).await;
    let mut pieces = pieces.map_err(|status| match status.code() {
        tonic::Code::NotFound => Failed::NotThere,
        _ => Failed::Call(status.into()),
    })?;
    let mut hash = Sha256::new();
    while let Some(piece) = pieces
        .message()
        .await
        .map_err(|status| Failed::Call(status.into()))?
    {
        hash.update(&piece.data);
        file.write_all(&piece.data)?;
    }
    match hex::encode(hash.finalize()) == artifact.digest {
        true => Ok(()),
        false => Err(Failed::Digest),
    }
}

/// Asks for the content of an artifact.
pub(super) async fn content(
    connection: &Connection,
    run: &RunId,
    digest: &str,
) -> Result<tonic::Streaming<v1::Chunk>, tonic::Status> {
    let request = v1::ArtifactRequest {
        run_id: run.to_string(),
        digest: digest.to_owned(),
    };
    Ok(connection.client().artifact(request).await?.into_inner())
}
