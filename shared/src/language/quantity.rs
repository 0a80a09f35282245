//! Parses durations, sizes and CPU numbers as people write them. No other code parses them.

use crate::node::{Node, NodeValue};
use std::time::Duration;

/// Longest duration, about 30 years, so that a sum of a few durations cannot overflow.
const MAX_SECONDS: f64 = 1e9;

/// Parses a duration: `1m30s`, `500ms`, `2.5` (seconds), `1h`, `1d`; units go from large to small, as in Compose and
/// Go.
pub fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Some(seconds) = decimal(text) {
        return seconds_to_duration(seconds);
    }
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at_checked(digits)?;
        let unit_len = tail
            .find(|c: char| !c.is_alphabetic() && c != 'µ')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(unit_len)?;
        let factor = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        total += decimal(number)? * factor;
        rest = tail;
    }
    (!text.is_empty()).then_some(())?;
    seconds_to_duration(total)
}

/// Parses a size in bytes: `512m`, `1GiB`, `1.5g`, `100kb`, `4096`. As in Compose, `k`, `m`, `g`, `kb`, `mb` and `gb`
/// are powers of 1,024, like `KiB`, `MiB` and `GiB`.
pub fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let power = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" | "ki" => 1,
        "m" | "mb" | "mib" | "mi" => 2,
        "g" | "gb" | "gib" | "gi" => 3,
        "t" | "tb" | "tib" | "ti" => 4,
        _ => return None,
    };
    let value = decimal(number)? * 1024f64.powi(power);
    (value <= 1e18).then_some(value.round() as u64)
}

/// Spells a size for people: `512 B`, `1.5 KiB`, `64 MiB`.
pub fn spelled_bytes(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let Some(unit) = (0..units.len())
        .rev()
        .find(|unit| bytes >> (10 * (unit + 1)) > 0)
    else {
        return format!("{bytes} B");
    };
    // Rounded down: what is just below a limit doesn't look as if it were above it.
    let tenths = (bytes >> (10 * unit)) * 10 / 1024;
    let unit = units.get(unit).copied().unwrap_or_default();
    match tenths {
        tenths if tenths >= 100 || tenths % 10 == 0 => format!("{} {unit}", tenths / 10),
        tenths => format!("{}.{} {unit}", tenths / 10, tenths % 10),
    }
}

/// Parses a CPU number into thousandths of a CPU: `0.5`, `2`, `500m` (already thousandths).
pub fn millicpus(text: &str) -> Option<u64> {
    let text = text.trim();
    let value = match text.strip_suffix('m') {
        Some(thousandths) => decimal(thousandths)?,
        None => decimal(text)? * 1000.0,
    };
    (value <= 1e9).then_some(value.round() as u64)
}

/// Parses the duration in a node: a text, or a number of seconds.
pub fn duration_of(node: &Node) -> Option<Duration> {
    duration(&spelling(node)?)
}

/// Parses the size in a node: a text, or a number of bytes.
pub fn bytes_of(node: &Node) -> Option<u64> {
    bytes(&spelling(node)?)
}

/// Parses the CPU number in a node into thousandths of a CPU.
pub fn millicpus_of(node: &Node) -> Option<u64> {
    millicpus(&spelling(node)?)
}

/// Returns a scalar as text, with numbers and bools spelled as in JSON.
pub fn spelling(node: &Node) -> Option<String> {
    match &node.value {
        NodeValue::Text(text) => Some(text.clone()),
        NodeValue::Int(value) => Some(value.to_string()),
        NodeValue::Float(value) => Some(serde_json::Value::from(*value).to_string()),
        NodeValue::Bool(value) => Some(value.to_string()),
        NodeValue::Null | NodeValue::List(_) | NodeValue::Map(_) => None,
    }
}

fn decimal(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|c| c.is_ascii_digit() || c == b'.');
    let value: f64 = (plain && text.bytes().any(|c| c.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()?;
    value.is_finite().then_some(value)
}

fn seconds_to_duration(seconds: f64) -> Option<Duration> {
    (seconds <= MAX_SECONDS).then(|| Duration::from_nanos((seconds * 1e9).round() as u64))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sizes_are_spelled_with_two_digits_and_never_too_large() {
        for (bytes, spelled) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            ((64 << 20) - 1, "63 MiB"),
            (64 << 20, "64 MiB"),
            (3 << 40, "3 TiB"),
            (u64::MAX, "16777215 TiB"),
        ] {
            assert_eq!(spelled_bytes(bytes), spelled);
        }
    }

    #[test]
    fn durations_are_read_as_compose_reads_them_and_bare_numbers_are_seconds() {
        for (text, ms) in [
            ("1m30s", 90_000),
            ("500ms", 500),
            ("2.5", 2500),
            ("1h", 3_600_000),
            ("1.5s", 1500),
            ("0", 0),
            ("250us", 0),
            ("2d", 172_800_000),
        ] {
            assert_eq!(duration(text).unwrap().as_millis(), ms, "{text}");
        }
        for text in [
            "",
            "s",
            "1x",
            "-1s",
            "1 s",
            "1s!",
            "..s",
            "1e9999",
            "9999999999h",
            "5m-",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_and_cpus_are_read_as_compose_reads_them() {
        for (text, value) in [
            ("512m", 512 << 20),
            ("1GiB", 1 << 30),
            ("1.5g", 3 << 29),
            ("4096", 4096),
            ("2kb", 2048),
            ("64 MiB", 64 << 20),
        ] {
            assert_eq!(bytes(text), Some(value), "{text}");
        }
        assert_eq!(bytes("-1"), None);
        assert_eq!(bytes("1x"), None);
        assert_eq!(bytes("99999999999999t"), None);
        assert_eq!(millicpus("0.5"), Some(500));
        assert_eq!(millicpus("250m"), Some(250));
        assert_eq!(millicpus("two"), None);
    }
}
