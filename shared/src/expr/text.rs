//! Values as text: within a template, and abbreviated in messages.

use crate::mask::{Masks, shortened};
use serde_json::Value;
use std::fmt::Write;

/// Returns how a value reads within text: strings as they are, numbers and bools as in JSON, null as empty text, lists
/// and maps as JSON with sorted keys.
pub fn to_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => canonical_json(other),
    }
}

/// Returns JSON without spaces and with sorted keys at every level: the same value always gives the same text.
pub fn canonical_json(value: &Value) -> String {
    let mut out = String::new();
    write_canonical(value, &mut out);
    out
}

/// Returns the canonical JSON of a map given by its entries, in any order.
pub fn canonical_entries<'e>(entries: impl IntoIterator<Item = (&'e String, &'e Value)>) -> String {
    let mut out = String::new();
    write_entries(entries.into_iter().collect(), &mut out);
    out
}

fn write_entries(mut entries: Vec<(&String, &Value)>, out: &mut String) {
    entries.sort_by_key(|(key, _)| *key);
    out.push('{');
    for (index, (key, item)) in entries.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        let _ = write!(out, "{}:", Value::String(key.clone()));
        write_canonical(item, out);
    }
    out.push('}');
}

fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => write_entries(map.iter().collect(), out),
        scalar => {
            let _ = write!(out, "{scalar}");
        }
    }
}

/// Returns a value for display: JSON, cut to `limit` characters; long lists and maps show their first entries and their
/// size.
pub fn abbreviate(value: &Value, limit: usize) -> String {
    abbreviate_masked(value, limit, &Masks::default())
}

/// Does the same as [`abbreviate`] with secrets masked: texts, keys and digits are masked as a whole before they are
/// cut or quoted.
pub fn abbreviate_masked(value: &Value, limit: usize, masks: &Masks) -> String {
    const SHOWN: usize = 4;
    let inner = |item| abbreviate_masked(item, limit / SHOWN, masks);
    let text = match value {
        Value::Array(items) if items.len() > SHOWN => {
            let shown = items.iter().take(SHOWN).map(inner);
            format!(
                "[{}, … {} in all]",
                shown.collect::<Vec<_>>().join(", "),
                items.len()
            )
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let shown = entries.iter().take(SHOWN).map(|(key, item)| {
                let key = masks.text(key).into_owned();
                format!("{}: {}", Value::String(key), inner(item))
            });
            let shown = shown.collect::<Vec<_>>().join(", ");
            match map.len() > SHOWN {
                true => format!("{{{shown}, … {} keys}}", map.len()),
                false => format!("{{{shown}}}"),
            }
        }
        Value::Array(items) => {
            let shown = items.iter().map(inner);
            format!("[{}]", shown.collect::<Vec<_>>().join(", "))
        }
        // A long text is cut before it is escaped, because bodies may have megabytes.
        Value::String(text) => {
            let (head, all) = masks.first_chars(text, limit);
            let ellipsis = if all { "" } else { "…" };
            let quoted = format!("{}{ellipsis}", Value::String(head));
            return shortened(&quoted, limit).into_owned();
        }
        Value::Number(number) => masks.text(&number.to_string()).into_owned(),
        scalar => scalar.to_string(),
    };
    shortened(&text, limit).into_owned()
}

/// Returns a value's kind and, if it is short, the value: `a list of 3`, `null`, `the text "abc"`, `the number 5`.
pub(super) fn describe(value: &Value, masks: &Masks) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => format!("the number {}", masks.text(&n.to_string())),
        Value::String(_) => format!("the text {}", abbreviate_masked(value, 60, masks)),
        Value::Array(items) if items.is_empty() => "an empty list".to_owned(),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(map) if map.is_empty() => "an empty map".to_owned(),
        Value::Object(map) => format!("a map with {} keys", map.len()),
    }
}

/// Returns the known name closest to an unknown one.
pub fn closest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    // Comparing takes the product of the lengths, and a text this long isn't a misspelt name.
    const LONGEST: usize = 100;
    known
        .into_iter()
        .filter(|candidate| candidate.len() <= LONGEST && name.len() <= LONGEST)
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (name.len().max(candidate.len()) / 3).max(1))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Returns "did you mean `x`?", otherwise a list of the known names, shortened if long.
pub fn suggestion<'n>(
    name: &str,
    known: impl IntoIterator<Item = &'n str>,
    what: &str,
) -> Option<String> {
    const SHOWN: usize = 12;
    let mut known: Vec<&str> = known.into_iter().collect();
    known.sort_unstable();
    known.dedup();
    if let Some(close) = closest(name, known.iter().copied()) {
        return Some(format!("did you mean `{close}`?"));
    }
    let more = if known.len() > SHOWN { ", …" } else { "" };
    known.truncate(SHOWN);
    (!known.is_empty()).then(|| format!("{what}: {}{more}", known.join(", ")))
}
