//! The program's own log, through `tracing`: filtered, and written by the caller's writer.
//!
//! Spans of runs, cells and steps aren't made here. They are made from events and survive a restart.

use phalanx_coordinator::trace::Tracer;
use std::io::Write;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines for people.
    Text,
    /// One JSON object per line, for programs.
    Json,
}

/// Starts logging; only the first call has an effect. `filter` is `level` or `target=level,…`. Returns an error if it
/// can't be parsed.
///
/// With a tracer, this program's own spans are exported too: those of level info, and more if `filter` names them.
pub fn init<W>(
    filter: &str,
    format: Format,
    colors: bool,
    writer: W,
    tracer: Option<&Tracer>,
) -> Result<(), String>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let parsed =
        EnvFilter::try_new(filter).map_err(|error| format!("log filter `{filter}`: {error}"))?;
    let most = parsed.max_level_hint().unwrap_or(LevelFilter::TRACE);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(colors);
    let lines = match format {
        Format::Text => lines.with_target(false).boxed(),
        Format::Json => lines.json().boxed(),
    };
    // Only Phalanx's own spans: the exporter's libraries would be traced while they export.
    let most = most.max(LevelFilter::INFO);
    let ours = filter_fn(move |of| of.target().starts_with("phalanx") && *of.level() <= most);
    let spans = tracer.map(|tracer| tracer.layer().with_filter(ours));
    let subscriber = tracing_subscriber::registry()
        .with(lines.with_filter(parsed))
        .with(spans);
    let _already = subscriber.try_init();
    Ok(())
}

/// A writer that passes whole lines to a function.
#[derive(Clone, Copy, Debug)]
pub struct Lines(pub fn(&str));

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        (self.0)(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Lines;

    fn make_writer(&'a self) -> Lines {
        *self
    }
}
