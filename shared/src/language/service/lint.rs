//! Warns about keys of a service that are accepted but don't work as in Compose, and explains the difference.

use super::splice::networks_map;
use crate::diagnostic::{Diagnostic, Severity, Span};
use crate::expr::TemplateProgram;
use crate::language::interpolation;
use crate::language::keys::service::DEFINITION;
use crate::language::shape::effect;
use crate::node::{Entry, Node, NodeValue, Template};

const INSTEAD: &[(&str, &str)] = &[
    (
        "container_name",
        "containers are named per cell; services reach each other by service name and `aliases`",
    ),
    ("logging", "logs are collected and kept with the run"),
    ("attach", "the output of all services is kept"),
    ("develop", "files don't change while a cell runs"),
    ("cpu_percent", LIMITS),
    ("isolation", "there are no Windows containers"),
    (
        "pull_refresh_after",
        "`pull_policy: always` means once per run",
    ),
];

const LIMITS: &str = "limits are `mem_limit`, `cpus` and `pids_limit`";

/// Reports the keys of a definition that are not used.
pub fn lint(definition: &Node, diagnostics: &mut Vec<Diagnostic>) {
    for entry in definition
        .entries()
        .iter()
        .filter(|entry| !entry.value.is_null())
    {
        let key = entry.key.text.as_str();
        if let Some((_, instead)) = INSTEAD.iter().find(|(known, _)| *known == key) {
            diagnostics.push(unused(entry.key.span, key, instead));
        }
        match key {
            "ports" => published(&entry.value, diagnostics),
            "environment" | "env" => without_value(entry, diagnostics),
            "networks" => networks(&entry.value, diagnostics),
            "build" => build(&entry.value, diagnostics),
            "deploy" => deploy(&entry.value, diagnostics),
            _ => {}
        }
    }
    // What was reported above, with its own advice, is reported once.
    effect::warn(&DEFINITION, definition, diagnostics);
}

fn unused(span: Span, key: &str, instead: &str) -> Diagnostic {
    Diagnostic::warning(span, format!("`{key}` is not used")).with_help(instead)
}

/// Warns about settings of a service's networks that have no effect.
fn networks(node: &Node, diagnostics: &mut Vec<Diagnostic>) {
    for network in networks_map(node).entries() {
        let settings = network.value.entries().iter();
        let unknown = settings.filter(|setting| setting.key.text == "interface_name");
        diagnostics.extend(unknown.map(|setting| {
            let advice = "the engine names the interfaces";
            unused(setting.key.span, "interface_name", advice)
        }));
    }
}

fn build(node: &Node, diagnostics: &mut Vec<Diagnostic>) {
    if let Some(args) = node.get("args") {
        secrets_in_args(args, diagnostics);
    }
    for entry in node.entries() {
        let instead = match entry.key.text.as_str() {
            "cache_to" => "an image that was built already isn't built again",
            "tags" => "the image has the name under `image`",
            "platforms" => "the image is built for the engine's platform, or for `platform`",
            "ulimits" | "isolation" => "the engine's own setting holds",
            "provenance" | "sbom" => "the image is used here and isn't published",
            _ => continue,
        };
        diagnostics.push(unused(entry.key.span, &entry.key.text, instead));
    }
}

/// Warns about secrets in build arguments: they stay in the image's history, where everybody who has the image reads them.
fn secrets_in_args(node: &Node, diagnostics: &mut Vec<Diagnostic>) {
    let items = node.items().iter();
    let values = node.entries().iter().map(|entry| &entry.value);
    for value in items.chain(values) {
        if !value.items().is_empty() || !value.entries().is_empty() {
            secrets_in_args(value, diagnostics);
        }
        let Some(text) = value.as_text().filter(|_| value.is_template()) else {
            continue;
        };
        let template = Template {
            text: text.to_owned(),
            span: value.span,
        };
        let Ok(program) = TemplateProgram::parse(&template) else {
            continue;
        };
        let mut references = program.references();
        let Some(found) = references.find(|reference| reference.root == "secrets") else {
            continue;
        };
        let name = found.path.first().and_then(|part| part.key.name());
        let message = format!(
            "the secret{} in `args` stays readable in the image's history",
            name.map_or_else(String::new, |name| format!(" `{name}`"))
        );
        let help = "give it by `build: { secrets: … }`, and read it in the Dockerfile by `RUN --mount=type=secret`";
        diagnostics.push(Diagnostic::warning(value.span, message).with_help(help));
    }
}

fn deploy(node: &Node, diagnostics: &mut Vec<Diagnostic>) {
    for entry in node.entries() {
        let key = entry.key.text.as_str();
        let of_clusters = [
            "labels",
            "update_config",
            "rollback_config",
            "placement",
            "endpoint_mode",
        ];
        if of_clusters.contains(&key) {
            diagnostics.push(unused(
                entry.key.span,
                key,
                "it is for clusters; of `deploy` limits are used",
            ));
        }
    }
}

/// Warns about fixed host ports.
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

/// Warns about variables that Compose would take from the machine's environment.
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

/// Keys in which `$` is not reported: those that Compose does not have, and `extends`.
const OWN: [&str; 5] = ["process", "ready", "start", "extends", "artifacts"];

/// Reports `$VAR`, `${VAR}` and `$$` in a spec's own service. Compose would expand them in its own file.
pub fn expansions(service: &Node, diagnostics: &mut Vec<Diagnostic>) {
    let entries = service.entries().iter();
    for entry in entries.filter(|entry| !OWN.contains(&entry.key.text.as_str())) {
        let node = &entry.value;
        match entry.key.text.as_str() {
            // Without expressions this is an error, which the image's decoder reports.
            "image" if !node.is_template() => {}
            "image" => point(node, Severity::Error, diagnostics),
            _ => point(node, Severity::Warning, diagnostics),
        }
    }
}

fn point(node: &Node, severity: Severity, diagnostics: &mut Vec<Diagnostic>) {
    for item in node.items() {
        point(item, severity, diagnostics);
    }
    // The builder expands the Dockerfile's own variables.
    let entries = node.entries().iter();
    for entry in entries.filter(|entry| entry.key.text != "dockerfile_inline") {
        point(&entry.value, severity, diagnostics);
    }
    let Some(text) = node.as_text() else { return };
    let exact = text.len() == node.span.len as usize;
    for range in interpolation::find(text) {
        let found = text.get(range.clone()).unwrap_or_default();
        let span = if exact {
            crate::language::decode::within(node.span, text, range.start, range.len())
        } else {
            node.span
        };
        let help = if found == "$$" {
            "write a single `$`"
        } else {
            "a shell in the container expands it; for a value of the spec write `${{ vars.NAME }}` or `${{ inputs.NAME }}`"
        };
        let problem = Diagnostic::warning(
            span,
            format!("`{found}` is not expanded, as it would be by Compose"),
        );
        diagnostics.push(
            Diagnostic {
                severity,
                ..problem
            }
            .with_help(help),
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_secret_in_build_arguments_is_told_in_each_form() {
        let told = |args: &str| {
            let text = format!("{{ build: {{ context: ., args: {args} }} }}");
            let node = crate::language::parse::parse(0, &text, &mut Vec::new()).unwrap();
            let mut found = Vec::new();
            lint(&node, &mut found);
            let messages = found.into_iter().map(|found| found.message);
            messages.collect::<Vec<_>>().join("; ")
        };
        let text = "the secret `NPM` in `args` stays readable in the image's history";
        assert_eq!(told("{ TOKEN: '${{ secrets.NPM }}' }"), text);
        assert_eq!(told("['TOKEN=x-${{ secrets.NPM }}']"), text);
        assert_eq!(
            told("{ TAG: '${{ matrix.tag }}', TEXT: 'secrets.NPM' }"),
            ""
        );
    }
}
