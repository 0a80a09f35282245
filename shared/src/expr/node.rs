//! Evaluates a whole YAML tree.

use super::cache::Cache;
use super::meter::{self, Group};
use super::place::EvalError;
use super::scope::Scope;
use super::weight::{MAX_LEVELS, deeper_than, weight};
use crate::diagnostic::{Diagnostic, Span};
use crate::node::{Entry, Node, NodeValue, Template};
use serde_json::{Map, Number, Value};

impl From<Diagnostic> for EvalError {
    fn from(diagnostic: Diagnostic) -> Self {
        EvalError {
            message: diagnostic.message,
            span: diagnostic.span.unwrap_or_default(),
            help: diagnostic.help,
            incomplete: false,
        }
    }
}

/// Returns the value of a tree with every `${{ }}` in it evaluated. A key whose value evaluates to null is dropped; a
/// literal null stays.
pub fn eval_node(node: &Node, scope: &Scope, cache: &Cache) -> Result<Value, EvalError> {
    let _together = Group::start();
    eval_part(node, scope, cache, MAX_LEVELS)
}

fn eval_part(node: &Node, scope: &Scope, cache: &Cache, levels: usize) -> Result<Value, EvalError> {
    let inside = levels.saturating_sub(1);
    Ok(match &node.value {
        NodeValue::Null => Value::Null,
        NodeValue::Bool(b) => Value::Bool(*b),
        NodeValue::Int(n) => Value::from(*n),
        NodeValue::Float(n) => number(*n, node.span)?,
        NodeValue::Text(text) => eval_text_node(text, node.span, scope, cache, levels)?,
        NodeValue::List(items) => items
            .iter()
            .map(|item| eval_part(item, scope, cache, inside))
            .collect::<Result<_, _>>()?,
        NodeValue::Map(entries) => {
            let mut map = Map::new();
            for entry in entries {
                let value = eval_part(&entry.value, scope, cache, inside)?;
                if value != Value::Null || matches!(entry.value.value, NodeValue::Null) {
                    map.insert(entry.key.text.clone(), value);
                }
            }
            Value::Object(map)
        }
    })
}

/// Returns the tree with every `${{ }}` in it evaluated. Places are kept: the result of an expression has the place of
/// the expression.
pub fn eval_to_node(node: &Node, scope: &Scope, cache: &Cache) -> Result<Node, EvalError> {
    let _together = Group::start();
    part_to_node(node, scope, cache, MAX_LEVELS)
}

fn part_to_node(
    node: &Node,
    scope: &Scope,
    cache: &Cache,
    levels: usize,
) -> Result<Node, EvalError> {
    let inside = levels.saturating_sub(1);
    let value = match &node.value {
        NodeValue::Text(text) => {
            return Ok(value_to_node(
                &eval_text_node(text, node.span, scope, cache, levels)?,
                node.span,
            ));
        }
        NodeValue::List(items) => NodeValue::List(
            items
                .iter()
                .map(|item| part_to_node(item, scope, cache, inside))
                .collect::<Result<_, _>>()?,
        ),
        NodeValue::Map(entries) => {
            let mut evaluated = Vec::with_capacity(entries.len());
            for entry in entries {
                let value = part_to_node(&entry.value, scope, cache, inside)?;
                if value.value != NodeValue::Null || matches!(entry.value.value, NodeValue::Null) {
                    evaluated.push(Entry {
                        key: entry.key.clone(),
                        value,
                    });
                }
            }
            NodeValue::Map(evaluated)
        }
        other => other.clone(),
    };
    Ok(Node {
        value,
        span: node.span,
    })
}

/// Converts a JSON value to a tree; every node gets the same place.
pub fn value_to_node(value: &Value, span: Span) -> Node {
    let value = match value {
        Value::Null => NodeValue::Null,
        Value::Bool(b) => NodeValue::Bool(*b),
        Value::Number(n) => n.as_i64().map_or_else(
            || NodeValue::Float(n.as_f64().unwrap_or(f64::NAN)),
            NodeValue::Int,
        ),
        Value::String(text) => NodeValue::Text(text.clone()),
        Value::Array(items) => {
            NodeValue::List(items.iter().map(|item| value_to_node(item, span)).collect())
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            NodeValue::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| Entry {
                        key: crate::node::Text {
                            text: key.clone(),
                            span,
                        },
                        value: value_to_node(value, span),
                    })
                    .collect(),
            )
        }
    };
    Node { value, span }
}

fn eval_text_node(
    text: &str,
    span: Span,
    scope: &Scope,
    cache: &Cache,
    levels: usize,
) -> Result<Value, EvalError> {
    if !text.contains("${{") {
        return Ok(Value::String(text.to_owned()));
    }
    let template = Template {
        text: text.to_owned(),
        span,
    };
    let value = cache.template(&template)?.eval(scope)?;
    let counted = meter::make(weight(&value)).and(match deeper_than(&value, levels) {
        true => Err(format!("more than {MAX_LEVELS} levels of lists and maps")),
        false => Ok(()),
    });
    counted.map_err(|message| EvalError::new(span, message))?;
    Ok(value)
}

fn number(n: f64, span: Span) -> Result<Value, EvalError> {
    Number::from_f64(n)
        .map(Value::Number)
        .ok_or_else(|| EvalError::new(span, format!("the number {n} has no JSON")))
}
