//! Decodes defines: groups of steps with parameters, and functions for expressions.

use super::fields::Fields;
use super::step;
use crate::diagnostic::Diagnostic;
use crate::language::model::{Define, DefineBody, Param};
use crate::language::shape::name::NameRule;
use crate::node::{Entry, NodeValue};

/// Decodes a define. Returns `None` if it has no body.
pub fn define(entry: &Entry, diagnostics: &mut Vec<Diagnostic>) -> Option<Define> {
    let fields = Fields::of(&entry.value);
    let params = params(&fields, diagnostics);
    let body = if let Some(value) = fields.expr("value", diagnostics) {
        for param in &params {
            if let Some((problem, advice)) = NameRule::Bare.problem(&param.name.text) {
                diagnostics.push(Diagnostic::error(param.name.span, problem).with_help(advice));
            }
        }
        DefineBody::Value(value)
    } else {
        let steps = fields.entry("steps")?;
        if steps.value.items().is_empty() && matches!(steps.value.value, NodeValue::List(_)) {
            diagnostics.push(Diagnostic::error(steps.key.span, "`steps` has no steps"));
        }
        DefineBody::Steps {
            steps: step::steps(steps.value.items(), diagnostics),
            capture: step::captures(&fields, diagnostics),
        }
    };
    Some(Define {
        name: entry.key.clone(),
        params,
        body,
    })
}

/// Decodes `params`: a list of names, or a map from names to settings.
fn params(fields: &Fields<'_>, diagnostics: &mut Vec<Diagnostic>) -> Vec<Param> {
    let mut params: Vec<Param> = step::names(fields.items("params"))
        .into_iter()
        .map(|name| Param {
            name,
            default: None,
        })
        .collect();
    params.extend(fields.entries("params").iter().map(|entry| Param {
        name: entry.key.clone(),
        default: entry.value.get("default").cloned(),
    }));
    for (at, param) in params.iter().enumerate() {
        let earlier = params
            .iter()
            .take(at)
            .find(|p| p.name.text == param.name.text);
        if let Some(earlier) = earlier {
            diagnostics.push(
                Diagnostic::error(
                    param.name.span,
                    format!("duplicate parameter `{}`", param.name.text),
                )
                .with_related(earlier.name.span, "first written here"),
            );
        }
    }
    params
}
