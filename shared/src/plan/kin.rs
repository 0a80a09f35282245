//! What the families of a spec's cells have in common.

use crate::expr::canonical_json;
use crate::language::model::Spec;
use crate::language::reads::Reads;
use crate::language::service::dependencies;
use crate::language::snapshot::{Group, Node, group, related, steps};
use crate::node::Text;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// Version of what a family is made of.
const FORMAT: u32 = 1;

/// What the families of a spec's cells have in common.
#[derive(Debug)]
pub(super) struct Common {
    /// Digest of the group's text and of the definitions of the services.
    pub text: String,
    /// What both read.
    pub reads: Reads,
}

impl Common {
    /// Returns what is common to all cells; `None` if the spec has no snapshot, or one that no second cell can use.
    pub(super) fn of(spec: &Spec) -> Option<Common> {
        let Group { step, snapshot, .. } = group(&spec.phases)?;
        let mut reads = Reads::of(spec, [step]);
        let named: BTreeSet<String> = texts(&snapshot.services);
        let used = reads.services.keys().cloned().collect();
        let nodes = spec.services.iter().map(|service| {
            let needs = dependencies(&service.definition).into_iter();
            let node = Node {
                needs: needs.map(|on| on.text).collect(),
                manual: service.manual,
            };
            (service.name.text.clone(), node)
        });
        let related = related(&nodes.collect(), &named, &used);
        let mut definitions = BTreeMap::new();
        for service in &spec.services {
            if related.contains(&service.name.text) {
                let read = Reads::of_node(spec, &service.definition);
                reads.references.extend(read.references);
                definitions.insert(&service.name.text, service.definition.to_json());
            }
        }
        // Each run has a key of its own.
        if reads.references.iter().any(|read| read.root == "run") {
            return None;
        }
        let text = json!({
            "format": FORMAT,
            "named": named,
            "steps": steps(spec, step, &reads),
            "services": definitions,
        });
        Some(Common {
            text: digest(&text),
            reads,
        })
    }
}

fn texts(names: &[Text]) -> BTreeSet<String> {
    names.iter().map(|name| name.text.clone()).collect()
}

/// Returns the digest of a value.
pub(super) fn digest(value: &Value) -> String {
    hex::encode(Sha256::digest(canonical_json(value)))
}
