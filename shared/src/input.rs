//! Resolves the inputs that a caller passes against those that the spec declares.
//!
//! `--input key=value` gives text, an inputs file gives values. Both are converted to the declared type and checked.
//! Every mistake is reported, with a suggestion where there is one. Nothing here reads files or the environment.

use crate::diagnostic::{Diagnostic, Span};
use crate::expr::{Cache, Scope, canonical_json, closest, eval_node, suggestion, to_text};
use crate::language::model::{InputDecl, InputType};
use serde_json::{Map, Number, Value};

/// Inputs as the caller passes them. `texts` take precedence over `values`, and later texts over earlier ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Given {
    /// Names and texts of `--input key=value`, in the order given.
    pub texts: Vec<(String, String)>,
    /// Merged entries of the inputs files.
    pub values: Map<String, Value>,
}

/// Returns the value of every declared input, in declaration order, or every problem found.
pub fn resolve(
    declared: &[InputDecl],
    given: &Given,
) -> Result<Map<String, Value>, Vec<Diagnostic>> {
    let mut problems = unknown(declared, given);
    let mut inputs = Map::new();
    for input in declared {
        match value_of(input, given) {
            Ok(value) => {
                inputs.insert(input.name.text.clone(), value);
            }
            Err(problem) => problems.push(problem),
        }
    }
    match problems.is_empty() {
        true => Ok(inputs),
        false => Err(problems),
    }
}

/// Returns an error about what the caller passed. It has no place in a file, so the declaration is the related place.
fn problem(message: String, declared: Option<Span>) -> Diagnostic {
    let problem = Diagnostic {
        span: None,
        ..Diagnostic::error(Span::default(), message)
    };
    match declared {
        Some(span) => problem.with_related(span, "declared here"),
        None => problem,
    }
}

fn unknown(declared: &[InputDecl], given: &Given) -> Vec<Diagnostic> {
    let names = || declared.iter().map(|input| input.name.text.as_str());
    let mut given: Vec<&str> = given
        .texts
        .iter()
        .map(|(name, _)| name.as_str())
        .chain(given.values.keys().map(String::as_str))
        .collect();
    given.sort_unstable();
    given.dedup();
    let unknown = given
        .into_iter()
        .filter(|name| names().all(|known| known != *name));
    unknown
        .map(|name| Diagnostic {
            help: suggestion(name, names(), "its inputs").or(Some("it declares none".to_owned())),
            ..problem(format!("the spec has no input `{name}`"), None)
        })
        .collect()
}

fn value_of(input: &InputDecl, given: &Given) -> Result<Value, Diagnostic> {
    let name = &input.name.text;
    let text = given.texts.iter().rev().find(|(known, _)| known == name);
    if let Some((_, text)) = text {
        return from_text(input, text).map_err(|e| e.located(input, None));
    }
    if let Some(value) = given.values.get(name) {
        return from_value(input, value).map_err(|e| e.located(input, None));
    }
    let Some(default) = &input.default else {
        return Err(
            problem(format!("input `{name}` is required"), Some(input.name.span))
                .with_help(format!("pass it: --input {name}={}", example(input))),
        );
    };
    let value = eval_node(default, &Scope::default(), &Cache::new())?;
    match value {
        Value::Null => Ok(Value::Null),
        value => from_value(input, &value).map_err(|e| e.located(input, Some(default.span))),
    }
}

fn example(input: &InputDecl) -> String {
    match input.kind {
        InputType::String => "TEXT".to_owned(),
        InputType::Boolean => "true".to_owned(),
        InputType::Number => "1".to_owned(),
        InputType::Choice => options(input).first().map_or("OPTION".to_owned(), to_text),
        InputType::List => "'[\"a\", \"b\"]'".to_owned(),
    }
}

/// Reason why a value doesn't fit the type of its input.
struct Unfit {
    message: String,
    help: Option<String>,
}

impl Unfit {
    fn new(message: impl Into<String>) -> Self {
        Unfit {
            message: message.into(),
            help: None,
        }
    }

    fn located(self, input: &InputDecl, default: Option<Span>) -> Diagnostic {
        let name = &input.name.text;
        let diagnostic = match default {
            Some(span) => Diagnostic::error(
                span,
                format!("the default of input `{name}` {}", self.message),
            ),
            None => problem(
                format!("input `{name}` {}", self.message),
                Some(input.name.span),
            ),
        };
        Diagnostic {
            help: self.help,
            ..diagnostic
        }
    }
}

fn options(input: &InputDecl) -> Vec<Value> {
    input
        .options
        .iter()
        .filter_map(|option| eval_node(option, &Scope::default(), &Cache::new()).ok())
        .collect()
}

fn from_text(input: &InputDecl, text: &str) -> Result<Value, Unfit> {
    match input.kind {
        InputType::String => Ok(Value::String(text.to_owned())),
        InputType::Boolean => match text.trim() {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(Unfit::new(format!("is `true` or `false`, not `{text}`"))),
        },
        InputType::Number => number(text)
            .map(Value::Number)
            .ok_or_else(|| Unfit::new(format!("is a number, not `{text}`"))),
        InputType::Choice => choice(input, text, |option| to_text(option) == text),
        InputType::List if text.trim_start().starts_with('[') => serde_json::from_str(text)
            .map_err(|e| Unfit::new(format!("is a list, and `{text}` is not a JSON list: {e}"))),
        InputType::List => Ok(Value::Array(vec![Value::String(text.to_owned())])),
    }
}

fn from_value(input: &InputDecl, value: &Value) -> Result<Value, Unfit> {
    let scalar = matches!(value, Value::String(_) | Value::Number(_) | Value::Bool(_));
    let shown = canonical_json(value);
    match (input.kind, value) {
        (InputType::String, _) if scalar => Ok(Value::String(to_text(value))),
        (InputType::String, _) => Err(Unfit::new(format!("is a text, not {shown}"))),
        (InputType::Boolean, Value::Bool(_)) | (InputType::Number, Value::Number(_)) => {
            Ok(value.clone())
        }
        (InputType::Boolean | InputType::Number, Value::String(text)) => from_text(input, text),
        (InputType::Boolean, _) => Err(Unfit::new(format!("is `true` or `false`, not {shown}"))),
        (InputType::Number, _) => Err(Unfit::new(format!("is a number, not {shown}"))),
        (InputType::Choice, _) => choice(input, &to_text(value), |option| {
            option == value || to_text(option) == to_text(value)
        }),
        (InputType::List, Value::Array(_)) => Ok(value.clone()),
        (InputType::List, Value::String(text)) => from_text(input, text),
        (InputType::List, Value::Object(_)) => Err(Unfit::new(format!("is a list, not {shown}"))),
        (InputType::List, _) => Ok(Value::Array(vec![value.clone()])),
    }
}

fn number(text: &str) -> Option<Number> {
    let text = text.trim();
    match text.parse::<i64>() {
        Ok(integer) => Some(integer.into()),
        // `f64` parses `inf` and `nan`, but JSON has no such numbers.
        Err(_) => text.parse::<f64>().ok().and_then(Number::from_f64),
    }
}

fn choice(input: &InputDecl, text: &str, is: impl Fn(&Value) -> bool) -> Result<Value, Unfit> {
    let options = options(input);
    if let Some(option) = options.iter().find(|option| is(option)) {
        return Ok(option.clone());
    }
    let texts: Vec<String> = options.iter().map(to_text).collect();
    let listed = texts.join(", ");
    Err(Unfit {
        message: format!("is one of {listed}, not `{text}`"),
        help: closest(text, texts.iter().map(String::as_str))
            .map(|close| format!("did you mean `{close}`?")),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::node::{Node, NodeValue, Text};
    use serde_json::json;

    fn node(value: &Value) -> Node {
        crate::expr::value_to_node(value, Span::default())
    }

    fn input(name: &str, kind: InputType, default: Option<Value>) -> InputDecl {
        InputDecl {
            name: Text {
                text: name.into(),
                span: Span {
                    line: 3,
                    ..Span::default()
                },
            },
            kind,
            options: match kind {
                InputType::Choice => vec![
                    node(&json!("postgres")),
                    node(&json!("mysql")),
                    node(&json!(7)),
                ],
                _ => vec![],
            },
            default: default.as_ref().map(node),
            description: None,
        }
    }

    fn given(texts: &[(&str, &str)], values: Value) -> Given {
        Given {
            texts: texts
                .iter()
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .collect(),
            values: values.as_object().unwrap().clone(),
        }
    }

    fn declared() -> Vec<InputDecl> {
        vec![
            input("text", InputType::String, Some(json!(""))),
            input("flag", InputType::Boolean, Some(json!(false))),
            input("count", InputType::Number, Some(json!(1))),
            input("db", InputType::Choice, Some(json!("mysql"))),
            input("list", InputType::List, Some(json!([]))),
        ]
    }

    #[test]
    fn texts_become_values_of_the_declared_type() {
        let given = given(
            &[
                ("text", "5"),
                ("flag", "true"),
                ("count", "2.5"),
                ("db", "7"),
                ("list", "[1, \"a\"]"),
            ],
            json!({"text": "no"}),
        );
        let inputs = resolve(&declared(), &given).unwrap();
        assert_eq!(
            Value::Object(inputs),
            json!({"text": "5", "flag": true, "count": 2.5, "db": 7, "list": [1, "a"]})
        );
    }

    #[test]
    fn a_file_gives_values_and_defaults_fill_the_rest() {
        let given = given(
            &[("list", "one")],
            json!({"text": 5, "flag": "true", "db": "postgres"}),
        );
        let inputs = resolve(&declared(), &given).unwrap();
        assert_eq!(
            Value::Object(inputs),
            json!({"text": "5", "flag": true, "count": 1, "db": "postgres", "list": ["one"]})
        );
    }

    #[test]
    fn every_mistake_is_reported_with_a_suggestion() {
        let given = given(
            &[
                ("txet", "5"),
                ("flag", "yes"),
                ("count", "NaN"),
                ("db", "postgre"),
            ],
            json!({"list": {"a": 1}}),
        );
        let problems = resolve(&declared(), &given).unwrap_err();
        let shown: Vec<String> = problems
            .iter()
            .map(|p| format!("{} | {}", p.message, p.help.clone().unwrap_or_default()))
            .collect();
        assert_eq!(
            shown,
            [
                "the spec has no input `txet` | did you mean `text`?",
                "input `flag` is `true` or `false`, not `yes` | ",
                "input `count` is a number, not `NaN` | ",
                "input `db` is one of postgres, mysql, 7, not `postgre` | did you mean `postgres`?",
                "input `list` is a list, not {\"a\":1} | ",
            ]
        );
    }

    #[test]
    fn an_input_without_a_default_is_required() {
        let problems =
            resolve(&[input("db", InputType::Choice, None)], &Given::default()).unwrap_err();
        assert_eq!(problems[0].message, "input `db` is required");
        assert_eq!(
            problems[0].help.as_deref(),
            Some("pass it: --input db=postgres")
        );
        assert_eq!(problems[0].related.as_ref().unwrap().0.line, 3);
    }

    #[test]
    fn a_default_that_is_no_option_is_an_error_at_its_place() {
        let problems = resolve(
            &[input("db", InputType::Choice, Some(json!("oracle")))],
            &Given::default(),
        );
        assert!(problems.unwrap_err()[0].span.is_some());
        let null = resolve(
            &[InputDecl {
                default: Some(Node {
                    value: NodeValue::Null,
                    span: Span::default(),
                }),
                ..input("x", InputType::String, None)
            }],
            &Given::default(),
        );
        assert_eq!(null.unwrap()["x"], Value::Null);
    }
}
