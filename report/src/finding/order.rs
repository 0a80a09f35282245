//! The order of axis values: numbers, and versions behind a common beginning (`v4.5.9`, `postgres:16-alpine`).

use serde_json::Value;
use std::cmp::Ordering;

/// Returns the positions of values in their order, and whether they have one. Without an order, they stay as they are.
/// `None` comes last.
pub(super) fn sorted(values: &[Option<&Value>]) -> (Vec<usize>, bool) {
    let present = values.iter().flatten().count();
    let keys: Option<Vec<Key>> = values
        .iter()
        .flatten()
        .map(|value| Key::of(value))
        .collect();
    let keys = keys.filter(|keys| present >= 2 && comparable(keys));
    let mut order: Vec<usize> = (0..values.len()).collect();
    let Some(keys) = keys else {
        order.sort_by_key(|index| values.get(*index).is_some_and(Option::is_none));
        return (order, false);
    };
    let mut of_value: Vec<Option<&Key>> = Vec::with_capacity(values.len());
    let mut rest = keys.iter();
    for value in values {
        of_value.push(value.and_then(|_| rest.next()));
    }
    order.sort_by(|a, b| {
        match (
            of_value.get(*a).copied().flatten(),
            of_value.get(*b).copied().flatten(),
        ) {
            (Some(a), Some(b)) => a.compare(b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        }
    });
    let sorted: Vec<&Key> = order
        .iter()
        .filter_map(|index| of_value.get(*index).copied().flatten())
        .collect();
    let strict = sorted
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if a.compare(b) == Ordering::Less));
    if strict {
        (order, true)
    } else {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by_key(|index| values.get(*index).is_some_and(Option::is_none));
        (order, false)
    }
}

/// A number, or a version with what is around it.
enum Key<'a> {
    Number(f64),
    Version {
        before: &'a str,
        parts: Vec<u64>,
        after: &'a str,
    },
}

impl<'a> Key<'a> {
    fn of(value: &'a Value) -> Option<Key<'a>> {
        match value {
            Value::Number(number) => number.as_f64().map(Key::Number),
            Value::String(text) => version(text),
            _ => None,
        }
    }

    fn compare(&self, other: &Key) -> Ordering {
        match (self, other) {
            (Key::Number(a), Key::Number(b)) => a.total_cmp(b),
            (
                Key::Version { parts, after, .. },
                Key::Version {
                    parts: other_parts,
                    after: other_after,
                    ..
                },
            ) => compare_parts(parts, other_parts)
                .then_with(|| release(after).cmp(&release(other_after)))
                .then_with(|| after.cmp(other_after)),
            (Key::Number(_), Key::Version { .. }) => Ordering::Less,
            (Key::Version { .. }, Key::Number(_)) => Ordering::Greater,
        }
    }
}

/// Compares versions; missing parts count as zero.
fn compare_parts(a: &[u64], b: &[u64]) -> Ordering {
    let part = |parts: &[u64], index| parts.get(index).copied().unwrap_or(0);
    (0..a.len().max(b.len()))
        .map(|index| part(a, index).cmp(&part(b, index)))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// Returns whether values can be put in one order: all numbers, or versions of the same thing.
fn comparable(keys: &[Key]) -> bool {
    if keys.iter().all(|key| matches!(key, Key::Number(_))) {
        return true;
    }
    let around: Option<Vec<(&str, &str, usize)>> = keys
        .iter()
        .map(|key| match key {
            Key::Version {
                before,
                after,
                parts,
            } => Some((*before, *after, parts.len())),
            Key::Number(_) => None,
        })
        .collect();
    let Some(around) = around else { return false };
    let Some((before, after, _)) = around.first() else {
        return false;
    };
    let same_after = around.iter().all(|(_, other, _)| other == after);
    let dotted = around.iter().any(|(_, _, parts)| *parts > 1);
    around.iter().all(|(other, _, _)| other == before)
        && (same_after || around.iter().all(|(_, after, _)| release(after).is_some()))
        && (dotted || introduces_a_number(before))
}

/// Returns whether what comes before a single number says that it is a version: `ipv4` isn't one, `v4` and `pg:16` are.
fn introduces_a_number(before: &str) -> bool {
    let before = before.strip_suffix(['v', 'V']).unwrap_or(before);
    before.is_empty() || before.ends_with([':', '-', '/', '@', '=', ' ', '_'])
}

/// Orders what comes after a version: a pre-release, the release, a later build. `None` if it is none of these.
fn release(after: &str) -> Option<i8> {
    let word = after.trim_start_matches(['-', '.', '+', '_']);
    let word = word.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-'));
    match word {
        "" if after.is_empty() => Some(0),
        "rc" | "alpha" | "beta" | "dev" | "pre" | "a" | "b" => Some(-1),
        "post" | "r" | "p" => Some(1),
        _ => None,
    }
}

fn version(text: &str) -> Option<Key<'_>> {
    let start = text.find(|c: char| c.is_ascii_digit())?;
    let (before, rest) = text.split_at(start);
    let length = rest
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(rest.len());
    let (number, after) = rest.split_at(length);
    let (number, dot) = match number.strip_suffix('.') {
        Some(number) => (number, 1),
        None => (number, 0),
    };
    let parts: Option<Vec<u64>> = number.split('.').map(|part| part.parse().ok()).collect();
    Some(Key::Version {
        before,
        parts: parts?,
        after: match dot {
            0 => after,
            _ => rest.get(number.len()..)?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn order(values: Value) -> Option<String> {
        let values: Vec<Value> = values.as_array().cloned().unwrap_or_default();
        let values: Vec<Option<&Value>> = values.iter().map(Some).collect();
        let (order, ordered) = sorted(&values);
        let shown = order
            .iter()
            .filter_map(|index| values.get(*index).copied().flatten());
        let shown: Vec<String> = shown
            .map(|value| {
                value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned)
            })
            .collect();
        ordered.then(|| shown.join(" "))
    }

    #[test]
    fn numbers_and_versions_have_an_order_and_names_have_none() {
        for (values, expected) in [
            (json!([10, 9, 2.5]), Some("2.5 9 10")),
            (json!(["v4.10.0", "v4.9.1"]), Some("v4.9.1 v4.10.0")),
            (
                json!(["4.6", "4.6-rc1", "4.6-beta2", "4.5"]),
                Some("4.5 4.6-beta2 4.6-rc1 4.6"),
            ),
            (
                json!(["postgres:16-alpine", "postgres:9.6-alpine"]),
                Some("postgres:9.6-alpine postgres:16-alpine"),
            ),
            (json!(["v2", "v1"]), Some("v1 v2")),
            (json!(["ipv4", "ipv6"]), None),
            (json!(["git", "pypi"]), None),
            (json!(["mysql:8", "postgres:16"]), None),
            (json!([1, "2"]), None),
            (json!([true, false]), None),
            (json!(["1.0", "1"]), None),
            (json!(["v1"]), None),
        ] {
            assert_eq!(order(values.clone()).as_deref(), expected, "{values}");
        }
    }
}
