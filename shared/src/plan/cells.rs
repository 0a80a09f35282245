//! Makes combinations from a spec's strategy, and the cell's id from a combination.

use super::context::Planner;
use crate::diagnostic::{Diagnostic, Span};
use crate::expr::{Scope, TemplateProgram, canonical_entries, eval_node};
use crate::id::CellId;
use crate::language::model::Spec;
use crate::matrix::{self, Combination, Matrix, MatrixError};
use crate::node::{Node, NodeValue, Template};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// Returns the id of the cell with these values: the first 64 bits of their SHA-256. It depends neither on the machine
/// nor on the order of the values.
pub fn cell_id(combination: &Combination) -> CellId {
    let canonical = canonical_entries(combination.iter());
    let hash = hex::encode(Sha256::digest(canonical));
    CellId(hash.get(..16).unwrap_or_default().to_owned())
}

/// Evaluates the matrix. Reports every problem in it.
pub(super) fn matrix(planner: &Planner, scope: &Scope) -> Result<Matrix, Vec<Diagnostic>> {
    let strategy = &planner.spec.strategy;
    let mut problems = Vec::new();
    let mut matrix = Matrix {
        written: strategy.matrix,
        ..Matrix::default()
    };
    for (name, node) in &strategy.axes {
        match axis(planner, scope, &name.text, node) {
            Ok(values) => {
                matrix.axes.insert(name.text.clone(), values);
            }
            Err(problem) => problems.push(problem),
        }
    }
    let lists = [
        ("include", &strategy.include),
        ("exclude", &strategy.exclude),
    ];
    let [include, exclude] = lists.map(|(what, node)| {
        entries(planner, scope, what, node.as_ref()).unwrap_or_else(|problem| {
            problems.push(problem);
            Vec::new()
        })
    });
    let mut known: Vec<String> = matrix.axes.keys().cloned().collect();
    matrix.include = in_one_spelling(include, &mut known);
    matrix.exclude = in_one_spelling(exclude, &mut known);
    match problems.is_empty() {
        true => Ok(matrix),
        false => Err(problems),
    }
}

/// Renames keys that differ only in case from an axis or an earlier key to that spelling, as GitHub does.
fn in_one_spelling(
    entries: Vec<Map<String, Value>>,
    known: &mut Vec<String>,
) -> Vec<Map<String, Value>> {
    let mut spell = |key: String| {
        let alike = known.iter().find(|name| name.eq_ignore_ascii_case(&key));
        match alike {
            Some(name) => name.clone(),
            None => {
                // A matrix with more keys is rejected later.
                if known.len() <= matrix::MAX_KEYS {
                    known.push(key.clone());
                }
                key
            }
        }
    };
    entries
        .into_iter()
        .map(|entry| {
            entry
                .into_iter()
                .map(|(key, value)| (spell(key), value))
                .collect()
        })
        .collect()
}

/// Returns the keys of the matrix that can be read without evaluating expressions.
pub(super) fn written_keys(spec: &Spec) -> Vec<String> {
    let axes = spec.strategy.axes.iter().map(|(axis, _)| axis.text.clone());
    let mut keys: Vec<String> = axes.collect();
    let include = spec.strategy.include.iter().flat_map(Node::items);
    for entry in include.flat_map(Node::entries) {
        if !keys
            .iter()
            .any(|key| key.eq_ignore_ascii_case(&entry.key.text))
        {
            keys.push(entry.key.text.clone());
        }
    }
    keys
}

/// Returns the keys that `matrix` has in any cell: the axes, and those that `include` adds.
pub(super) fn keys(matrix: &Matrix) -> Vec<String> {
    let keys = matrix::keys(matrix);
    keys.into_iter().map(ToOwned::to_owned).collect()
}

/// Returns the combinations. An error names the place in the spec and the inputs that contributed to it.
pub(super) fn combinations(
    planner: &Planner,
    matrix: &Matrix,
) -> Result<Vec<Combination>, Diagnostic> {
    matrix::combinations(matrix).map_err(|error| {
        let strategy = &planner.spec.strategy;
        let axis_node = |axis: &str| {
            strategy
                .axes
                .iter()
                .find(|(name, _)| name.text == axis)
                .map(|(_, node)| node)
        };
        let entry = |list: Option<&Node>, index: usize| match list
            .map(|list| (&list.value, list.span))
        {
            Some((NodeValue::List(items), span)) => items.get(index).map_or(span, |item| item.span),
            Some((_, span)) => span,
            None => strategy.span,
        };
        let (span, blamed): (Span, Vec<&Node>) = match &error {
            MatrixError::EmptyAxis { axis } => {
                let node = axis_node(axis);
                (
                    node.map_or(strategy.span, |node| node.span),
                    node.into_iter().collect(),
                )
            }
            MatrixError::AllExcluded { .. } => {
                let exclude = strategy.exclude.as_ref();
                let blamed = exclude
                    .into_iter()
                    .chain(strategy.axes.iter().map(|(_, node)| node));
                (
                    exclude.map_or(strategy.span, |node| node.span),
                    blamed.collect(),
                )
            }
            MatrixError::UnknownAxis { entry: index, .. } => {
                (entry(strategy.exclude.as_ref(), *index), vec![])
            }
            MatrixError::EmptyEntry {
                list: "include",
                entry: index,
            } => (entry(strategy.include.as_ref(), *index), vec![]),
            MatrixError::EmptyEntry { entry: index, .. } => {
                (entry(strategy.exclude.as_ref(), *index), vec![])
            }
            MatrixError::Empty => {
                let lists = strategy.include.iter().chain(&strategy.exclude);
                let span = strategy
                    .include
                    .as_ref()
                    .map_or(strategy.span, |node| node.span);
                (span, lists.collect())
            }
            MatrixError::LargeValue { key, .. } => (
                axis_node(key).map_or(strategy.span, |node| node.span),
                vec![],
            ),
            MatrixError::TooMany { .. }
            | MatrixError::TooManyKeys { .. }
            | MatrixError::TooLarge { .. }
            | MatrixError::TooManyEntries { .. } => (strategy.span, vec![]),
        };
        let help = match &error {
            MatrixError::UnknownAxis { key, .. } => {
                crate::expr::suggestion(key, matrix.axes.keys().map(String::as_str), "the axes")
            }
            MatrixError::Empty => inputs_behind(planner, &blamed)
                .or_else(|| Some("a spec without `strategy.matrix` has one cell".to_owned())),
            _ => inputs_behind(planner, &blamed),
        };
        Diagnostic {
            help,
            ..Diagnostic::error(span, error.to_string())
        }
    })
}

/// Returns "input `x` is …" for the inputs to which an empty axis or its exclusion refers.
fn inputs_behind(planner: &Planner, nodes: &[&Node]) -> Option<String> {
    let mut named: Vec<String> = Vec::new();
    for node in nodes {
        for_templates(node, &mut |template| {
            let Ok(compiled) = planner.cache.template(template) else {
                return;
            };
            named.extend(inputs_of(&compiled));
        });
    }
    named.sort();
    named.dedup();
    let shown = named.into_iter().map(|name| {
        let value = planner.inputs.get(&name).cloned().unwrap_or_default();
        format!("input `{name}` is {}", crate::expr::abbreviate(&value, 60))
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    (!shown.is_empty()).then_some(shown)
}

fn inputs_of(template: &TemplateProgram) -> Vec<String> {
    template
        .references()
        .filter(|reference| reference.root == "inputs")
        .filter_map(|reference| Some(reference.path.first()?.key.to_string()))
        .collect()
}

/// Calls `visit` for each text of a tree that contains an expression.
pub(super) fn for_templates(node: &Node, visit: &mut impl FnMut(&Template)) {
    match &node.value {
        NodeValue::Text(text) if text.contains("${{") => {
            visit(&Template {
                text: text.clone(),
                span: node.span,
            });
        }
        NodeValue::List(items) => items.iter().for_each(|item| for_templates(item, visit)),
        NodeValue::Map(entries) => entries
            .iter()
            .for_each(|entry| for_templates(&entry.value, visit)),
        _ => {}
    }
}

fn axis(
    planner: &Planner,
    scope: &Scope,
    name: &str,
    node: &Node,
) -> Result<Vec<Value>, Diagnostic> {
    match eval_node(node, scope, &planner.cache)? {
        Value::Array(values) => Ok(values),
        other => Err(Diagnostic::error(
            node.span,
            format!(
                "axis `{name}` is {}, and a list is expected",
                crate::expr::abbreviate(&other, 60)
            ),
        )
        .with_help(
            inputs_behind(planner, &[node])
                .unwrap_or_else(|| "write [value], or an expression that gives a list".to_owned()),
        )),
    }
}

fn entries(
    planner: &Planner,
    scope: &Scope,
    what: &str,
    node: Option<&Node>,
) -> Result<Vec<Map<String, Value>>, Diagnostic> {
    let Some(node) = node else {
        return Ok(Vec::new());
    };
    let wrong = |value: &Value, wanted: &str| {
        let shown = crate::expr::abbreviate(value, 60);
        Diagnostic::error(
            node.span,
            format!("`{what}` has {shown}, and {wanted} is expected"),
        )
    };
    match eval_node(node, scope, &planner.cache)? {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => items
            .into_iter()
            .map(|item| match item {
                Value::Object(entry) => Ok(entry),
                other => Err(wrong(&other, "a map of axis values")),
            })
            .collect(),
        other => Err(wrong(&other, "a list of maps")),
    }
}
