//! Compressed blocks: gzip in base64, which browsers inflate with `DecompressionStream`, and the text of a log block.

use crate::logs::{LogLine, ServiceLog};
use crate::text::clean;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use phalanx_shared::event::LogStream;
use serde_json::json;
use std::fmt::Write as _;
use std::io::Write as _;

/// Returns the text as gzip in base64.
pub fn compressed(text: &str) -> String {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::best());
    // Writing to memory doesn't fail; an empty block would show as an empty page.
    let written = encoder
        .write_all(text.as_bytes())
        .and_then(|()| encoder.finish());
    STANDARD.encode(written.unwrap_or_default())
}

/// Returns the logs of an attempt as one text: a line of JSON with what is known about the lines of each service, then
/// the lines themselves, one service after the other.
///
/// `start` is the time of a service's first line in milliseconds since the epoch, `deltas` the differences to the next
/// lines in base 36 (which compress well), `kinds` one letter per line: `o` and `e` for the output streams, `g` for a
/// gap.
pub fn log_text(services: &[&ServiceLog]) -> String {
    let heads: Vec<_> = services.iter().map(|service| head(service)).collect();
    let mut out = json!({ "services": heads }).to_string();
    for line in services.iter().flat_map(|service| &service.lines) {
        out.push('\n');
        out.push_str(&clean(&line.text));
    }
    out
}

fn head(service: &ServiceLog) -> serde_json::Value {
    let millis = |line: &LogLine| line.at.0.div_euclid(1000);
    let start = service.lines.first().map_or(0, millis);
    let mut before = start;
    let mut deltas = String::with_capacity(service.lines.len() * 2);
    let mut kinds = String::with_capacity(service.lines.len());
    for line in &service.lines {
        // Lines are in the order of their arrival; a clock that went back is shown as standing still.
        let at = millis(line).max(before);
        base36(&mut deltas, at.abs_diff(before));
        deltas.push(' ');
        before = at;
        kinds.push(match (line.gap, line.stream) {
            (true, _) => 'g',
            (false, LogStream::Stdout) => 'o',
            (false, LogStream::Stderr) => 'e',
        });
    }
    json!({ "name": clean(&service.service), "start": start, "deltas": deltas.trim_end(), "kinds": kinds })
}

fn base36(out: &mut String, number: u64) {
    if number < 10 {
        let _ = write!(out, "{number}");
        return;
    }
    let mut digits = Vec::new();
    let mut rest = number;
    while rest > 0 {
        let digit = u32::try_from(rest % 36).unwrap_or_default();
        digits.push(char::from_digit(digit, 36).unwrap_or('0'));
        rest /= 36;
    }
    out.extend(digits.iter().rev());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use phalanx_shared::id::CellId;
    use phalanx_shared::time::Timestamp;
    use std::io::Read;

    #[test]
    fn a_block_is_gzip_in_base64() {
        let bytes = STANDARD
            .decode(compressed("a\nb\n".repeat(100).as_str()))
            .unwrap();
        let mut text = String::new();
        flate2::read::GzDecoder::new(bytes.as_slice())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "a\nb\n".repeat(100));
    }

    #[test]
    fn a_log_block_tells_times_and_streams_in_its_first_line() {
        let line = |at_ms: i64, stream, text: &str| LogLine {
            at: Timestamp(at_ms * 1000),
            stream,
            text: text.to_owned(),
            gap: text.starts_with("gap"),
        };
        let log = ServiceLog {
            cell: CellId::from("c"),
            attempt: 1,
            service: "db".to_owned(),
            lines: vec![
                line(1000, LogStream::Stdout, "one"),
                line(1037, LogStream::Stderr, "\u{1b}[31mtwo\u{1b}[0m"),
                line(1036, LogStream::Stdout, "gap"),
            ],
        };
        let text = log_text(&[&log]);
        let (head, lines) = text.split_once('\n').unwrap();
        assert_eq!(lines, "one\ntwo\ngap");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(head).unwrap(),
            json!({ "services": [{ "name": "db", "start": 1000, "deltas": "0 11 0", "kinds": "oeg" }] })
        );
    }
}
