//! Finds the part of an expression that caused a failure, and explains it with the values at hand.
//!
//! The evaluator reports an error without its position. Expressions are pure, so this module evaluates the parts again,
//! from the root down, until it finds a part that fails although its own parts succeed.

use super::convert::to_json;
use super::functions::{NAMESPACES, builtin_functions, is_wrapper};
use super::scope::Scope;
use super::text::{describe, suggestion};
use super::tree::{Tree, children, is_function};
use crate::mask::shortened;
use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, SelectExpr, operators};
use cel::common::types::{CelBool, CelNull, CelOptional};
use cel::common::value::CowVal;
use cel::{Context, ExecutionError, Value as Cel};
use serde_json::Value;
use std::ops::Range;

/// The failing part, the reason, and how to fix it.
pub(super) struct Blame {
    pub range: Range<usize>,
    pub message: String,
    pub help: Option<String>,
}

type Evaluated<'e, 'v> = Result<CowVal<'e, 'v>, ExecutionError>;

struct Search<'t> {
    tree: &'t Tree,
    scope: &'t Scope,
}

/// Finds the cause of `error`, with which the evaluation of the whole expression ended.
pub(super) fn find(
    tree: &Tree,
    scope: &Scope,
    context: &Context<'_, '_>,
    error: ExecutionError,
) -> Blame {
    Search { tree, scope }.part(&tree.root, context, error)
}

impl Search<'_> {
    fn part(&self, part: &IdedExpr, context: &Context<'_, '_>, error: ExecutionError) -> Blame {
        if let Expr::Comprehension(macro_) = &part.expr {
            return self.in_macro(part, macro_, context, error);
        }
        if let Expr::Call(call) = &part.expr
            && let Some(blame) = self.in_lazy(call, context)
        {
            return blame;
        }
        for child in self.evaluated(part) {
            if let Err(error) = Cel::resolve_val(child, context) {
                return self.part(child, context, error);
            }
        }
        self.explained(part, context, error)
    }

    /// Returns the parts that are evaluated before a part itself; a namespace is not a part.
    fn evaluated<'e>(&self, part: &'e IdedExpr) -> Vec<&'e IdedExpr> {
        children(part)
            .into_iter()
            .filter(|child| !matches!(&child.expr, Expr::Ident(name) if NAMESPACES.contains(&name.as_str())))
            .collect()
    }

    /// Handles conditions, `&&` and `||`, which evaluate only some of their parts.
    fn in_lazy(&self, call: &CallExpr, context: &Context<'_, '_>) -> Option<Blame> {
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::CONDITIONAL, [condition, yes, no]) => {
                let chosen = match Cel::resolve_val(condition, context) {
                    Err(error) => return Some(self.part(condition, context, error)),
                    Ok(value) => match value.downcast_ref::<CelBool>() {
                        Some(holds) if *holds.inner() => yes,
                        Some(_) => no,
                        None => return Some(self.not_bool(condition, &value)),
                    },
                };
                let error = Cel::resolve_val(chosen, context).err()?;
                Some(self.part(chosen, context, error))
            }
            (operators::LOGICAL_AND | operators::LOGICAL_OR, parts) => {
                parts
                    .iter()
                    .find_map(|part| match Cel::resolve_val(part, context) {
                        Err(error) => Some(self.part(part, context, error)),
                        Ok(value) if value.downcast_ref::<CelBool>().is_none() => {
                            Some(self.not_bool(part, &value))
                        }
                        Ok(_) => None,
                    })
            }
            _ => None,
        }
    }

    fn in_macro(
        &self,
        part: &IdedExpr,
        macro_: &ComprehensionExpr,
        context: &Context<'_, '_>,
        error: ExecutionError,
    ) -> Blame {
        for outside in [&macro_.iter_range, &macro_.accu_init] {
            if let Err(error) = Cel::resolve_val(outside, context) {
                return self.part(outside, context, error);
            }
        }
        let (Ok(range), Ok(start)) = (
            Cel::resolve_val(&macro_.iter_range, context),
            Cel::resolve_val(&macro_.accu_init, context),
        ) else {
            return self.explained(part, context, error);
        };
        let mut inner = context.new_inner_scope();
        inner.add_variable_as_val(&macro_.accu_var, start.into_owned());
        let Some(iterable) = range.as_iterable() else {
            let path = self.tree.part_text(&macro_.iter_range);
            let range_value = self.value_at(&path, Ok(range.clone()));
            return self.blame(
                &macro_.iter_range,
                format!("`{path}` is {range_value}, so there is nothing to go through"),
            );
        };
        let mut items = iterable.iter();
        while let Some(item) = items.next() {
            inner.add_variable_as_val(&macro_.iter_var, item.clone_as_boxed());
            if let Err(error) = Cel::resolve_val(&macro_.loop_step, &inner) {
                let mut blame = self.part(&macro_.loop_step, &inner, error);
                let element = self.value_of(Ok(CowVal::Borrowed(item)));
                blame.message = format!("{} (for {} = {element})", blame.message, macro_.iter_var);
                return blame;
            }
        }
        match Cel::resolve_val(&macro_.result, &inner) {
            Err(error) => self.part(&macro_.result, &inner, error),
            Ok(_) => self.explained(part, context, error),
        }
    }

    fn blame(&self, part: &IdedExpr, message: String) -> Blame {
        Blame {
            range: self.tree.range(part),
            message,
            help: None,
        }
    }

    fn not_bool(&self, part: &IdedExpr, value: &CowVal<'_, '_>) -> Blame {
        let text = self.tree.part_text(part);
        let value = self.value_of(Ok(value.clone()));
        Blame {
            help: Some("compare it: x == …, x != null, x.size() > 0".to_owned()),
            ..self.blame(part, format!("`{text}` is {value}, not true or false"))
        }
    }

    /// Explains the failure of a part whose own parts all have values.
    fn explained(
        &self,
        part: &IdedExpr,
        context: &Context<'_, '_>,
        error: ExecutionError,
    ) -> Blame {
        match (&part.expr, &error) {
            (Expr::Ident(name), _) => self.unknown_name(part, name),
            (Expr::Select(select), _) => self.no_field(part, select, context),
            (Expr::Call(call), _) => self.failed_call(part, call, context, error),
            _ => self.blame(part, self.plain(&error)),
        }
    }

    fn unknown_name(&self, part: &IdedExpr, name: &str) -> Blame {
        if let Some(reason) = self.scope.why_missing(name) {
            return self.blame(part, format!("`{name}` {reason}"));
        }
        Blame {
            help: super::foreign::name(name)
                .map(str::to_owned)
                .or_else(|| suggestion(name, self.scope.names(), "known here")),
            ..self.blame(part, format!("nothing is called `{name}` here"))
        }
    }

    fn no_field(&self, part: &IdedExpr, select: &SelectExpr, context: &Context<'_, '_>) -> Blame {
        let path = self.tree.part_text(&select.operand);
        let operand = json_of(Cel::resolve_val(&select.operand, context));
        self.missing(part, &path, operand.as_ref(), &select.field)
    }

    /// Explains why `path`, whose value is `operand`, has no `key`.
    fn missing(&self, part: &IdedExpr, path: &str, operand: Option<&Value>, key: &str) -> Blame {
        let (message, help) = match operand {
            Some(Value::Null) => (
                format!("`{path}` is {}, so it has no `{key}`", self.null(path)),
                None,
            ),
            Some(Value::Object(map)) if map.is_empty() => (
                format!("`{path}` is an empty map, so it has no `{key}`"),
                None,
            ),
            Some(Value::Object(map)) => (
                format!("`{path}` has no `{key}`"),
                suggestion(key, map.keys().map(String::as_str), "its keys"),
            ),
            Some(Value::Array(_)) => (
                format!(
                    "`{path}` is {}, which has no field `{key}`",
                    self.describe(operand.unwrap_or(&Value::Null))
                ),
                Some(format!("take one of its elements: {path}[0].{key}")),
            ),
            Some(other) => (
                format!(
                    "`{path}` is {}, which has no field `{key}`",
                    self.describe(other)
                ),
                None,
            ),
            None => (format!("`{path}` has no `{key}`"), None),
        };
        Blame {
            help,
            ..self.blame(part, message)
        }
    }

    fn failed_call(
        &self,
        part: &IdedExpr,
        call: &CallExpr,
        context: &Context<'_, '_>,
        error: ExecutionError,
    ) -> Blame {
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::INDEX, [operand, index]) => self.no_element(part, operand, index, context),
            (name, [inner]) if is_wrapper(name) => self.blame(inner, self.plain(&error)),
            ("value", []) => {
                let target = call.target.as_deref().unwrap_or(part);
                Blame {
                    help: Some(
                        "give a default with `.orValue(…)`, or ask `.hasValue()` first".to_owned(),
                    ),
                    ..self.blame(target, self.no_value(target, context))
                }
            }
            (name, _) if matches!(error, ExecutionError::UndeclaredReference(_)) => {
                let mut known: Vec<&str> = builtin_functions().collect();
                known.extend(self.scope.functions().names());
                Blame {
                    help: super::foreign::function(name)
                        .map(str::to_owned)
                        .or_else(|| suggestion(name, known, "functions")),
                    ..self.blame(part, format!("there is no function `{name}`"))
                }
            }
            (name, _) => self.wrong_values(part, name, context, &error),
        }
    }

    fn no_value(&self, target: &IdedExpr, context: &Context<'_, '_>) -> String {
        let text = self.tree.part_text(target);
        match Cel::resolve_val(target, context) {
            Ok(value) if value.downcast_ref::<CelOptional>().is_none() => {
                format!("`{text}` is not an optional, so it has no `value()`")
            }
            _ => format!("`{text}` has no value"),
        }
    }

    fn no_element(
        &self,
        part: &IdedExpr,
        operand: &IdedExpr,
        index: &IdedExpr,
        context: &Context<'_, '_>,
    ) -> Blame {
        let path = self.tree.part_text(operand);
        let operand = json_of(Cel::resolve_val(operand, context));
        let index = json_of(Cel::resolve_val(index, context)).unwrap_or(Value::Null);
        match (&operand, &index) {
            (Some(Value::Array(items)), Value::Number(n)) => {
                let has = match items.len() {
                    0 => "is an empty list".to_owned(),
                    1 => "has 1 element".to_owned(),
                    count => format!("has {count} elements"),
                };
                self.blame(part, format!("`{path}` {has}, so there is no [{n}]"))
            }
            (_, Value::String(key)) => self.missing(part, &path, operand.as_ref(), key),
            (Some(Value::Object(_)), key) => {
                self.missing(part, &path, operand.as_ref(), &key.to_string())
            }
            _ => self.blame(
                part,
                format!(
                    "`{path}` is {}, which can't be indexed with {}",
                    match &operand {
                        None => "a value".to_owned(),
                        Some(Value::Null) => self.null(&path),
                        Some(value) => self.describe(value),
                    },
                    self.describe(&index)
                ),
            ),
        }
    }

    /// Explains that an operator or a function can't be applied to these values.
    fn wrong_values(
        &self,
        part: &IdedExpr,
        name: &str,
        context: &Context<'_, '_>,
        error: &ExecutionError,
    ) -> Blame {
        if let ExecutionError::FunctionError { message, .. } = error {
            let name = name.trim_start_matches('@');
            let about = if name == "macro" {
                String::new()
            } else {
                format!("{name}: ")
            };
            return self.blame(part, format!("{about}{message}"));
        }
        if !matches!(
            error,
            ExecutionError::NoSuchOverload(_)
                | ExecutionError::UnsupportedBinaryOperator(..)
                | ExecutionError::UnexpectedType { .. }
                | ExecutionError::ValuesNotComparable(..)
        ) {
            return self.blame(part, self.plain(error));
        }
        let operator = name.trim_matches(['_', '@', '!']);
        let shown = match is_function(name) {
            true => operator.trim_start_matches('@'),
            false if operator.is_empty() => "!",
            false => operator,
        };
        let values = self
            .evaluated(part)
            .into_iter()
            .map(|child| {
                let text = self.tree.part_text(child);
                let value = self.value_at(&text, Cel::resolve_val(child, context));
                match matches!(child.expr, Expr::Literal(_)) {
                    true => value,
                    false => format!("`{text}` is {value}"),
                }
            })
            .collect::<Vec<_>>();
        Blame {
            help: conversion(&values),
            ..self.blame(
                part,
                format!(
                    "`{shown}` cannot be applied to these values: {}",
                    values.join(", ")
                ),
            )
        }
    }

    /// Returns `null`, with the reason if `path` is a name that has one.
    fn null(&self, path: &str) -> String {
        match self.scope.why_null(path) {
            Some(why) => format!("null ({why})"),
            None => "null".to_owned(),
        }
    }

    /// Describes the value of the part with this text.
    fn value_at(&self, path: &str, value: Evaluated<'_, '_>) -> String {
        match &value {
            Ok(known) if known.downcast_ref::<CelNull>().is_some() => self.null(path),
            _ => self.value_of(value),
        }
    }

    fn describe(&self, value: &Value) -> String {
        describe(value, &self.scope.masks())
    }

    fn value_of(&self, value: Evaluated<'_, '_>) -> String {
        match value {
            Ok(value)
                if value
                    .downcast_ref::<CelOptional>()
                    .is_some_and(|o| o.option().is_none()) =>
            {
                "an optional without a value".to_owned()
            }
            Ok(value) => match to_json(value.as_ref()) {
                Ok(json) => self.describe(&json),
                Err(reason) => reason,
            },
            Err(error) => self.plain(&error),
        }
    }

    fn plain(&self, error: &ExecutionError) -> String {
        match error {
            ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
                "division by zero".to_owned()
            }
            ExecutionError::Overflow(..) => "the result needs more than 64 bits".to_owned(),
            ExecutionError::DuplicateKey(key) => format!("the map has the key {key:?} twice"),
            ExecutionError::UnsupportedKeyType(_) => {
                "a map's key is text, a whole number or a bool".to_owned()
            }
            ExecutionError::FunctionError { message, .. } => message.clone(),
            ExecutionError::NoSuchKey(key) => format!("there is no key `{key}`"),
            other => {
                let text = self.scope.masks().text(&other.to_string()).into_owned();
                let mut chars = text.chars();
                match chars.next() {
                    Some(first) => {
                        let text: String = first.to_lowercase().chain(chars).collect();
                        shortened(&text, 300).into_owned()
                    }
                    None => text,
                }
            }
        }
    }
}

fn conversion(values: &[String]) -> Option<String> {
    let text = values.iter().any(|value| value.contains("the text"));
    let number = values.iter().any(|value| value.contains("the number"));
    (text && number).then(|| "convert one of them: string(x), int(x) or double(x)".to_owned())
}

fn json_of(value: Evaluated<'_, '_>) -> Option<Value> {
    value.ok().and_then(|value| to_json(value.as_ref()).ok())
}
