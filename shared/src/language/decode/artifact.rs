//! Decodes `artifacts` of steps, services and cells.

use super::fields::{Fields, template};
use crate::language::model::{Artifact, ArtifactWhen, IfMissing};
use crate::node::{Node, NodeValue};
use strum::VariantArray;

/// Decodes the entries: one, or a list of them.
pub fn artifacts(fields: &Fields<'_>) -> Vec<Artifact> {
    let Some(node) = fields.get("artifacts") else {
        return Vec::new();
    };
    match &node.value {
        NodeValue::List(items) => items.iter().filter_map(artifact).collect(),
        _ => artifact(node).into_iter().collect(),
    }
}

fn artifact(node: &Node) -> Option<Artifact> {
    let fields = match &node.value {
        NodeValue::Map(_) => Fields::of(node),
        _ => {
            return Some(Artifact {
                from: template(node)?,
                name: None,
                when: ArtifactWhen::default(),
                max: None,
                unmasked: false,
                if_missing: IfMissing::default(),
            });
        }
    };
    let (when, missing) = (fields.string("when"), fields.string("if-no-files-found"));
    let when = ArtifactWhen::VARIANTS
        .iter()
        .find(|known| when.as_deref() == Some(known.as_str()));
    let if_missing = IfMissing::VARIANTS
        .iter()
        .find(|known| missing.as_deref() == Some(known.as_str()));
    Some(Artifact {
        from: fields.template("from")?,
        name: fields.template("name"),
        when: when.copied().unwrap_or_default(),
        max: fields.node("max"),
        unmasked: matches!(
            fields.get("mask").map(|node| &node.value),
            Some(NodeValue::Bool(false))
        ),
        if_missing: if_missing.copied().unwrap_or_default(),
    })
}
