//! Checks the top-level keys of a Compose file.

use crate::diagnostic::Diagnostic;
use crate::language::keys::compose::{TOP_FILE, TOP_VOLUME};
use crate::language::shape::name::is_extension;
use crate::language::shape::{Table, check, effect};
use crate::node::{Entry, Node, NodeValue, Text};

/// Checks a key, and collects external networks.
pub fn check(entry: &Entry, external: &mut Vec<Text>, diagnostics: &mut Vec<Diagnostic>) {
    let Text { text, span } = &entry.key;
    let mut error = |message: String, help: &str| {
        diagnostics.push(Diagnostic::error(*span, message).with_help(help));
    };
    match text.as_str() {
        "services" | "version" | "name" => {}
        // What their texts are is checked where a service uses them.
        "secrets" | "configs" => entries(&TOP_FILE, &entry.value, diagnostics),
        key if is_extension(key) => {}
        "volumes" => {
            entries(&TOP_VOLUME, &entry.value, diagnostics);
            volumes(&entry.value, diagnostics);
        }
        "networks" => {
            let outside = entry.value.entries().iter();
            let outside = outside.filter(|network| is_external(&network.value));
            external.extend(outside.map(|network| network.key.clone()));
        }
        "models" => error(
            "`models` of Compose files is not supported".to_owned(),
            "write a service that serves the model",
        ),
        _ => error(
            format!("unknown key `{text}` in a Compose file"),
            "it has `services`, `volumes`, `networks`, `secrets`, `configs`, `include`, `name` and `version`",
        ),
    }
}

/// Checks the keys of each entry of a section.
fn entries(table: &'static Table, section: &Node, diagnostics: &mut Vec<Diagnostic>) {
    for entry in section.entries() {
        if is_extension(&entry.key.text) || entry.value.is_null() {
            continue;
        }
        let what = format!("`{}`", entry.key.text);
        if !matches!(entry.value.value, NodeValue::Map(_)) {
            let message = format!("{what} takes a map, not {}", check::found(&entry.value));
            diagnostics.push(Diagnostic::error(entry.value.span, message));
            continue;
        }
        check::check_table(table, &entry.value, &what, diagnostics);
        effect::warn(table, &entry.value, diagnostics);
    }
}

/// Returns whether something is created outside the project.
pub fn is_external(node: &Node) -> bool {
    match node.get("external").map(|node| &node.value) {
        None | Some(NodeValue::Null | NodeValue::Bool(false)) => false,
        Some(NodeValue::Text(text)) => text != "false",
        Some(_) => true,
    }
}

/// Checks volumes. Named volumes are created per cell; an external one would be shared.
fn volumes(node: &Node, diagnostics: &mut Vec<Diagnostic>) {
    for entry in node.entries() {
        let name = &entry.key.text;
        if is_external(&entry.value) {
            let span = entry
                .value
                .get("external")
                .map_or(entry.key.span, |n| n.span);
            diagnostics.push(
                Diagnostic::error(span, format!("the volume `{name}` is external")).with_help(
                    "volumes are made per cell and removed with it: leave `external` out, mount a path of the workspace, or replace it by a second Compose file (`volumes: { NAME: !override {} }`)",
                ),
            );
        }
        let text = |node: &Node, key: &str| {
            let text = node.get(key).and_then(Node::as_text);
            text.unwrap_or_default().to_owned()
        };
        let driver = text(&entry.value, "driver");
        if !matches!(driver.as_str(), "" | "local") {
            diagnostics.push(
                Diagnostic::error(
                    entry.key.span,
                    format!("the volume `{name}` has the driver `{driver}`"),
                )
                .with_help("volumes are made per cell by the engine: leave `driver` out"),
            );
        }
        let Some(options) = entry.value.get("driver_opts") else {
            continue;
        };
        if options.entries().is_empty() {
            continue;
        }
        let message = format!("the options of the volume `{name}` are not used");
        diagnostics.push(if text(options, "type") == "tmpfs" {
            Diagnostic::warning(options.span, message)
                .with_help("it is a volume of the cell, on disk; `tmpfs` of a service is memory")
        } else {
            Diagnostic::error(options.span, message).with_help(
                "it would hold something else than it says: mount a path of the workspace instead, or leave `driver_opts` out",
            )
        });
    }
}
