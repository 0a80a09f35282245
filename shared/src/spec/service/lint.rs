//! What is accepted in a service and works otherwise than in Compose: warnings that say how.

use crate::diagnostic::{Diagnostic, Span};
use crate::spec::node::{Entry, Node, NodeValue};

const INSTEAD: [(&str, &str); 4] = [
    (
        "container_name",
        "containers are named per cell; services reach each other by service name and `aliases`",
    ),
    (
        "restart",
        "a service that exits unasked fails the step in progress; a step restarts it with `container: { restart: X }`",
    ),
    (
        "networks",
        "each cell has one network of its own; `aliases` are kept",
    ),
    ("logging", "logs are collected and kept with the run"),
];

/// Reports what is not used in a definition, and what isn't expanded.
pub fn lint(definition: &Node, diagnostics: &mut Vec<Diagnostic>) {
    for entry in definition
        .entries()
        .iter()
        .filter(|entry| !entry.value.is_null())
    {
        let key = entry.key.text.as_str();
        if let Some((_, instead)) = INSTEAD.iter().find(|(known, _)| *known == key) {
            diagnostics.push(
                Diagnostic::warning(entry.key.span, format!("`{key}` is not used"))
                    .with_help(*instead),
            );
        }
        match key {
            "ports" => published(&entry.value, diagnostics),
            "environment" | "env" => without_value(entry, diagnostics),
            _ => {}
        }
        expansions(&entry.value, diagnostics);
    }
}

/// Points at fixed host ports.
fn published(node: &Node, diagnostics: &mut Vec<Diagnostic>) {
    for item in node.items() {
        let span = match &item.value {
            NodeValue::List(_) => {
                published(item, diagnostics);
                continue;
            }
            NodeValue::Map(_) => match item.get("published") {
                Some(node) if !node.is_null() => node.span,
                _ => continue,
            },
            NodeValue::Text(text) if !item.is_template() => match text.rsplit_once(':') {
                Some((host, _)) if !host.ends_with(':') => item.span,
                _ => continue,
            },
            _ => continue,
        };
        diagnostics.push(
            Diagnostic::warning(span, "the host port is not used").with_help(
                "cells run at once, so a free port on 127.0.0.1 is chosen; steps use `services.X.url` or `.port[N]`",
            ),
        );
    }
}

/// Points at variables that Compose would take from the machine's environment.
fn without_value(entry: &Entry, diagnostics: &mut Vec<Diagnostic>) {
    let mut point = |span: Span, name: &str| {
        diagnostics.push(
            Diagnostic::warning(span, format!("`{name}` has no value and is left out"))
                .with_help("the machine's environment is not read: pass an input or a secret"),
        );
    };
    for variable in entry
        .value
        .entries()
        .iter()
        .filter(|variable| variable.value.is_null())
    {
        point(variable.key.span, &variable.key.text);
    }
    for item in entry.value.items() {
        if let Some(name) = item
            .as_text()
            .filter(|text| !text.contains('=') && !item.is_template())
        {
            point(item.span, name);
        }
    }
}

/// Points at `${VAR}` and `$$`, which Compose would expand.
fn expansions(node: &Node, diagnostics: &mut Vec<Diagnostic>) {
    for item in node.items() {
        expansions(item, diagnostics);
    }
    for entry in node.entries() {
        expansions(&entry.value, diagnostics);
    }
    let Some(text) = node.as_text() else { return };
    let exact = text.len() == node.span.len as usize;
    for (at, found) in found(text) {
        let span = if exact {
            crate::spec::decode::within(node.span, text, at, found.len())
        } else {
            node.span
        };
        let help = if found == "$$" {
            "write a single `$`"
        } else {
            "a shell in the container expands it; for a value of the spec write `${{ vars.NAME }}` or `${{ inputs.NAME }}`"
        };
        diagnostics.push(
            Diagnostic::warning(
                span,
                format!("`{found}` is not expanded, as it would be by Compose"),
            )
            .with_help(help),
        );
    }
}

/// `${VAR…}` and `$$` in a text, but not `${{` and the literal `$${{`.
fn found(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(next) = text.get(at..).and_then(|rest| rest.find('$')) {
        let start = at + next;
        let rest = text.get(start..).unwrap_or_default();
        if rest.starts_with("$${{") {
            at = start + 4;
        } else if rest.starts_with("$$") {
            found.push((start, "$$"));
            at = start + 2;
        } else if rest.starts_with("${{") {
            at = start + rest.find("}}").map_or(rest.len(), |end| end + 2);
        } else if let Some(end) = rest.starts_with("${").then(|| rest.find('}')).flatten() {
            found.push((start, rest.get(..=end).unwrap_or_default()));
            at = start + end + 1;
        } else {
            at = start + 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::found;

    #[test]
    fn only_what_compose_would_expand_is_found() {
        assert_eq!(
            found("a ${X:-1} $Y $$ ${{ a }} $${{ b }} ${"),
            [(2, "${X:-1}"), (13, "$$"),]
        );
    }
}
