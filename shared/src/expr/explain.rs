//! Shows the values of the parts of a failed check, so that a reader sees why it doesn't hold.
//!
//! It shows comparisons inside `&&`, `||` and `!`, the paths and calls that are compared, and for `all` and `exists`
//! the element that decided. Parts that the evaluation didn't reach are not shown. Everything is bounded.

use super::convert::to_json;
use super::functions::TYPES;
use super::scope::Scope;
use super::stack::with_room;
use super::text::abbreviate_masked;
use super::tree::{Tree, children, is_function, unwrapped};
use super::{Program, meter::Meter};
use crate::mask::{Masks, shortened};
use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, operators};
use cel::common::types::{CelBool, CelNull};
use cel::{Context, Value as Cel};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const MAX_PARTS: usize = 16;
const MAX_VALUE: usize = 200;
const MAX_TEXT: usize = 200;

/// A part of an expression and its value, both bounded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// The text of the part.
    pub text: String,
    /// Its value as JSON, cut when long.
    pub value: String,
}

impl Program {
    /// Returns the parts of the expression that were evaluated, with their values, from left to right.
    pub fn explain(&self, scope: &Scope) -> Vec<Part> {
        let Ok(_meter) = Meter::start() else {
            return Vec::new();
        };
        // A part that can't be shown is left out; the check has already failed.
        with_room(self.height, || self.explain_here(scope)).unwrap_or_default()
    }

    fn explain_here(&self, scope: &Scope) -> Vec<Part> {
        let Ok(context) = self.context(scope) else {
            return Vec::new();
        };
        let mut report = Report {
            tree: &self.tree,
            scope,
            masks: scope.masks(),
            parts: Vec::new(),
        };
        report.decide(&self.tree.root, &context, true);
        report.parts
    }
}

struct Report<'t> {
    tree: &'t Tree,
    scope: &'t Scope,
    masks: Arc<Masks>,
    parts: Vec<Part>,
}

impl Report<'_> {
    /// Explains a part that is true or false. The value of the whole check is known and isn't shown.
    fn decide(&mut self, part: &IdedExpr, context: &Context<'_, '_>, whole: bool) {
        match &part.expr {
            Expr::Call(call) if self.junction(call, context) => {}
            Expr::Call(call) if call.func_name == operators::LOGICAL_NOT => {
                call.args
                    .iter()
                    .for_each(|arg| self.decide(arg, context, whole));
            }
            Expr::Comprehension(macro_) => {
                if !whole {
                    self.show(part, context);
                }
                self.in_macro(macro_, context);
            }
            Expr::Call(call) if !is_path(part) => {
                if !whole {
                    self.show(part, context);
                }
                if is_function(&call.func_name) || !whole {
                    children(part)
                        .into_iter()
                        .for_each(|child| self.operand(child, context));
                } else {
                    call.args
                        .iter()
                        .for_each(|child| self.operand(child, context));
                }
            }
            Expr::Literal(_) => {}
            _ => self.operand(part, context),
        }
    }

    /// Explains the evaluated parts of `&&`, `||` and conditions. Returns `false` for other calls.
    fn junction(&mut self, call: &CallExpr, context: &Context<'_, '_>) -> bool {
        let value = |part: &IdedExpr| {
            Cel::resolve_val(part, context)
                .ok()
                .and_then(|value| value.downcast_ref::<CelBool>().map(|b| *b.inner()))
        };
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::LOGICAL_AND, [left, right]) => {
                self.decide(left, context, false);
                if value(left) != Some(false) {
                    self.decide(right, context, false);
                }
            }
            (operators::LOGICAL_OR, [left, right]) => {
                self.decide(left, context, false);
                if value(left) != Some(true) {
                    self.decide(right, context, false);
                }
            }
            (operators::CONDITIONAL, [condition, yes, no]) => {
                self.decide(condition, context, false);
                match value(condition) {
                    Some(true) => self.decide(yes, context, false),
                    Some(false) => self.decide(no, context, false),
                    None => {}
                }
            }
            _ => return false,
        }
        true
    }

    /// Shows a part that is compared or is an argument: its value, and the values of the paths in it.
    fn operand(&mut self, part: &IdedExpr, context: &Context<'_, '_>) {
        let part = unwrapped(part);
        match &part.expr {
            Expr::Literal(_) => {}
            Expr::Ident(name) if name.starts_with(['@', '#']) || TYPES.contains(&name.as_str()) => {
            }
            _ if is_path(part) => self.show(part, context),
            Expr::Call(call) if self.junction(call, context) => {}
            Expr::Call(_) | Expr::Select(_) => {
                self.show(part, context);
                children(part)
                    .into_iter()
                    .for_each(|child| self.operand(child, context));
            }
            Expr::Comprehension(macro_) => {
                self.show(part, context);
                self.operand(&macro_.iter_range, context);
            }
            _ => children(part)
                .into_iter()
                .for_each(|child| self.operand(child, context)),
        }
    }

    /// Shows the range of a macro, and the element that decided: the first that makes `all` false or `exists` true.
    fn in_macro(&mut self, macro_: &ComprehensionExpr, context: &Context<'_, '_>) {
        self.operand(&macro_.iter_range, context);
        let Some((predicate, decisive)) = decision(macro_) else {
            return;
        };
        let Ok(range) = Cel::resolve_val(&macro_.iter_range, context) else {
            return;
        };
        let Some(iterable) = range.as_iterable() else {
            return;
        };
        let mut inner = context.new_inner_scope();
        let mut items = iterable.iter();
        while let Some(item) = items.next() {
            inner.add_variable_as_val(&macro_.iter_var, item.clone_as_boxed());
            let value = Cel::resolve_val(predicate, &inner);
            let decides = match &value {
                Ok(value) => value
                    .downcast_ref::<CelBool>()
                    .is_none_or(|b| *b.inner() == decisive),
                Err(_) => true,
            };
            if decides {
                let text = macro_.iter_var.clone();
                let value = to_json(item).map_or_else(|e| e, |value| self.value(&value));
                self.push(text, value);
                self.decide(predicate, &inner, true);
                return;
            }
        }
    }

    fn show(&mut self, part: &IdedExpr, context: &Context<'_, '_>) {
        let text = self.tree.part_text(part);
        let value = match Cel::resolve_val(part, context) {
            Ok(value) if value.downcast_ref::<CelNull>().is_some() => {
                match self.scope.why_null(&text) {
                    Some(why) => format!("null: {why}"),
                    None => "null".to_owned(),
                }
            }
            Ok(value) => match to_json(value.as_ref()) {
                Ok(json) => self.value(&json),
                Err(reason) => reason,
            },
            Err(_) => "no value".to_owned(),
        };
        self.push(text, value);
    }

    fn value(&self, value: &serde_json::Value) -> String {
        abbreviate_masked(value, MAX_VALUE, &self.masks)
    }

    fn push(&mut self, text: String, value: String) {
        // The text comes from the spec, which may contain a secret literally.
        let text = shortened(&self.masks.text(&text), MAX_TEXT + 1).into_owned();
        let part = Part { text, value };
        if self.parts.len() < MAX_PARTS && !self.parts.contains(&part) {
            self.parts.push(part);
        }
    }
}

/// Returns whether the part is a name with fields and keys, such as `json.results[0].id`.
fn is_path(part: &IdedExpr) -> bool {
    match &part.expr {
        Expr::Ident(_) => true,
        Expr::Select(select) => is_path(&select.operand),
        Expr::Call(call) => match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::INDEX | operators::OPT_INDEX | operators::OPT_SELECT, [operand, index]) => {
                is_path(operand) && matches!(index.expr, Expr::Literal(_))
            }
            _ => false,
        },
        _ => false,
    }
}

/// Returns the predicate of `all` (decided by false) or `exists` (decided by true).
fn decision(macro_: &ComprehensionExpr) -> Option<(&IdedExpr, bool)> {
    let Expr::Call(call) = &macro_.loop_step.expr else {
        return None;
    };
    let [accumulated, predicate] = call.args.as_slice() else {
        return None;
    };
    let folds = matches!(&accumulated.expr, Expr::Ident(name) if *name == macro_.accu_var);
    match call.func_name.as_str() {
        operators::LOGICAL_AND if folds => Some((predicate, false)),
        operators::LOGICAL_OR if folds => Some((predicate, true)),
        _ => None,
    }
}
