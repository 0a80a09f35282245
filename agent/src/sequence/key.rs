//! The keys of `foreach` instances, used in `name [key]` and `steps.ID[key]`.

use crate::context::frame::{Key, Value};

/// Returns the key of each value: the value itself if it is a string or integer, else its field `key`, `name` or `id`,
/// else its index. Returns an error, in one line, if two keys are equal.
pub fn keys(values: &[Value]) -> Result<Vec<Key>, String> {
    let mut keys: Vec<Key> = Vec::with_capacity(values.len());
    let mut seen = std::collections::HashMap::new();
    for (index, value) in values.iter().enumerate() {
        let key = key(value, index);
        if let Some(first) = seen.insert(key.clone(), index) {
            return Err(format!(
                "foreach: values {first} and {index} have the same key `{key}`; give them different `key` fields"
            ));
        }
        keys.push(key);
    }
    Ok(keys)
}

fn key(value: &Value, index: usize) -> Key {
    let own = plain(value).or_else(|| {
        let map = value.as_object()?;
        ["key", "name", "id"]
            .iter()
            .find_map(|field| plain(map.get(*field)?))
    });
    own.unwrap_or(Key::Int(i64::try_from(index).unwrap_or(i64::MAX)))
}

fn plain(value: &Value) -> Option<Key> {
    match value {
        Value::String(text) => Some(Key::Text(text.clone())),
        Value::Number(number) => number.as_i64().map(Key::Int),
        _ => None,
    }
}

/// Returns whether a CEL expression reads a variable: as an identifier that is neither in a string nor a field of
/// another value.
pub(super) fn names(expression: &str, variable: &str) -> bool {
    let mut quote: Option<char> = None;
    let mut before = ' ';
    let mut chars = expression.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match quote {
            Some(_) if c == '\\' => {
                chars.next();
            }
            Some(open) => quote = Some(open).filter(|open| *open != c),
            None if c == '\'' || c == '"' => quote = Some(c),
            None if c.is_alphabetic() || c == '_' => {
                let mut end = at + c.len_utf8();
                while let Some((next, c)) = chars.peek()
                    && (c.is_alphanumeric() || *c == '_')
                {
                    end = next + c.len_utf8();
                    chars.next();
                }
                if before != '.' && expression.get(at..end) == Some(variable) {
                    return true;
                }
            }
            None => {}
        }
        if !c.is_whitespace() {
            before = c;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn shown(values: serde_json::Value) -> Vec<String> {
        keys(values.as_array().unwrap())
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_string_or_an_integer_is_its_own_key() {
        assert_eq!(shown(json!(["book", 101])), ["book", "101"]);
    }

    #[test]
    fn a_map_is_called_by_key_name_or_id_in_that_order() {
        assert_eq!(
            shown(json!([{"id": 1, "name": "n", "key": "k"}, {"id": 2, "name": "m"}, {"id": 7}])),
            ["k", "m", "7"]
        );
    }

    #[test]
    fn anything_else_is_called_by_its_index() {
        assert_eq!(shown(json!([1.5, {"a": 1}, [1]])), ["0", "1", "2"]);
    }

    #[test]
    fn equal_keys_are_an_error_that_names_the_key() {
        let error = keys(&[json!("a"), json!({"name": "a"})]).unwrap_err();
        assert!(error.contains("`a`"), "{error}");
    }

    #[test]
    fn a_variable_is_found_outside_strings_and_fields_only() {
        assert!(names("kind != 'proxmox' || vars.pve", "kind"));
        assert!(names("['a'].exists(x, x == kind)", "kind"));
        assert!(!names("matrix.kind == 'kind'", "kind"));
        assert!(!names("kinds == 1", "kind"));
    }
}
