//! `stack: { compose: FILE }`: the services of a whole Compose file.

use super::files::Files;
use crate::diagnostic::Diagnostic;
use crate::spec::decode::{is_extension, merge_service};
use crate::spec::keys::service::COMPOSE_SERVICE;
use crate::spec::node::{Entry, Node, NodeValue, Text};
use crate::spec::shape::check::{self, found};
use crate::spec::shape::name::NameRule;
use indexmap::IndexMap;

/// The services of the file, by name.
pub fn services(
    files: &mut Files<'_>,
    path: &Text,
    diagnostics: &mut Vec<Diagnostic>,
) -> IndexMap<String, Entry> {
    let Some((file, text)) = files.read(path, diagnostics) else {
        return IndexMap::new();
    };
    let Some(node) = files.parse(file, &text, diagnostics) else {
        return IndexMap::new();
    };
    if !matches!(node.value, NodeValue::Map(_)) {
        diagnostics.push(Diagnostic::error(
            node.span,
            format!("a Compose file is a map, not {}", found(&node)),
        ));
    }
    for entry in node.entries() {
        top_level(entry, diagnostics);
    }
    let services = node.get("services").map_or(&[][..], Node::entries);
    if services.is_empty() {
        diagnostics.push(Diagnostic::error(
            node.span,
            format!("the Compose file `{}` has no services", path.text),
        ));
    }
    let mut known = IndexMap::new();
    for entry in services
        .iter()
        .filter(|entry| !is_extension(&entry.key.text))
    {
        if let Some((problem, advice)) = NameRule::Service.problem(&entry.key.text) {
            diagnostics.push(Diagnostic::error(entry.key.span, problem).with_help(advice));
        }
        let what = format!("`{}`", entry.key.text);
        match entry.value.value {
            NodeValue::Map(_) => {
                check::check_table(&COMPOSE_SERVICE, &entry.value, &what, diagnostics);
            }
            _ => diagnostics.push(Diagnostic::error(
                entry.key.span,
                format!("{what} takes a map, not {}", found(&entry.value)),
            )),
        }
        known.insert(entry.key.text.clone(), entry.clone());
    }
    known
}

/// What a key of the file's top level means here.
fn top_level(entry: &Entry, diagnostics: &mut Vec<Diagnostic>) {
    let Text { text, span } = &entry.key;
    let instead = match text.as_str() {
        "services" | "version" | "name" => return,
        key if is_extension(key) => return,
        "volumes" => return volumes(&entry.value, diagnostics),
        "networks" => "each cell has one network of its own; services reach each other by name",
        "include" => {
            let help = "name the file itself under `stack: { compose: FILE }`";
            let problem = Diagnostic::error(*span, "`include` of Compose files is not supported");
            return diagnostics.push(problem.with_help(help));
        }
        "secrets" | "configs" => {
            let problem =
                Diagnostic::error(*span, format!("`{text}` of Compose files is not supported"));
            return diagnostics.push(problem.with_help(
                "mount a file of the workspace with `volumes`, or use `${{ secrets.NAME }}` in `services`",
            ));
        }
        _ => {
            let problem =
                Diagnostic::error(*span, format!("unknown key `{text}` in a Compose file"));
            return diagnostics.push(
                problem.with_help("it has `services`, `volumes`, `networks`, `name` and `version`"),
            );
        }
    };
    diagnostics
        .push(Diagnostic::warning(*span, format!("`{text}` is not used")).with_help(instead));
}

/// Named volumes are made per cell; one from outside would be shared.
fn volumes(node: &Node, diagnostics: &mut Vec<Diagnostic>) {
    for entry in node.entries() {
        let external = entry.value.get("external");
        if let Some(external) = external.filter(|node| node.value != NodeValue::Bool(false)) {
            diagnostics.push(
                Diagnostic::error(external.span, format!("the volume `{}` is external", entry.key.text)).with_help(
                    "volumes are made per cell and removed with it: leave `external` out, or mount a path of the workspace",
                ),
            );
        }
    }
}

/// Adds a service of the spec to those of the file, or merges it onto the one of that name.
pub fn override_service(known: &mut IndexMap<String, Entry>, name: String, entry: Entry) {
    match known.get_mut(&name) {
        None => {
            known.insert(name, entry);
        }
        Some(base) => {
            let value = merge_service(&base.value, &entry.value);
            *base = Entry {
                key: entry.key,
                value,
            };
        }
    }
}
