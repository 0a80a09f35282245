//! The matrix of a job: axes, `include` and `exclude`.

use super::expression::Known;
use crate::init::draft::Remark;
use crate::init::yaml::{Entry, Item, Yaml, entry};
use phalanx_shared::node::{Node, NodeValue};
use serde_json::Value;

/// Returns the entries of `strategy`, and notes the values of each axis in `known`.
pub fn strategy(node: &Node, known: &mut Known, remarks: &mut Vec<Remark>) -> Vec<Entry> {
    let mut entries = Vec::new();
    for part in node.entries() {
        let line = part.key.span.line;
        let name = part.key.text.as_str();
        match (name, &part.value.value) {
            ("matrix", _) => {
                let axes = matrix(&part.value, known, remarks);
                if !axes.is_empty() {
                    entries.push(entry("matrix", Yaml::Map(axes)));
                }
            }
            ("fail-fast", NodeValue::Bool(_)) => {
                entries.push(entry("fail-fast", Yaml::of(&part.value)));
            }
            ("max-parallel", NodeValue::Int(1..)) => {
                entries.push(entry("max-parallel", Yaml::of(&part.value)));
            }
            _ => remarks.push(Remark::new(
                line,
                format!("`strategy.{name}` is not taken over"),
            )),
        }
    }
    entries
}

fn matrix(node: &Node, known: &mut Known, remarks: &mut Vec<Remark>) -> Vec<Entry> {
    if !matches!(node.value, NodeValue::Map(_)) {
        let why = "the matrix is made by an expression: write its axes as lists, or as an input (`inputs: { axis: { type: list } }`)";
        remarks.push(Remark::new(node.span.line, why));
        return Vec::new();
    }
    let mut entries = Vec::new();
    let mut partial = Vec::new();
    for part in node.entries() {
        let name = part.key.text.as_str();
        if matches!(name, "include" | "exclude") {
            partial.push(part);
            continue;
        }
        let items = part.value.items();
        if items.is_empty() || !part.value.items().iter().all(is_constant) {
            let why = format!(
                "the axis `{name}` is not a list of values: write one, or an input (`${{{{ inputs.{name} }}}}` of `type: list`)"
            );
            remarks.push(Remark::new(part.key.span.line, why));
            continue;
        }
        let values: Vec<Value> = items.iter().map(Node::to_json).collect();
        known.matrix.insert(name.to_owned(), values);
        entries.push(entry(name, Yaml::of(&part.value)));
    }
    for part in partial {
        let list = cells(&part.value, &part.key.text, known, remarks);
        if !list.is_empty() {
            entries.push(entry(part.key.text.clone(), Yaml::List(list)));
        }
    }
    entries
}

/// Returns the items of `include` or `exclude`.
fn cells(node: &Node, name: &str, known: &mut Known, remarks: &mut Vec<Remark>) -> Vec<Item> {
    let not = |line, why: &str| Remark::new(line, format!("an item of `{name}` {why}"));
    if !matches!(node.value, NodeValue::List(_)) {
        remarks.push(Remark::new(
            node.span.line,
            format!("`{name}` is made by an expression: write its items"),
        ));
    }
    let mut items = Vec::new();
    for item in node.items() {
        let line = item.span.line;
        if item.entries().is_empty() || !is_constant(item) {
            remarks.push(not(line, "is not taken over: it is no map of values"));
            continue;
        }
        if name == "exclude" {
            let unknown = item
                .entries()
                .iter()
                .find(|key| !known.matrix.contains_key(&key.key.text));
            if let Some(unknown) = unknown {
                let why = format!("is not taken over: there is no axis `{}`", unknown.key.text);
                remarks.push(not(line, &why));
                continue;
            }
        } else {
            for key in item.entries() {
                let values = known.matrix.entry(key.key.text.clone()).or_default();
                values.push(key.value.to_json());
            }
        }
        items.push(Item {
            above: Vec::new(),
            value: Some(Yaml::of(item)),
        });
    }
    items
}

/// Whether a value holds no expression.
fn is_constant(node: &Node) -> bool {
    let text = node.as_text().is_none_or(|text| !text.contains("${{"));
    text && node.items().iter().all(is_constant)
        && node.entries().iter().all(|entry| is_constant(&entry.value))
}
