//! Keys of failures: an exact one, and a fingerprint that is equal for failures that differ only in numbers and ids.

use crate::view::StepView;
use phalanx_shared::event::{CheckResult, Part};
use phalanx_shared::outcome::Outcome;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Bytes of a text that count.
const COUNTED: usize = 2_000;
/// Longer values count by their kind only: their text is data, not a kind of failure.
const VALUE: usize = 80;
/// Bytes of a UUID.
const UUID: usize = 36;
/// Bytes by which hexadecimal digits with colons between them are told from other text; no IPv6 address has more.
const COLONS: usize = 48;
/// Stands for a number, an id, an address or a time.
const MASK: char = '#';

/// Returns a key that is equal for failures that are equal to a reader: step, outcome, reason, and failed checks with
/// their values.
pub(super) fn exact(step: &StepView) -> String {
    let failed: Vec<_> = step.checks.iter().filter(|check| !check.passed).collect();
    format!(
        "{} {} {:?} {:?} {failed:?}",
        step.path, step.name, step.outcome, step.reason
    )
}

/// Returns the fingerprint of a step's failure: its place, and the shape of the first failed check or of the reason.
/// `path` is the step's path, or that of any item of its loops.
pub(super) fn fingerprint(
    (phase, path): (&str, &str),
    outcome: Outcome,
    checks: &[CheckResult],
    reason: &str,
) -> String {
    let mut key = format!("step {phase} {path} {} ", outcome.as_str());
    match checks.iter().find(|check| !check.passed) {
        Some(check) => check_shape(&mut key, check),
        None => key += &masked(reason),
    }
    key
}

/// Returns a key in which the items of `foreach` loops are equal.
pub(super) fn of_any_item(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    let mut rest = key;
    while let Some((before, after)) = rest.split_once('[') {
        out.push_str(before);
        out.push_str("[]");
        rest = after.split_once(']').map_or("", |(_, after)| after);
    }
    out + rest
}

/// Shortens a key to the id of a finding.
pub(super) fn id(key: &str) -> String {
    let digest = Sha256::digest(key.as_bytes());
    hex::encode(digest.get(..6).unwrap_or_default())
}

fn check_shape(key: &mut String, check: &CheckResult) {
    let _ = write!(key, "check {} ", check.expression);
    match &check.error {
        Some(error) => *key += &masked(error),
        None => {
            for part in &check.parts {
                let _ = write!(key, "{}={};", masked(&part.text), value_shape(part));
            }
        }
    }
}

/// Returns the kind of a value. An HTTP status or exit code is kept, because it says what went wrong; other numbers are
/// measurements.
fn value_shape(part: &Part) -> String {
    let value = part.value.as_str();
    let is_code = part.text.ends_with("status") || part.text.ends_with("code");
    match value.as_bytes().first() {
        Some(b'0'..=b'9' | b'-') if is_code && value.len() <= 4 => value.to_owned(),
        Some(b'{') => "{}".to_owned(),
        Some(b'[') => "[]".to_owned(),
        _ if value.len() > VALUE => "…".to_owned(),
        _ => masked(value),
    }
}

/// Replaces numbers, ids, addresses, hosts, times and digests in a text, so that texts of the same kind become equal.
pub(super) fn masked(text: &str) -> String {
    let text = text
        .get(..text.floor_char_boundary(COUNTED))
        .unwrap_or_default();
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("://") {
            out.push_str("://");
            out.push(MASK);
            rest = after.trim_start_matches(is_host);
            continue;
        }
        let length = word(rest);
        if length == 0 {
            out.push(first);
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
            continue;
        }
        let (head, tail) = rest.split_at(length);
        push_word(&mut out, head);
        rest = tail;
    }
    joined(&out)
}

fn is_host(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']' | '@' | '%')
}

/// Returns the length of the word at the beginning of a text: a UUID, an IPv6 address, or letters and digits.
fn word(text: &str) -> usize {
    let run = |most: usize, allowed: fn(&u8) -> bool| {
        let bytes = text.as_bytes().iter().take(most);
        bytes.take_while(|byte| allowed(byte)).count()
    };
    let plain = run(text.len(), u8::is_ascii_alphanumeric);
    // Bounded, because a run of dashes or colons is looked at again from each of its bytes.
    let dashed = run(UUID + 1, |byte| byte.is_ascii_hexdigit() || *byte == b'-');
    if text.get(..dashed).is_some_and(is_uuid) {
        return dashed;
    }
    let colon = |byte: &u8| byte.is_ascii_hexdigit() || *byte == b':';
    let mut colons = run(COLONS, colon);
    let is_address = |colons: usize| text.get(..colons).is_some_and(is_ipv6);
    let goes_on = colons == COLONS && is_address(colons);
    if goes_on {
        colons = run(text.len(), colon);
    }
    let run_of = text.get(..colons).unwrap_or_default();
    if run_of.ends_with(':') && !run_of.ends_with("::") {
        colons -= 1; // the colon of a sentence
    }
    if goes_on || (colons > plain && is_address(colons)) {
        return colons;
    }
    plain
}

fn is_uuid(text: &str) -> bool {
    text.len() == UUID && text.split('-').map(str::len).eq([8, 4, 4, 4, 12])
}

fn is_ipv6(text: &str) -> bool {
    let groups = text.split(':');
    text.matches(':').count() >= 2
        && groups.clone().all(|group| group.len() <= 4)
        && groups.into_iter().any(|group| !group.is_empty())
}

fn push_word(out: &mut String, word: &str) {
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    let hex = word.bytes().all(|b| b.is_ascii_hexdigit());
    let is_id = hex && digits > 0 && word.len() >= 7;
    let is_token = digits > 1 && word.len() >= 20;
    if is_id || is_token || is_uuid(word) || (word.contains(':') && is_ipv6(word)) {
        out.push(MASK);
        return;
    }
    if digits == 0 {
        out.push_str(word);
        return;
    }
    let starts_with_digit = word.bytes().next().is_some_and(|b| b.is_ascii_digit());
    if starts_with_digit && word.len() - digits <= 3 {
        out.push(MASK); // a number with its unit, or a part of a time: 120ms, 27T12, 41Z
        return;
    }
    for c in word.chars() {
        match c {
            '0'..='9' if out.ends_with(MASK) => {}
            '0'..='9' => out.push(MASK),
            c => out.push(c),
        }
    }
}

/// Joins masks that belong to one number, address or time: `#.#.#.#:#` becomes `#`.
fn joined(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let joins = matches!(c, '.' | ':' | '-' | ',' | '+')
            && out.ends_with(MASK)
            && chars.peek() == Some(&MASK);
        let repeats = c == MASK && out.ends_with(MASK);
        if !joins && !repeats {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_ids_addresses_and_times_are_masked_and_words_are_kept() {
        for (text, shape) in [
            ("status 500 after 120ms", "status # after #"),
            ("not within 1m30s", "not within #"),
            (
                "GET http://172.30.0.4:8080/api/vm/7/ refused",
                "GET ://#/api/vm/#/ refused",
            ),
            ("dial 10.0.0.1:5432: refused", "dial #: refused"),
            ("at 2026-11-27T12:00:41.5Z vm101", "at # vm#"),
            (
                "job 01936b0e-8f00-7cc3-98c4-dc0c0c07398f of sha256:9a41e6835b7a9c1d",
                "job # of sha#",
            ),
            ("fe80::1 is down, ::1 too", "# is down, # too"),
            ("bad cafe, decade: face", "bad cafe, decade: face"),
            ("größer als 3 €", "größer als # €"),
        ] {
            let shape = shape.replace("GET ://", "GET http://");
            assert_eq!(masked(text), shape);
        }
    }

    #[test]
    fn an_id_is_masked_only_as_a_whole() {
        let uuid = "01936b0e-8f00-7cc3-98c4-dc0c0c07398f";
        assert_eq!(masked(uuid), "#");
        assert_eq!(masked(&format!("{uuid}.")), "#.");
        assert_eq!(masked(&"ab:".repeat(600)), "#:");
        assert_eq!(masked(&":".repeat(1_900)), ":".repeat(1_900));
        assert_eq!(masked(&"-a".repeat(900)), "-a".repeat(900));
    }

    #[test]
    fn any_text_can_be_masked() {
        for text in [
            "",
            "://",
            "::",
            "-",
            "é",
            "#",
            "a:b:c",
            ":::::",
            "1-2-3-4-5",
            "\u{0}",
        ] {
            let once = masked(text);
            assert_eq!(masked(&once), once, "{text:?}");
        }
    }
}
