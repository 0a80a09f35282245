//! `phalanx logs`: prints the stored logs of a cell's services.

use super::error::CliError;
use super::follow::fetch;
use super::interrupt::Interrupts;
use super::interrupt::guarded;
use super::{Context, exit, say, source};
use phalanx_proto::convert::stream_from_wire;
use phalanx_proto::v1::{self, LogRecord};
use phalanx_report::style::{Style, Tone};
use phalanx_shared::error_code::ErrorCode;
use phalanx_shared::event::LogStream;
use phalanx_shared::time::Timestamp;
use std::collections::HashMap;
use std::path::PathBuf;

/// Print the logs of a cell's services
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  phalanx logs last 'mysql / v2.0' shop       one service of a cell of the newest run
  phalanx logs 0193 6f2a -f                   follow all services of a running cell
  phalanx logs last 6f2a db --attempt 1       the database's log of the first attempt")]
pub struct Args {
    /// Id of the run, or its beginning or end; `last` is the newest. Not with --file
    #[arg(required_unless_present = "file")]
    run: Option<String>,
    /// Cell: id, beginning of an id, or name
    cell: Option<String>,
    /// Service [default: all]
    service: Option<String>,
    /// Read a run that `phalanx export` wrote: phalanx logs --file FILE CELL SERVICE
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, conflicts_with_all = ["follow", "coordinator"])]
    file: Option<PathBuf>,
    /// Attempt, from 1 [default: the newest]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    attempt: u32,
    /// Follow log output
    #[arg(long, short)]
    follow: bool,
    /// Print only standard output or standard error
    #[arg(long, value_enum)]
    stream: Option<Stream>,
    /// Prefix each line with its time
    #[arg(long, short)]
    timestamps: bool,
}

/// An output stream of a process.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Stdout,
    Stderr,
}

impl Args {
    /// With a file there is no run to name, so the first word is the cell.
    fn untangled(mut self) -> Result<Args, CliError> {
        if self.file.is_some() {
            if self.service.is_some() {
                return Err(
                    CliError::usage("the file is the run: name only a cell and a service")
                        .with_help("phalanx logs --file FILE CELL SERVICE"),
                );
            }
            self.service = self.cell.take();
            self.cell = self.run.take();
        }
        Ok(self)
    }
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<u8, CliError> {
    let args = args.untangled()?;
    guarded(args.file.is_some(), printed(args, context)).await
}

async fn printed(args: Args, context: &Context) -> Result<u8, CliError> {
    let (connection, run) =
        source::open(context, args.run.as_deref(), args.file.as_deref()).await?;
    let (state, now) = fetch(connection.client(), run.clone()).await?;
    let view = super::view(context, &state, now)?;
    let cell = match (&args.cell, view.cells.as_slice()) {
        (Some(cell), _) => super::pick::pick_cell(&view, cell)?,
        (None, [only]) => only,
        (None, cells) => {
            let message = format!("the run has {} cells: which one?", cells.len());
            let which = match &args.file {
                Some(file) => format!("--file {}", file.display()),
                None => args.run.clone().unwrap_or_default(),
            };
            return Err(CliError::usage(message).with_help(format!(
                "phalanx logs {which} CELL; phalanx show names the cells"
            )));
        }
    };
    if let Some(service) = &args.service {
        check_service(cell, service)?;
    }
    let request = v1::LogsRequest {
        run_id: run.to_string(),
        cell: cell.id.to_string(),
        attempt: args.attempt,
        service: args.service.clone().unwrap_or_default(),
        stream: match args.stream {
            None => v1::LogStream::Unspecified,
            Some(Stream::Stdout) => v1::LogStream::Stdout,
            Some(Stream::Stderr) => v1::LogStream::Stderr,
        }
        .into(),
        offset: 0,
        from_record: 0,
        follow: args.follow,
    };
    let mut interrupts = Interrupts::listen()?;
    let mut records = connection.client().logs(request).await?.into_inner();
    let mut printer = Printer {
        many: args.service.is_none(),
        timestamps: args.timestamps,
        style: context.voice.stdout_style(),
        open: HashMap::new(),
    };
    loop {
        let record = tokio::select! {
            _ = interrupts.next() => break,
            record = records.message() => record?,
        };
        match record {
            Some(record) => say::to_stdout(printer.text(&record))?,
            None => break,
        }
    }
    say::to_stdout(printer.rest())?;
    connection.close().await;
    Ok(exit::OK)
}

fn check_service(cell: &phalanx_report::view::CellView, service: &str) -> Result<(), CliError> {
    let names: Vec<&str> = cell
        .attempts
        .iter()
        .flat_map(|attempt| attempt.services.iter().map(|service| service.name.as_str()))
        .collect();
    if names.is_empty() || names.contains(&service) {
        return Ok(());
    }
    let error = CliError::usage(format!("the cell has no service `{service}`"))
        .explained_by(ErrorCode::Unknown);
    let near = names
        .iter()
        .min_by_key(|name| strsim::damerau_levenshtein(name, service));
    Err(match near {
        Some(name) => error.with_help(format!(
            "did you mean `{name}`? It has {}",
            distinct(&names).join(", ")
        )),
        None => error,
    })
}

fn distinct<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let mut names = names.to_vec();
    names.sort_unstable();
    names.dedup();
    names
}

/// Joins chunks into lines, so that lines of different services don't mix. The output of a single service is printed
/// byte by byte.
struct Printer {
    many: bool,
    timestamps: bool,
    style: Style,
    /// Incomplete lines, by service and stream.
    open: HashMap<(String, Option<LogStream>), Vec<u8>>,
}

impl Printer {
    fn text(&mut self, record: &LogRecord) -> Vec<u8> {
        let stream = stream_from_wire(record.stream).ok().flatten();
        if let Some(to) = record.gap_to {
            let lost = to.saturating_sub(record.offset);
            let text = format!(
                "[{lost} bytes of {} not kept: {}]\n",
                record.service, record.gap_reason
            );
            return self
                .style
                .paint(Tone::Warn, text.trim_end())
                .into_bytes()
                .into_iter()
                .chain(*b"\n")
                .collect();
        }
        if !self.many && !self.timestamps {
            return record.data.clone();
        }
        let prefix = self.prefix(record);
        let open = self
            .open
            .entry((record.service.clone(), stream))
            .or_default();
        let mut out = Vec::new();
        for piece in record.data.split_inclusive(|byte| *byte == b'\n') {
            open.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                out.extend_from_slice(prefix.as_bytes());
                out.append(open);
            }
        }
        out
    }

    fn prefix(&self, record: &LogRecord) -> String {
        let time = if self.timestamps {
            format!("{} ", Timestamp(record.at_us).to_rfc3339())
        } else {
            String::new()
        };
        let service = if self.many {
            format!("{} | ", record.service)
        } else {
            String::new()
        };
        self.style.paint(Tone::Dim, &format!("{time}{service}"))
    }

    /// Returns the lines that never ended.
    fn rest(&mut self) -> Vec<u8> {
        let mut open: Vec<_> = self
            .open
            .drain()
            .filter(|(_, line)| !line.is_empty())
            .collect();
        open.sort_by(|a, b| a.0.0.cmp(&b.0.0));
        let lines = open.into_iter().flat_map(|((service, _), line)| {
            let prefix = if self.many {
                format!("{service} | ")
            } else {
                String::new()
            };
            prefix.into_bytes().into_iter().chain(line).chain(*b"\n")
        });
        lines.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_two_services_that_come_in_pieces_do_not_mix() {
        let record = |service: &str, data: &str| LogRecord {
            service: service.to_owned(),
            data: data.as_bytes().to_vec(),
            ..LogRecord::default()
        };
        let mut printer = Printer {
            many: true,
            timestamps: false,
            style: Style::PLAIN,
            open: HashMap::new(),
        };
        let mut out = Vec::new();
        for (service, data) in [("a", "one "), ("b", "x\ny"), ("a", "line\n")] {
            out.extend(printer.text(&record(service, data)));
        }
        out.extend(printer.rest());
        assert_eq!(
            String::from_utf8_lossy(&out),
            "b | x\na | one line\nb | y\n"
        );
    }
}
