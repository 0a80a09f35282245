//! `stack: { compose: FILE }`: the services of a whole Compose file.
//!
//! Expands the file's variables, reads numbers and bools from the resulting texts, and rewrites Compose's own keys as
//! keys of a spec ([`service`]). Keys that can't be ignored are reported only after the spec's `services` have been
//! merged over the file's, so that the spec can remove them.

mod service;
mod top;
mod variables;

use super::files::Files;
use crate::diagnostic::{Diagnostic, Span};
use crate::language::decode::merge_service;
use crate::language::keys::service::COMPOSE_SERVICE;
use crate::language::shape::Kind;
use crate::language::shape::cast::cast;
use crate::language::shape::check::{self, found};
use crate::language::shape::name::NameRule;
use crate::language::shape::name::is_extension;
use crate::node::{Entry, Node, NodeValue, Text};
use indexmap::IndexMap;
use std::collections::HashSet;
use variables::Variables;

/// Settings of `stack`.
pub struct Stack<'s> {
    /// Path of the Compose file.
    pub path: &'s Text,
    /// Values of the file's variables.
    pub variables: &'s [(Text, Node)],
    /// Files with further values.
    pub env_files: &'s [Text],
}

/// Result of reading a Compose file.
#[derive(Default)]
pub struct Compose {
    /// Services of the file, by name.
    pub services: IndexMap<String, Entry>,
    /// Errors to report unless the spec replaces the part they concern: images without a variable's value, unsupported
    /// keys.
    pending: Vec<Diagnostic>,
    /// Networks that belong to other projects.
    external: Vec<Text>,
}

/// Reads the Compose file and its variables.
pub fn read(
    files: &mut Files<'_>,
    stack: &Stack<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Compose {
    let path = stack.path;
    let mut compose = Compose::default();
    let Some((file, text)) = files.read(path, diagnostics) else {
        return compose;
    };
    let mut variables = Variables::read(files, stack, diagnostics);
    let Some(mut node) = files.parse(file, &text, diagnostics) else {
        return compose;
    };
    if !matches!(node.value, NodeValue::Map(_)) {
        diagnostics.push(Diagnostic::error(
            node.span,
            format!("a Compose file is a map, not {}", found(&node)),
        ));
    }
    variables.expand(&mut node, &mut compose.pending, diagnostics);
    for entry in node.entries() {
        top::check(entry, &mut compose.external, diagnostics);
    }
    let services = node.get("services").map_or(&[][..], Node::entries);
    if services.is_empty() {
        diagnostics.push(Diagnostic::error(
            node.span,
            format!("the Compose file `{}` has no services", path.text),
        ));
    }
    let mut links = Vec::new();
    for entry in services
        .iter()
        .filter(|entry| !is_extension(&entry.key.text))
    {
        if let Some((problem, advice)) = NameRule::Service.problem(&entry.key.text) {
            diagnostics.push(Diagnostic::error(entry.key.span, problem).with_help(advice));
        }
        let mut entry = entry.clone();
        let mut found = Vec::new();
        checked(&mut entry, &mut found);
        let can_go = |problem: &Diagnostic| problem.help.as_deref() == Some(check::TAKE_OUT);
        let (pending, found): (Vec<_>, Vec<_>) = found.into_iter().partition(can_go);
        compose.pending.extend(pending);
        diagnostics.extend(found);
        service::own_words(&mut entry, &node, &mut variables, &mut links, diagnostics);
        compose.services.insert(entry.key.text.clone(), entry);
    }
    service::add_aliases(&mut compose.services, links);
    variables.unused(path, diagnostics);
    compose
}

/// Checks a service's shape. Skips keys that are refused later unless the spec removes them.
fn checked(entry: &mut Entry, diagnostics: &mut Vec<Diagnostic>) {
    let what = format!("`{}`", entry.key.text);
    let NodeValue::Map(entries) = &mut entry.value.value else {
        diagnostics.push(Diagnostic::error(
            entry.key.span,
            format!("{what} takes a map, not {}", found(&entry.value)),
        ));
        return;
    };
    let all = std::mem::take(entries);
    let (refused, known): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|entry| service::is_unsupported(&entry.key.text));
    *entries = known;
    cast(&Kind::Table(|| &COMPOSE_SERVICE), &mut entry.value);
    check::check_table(&COMPOSE_SERVICE, &entry.value, &what, diagnostics);
    if let NodeValue::Map(entries) = &mut entry.value.value {
        entries.extend(refused);
    }
}

/// Merges a service of the spec over the file's service of that name. Null removes a key.
pub fn override_service(known: &mut IndexMap<String, Entry>, name: String, entry: Entry) {
    match known.get_mut(&name) {
        None => {
            known.insert(name, entry);
        }
        Some(base) => {
            if let NodeValue::Map(keys) = &mut base.value.value {
                let is_null = |key: &str| entry.value.get(key).is_some_and(Node::is_null);
                keys.retain(|key| !is_null(&key.key.text));
            }
            let value = merge_service(&base.value, &entry.value);
            *base = Entry {
                key: entry.key,
                value,
            };
        }
    }
}

/// Collects the spans of all values in a tree.
fn spans(node: &Node, found: &mut HashSet<Span>) {
    found.insert(node.span);
    node.items().iter().for_each(|item| spans(item, found));
    let entries = node.entries().iter();
    entries.for_each(|entry| spans(&entry.value, found));
}

impl Compose {
    /// Reports the remaining problems after the spec's services have been merged over the file's.
    pub fn settle(&mut self, diagnostics: &mut Vec<Diagnostic>) {
        let pending = std::mem::take(&mut self.pending);
        if !pending.is_empty() {
            let mut there = HashSet::new();
            let services = self.services.values();
            services.for_each(|entry| spans(&entry.value, &mut there));
            let still = |problem: &Diagnostic| problem.span.is_some_and(|at| there.contains(&at));
            diagnostics.extend(pending.into_iter().filter(still));
        }
        for entry in self.services.values_mut() {
            service::settle(entry, diagnostics);
        }
        for network in &self.external {
            let users = self.services.values();
            let mut users = users.filter(|entry| service::is_in(&entry.value, &network.text));
            if users.next().is_some() {
                diagnostics.push(
                    Diagnostic::error(
                        network.span,
                        format!("the network `{}` is external", network.text),
                    )
                    .with_help(
                        "services of other projects aren't reached: add what is needed of them to `services`, and take the network out by `networks: null` there",
                    ),
                );
            }
        }
    }
}
