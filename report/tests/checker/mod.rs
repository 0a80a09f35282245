//! A checker for the part of JSON Schema that the schemas here use. A keyword that it doesn't know fails the test, so that
//! nothing is passed over.
#![allow(clippy::unwrap_used, clippy::panic)]

use regex::Regex;
use serde_json::Value;

/// Keywords that say nothing about validity.
const SILENT: [&str; 9] = [
    "$schema",
    "$id",
    "$comment",
    "title",
    "description",
    "definitions",
    "$defs",
    "format",
    "default",
];

/// A schema, and how strictly it is read.
pub struct Checker<'a> {
    pub root: &'a Value,
    /// Whether an object may only have properties that its schema names.
    pub closed: bool,
}

impl Checker<'_> {
    /// Returns what is wrong with a value, each with its place.
    pub fn problems(&self, value: &Value) -> Vec<String> {
        let mut problems = Vec::new();
        self.check(self.root, value, "$", &mut problems);
        problems
    }

    fn check(&self, schema: &Value, value: &Value, at: &str, problems: &mut Vec<String>) {
        let schema = schema.as_object().unwrap();
        for (keyword, rule) in schema {
            let held = match keyword.as_str() {
                silent if SILENT.contains(&silent) => true,
                "$ref" => {
                    self.check(self.target(rule.as_str().unwrap()), value, at, problems);
                    true
                }
                "type" => match rule {
                    Value::Array(kinds) => kinds.iter().any(|kind| is(kind, value)),
                    kind => is(kind, value),
                },
                "const" => rule == value,
                "enum" => rule.as_array().unwrap().contains(value),
                "anyOf" => rule.as_array().unwrap().iter().any(|schema| {
                    let mut of_this = Vec::new();
                    self.check(schema, value, at, &mut of_this);
                    of_this.is_empty()
                }),
                "required" => rule.as_array().unwrap().iter().all(|key| {
                    let key = key.as_str().unwrap();
                    value
                        .as_object()
                        .is_none_or(|object| object.contains_key(key))
                }),
                "properties" | "additionalProperties" => true,
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(rule, item, &format!("{at}[{index}]"), problems);
                    }
                    true
                }
                "minItems" => value
                    .as_array()
                    .is_none_or(|items| items.len() as u64 >= number(rule)),
                "minLength" => value
                    .as_str()
                    .is_none_or(|text| text.chars().count() as u64 >= number(rule)),
                "minimum" => value
                    .as_f64()
                    .is_none_or(|value| value >= rule.as_f64().unwrap()),
                "pattern" => {
                    let pattern = Regex::new(rule.as_str().unwrap()).unwrap();
                    value.as_str().is_none_or(|text| pattern.is_match(text))
                }
                other => panic!("the checker doesn't know the keyword {other}"),
            };
            if !held {
                problems.push(format!(
                    "{at}: {keyword} {rule} doesn't hold for {value:.200}"
                ));
            }
        }
        self.check_properties(schema, value, at, problems);
    }

    fn check_properties(
        &self,
        schema: &serde_json::Map<String, Value>,
        value: &Value,
        at: &str,
        problems: &mut Vec<String>,
    ) {
        let (named, other) = (schema.get("properties"), schema.get("additionalProperties"));
        for (key, value) in value.as_object().into_iter().flatten() {
            let at = format!("{at}.{key}");
            match (named.and_then(|named| named.get(key)), other) {
                (Some(schema), _) => self.check(schema, value, &at, problems),
                (None, Some(Value::Bool(false))) => {
                    problems.push(format!("{at}: no such property"))
                }
                (None, Some(schema @ Value::Object(_))) => self.check(schema, value, &at, problems),
                (None, None) if self.closed && named.is_some() => {
                    problems.push(format!("{at}: the schema doesn't name it"));
                }
                (None, _) => {}
            }
        }
    }

    fn target(&self, reference: &str) -> &Value {
        let pointer = reference.strip_prefix('#').unwrap();
        let target = self.root.pointer(pointer);
        target.unwrap_or_else(|| panic!("there is no {reference}"))
    }
}

fn number(rule: &Value) -> u64 {
    rule.as_u64().unwrap()
}

fn is(kind: &Value, value: &Value) -> bool {
    match kind.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no such type: {other}"),
    }
}
