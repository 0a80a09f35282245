//! The JSON Schema and the decoder agree: valid specs fit it, and what the decoder refuses for its structure the
//! schema refuses too. The committed copy is what the code makes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use phalanx_shared::diagnostic::{Severity, Source};
use phalanx_shared::language::{self, schema};
use regex::Regex;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::LazyLock;

/// Checks the part of JSON Schema that the schema is written in.
struct Checker {
    root: Value,
    patterns: HashMap<String, Regex>,
}

impl Checker {
    fn matches(&mut self, pattern: &str, text: &str) -> bool {
        let patterns = &mut self.patterns;
        let regex = patterns
            .entry(pattern.to_owned())
            .or_insert_with(|| Regex::new(pattern).unwrap());
        regex.is_match(text)
    }

    fn fits(&mut self, schema: &Value, value: &Value) -> bool {
        let Value::Object(rules) = schema else {
            return schema.as_bool().unwrap();
        };
        let mut fits = true;
        for (rule, of) in rules {
            fits = fits
                && match rule.as_str() {
                    "$schema" | "title" | "description" | "$defs" => true,
                    "$ref" => {
                        let name = of.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                        let target = self.root["$defs"][name].clone();
                        assert!(target.is_object(), "{name}");
                        self.fits(&target, value)
                    }
                    "type" => match of {
                        Value::Array(types) => types.iter().any(|of| is(of, value)),
                        of => is(of, value),
                    },
                    "enum" => of.as_array().unwrap().contains(value),
                    "pattern" => value
                        .as_str()
                        .is_none_or(|text| self.matches(of.as_str().unwrap(), text)),
                    "minimum" => value
                        .as_f64()
                        .is_none_or(|number| number >= of.as_f64().unwrap()),
                    "anyOf" => of.as_array().unwrap().iter().any(|of| self.fits(of, value)),
                    "allOf" => of.as_array().unwrap().iter().all(|of| self.fits(of, value)),
                    "oneOf" => {
                        of.as_array()
                            .unwrap()
                            .iter()
                            .filter(|of| self.fits(of, value))
                            .count()
                            == 1
                    }
                    "not" => !self.fits(of, value),
                    "items" => value
                        .as_array()
                        .is_none_or(|items| items.iter().all(|item| self.fits(of, item))),
                    "required" => value.as_object().is_none_or(|map| {
                        of.as_array()
                            .unwrap()
                            .iter()
                            .all(|key| map.contains_key(key.as_str().unwrap()))
                    }),
                    "minProperties" => value
                        .as_object()
                        .is_none_or(|map| map.len() as u64 >= of.as_u64().unwrap()),
                    "maxProperties" => value
                        .as_object()
                        .is_none_or(|map| map.len() as u64 <= of.as_u64().unwrap()),
                    "propertyNames" => value
                        .as_object()
                        .is_none_or(|map| map.keys().all(|key| self.fits(of, &json!(key)))),
                    "properties" | "patternProperties" | "additionalProperties" => true,
                    other => panic!("the test doesn't know {other}"),
                };
        }
        fits && value.as_object().is_none_or(|map| {
            map.iter()
                .all(|(key, value)| self.property(schema, key, value))
        })
    }

    fn property(&mut self, schema: &Value, key: &str, value: &Value) -> bool {
        let mut known = false;
        if let Some(of) = schema["properties"].get(key) {
            known = true;
            if !self.fits(of, value) {
                return false;
            }
        }
        for (pattern, of) in schema["patternProperties"]
            .as_object()
            .into_iter()
            .flatten()
        {
            // In the schema a pattern for names stands beside named properties; those go first.
            if !known && self.matches(pattern, key) {
                known = true;
                if !self.fits(of, value) {
                    return false;
                }
            }
        }
        known
            || schema
                .get("additionalProperties")
                .is_none_or(|of| self.fits(of, value))
    }
}

fn is(of: &Value, value: &Value) -> bool {
    match of.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other}"),
    }
}

fn to_json(text: &str) -> Value {
    let mut diagnostics = Vec::new();
    language::parse::parse(0, text, &mut diagnostics)
        .unwrap()
        .to_json()
}

static SHAPE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(" takes |^unknown key| has no value$| lacks `| has both | has none of `| does nothing without").unwrap()
});
static OTHER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new("argument|^the service |^the choice|`image`, `build`|^`group` lacks|^a bind mount")
        .unwrap()
});

/// What the decoder says of a spec.
enum Structure {
    Right,
    Wrong(String),
    /// Names, expressions and the like are wrong with it.
    WrongOtherwise,
}

fn structure(value: &Value) -> Structure {
    let main = Source {
        name: "spec.yaml".into(),
        text: serde_json::to_string_pretty(value).unwrap(),
    };
    let loaded = language::load(main, &mut |_| Err("nothing".into()));
    let mut errors = loaded
        .diagnostics
        .iter()
        .filter(|d| d.severity == Severity::Error)
        .peekable();
    if errors.peek().is_none() {
        return Structure::Right;
    }
    // What shapes say; the rest is said of names, defines and services as a whole.
    let structural =
        errors.find(|error| SHAPE.is_match(&error.message) && !OTHER.is_match(&error.message));
    match structural {
        Some(error) => Structure::Wrong(error.message.clone()),
        None => Structure::WrongOtherwise,
    }
}

const VALID: [&str; 3] = [
    include_str!("specs/proxbox.yaml"),
    include_str!("specs/shop.yaml"),
    include_str!("specs/all-keys.yaml"),
];

fn checker() -> (Checker, Value) {
    let root = schema::schema();
    let checker = Checker {
        root: root.clone(),
        patterns: HashMap::new(),
    };
    (checker, root)
}

#[test]
fn valid_specs_fit_the_schema() {
    let (mut checker, root) = checker();
    for text in VALID {
        let value = to_json(text);
        let main = Source {
            name: "spec.yaml".into(),
            text: text.into(),
        };
        let loaded = language::load(main, &mut |_| Err("nothing".into()));
        assert!(loaded.spec.is_some(), "{:#?}", loaded.diagnostics);
        assert!(checker.fits(&root, &value), "{}", value["name"]);
    }
}

/// Every way to change one place of a value, and what was changed.
fn mutations(value: &Value, path: &str, found: &mut Vec<(String, Value)>) {
    let Value::Object(map) = value else {
        for (at, inner) in value.as_array().into_iter().flatten().enumerate() {
            let mut inside = Vec::new();
            mutations(inner, &format!("{path}[{at}]"), &mut inside);
            for (path, inner) in inside {
                let mut changed = value.clone();
                changed[at] = inner;
                found.push((path, changed));
            }
        }
        return;
    };
    let mut change = |path: String, edit: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        let mut changed = map.clone();
        edit(&mut changed);
        found.push((path, Value::Object(changed)));
    };
    for (key, inner) in map {
        let here = format!("{path}.{key}");
        change(format!("{here} removed"), &|map| drop(map.remove(key)));
        change(format!("{here} renamed"), &|map| {
            map.remove(key);
            map.insert(format!("{key}zz"), inner.clone());
        });
        for replacement in [
            json!(null),
            json!([{}]),
            json!({ "surplus": {} }),
            json!("x y"),
            json!(-1),
        ] {
            change(format!("{here} = {replacement}"), &|map| {
                drop(map.insert(key.clone(), replacement.clone()))
            });
        }
        let mut inside = Vec::new();
        mutations(inner, &here, &mut inside);
        for (path, inner) in inside {
            change(path, &|map| drop(map.insert(key.clone(), inner.clone())));
        }
    }
    change(format!("{path}.surplus added"), &|map| {
        drop(map.insert("surplus".into(), json!(1)))
    });
}

#[test]
fn what_the_decoder_refuses_for_its_structure_the_schema_refuses_too() {
    let (mut checker, root) = checker();
    let mut found = Vec::new();
    mutations(
        &to_json(include_str!("specs/all-keys.yaml")),
        "",
        &mut found,
    );
    let (mut refused, mut taken) = (0, 0);
    let mut apart = Vec::new();
    // All of them take a minute; CI takes it. What is demanded below holds for both.
    let stride = if std::env::var_os("PHALANX_FUZZ_SECONDS").is_some() {
        1
    } else {
        13
    };
    for (change, value) in found.iter().step_by(stride) {
        match structure(value) {
            Structure::Right => {
                taken += 1;
                if !checker.fits(&root, value) {
                    apart.push(format!("only the schema refuses {change}"));
                }
            }
            Structure::Wrong(message) => {
                refused += 1;
                if checker.fits(&root, value) {
                    apart.push(format!("only the decoder refuses {change}: {message}"));
                }
            }
            Structure::WrongOtherwise => {}
        }
    }
    assert!(apart.is_empty(), "{apart:#?}");
    // Most changes break the structure, and many don't: a test that saw only one kind would prove nothing.
    let tried = found.len().div_ceil(stride);
    assert!(
        refused * 4 > tried && taken * 20 > tried && refused + taken > 100,
        "{refused} refused, {taken} taken of {tried}"
    );
}

#[test]
fn the_committed_schema_is_what_the_code_makes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/spec.schema.json");
    let made = format!("{:#}\n", schema::schema());
    if std::env::var_os("PHALANX_REGENERATE").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == made,
        "docs/spec.schema.json is old: `phalanx schema > docs/spec.schema.json`"
    );
}
