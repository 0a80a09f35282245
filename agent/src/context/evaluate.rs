//! Evaluates a step's settings into the types that actions take, with messages that name the setting.

use phalanx_shared::diagnostic::Span;
use phalanx_shared::expr::{Cache, EvalError, Scope, abbreviate_masked, eval_node, to_text};
use phalanx_shared::language::quantity;
use phalanx_shared::node::{Expr, Node, Template};
use serde_json::Value;
use std::time::Duration;

/// A scope and the compiled expressions of its spec.
#[derive(Clone, Copy)]
pub struct Evaluate<'a> {
    /// The names that expressions see.
    pub scope: &'a Scope,
    /// The compiled expressions.
    pub cache: &'a Cache,
}

impl<'a> Evaluate<'a> {
    /// Creates an evaluator for a scope.
    pub fn new(scope: &'a Scope, cache: &'a Cache) -> Self {
        Evaluate { scope, cache }
    }

    /// Evaluates a text.
    pub fn text(&self, template: &Template) -> Result<String, EvalError> {
        if !template.text.contains("${{") {
            return Ok(template.text.clone());
        }
        self.cache.template(template)?.eval_text(self.scope)
    }

    /// Evaluates a text as far as possible, for names of steps that don't run.
    pub fn known_text(&self, template: &Template) -> String {
        match self.cache.template(template) {
            Ok(program) => program.eval_known(self.scope),
            Err(_) => template.text.clone(),
        }
    }

    /// Evaluates a text that may be absent.
    pub fn optional_text(&self, template: Option<&Template>) -> Result<Option<String>, EvalError> {
        template.map(|template| self.text(template)).transpose()
    }

    /// Evaluates a condition.
    pub fn holds(&self, expr: &Expr) -> Result<bool, EvalError> {
        self.cache.program(expr)?.eval_bool(self.scope)
    }

    /// Evaluates a value.
    pub fn value(&self, node: &Node) -> Result<Value, EvalError> {
        eval_node(node, self.scope, self.cache)
    }

    /// Evaluates a map and converts its values to text. Null entries are dropped. A list repeats the name for each of
    /// its items.
    pub fn pairs(
        &self,
        node: Option<&Node>,
        what: &str,
    ) -> Result<Vec<(String, String)>, EvalError> {
        let Some(node) = node else {
            return Ok(Vec::new());
        };
        match self.value(node)? {
            Value::Null => Ok(Vec::new()),
            Value::Object(map) => Ok(map
                .iter()
                .flat_map(|(name, value)| match value {
                    Value::Null => Vec::new(),
                    Value::Array(values) => values
                        .iter()
                        .map(|value| (name.clone(), to_text(value)))
                        .collect(),
                    value => vec![(name.clone(), to_text(value))],
                })
                .collect()),
            other => Err(self.wrong(node.span, what, "a map", &other)),
        }
    }

    /// Evaluates a list of words. Lists inside it are flattened.
    pub fn words(&self, node: &Node, what: &str) -> Result<Vec<String>, EvalError> {
        match self.value(node)? {
            Value::Array(items) => {
                let mut words = Vec::with_capacity(items.len());
                for item in &items {
                    match item {
                        Value::Array(inner) => words.extend(inner.iter().map(to_text)),
                        Value::Null => {}
                        item => words.push(to_text(item)),
                    }
                }
                Ok(words)
            }
            other => Err(self.wrong(node.span, what, "a list of words", &other)),
        }
    }

    /// Evaluates a list of any values.
    pub fn list(&self, node: &Node, what: &str) -> Result<Vec<Value>, EvalError> {
        match self.value(node)? {
            Value::Array(items) => Ok(items),
            other => Err(self.wrong(node.span, what, "a list", &other)),
        }
    }

    /// Evaluates a duration (`1m30s`, or a number of seconds).
    pub fn duration(&self, node: &Node, what: &str) -> Result<Duration, EvalError> {
        let value = self.value(node)?;
        let text = match &value {
            Value::String(_) | Value::Number(_) => to_text(&value),
            other => return Err(self.wrong(node.span, what, "a duration such as 30s", other)),
        };
        quantity::duration(&text)
            .ok_or_else(|| self.wrong(node.span, what, "a duration such as 30s", &value))
    }

    /// Evaluates a duration that may be absent.
    pub fn optional_duration(
        &self,
        node: Option<&Node>,
        what: &str,
    ) -> Result<Option<Duration>, EvalError> {
        node.map(|node| self.duration(node, what)).transpose()
    }

    /// Evaluates a boolean; returns `default` if it is absent or null.
    pub fn switch(
        &self,
        node: Option<&Node>,
        what: &str,
        default: bool,
    ) -> Result<bool, EvalError> {
        let Some(node) = node else {
            return Ok(default);
        };
        match self.value(node)? {
            Value::Bool(on) => Ok(on),
            Value::Null => Ok(default),
            Value::String(text) if text == "true" => Ok(true),
            Value::String(text) if text == "false" => Ok(false),
            other => Err(self.wrong(node.span, what, "true or false", &other)),
        }
    }

    /// Evaluates a non-negative whole number.
    pub fn count(&self, node: &Node, what: &str) -> Result<u32, EvalError> {
        let value = self.value(node)?;
        let number = match &value {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        number
            .and_then(|number| u32::try_from(number).ok())
            .ok_or_else(|| self.wrong(node.span, what, "a whole number", &value))
    }

    fn wrong(&self, span: Span, what: &str, wanted: &str, got: &Value) -> EvalError {
        let shown = abbreviate_masked(got, 60, &self.scope.masks());
        EvalError::new(span, format!("{what}: {wanted} is expected, not {shown}"))
    }
}
