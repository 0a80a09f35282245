//! Collects the names that a spec declares, to which expressions and steps may refer.

use crate::expr::MatrixKeys;
use crate::language::model::{Define, DefineBody, Service, Spec, Step};
use crate::language::service::may_have_replica;
use crate::node::{Node, NodeValue};
use indexmap::IndexMap;
use std::collections::{HashMap, HashSet};

/// Names that a spec declares.
pub struct Names<'s> {
    pub spec: &'s Spec,
    pub inputs: HashSet<&'s str>,
    /// Axes, and keys that `include` adds; `None` if an expression gives `include`.
    pub matrix: Option<HashSet<&'s str>>,
    /// Keys of `matrix`, in the form for parsing expressions.
    pub keys: MatrixKeys,
    pub vars: HashSet<&'s str>,
    pub secrets: HashSet<&'s str>,
    pub services: HashSet<&'s str>,
    pub sessions: HashSet<&'s str>,
    pub coverage: HashSet<&'s str>,
    /// Functions, with their number of parameters.
    pub functions: IndexMap<&'s str, usize>,
    /// Groups of steps, by name.
    pub groups: IndexMap<&'s str, &'s Define>,
    /// Ids of all steps in the phases, including those in groups and branches.
    pub ids: HashSet<&'s str>,
    /// Ids that are visible only inside a define, or inside the body of a `foreach`.
    pub inner_ids: HashSet<&'s str>,
    /// For each captured name, the step that captures it; used in suggestions.
    pub captures: HashMap<&'s str, &'s str>,
}

impl<'s> Names<'s> {
    pub fn of(spec: &'s Spec) -> Self {
        let mut names = Names {
            spec,
            inputs: spec
                .inputs
                .iter()
                .map(|input| input.name.text.as_str())
                .collect(),
            matrix: matrix(spec),
            keys: keys(spec),
            vars: spec
                .vars
                .iter()
                .map(|(name, _)| name.text.as_str())
                .collect(),
            secrets: spec.secrets.iter().map(|name| name.text.as_str()).collect(),
            services: spec.services.iter().map(|s| s.name.text.as_str()).collect(),
            sessions: spec.sessions.iter().map(|s| s.name.text.as_str()).collect(),
            coverage: spec
                .coverage
                .iter()
                .map(|row| row.key.text.as_str())
                .collect(),
            functions: IndexMap::new(),
            groups: IndexMap::new(),
            ids: HashSet::new(),
            inner_ids: HashSet::new(),
            captures: HashMap::new(),
        };
        for define in &spec.define {
            match &define.body {
                DefineBody::Value(_) => {
                    names
                        .functions
                        .insert(&define.name.text, define.params.len());
                }
                DefineBody::Steps { steps, .. } => {
                    names.groups.insert(&define.name.text, define);
                    names.collect(steps, true);
                }
            }
        }
        for phase in &spec.phases {
            names.collect(&phase.steps, false);
        }
        names
    }

    /// Returns whether a step may use this name: that of a service, or of a replica of one.
    pub fn is_service(&self, name: &str) -> bool {
        self.services.contains(name) || self.replica(name).is_some()
    }

    /// Returns the service that may have a replica of this name.
    pub fn replica(&self, name: &str) -> Option<&'s Service> {
        let mut services = self.spec.services.iter();
        services.find(|service| {
            let base = service.name.text.as_str();
            // Few names begin like a service's, and only those are looked at further.
            name.starts_with(base) && may_have_replica(base, &service.definition, name)
        })
    }

    fn collect(&mut self, steps: &'s [Step], inside: bool) {
        for step in steps {
            if let Some(id) = &step.id {
                let ids = if inside {
                    &mut self.inner_ids
                } else {
                    &mut self.ids
                };
                ids.insert(&id.text);
                for capture in &step.capture {
                    self.captures.entry(&capture.name.text).or_insert(&id.text);
                }
            }
            let inside = inside || step.foreach.is_some();
            self.collect(super::inner_steps(step), inside);
            self.collect(&step.otherwise, inside);
        }
    }
}

/// Returns the keys of `matrix` in the order written. Keys that differ only in case are one key, in its first spelling.
fn keys(spec: &Spec) -> MatrixKeys {
    let axes = spec
        .strategy
        .axes
        .iter()
        .map(|(axis, _)| axis.text.as_str());
    let mut keys: Vec<&str> = axes.collect();
    let include = spec.strategy.include.iter();
    for entry in include.flat_map(Node::items).flat_map(Node::entries) {
        let key = entry.key.text.as_str();
        if !keys.iter().any(|known| known.eq_ignore_ascii_case(key)) {
            keys.push(key);
        }
    }
    match matrix(spec) {
        Some(_) => MatrixKeys::of(keys),
        None => MatrixKeys::of(keys).open(),
    }
}

/// Returns the keys that `matrix` has in some cell, or `None` if an expression gives them.
fn matrix(spec: &Spec) -> Option<HashSet<&str>> {
    let mut keys: HashSet<&str> = spec
        .strategy
        .axes
        .iter()
        .map(|(axis, _)| axis.text.as_str())
        .collect();
    if let Some(include) = &spec.strategy.include {
        let NodeValue::List(entries) = &include.value else {
            return None;
        };
        for entry in entries {
            if entry.is_template() {
                return None;
            }
            keys.extend(entry.entries().iter().map(|entry| entry.key.text.as_str()));
        }
    }
    Some(keys)
}
