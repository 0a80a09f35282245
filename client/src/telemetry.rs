//! The program's own log, through `tracing`: filtered, and written by the caller's writer.
//!
//! Spans of runs, cells and steps aren't made here. They are made from events and survive a restart.

use phalanx_otlp::Tracer;
use std::io::Write;
use tracing_subscriber::filter::LevelFilter;
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

/// The library of the OTLP exporters, as its log lines name it.
const EXPORTER: &str = "opentelemetry-otlp";

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
    // The library logs the backend's address, which may have a password. What fails, this program says itself.
    let hush = format!("{EXPORTER}=off").parse();
    let parsed = match hush {
        Ok(hush) => parsed.add_directive(hush),
        Err(_) => parsed,
    };
    let most = parsed.max_level_hint().unwrap_or(LevelFilter::TRACE);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(colors);
    let lines = match format {
        Format::Text => lines.with_target(false).boxed(),
        Format::Json => lines.json().boxed(),
    };
    let spans = tracer.map(|tracer| tracer.layer_of_phalanx(most));
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
