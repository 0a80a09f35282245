//! Warns about keys of a service that are accepted but don't work as in Compose, and explains the difference.

use crate::diagnostic::{Diagnostic, Severity, Span};
use crate::language::interpolation;
use crate::node::{Entry, Node, NodeValue};

const INSTEAD: &[(&str, &str)] = &[
    (
        "container_name",
        "containers are named per cell; services reach each other by service name and `aliases`",
    ),
    (
        "networks",
        "each cell has one network of its own; `aliases` are kept",
    ),
    ("logging", "logs are collected and kept with the run"),
    (
        "tty",
        "containers have no terminal here: a shell as the command ends at once",
    ),
    (
        "stdin_open",
        "containers have no input here: a shell as the command ends at once",
    ),
    ("attach", "the output of all services is kept"),
    ("develop", "files don't change while a cell runs"),
    ("annotations", "they are for other runtimes"),
    ("label_file", "write `labels`"),
    ("mem_reservation", "a cell reserves by `cell.resources`"),
    ("memswap_limit", LIMITS),
    ("mem_swappiness", LIMITS),
    ("oom_kill_disable", LIMITS),
    ("oom_score_adj", LIMITS),
    ("cpu_count", LIMITS),
    ("cpu_percent", LIMITS),
    ("cpu_period", LIMITS),
    ("cpu_quota", LIMITS),
    ("cpu_rt_period", LIMITS),
    ("cpu_rt_runtime", LIMITS),
    ("cpu_shares", LIMITS),
    ("cpuset", LIMITS),
    ("blkio_config", LIMITS),
    ("cgroup_parent", LIMITS),
    ("storage_opt", "the engine's own setting holds"),
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
            "restart" => restart(entry, diagnostics),
            "networks" => addresses(&entry.value, diagnostics),
            "build" => build(&entry.value, diagnostics),
            "deploy" => deploy(&entry.value, diagnostics),
            _ => {}
        }
    }
}

fn unused(span: Span, key: &str, instead: &str) -> Diagnostic {
    Diagnostic::warning(span, format!("`{key}` is not used")).with_help(instead)
}

/// Warns about policies that would restart a service.
fn restart(entry: &Entry, diagnostics: &mut Vec<Diagnostic>) {
    let policy = entry.value.as_text().unwrap_or_default();
    let instead = match policy.split(':').next().unwrap_or_default() {
        "always" | "unless-stopped" => {
            "a service that exits unexpectedly fails the step in progress; a step restarts it with `container: { restart: X }`"
        }
        "on-failure" => {
            "it may end with exit code 0; any other fails the step in progress, and nothing is restarted"
        }
        _ => return,
    };
    diagnostics.push(unused(entry.key.span, "restart", instead));
}

/// Warns about addresses that a configuration may rely on.
fn addresses(node: &Node, diagnostics: &mut Vec<Diagnostic>) {
    for item in node.items() {
        addresses(item, diagnostics);
    }
    for setting in node
        .entries()
        .iter()
        .flat_map(|entry| entry.value.entries())
    {
        let key = setting.key.text.as_str();
        if key.ends_with("_address") || key == "link_local_ips" {
            diagnostics.push(unused(
                setting.key.span,
                key,
                "addresses are given per cell: services reach each other by name",
            ));
        }
    }
}

fn build(node: &Node, diagnostics: &mut Vec<Diagnostic>) {
    for entry in node.entries() {
        let instead = match entry.key.text.as_str() {
            "cache_from" | "cache_to" => "an image that was built already isn't built again",
            "tags" => "the image has the name under `image`",
            "platforms" => "the image is built for the engine's platform, or for `platform`",
            "shm_size" | "ulimits" | "isolation" => "the engine's own setting holds",
            "provenance" | "sbom" => "the classic builder makes none",
            _ => continue,
        };
        diagnostics.push(unused(entry.key.span, &entry.key.text, instead));
    }
}

fn deploy(node: &Node, diagnostics: &mut Vec<Diagnostic>) {
    for entry in node.entries() {
        match entry.key.text.as_str() {
            key @ ("labels" | "update_config" | "rollback_config" | "placement"
            | "endpoint_mode") => diagnostics.push(unused(
                entry.key.span,
                key,
                "it is for clusters; of `deploy` limits are used",
            )),
            "resources" => {
                let reservations = entry.value.entries().iter();
                diagnostics.extend(
                    reservations
                        .filter(|entry| entry.key.text == "reservations")
                        .map(|entry| {
                            let instead = "a cell reserves by `cell.resources`";
                            unused(entry.key.span, "reservations", instead)
                        }),
                );
            }
            "restart_policy" => {
                let condition = entry.value.get("condition").and_then(Node::as_text);
                if condition != Some("none") {
                    diagnostics.push(unused(
                        entry.key.span,
                        "restart_policy",
                        "nothing is restarted",
                    ));
                }
            }
            _ => {}
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
const OWN: [&str; 4] = ["process", "ready", "start", "extends"];

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
