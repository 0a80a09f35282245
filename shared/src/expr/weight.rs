//! Estimates the memory that values take. The meter counts it, and plans and cells are bounded by it.

use cel::common::types::{CelBytes, CelList, CelMap, CelMapKey, CelOptional, CelString};
use cel::common::value::Val;
use serde_json::Value;

/// Bytes of any value, besides the text in it.
pub(super) const PER_VALUE: u64 = 64;

/// Maximum nesting of lists and maps in a value, because all code that traverses a value recurses.
pub const MAX_LEVELS: usize = 128;

/// Returns the approximate bytes that a value takes.
pub fn weight(value: &Value) -> u64 {
    PER_VALUE
        + match value {
            Value::String(text) => text.len() as u64,
            Value::Array(items) => items.iter().map(weight).sum(),
            Value::Object(map) => map
                .iter()
                .map(|(key, value)| key.len() as u64 + PER_VALUE + weight(value))
                .sum(),
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
}

/// Returns the approximate bytes that a CEL value takes.
pub(super) fn weight_of(value: &(dyn Val + '_)) -> u64 {
    if let Some(text) = value.downcast_ref::<CelString>() {
        PER_VALUE + text.inner().len() as u64
    } else if let Some(list) = value.downcast_ref::<CelList>() {
        let items = list.inner().iter();
        PER_VALUE + items.map(|item| weight_of(item.as_ref())).sum::<u64>()
    } else if let Some(map) = value.downcast_ref::<CelMap>() {
        let entries = map.inner().iter();
        PER_VALUE
            + entries
                .map(|(key, value)| PER_VALUE + key_len(key) + weight_of(value.as_ref()))
                .sum::<u64>()
    } else if let Some(bytes) = value.downcast_ref::<CelBytes>() {
        PER_VALUE + bytes.inner().len() as u64
    } else if let Some(optional) = value.downcast_ref::<CelOptional>() {
        PER_VALUE + optional.option().map_or(0, weight_of)
    } else {
        PER_VALUE
    }
}

fn key_len(key: &CelMapKey<'_>) -> u64 {
    match key {
        CelMapKey::String(key) => key.inner().len() as u64,
        _ => 0,
    }
}

/// Returns whether lists and maps are nested more than `levels` deep.
pub fn deeper_than(value: &Value, levels: usize) -> bool {
    match (value, levels.checked_sub(1)) {
        (Value::Array(items), Some(left)) => items.iter().any(|item| deeper_than(item, left)),
        (Value::Object(map), Some(left)) => map.values().any(|item| deeper_than(item, left)),
        (Value::Array(_) | Value::Object(_), None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_value_weighs_its_texts_and_something_for_each_part() {
        assert_eq!(weight(&json!("abc")), PER_VALUE + 3);
        assert_eq!(weight(&json!(["abc", 1])), 3 * PER_VALUE + 3);
        assert_eq!(weight(&json!({"ab": "c"})), 3 * PER_VALUE + 3);
    }

    #[test]
    fn levels_are_counted() {
        assert!(!deeper_than(&json!(1), 0));
        assert!(!deeper_than(&json!([{"a": 1}]), 2));
        assert!(deeper_than(&json!([{"a": []}]), 2));
    }
}
