//! JSON Schema (2020-12) of the spec language, for editors. It is generated from the tables of the decoder's check
//! ([`super::keys`]). It leaves out what shapes can't express, such as which names exist or valid expressions.

use super::keys::top::SPEC;
use super::shape::name::NameRule;
use super::shape::{Kind, Leaf, Rule, Table};
use serde_json::{Map, Value, json};

const INTERPOLATION: &str = r"\$\{\{";

/// Returns the schema of a spec file.
pub fn schema() -> Value {
    let mut maker = Maker::default();
    let root = maker.table(&SPEC, false);
    let mut schema = Map::new();
    schema.insert(
        "$schema".into(),
        json!("https://json-schema.org/draft/2020-12/schema"),
    );
    schema.insert("title".into(), json!("Phalanx spec"));
    schema.extend(maker.definition(&root));
    schema.insert("$defs".into(), Value::Object(maker.definitions));
    Value::Object(schema)
}

#[derive(Default)]
struct Maker {
    definitions: Map<String, Value>,
}

impl Maker {
    /// Moves the body of a definition out of `$defs`.
    fn definition(&mut self, name: &str) -> Map<String, Value> {
        match self.definitions.remove(name) {
            Some(Value::Object(body)) => body,
            _ => Map::new(),
        }
    }

    /// Defines a table, once with and once without `${{ }}`, and returns the definition's name.
    fn table(&mut self, table: &'static Table, varies: bool) -> String {
        let mut name: String = table
            .name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        name = name.trim_matches('_').replace("__", "_");
        if varies {
            name.push_str("_varying");
        }
        if !self.definitions.contains_key(&name) {
            // Reserve the name before making the body, because a step holds steps.
            self.definitions.insert(name.clone(), Value::Null);
            let made = self.table_body(table, varies);
            self.definitions.insert(name.clone(), made);
        }
        name
    }

    fn table_body(&mut self, table: &'static Table, varies: bool) -> Value {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for key in table.all_keys() {
            if matches!(key.kind, Kind::Later) {
                continue;
            }
            let mut kind = self.kind(&key.kind, varies);
            if key.required {
                required.push(key.name);
            } else if !table.is_ruled(key.name) {
                kind = or_null(kind);
            }
            if let Value::Object(kind) = &mut kind {
                kind.insert("description".into(), json!(key.doc));
            }
            properties.insert(key.name.into(), kind);
        }
        let mut own = json!({ "^x-": true });
        if let (Some((rule, kind)), Value::Object(own)) = (&table.rest, &mut own) {
            own.insert(rule.pattern().into(), self.kind(kind, varies));
        }
        let mut body = json!({
            "type": "object",
            "description": table.doc,
            "properties": properties,
            "patternProperties": own,
            "additionalProperties": false,
        });
        let rules: Vec<Value> = table.rules.iter().map(rule).collect();
        if let Value::Object(body) = &mut body {
            if !required.is_empty() {
                body.insert("required".into(), json!(required));
            }
            if !rules.is_empty() {
                body.insert("allOf".into(), json!(rules));
            }
            if let Some((rule, _)) = &table.rest {
                body.insert(
                    "propertyNames".into(),
                    json!({ "not": { "enum": rule.reserved() } }),
                );
            }
        }
        body
    }

    fn kind(&mut self, kind: &Kind, varies: bool) -> Value {
        let made = match kind {
            Kind::Any => return json!({}),
            Kind::Varies(kind) => return self.kind(kind, true),
            Kind::Later => json!(false),
            Kind::Unsupported(_) => json!({ "type": "null" }),
            Kind::Leaf(leaf) => leaf_schema(*leaf, varies),
            Kind::List(item) => json!({ "type": "array", "items": self.kind(item, varies) }),
            Kind::Map(item) => json!({
                "type": "object",
                "additionalProperties": self.kind(item, varies),
                "propertyNames": { "not": { "pattern": INTERPOLATION } },
            }),
            Kind::Named(rule, item) => self.named(*rule, item, varies),
            Kind::Single(rule, item) => {
                let mut named = self.named(*rule, item, varies);
                if let Value::Object(named) = &mut named {
                    named.insert("minProperties".into(), json!(1));
                    named.insert("maxProperties".into(), json!(1));
                }
                named
            }
            Kind::Table(table) => {
                let name = self.table(table(), varies);
                json!({ "$ref": format!("#/$defs/{name}") })
            }
            Kind::ByType { scalar, list, map } => {
                let parts: Vec<Value> = [scalar, list, map]
                    .into_iter()
                    .flatten()
                    .map(|kind| self.kind(kind, varies))
                    .collect();
                json!({ "anyOf": parts })
            }
        };
        if varies {
            or(made, json!({ "type": "string", "pattern": INTERPOLATION }))
        } else {
            made
        }
    }

    fn named(&mut self, rule: NameRule, item: &'static Kind, varies: bool) -> Value {
        let mut value = self.kind(item, varies);
        // Null at a name counts as an empty map.
        if let Kind::Table(table) = item {
            let demanding = table().all_keys().any(|key| key.required)
                || table()
                    .rules
                    .iter()
                    .any(|rule| matches!(rule, Rule::OneOf { .. }));
            if !demanding {
                value = or_null(value);
            }
        }
        json!({
            "type": "object",
            "patternProperties": { rule.pattern(): value, "^x-": true },
            "additionalProperties": false,
            "propertyNames": { "not": { "enum": rule.reserved() } },
        })
    }
}

fn rule(rule: &Rule) -> Value {
    let with = |key: &str| json!({ "required": [key] });
    let any =
        |keys: &[&str]| json!({ "anyOf": keys.iter().map(|key| with(key)).collect::<Vec<_>>() });
    match rule {
        Rule::OneOf { keys, or: [] } => {
            json!({ "oneOf": keys.iter().map(|key| with(key)).collect::<Vec<_>>() })
        }
        Rule::OneOf { keys, or } => {
            let mut ways: Vec<Value> = keys.iter().map(|key| with(key)).collect();
            ways.push(json!({ "allOf": [any(or), { "not": any(keys) }] }));
            json!({ "oneOf": ways })
        }
        Rule::AtMostOne(keys) => {
            let mut pairs = Vec::new();
            for (at, first) in keys.iter().enumerate() {
                for second in keys.iter().skip(at + 1) {
                    pairs.push(json!({ "required": [first, second] }));
                }
            }
            json!({ "not": { "anyOf": pairs } })
        }
        Rule::Needs { key, any: others } => json!({ "anyOf": [{ "not": with(key) }, any(others)] }),
    }
}

fn leaf_schema(leaf: Leaf, varies: bool) -> Value {
    // A text that is not evaluated can't hold an expression.
    let plain = |mut schema: Value| {
        if let (false, Value::Object(schema)) = (varies, &mut schema) {
            schema.insert(
                "not".into(),
                json!({ "type": "string", "pattern": INTERPOLATION }),
            );
        }
        schema
    };
    match leaf {
        Leaf::Str => plain(json!({ "type": "string" })),
        Leaf::Text => plain(json!({ "type": ["string", "number", "boolean"] })),
        Leaf::TextOrNull => plain(json!({ "type": ["string", "number", "boolean", "null"] })),
        Leaf::Expr => json!({ "type": ["string", "number", "boolean"] }),
        Leaf::Name(rule) => json!({
            "type": "string", "pattern": rule.pattern(), "not": { "enum": rule.reserved() }
        }),
        Leaf::Bool => json!({ "type": "boolean" }),
        Leaf::Int(min) => json!({ "type": "integer", "minimum": min }),
        Leaf::Number => json!({ "type": "number", "minimum": 0 }),
        Leaf::Duration => json!({ "anyOf": [
            { "type": "number", "minimum": 0 },
            { "type": "string", "pattern": r"^\s*([0-9]*\.?[0-9]*|([0-9]*\.?[0-9]*(ns|us|µs|μs|ms|s|m|h|d))+)\s*$" },
        ] }),
        Leaf::Bytes => json!({ "anyOf": [
            { "type": "number", "minimum": 0 },
            { "type": "string", "pattern": r"^\s*[0-9]*\.?[0-9]*\s*([kKmMgGtT]?[bB]?|[kKmMgGtT][iI][bB]?)\s*$" },
        ] }),
        Leaf::Cpus => json!({ "anyOf": [
            { "type": "number", "minimum": 0 },
            { "type": "string", "pattern": r"^\s*[0-9]*\.?[0-9]*m?\s*$" },
        ] }),
        Leaf::Date => json!({ "type": "string", "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$" }),
        Leaf::Enum(words) => json!({ "enum": words }),
    }
}

fn or_null(schema: Value) -> Value {
    match schema.as_object() {
        Some(schema) if schema.is_empty() => json!({}),
        _ => or(schema, json!({ "type": "null" })),
    }
}

fn or(one: Value, other: Value) -> Value {
    let mut ways = match one {
        Value::Object(mut map) if map.len() == 1 && map.contains_key("anyOf") => {
            match map.remove("anyOf") {
                Some(Value::Array(ways)) => ways,
                _ => Vec::new(),
            }
        }
        one => vec![one],
    };
    if !ways.contains(&other) {
        ways.push(other);
    }
    json!({ "anyOf": ways })
}
