//! What a snapshot depends on, as far as the spec's text and the planned values say it. The agent makes the key of it, and
//! the coordinator the family (`plan/family.rs`). Pure.

use super::model::{DefineBody, Phase, Snapshot, Spec, Step};
use super::reads::Reads;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A group with a snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Group<'s> {
    /// Its phase.
    pub phase: &'s Phase,
    /// Its position in the phase.
    pub at: usize,
    /// The group.
    pub step: &'s Step,
    /// The setting.
    pub snapshot: &'s Snapshot,
}

/// Returns the group of a spec that has a snapshot.
pub fn group(phases: &[Phase]) -> Option<Group<'_>> {
    phases.iter().find_map(|phase| {
        let mut steps = phase.steps.iter().enumerate();
        steps.find_map(|(at, step)| {
            let snapshot = step.snapshot.as_deref()?;
            Some(Group {
                phase,
                at,
                step,
                snapshot,
            })
        })
    })
}

/// Returns the steps of a group, with the defines and sessions that they use, without places in the spec's files.
pub fn steps(spec: &Spec, group: &Step, reads: &Reads) -> Value {
    let mut own = group.clone();
    // They say when a snapshot is used, and not what it holds.
    own.snapshot = None;
    own.verifies = None;
    let defines = spec.define.iter().filter(|define| match &define.body {
        DefineBody::Steps { .. } => reads.defines.contains(&define.name.text),
        DefineBody::Value(_) => reads.functions.contains(&define.name.text),
    });
    let sessions = spec.sessions.iter();
    let sessions = sessions.filter(|session| reads.sessions.contains_key(&session.name.text));
    let all = json!({
        "group": own,
        "defines": defines.collect::<Vec<_>>(),
        "sessions": sessions.collect::<Vec<_>>(),
        "default_session": spec.default_session,
    });
    without_places(all)
}

/// Returns the values that are read of a context: those of the names, or all if a name is computed.
pub fn read_of(reads: &Reads, context: &str, values: &Map<String, Value>) -> Option<Value> {
    let any = reads.references.iter().any(|read| read.root == context);
    any.then(|| match reads.names(context) {
        Some(names) => names
            .into_iter()
            .map(|name| {
                (
                    name.to_owned(),
                    values.get(name).cloned().unwrap_or_default(),
                )
            })
            .collect(),
        None => Value::Object(values.clone()),
    })
}

/// Removes the places from a part of a spec. Only its own types have a field `span`: names that a user chooses are values.
pub fn without_places(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(without_places).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(name, value)| !(name == "span" && is_place(value)))
            .map(|(name, value)| (name, without_places(value)))
            .collect(),
        other => other,
    }
}

/// A place is serialised as its five numbers.
fn is_place(value: &Value) -> bool {
    let numbers = value.as_array().filter(|numbers| numbers.len() == 5);
    numbers.is_some_and(|numbers| numbers.iter().all(Value::is_u64))
}

/// The services of a spec as the key sees them: name, dependencies, and whether only a step starts it.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Names of the services on which it depends.
    pub needs: BTreeSet<String>,
    /// Whether it is `start: manual`.
    pub manual: bool,
}

/// Returns the services that decide what the files of the named ones hold: they, those that the steps use, those that
/// start by themselves and depend on a named one, and all that any of them needs.
pub fn related(
    services: &BTreeMap<String, Node>,
    named: &BTreeSet<String>,
    used: &BTreeSet<String>,
) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = named.union(used).cloned().collect();
    loop {
        let before = found.len();
        for (name, node) in services {
            let writes = !node.manual && node.needs.iter().any(|on| named.contains(on));
            let through = !node.manual
                && node
                    .needs
                    .iter()
                    .any(|on| found.contains(on) && depends_on_named(services, on, named));
            if writes || through {
                found.insert(name.clone());
            }
        }
        let needed: Vec<String> = found
            .iter()
            .filter_map(|name| services.get(name))
            .flat_map(|node| node.needs.iter().cloned())
            .collect();
        found.extend(needed);
        if found.len() == before {
            break;
        }
    }
    found.retain(|name| services.contains_key(name));
    found
}

fn depends_on_named(
    services: &BTreeMap<String, Node>,
    name: &str,
    named: &BTreeSet<String>,
) -> bool {
    let mut next = vec![name];
    let mut seen = BTreeSet::new();
    while let Some(name) = next.pop() {
        if named.contains(name) {
            return true;
        }
        if seen.insert(name)
            && let Some(node) = services.get(name)
        {
            next.extend(node.needs.iter().map(String::as_str));
        }
    }
    false
}
