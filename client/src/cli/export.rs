//! `phalanx export`: writes a run to one file, which other commands open with `--file`.

use super::artifacts;
use super::connect::Connection;
use super::error::CliError;
use super::follow::{self, Input};
use super::interrupt::guarded;
use super::source::RunOrFile;
use super::{Context, exit};
use crate::leftover::Leftover;
use phalanx_proto::convert::stream_from_wire;
use phalanx_proto::v1;
use phalanx_report::archive::{
    ArtifactPiece, Encoder, Error, Head, LogBody, LogRecord, PIECE_BYTES,
};
use phalanx_report::text::plural;
use phalanx_shared::error_code::ErrorCode;
use phalanx_shared::event::{EventKind, LogStream};
use phalanx_shared::id::{CellId, RunId};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, ErrorKind, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Write a run to one file: journal, logs, artifacts, spec and plan
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Commands that read a run (show, logs, …) open the file with --file, on any machine.
Secrets are in it by name only; the workspace's files are not in it. It holds up to 512 MiB of artifacts.

Examples:
  phalanx export > r.phx                     the newest run
  phalanx export 0193 -o r.phx               the given run; an existing file is replaced
  phalanx show --file r.phx --cell 'mysql'   read it elsewhere
  gunzip -c r.phx | jq .event.event.kind     it is compressed JSON, a line for each event")]
pub struct Args {
    #[command(flatten)]
    source: RunOrFile,
    /// File to write [default: standard output]
    #[arg(long, short, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    output: Option<PathBuf>,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<u8, CliError> {
    if args.output.is_none() && std::io::stdout().is_terminal() {
        let message = "the file is not for a terminal: say where to write it";
        return Err(CliError::usage(message)
            .with_help("phalanx export RUN --output run.phx")
            .explained_by(ErrorCode::Terminal));
    }
    let leaves_files = args.output.is_some() || args.source.is_file();
    guarded(leaves_files, exported(args, context)).await
}

async fn exported(args: Args, context: &Context) -> Result<u8, CliError> {
    let (connection, run) = args.source.open(context).await?;
    let exported = match &args.output {
        Some(file) => to_file(&connection, &run, file).await,
        None => to_stdout(&connection, &run).await,
    };
    connection.close().await;
    let exported = exported?;
    let LeftOut {
        too_many,
        not_there,
    } = exported.left_out;
    if too_many > 0 {
        let files = plural(too_many, "artifact");
        context.voice.note(&format!(
            "{files} not in the file, which holds at most 512 MiB of them"
        ));
    }
    if not_there > 0 {
        let files = plural(not_there, "artifact");
        context.voice.note(&format!(
            "{files} not in the file: they didn't arrive, or not yet"
        ));
    }
    if !exported.finished {
        context.voice.note(&format!(
            "run {run} isn't finished: the file holds it as it was now"
        ));
    }
    Ok(exit::OK)
}

/// Writes the run beside the file first, so that a broken export leaves no file that looks whole.
async fn to_file(connection: &Connection, run: &RunId, file: &Path) -> Result<Exported, CliError> {
    let mut partial = file.as_os_str().to_owned();
    partial.push(format!(".{}.partial", std::process::id()));
    let partial = PathBuf::from(partial);
    let failed = |error: std::io::Error| {
        CliError::errored(format!("can't write {}: {error}", file.display()))
    };
    // The content of specs and the output of the systems under test are for the owner's eyes.
    let opened = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial);
    let out = BufWriter::new(opened.map_err(failed)?);
    let partial = Leftover::new(partial);
    match write(connection, run, out).await {
        Ok((mut out, exported)) => {
            let done = out
                .flush()
                .and_then(|()| std::fs::rename(partial.path(), file));
            done.map(|()| exported).map_err(failed)
        }
        Err(Failed::Call(error)) => Err(error),
        Err(Failed::File(Error::Io(error))) => Err(failed(error)),
        Err(Failed::File(error)) => Err(CliError::errored(error.to_string())),
    }
}

async fn to_stdout(connection: &Connection, run: &RunId) -> Result<Exported, CliError> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::BrokenPipe => CliError::said(exit::OK),
        _ => CliError::errored(format!("can't write to standard output: {error}")),
    };
    let out = BufWriter::new(std::io::stdout());
    match write(connection, run, out).await {
        Ok((mut out, exported)) => out.flush().map(|()| exported).map_err(failed),
        Err(Failed::Call(error)) => Err(error),
        Err(Failed::File(Error::Io(error))) => Err(failed(error)),
        Err(Failed::File(error)) => Err(CliError::errored(error.to_string())),
    }
}

/// What a written file holds.
struct Exported {
    /// Whether the run is finished.
    finished: bool,
    left_out: LeftOut,
}

/// Numbers of artifacts that are not in a file.
#[derive(Default)]
struct LeftOut {
    /// There is no room for them.
    too_many: usize,
    /// Their content isn't there, or isn't what the journal says.
    not_there: usize,
}

/// Why an export ended early.
enum Failed {
    /// The coordinator refused or broke off.
    Call(CliError),
    /// The file can't be written.
    File(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::File(error)
    }
}

impl From<CliError> for Failed {
    fn from(error: CliError) -> Failed {
        Failed::Call(error)
    }
}

impl From<tonic::Status> for Failed {
    fn from(status: tonic::Status) -> Failed {
        Failed::Call(status.into())
    }
}

/// Writes the run. Returns the writer, and what the file holds.
async fn write<W: Write>(
    connection: &Connection,
    run: &RunId,
    out: W,
) -> Result<(W, Exported), Failed> {
    let mut encoder = Encoder::new(out, head(connection, run).await?)?;
    let mut inputs = follow::watch(connection.client(), run.clone(), 1, false);
    let mut finished = false;
    let (mut kept, mut seen) = (Vec::new(), HashSet::new());
    while let Some(input) = inputs.recv().await {
        match input {
            Input::Event(recorded) => {
                finished |= matches!(recorded.event.kind, EventKind::RunFinished { .. });
                match &recorded.event.kind {
                    EventKind::ArtifactCollected(artifact)
                        if artifact.is_kept() && seen.insert(artifact.digest.clone()) =>
                    {
                        kept.push((artifact.digest.clone(), artifact.size));
                    }
                    _ => {}
                }
                encoder.event(*recorded)?;
            }
            Input::Ended(Some(error)) => return Err(error.into()),
            Input::Ended(None) => break,
            Input::Broken(_) | Input::Interrupt(_) => {}
        }
    }
    let mut records = follow::records(connection.client(), run).await?;
    while let Some(record) = records.message().await? {
        encoder.log(log(record))?;
    }
    let left_out = add_artifacts(connection, run, &mut encoder, kept).await?;
    Ok((encoder.finish()?, Exported { finished, left_out }))
}

/// Adds the artifacts, each content once, in the order of the journal. A size that an agent made up can't make the file
/// larger than it may be, or unreadable.
async fn add_artifacts<W: Write>(
    connection: &Connection,
    run: &RunId,
    encoder: &mut Encoder<W>,
    kept: Vec<(String, u64)>,
) -> Result<LeftOut, Failed> {
    let mut left_out = LeftOut::default();
    for (digest, size) in kept {
        if !encoder.has_room(size) {
            left_out.too_many += 1;
            continue;
        }
        let mut pieces = match artifacts::content(connection, run, &digest).await {
            Ok(pieces) => pieces,
            // It was lost on its way, or the run was read from a file without it.
            Err(status) if status.code() == tonic::Code::NotFound => {
                left_out.not_there += 1;
                continue;
            }
            Err(status) => return Err(status.into()),
        };
        let (mut end, mut hash) = (0, Sha256::new());
        // The last piece makes it whole, so it waits until all of it is known to be right.
        let mut last = (0, Vec::new());
        let mut piece = |(offset, bytes)| {
            encoder.artifact(ArtifactPiece {
                digest: digest.clone(),
                size,
                offset,
                bytes,
            })
        };
        while let Some(v1::Chunk { data }) = pieces.message().await? {
            hash.update(&data);
            for bytes in data.chunks(PIECE_BYTES) {
                if end > 0 && end < size {
                    piece(std::mem::take(&mut last))?;
                }
                last = (end, bytes.to_vec());
                end += bytes.len() as u64;
            }
            if end > size {
                break;
            }
        }
        match end == size && hex::encode(hash.finalize()) == digest {
            true => piece(last)?,
            false => left_out.not_there += 1,
        }
    }
    Ok(left_out)
}

async fn head(connection: &Connection, run: &RunId) -> Result<Head, CliError> {
    let submission = submission(connection, run).await?;
    let options = submission.options.unwrap_or_default();
    let keep = options.keep.map(TryInto::try_into).transpose();
    Ok(Head {
        id: run.clone(),
        files: submission.files.into_iter().map(Into::into).collect(),
        inputs: object(&submission.inputs_json)?,
        only: submission.only,
        cells: submission.cells,
        keep: keep
            .map_err(|error| unreadable(&error))?
            .unwrap_or_default(),
        fail_fast: options.fail_fast,
        max_parallel: options.max_parallel,
        priority: options.priority.unwrap_or_default(),
        workspace: Some(submission.workspace_digest).filter(|digest| !digest.is_empty()),
        images: submission.images.into_iter().collect(),
        origin: object(&submission.origin_json)?,
    })
}

/// Returns what a run was made from.
pub(super) async fn submission(
    connection: &Connection,
    run: &RunId,
) -> Result<v1::SubmitRequest, CliError> {
    let request = v1::GetSubmissionRequest {
        run_id: run.to_string(),
    };
    let answer = connection.client().get_submission(request).await;
    let answer = answer.map_err(|status| match status.code() {
        tonic::Code::Unimplemented => {
            CliError::errored("the coordinator can't say what the run was made from")
                .with_help("update it to this version of Phalanx")
                .explained_by(ErrorCode::OldCoordinator)
        }
        _ => status.into(),
    })?;
    let submission = answer.into_inner().submission;
    submission.ok_or_else(|| CliError::errored("the coordinator sent no submission"))
}

fn object(json: &[u8]) -> Result<Map<String, Value>, CliError> {
    match json {
        [] => Ok(Map::new()),
        json => serde_json::from_slice(json).map_err(|error| unreadable(&error)),
    }
}

fn unreadable(error: &dyn std::error::Error) -> CliError {
    CliError::errored(format!("the run's submission can't be read: {error}"))
}

fn log(record: v1::LogRecord) -> LogRecord {
    let stream = stream_from_wire(record.stream).ok().flatten();
    LogRecord {
        cell: CellId(record.cell),
        attempt: record.attempt,
        service: record.service,
        stream: stream.unwrap_or(LogStream::Stdout),
        offset: record.offset,
        at_us: record.at_us,
        body: match record.gap_to {
            Some(to) => LogBody::Gap {
                to,
                reason: record.gap_reason,
            },
            None => LogBody::Bytes(record.data),
        },
    }
}
