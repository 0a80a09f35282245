//! `stack: { compose: FILE }`: the services of a whole Compose file, or of several.
//!
//! [`project`] makes one tree of the files. Then numbers and bools are read from texts, and Compose's own keys are
//! rewritten as keys of a spec ([`service`]). Keys that can't be ignored are reported only after the spec's `services` have been
//! merged over the file's, so that the spec can remove them.

mod extends;
mod forms;
mod home;
mod merge;
mod networks;
mod profiles;
mod project;
mod reader;
mod rebase;
mod reset;
mod service;
mod top;
mod unique;
mod variables;

use super::files::Files;
use crate::diagnostic::{Diagnostic, Span};
use crate::language::decode::merge_service;
use crate::language::keys::service::COMPOSE_SERVICE;
use crate::language::shape::Kind;
use crate::language::shape::cast::cast;
use crate::language::shape::check::{self, found, list};
use crate::language::shape::name::NameRule;
use crate::language::shape::name::is_extension;
use crate::node::{Entry, Node, NodeValue, Text};
use indexmap::IndexMap;
use profiles::Profiles;
use reader::Reader;
use std::collections::HashSet;
use variables::Variables;

/// Settings of `stack`.
pub struct Stack<'s> {
    /// Name of the spec.
    pub name: &'s str,
    /// Paths of the Compose files; a later one is merged over the earlier ones.
    pub paths: &'s [Text],
    /// Active profiles, if the spec names them.
    pub profiles: Option<&'s [Text]>,
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
    /// Whether profiles were chosen, so that a service without an active one needs no warning.
    by_choice: bool,
    /// The file's networks, whose definitions become a part of the services.
    networks: Option<Node>,
}

/// Reads the Compose files and their variables. `root` is the directory of the spec.
pub fn read(
    files: &mut Files<'_>,
    stack: &Stack<'_>,
    root: &str,
    diagnostics: &mut Vec<Diagnostic>,
) -> Compose {
    let mut compose = Compose::default();
    let mut variables = Variables::read(files, stack, diagnostics);
    let profiles = Profiles::read(stack.profiles, &mut variables, diagnostics);
    let within = vec![root.to_owned()];
    let mut reader = Reader::new(files, variables, within, diagnostics);
    let tree = project::load(root, stack.paths, stack.name, &mut reader);
    let Reader {
        mut variables,
        mut images,
        ..
    } = reader;
    compose.pending.append(&mut images);
    if let Some(mut tree) = tree {
        let home = variables.get("HOME").and_then(|home| home.as_text());
        home::settle(&mut tree, home.as_deref(), diagnostics);
        compose.take(&tree, variables, profiles, stack, diagnostics);
    }
    compose
}

impl Compose {
    /// Takes over the services of the merged files.
    fn take(
        &mut self,
        tree: &Node,
        mut variables: Variables,
        mut profiles: Profiles,
        stack: &Stack<'_>,
        diagnostics: &mut Vec<Diagnostic>,
    ) {
        self.by_choice = profiles.chosen;
        for entry in tree.entries() {
            top::check(entry, &mut self.external, diagnostics);
        }
        self.networks = Some(networks::of(tree, diagnostics));
        let services = tree.get("services").map_or(&[][..], Node::entries);
        if services.is_empty() {
            let paths: Vec<&str> = stack.paths.iter().map(|path| path.text.as_str()).collect();
            diagnostics.push(Diagnostic::error(
                tree.span,
                format!("the Compose file {} has no services", list(&paths, "and")),
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
            service::shorten_devices(&mut entry.value);
            let mut found = Vec::new();
            checked(&mut entry, &mut found);
            let can_go = |problem: &Diagnostic| problem.help.as_deref() == Some(check::TAKE_OUT);
            let (pending, found): (Vec<_>, Vec<_>) = found.into_iter().partition(can_go);
            self.pending.extend(pending);
            diagnostics.extend(found);
            let mut words = service::Words {
                file: tree,
                variables: &mut variables,
                profiles: &mut profiles,
                links: &mut links,
            };
            words.rewrite(&mut entry, diagnostics);
            self.services.insert(entry.key.text.clone(), entry);
        }
        service::add_aliases(&mut self.services, links);
        profiles.unused(diagnostics);
        variables.unused(stack.paths, diagnostics);
    }
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
        if let Some(networks) = &self.networks {
            networks::place(&mut self.services, networks, diagnostics);
        }
        for entry in self.services.values_mut() {
            service::settle(entry, self.by_choice, diagnostics);
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

#[cfg(test)]
mod tests;
