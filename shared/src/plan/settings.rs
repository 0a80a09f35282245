//! Evaluates the settings of a cell and of the strategy into their types.

use super::Resources;
use crate::expr::{Cache, EvalError, Scope, abbreviate, eval_node, to_text};
use crate::language::model::CellSettings;
use crate::language::quantity;
use crate::node::Node;
use serde_json::Value;
use std::time::Duration;

/// Defaults of a cell's settings.
const TIMEOUT_MS: u64 = 60 * 60 * 1000;
const ATTEMPTS: u32 = 1;

/// Settings of a cell: requirements, limits and tries.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    pub runs_on: Vec<String>,
    pub experimental: bool,
    pub resources: Resources,
    pub timeout_ms: u64,
    pub attempts: u32,
    pub retries: u32,
}

/// A scope with the compiled expressions of its spec.
pub(super) struct Evaluate<'a> {
    pub scope: &'a Scope,
    pub cache: &'a Cache,
}

impl Evaluate<'_> {
    pub(super) fn settings(&self, cell: &CellSettings) -> Result<Settings, EvalError> {
        Ok(Settings {
            runs_on: self.texts(cell.runs_on.as_ref(), "`runs-on`")?,
            experimental: self.switch(cell.experimental.as_ref(), "`experimental`")?,
            resources: Resources {
                millicpus: self
                    .quantity(
                        cell.cpus.as_ref(),
                        "`cpus`",
                        "CPUs such as 0.5",
                        quantity::millicpus,
                    )?
                    .unwrap_or(0),
                memory_bytes: self
                    .quantity(
                        cell.memory.as_ref(),
                        "`memory`",
                        "a size such as 512MiB",
                        quantity::bytes,
                    )?
                    .unwrap_or(0),
                subnets: 0,
            },
            timeout_ms: self
                .quantity(
                    cell.timeout.as_ref(),
                    "`timeout`",
                    "a duration such as 20m",
                    quantity::duration,
                )?
                .map_or(TIMEOUT_MS, |limit| limit.as_millis() as u64),
            attempts: self
                .count(cell.attempts.as_ref(), "`attempts`", 1)?
                .unwrap_or(ATTEMPTS),
            retries: self
                .count(cell.retries.as_ref(), "`retries`", 0)?
                .unwrap_or(0),
        })
    }

    /// Returns a node's value; `None` if it isn't set or is null.
    fn value(&self, node: Option<&Node>) -> Result<Option<Value>, EvalError> {
        let value = node
            .map(|node| eval_node(node, self.scope, self.cache))
            .transpose()?;
        Ok(value.filter(|value| *value != Value::Null))
    }

    pub(super) fn switch(&self, node: Option<&Node>, what: &str) -> Result<bool, EvalError> {
        match self.value(node)? {
            None => Ok(false),
            Some(Value::Bool(on)) => Ok(on),
            Some(Value::String(text)) if text == "true" => Ok(true),
            Some(Value::String(text)) if matches!(text.as_str(), "false" | "") => Ok(false),
            Some(other) => Err(wrong(node, what, "true or false", &other)),
        }
    }

    pub(super) fn count(
        &self,
        node: Option<&Node>,
        what: &str,
        least: u32,
    ) -> Result<Option<u32>, EvalError> {
        let Some(value) = self.value(node)? else {
            return Ok(None);
        };
        let wanted = || wrong(node, what, &format!("a whole number from {least}"), &value);
        let count: u32 = to_text(&value).trim().parse().map_err(|_| wanted())?;
        match count >= least {
            true => Ok(Some(count)),
            false => Err(wanted()),
        }
    }

    pub(super) fn duration(
        &self,
        node: Option<&Node>,
        what: &str,
    ) -> Result<Option<Duration>, EvalError> {
        let wanted = "a duration such as 20m";
        self.quantity(node, what, wanted, quantity::duration)
    }

    fn quantity<T>(
        &self,
        node: Option<&Node>,
        what: &str,
        wanted: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, EvalError> {
        let Some(value) = self.value(node)? else {
            return Ok(None);
        };
        match value {
            Value::String(_) | Value::Number(_) => read(&to_text(&value)),
            _ => None,
        }
        .map(Some)
        .ok_or_else(|| wrong(node, what, wanted, &value))
    }

    /// Returns a list of texts. A single text becomes a list of one, and null entries are dropped.
    fn texts(&self, node: Option<&Node>, what: &str) -> Result<Vec<String>, EvalError> {
        match self.value(node)? {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => {
                let set = items.iter().filter(|item| !item.is_null());
                set.map(|item| match item {
                    Value::Array(_) | Value::Object(_) => {
                        Err(wrong(node, what, "a list of labels", item))
                    }
                    item => Ok(to_text(item)),
                })
                .collect()
            }
            Some(Value::String(text)) => Ok(vec![text]),
            Some(other) => Err(wrong(node, what, "a list of labels", &other)),
        }
    }
}

fn wrong(node: Option<&Node>, what: &str, wanted: &str, got: &Value) -> EvalError {
    let span = node.map(|node| node.span).unwrap_or_default();
    EvalError::new(
        span,
        format!(
            "{what} is {}, and {wanted} is expected",
            abbreviate(got, 60)
        ),
    )
}
