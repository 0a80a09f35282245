//! `~` in the mounts of a Compose file. A cell has no home directory, so the variable HOME stands for it; without one, a
//! volume of the cell is mounted, which is empty as a new directory would be.

use super::forms;
use crate::diagnostic::Diagnostic;
use crate::node::{Entry, Node, NodeValue, written_anew};

/// Replaces `~` in the mounts of all services. `home` is the value of the variable HOME.
pub fn settle(file: &mut Node, home: Option<&str>, diagnostics: &mut Vec<Diagnostic>) {
    let sections = entries(file).iter_mut();
    for section in sections.filter(|section| section.key.text == "services") {
        for service in entries(&mut section.value) {
            for key in entries(&mut service.value) {
                if key.key.text == "volumes"
                    && let NodeValue::List(items) = &mut key.value.value
                {
                    let items = items.iter_mut();
                    items.for_each(|item| volume(item, home, diagnostics));
                }
            }
        }
    }
}

fn entries(node: &mut Node) -> &mut [Entry] {
    match &mut node.value {
        NodeValue::Map(entries) => entries,
        _ => &mut [],
    }
}

fn volume(item: &mut Node, home: Option<&str>, diagnostics: &mut Vec<Diagnostic>) {
    let source = match item.as_text() {
        Some(text) => {
            let parts = forms::split(text, ':');
            parts
                .first()
                .filter(|_| parts.len() > 1)
                .map(|source| (*source).to_owned())
        }
        None => item
            .get("source")
            .and_then(Node::as_text)
            .map(str::to_owned),
    };
    let Some(source) = source.filter(|source| source == "~" || source.starts_with("~/")) else {
        return;
    };
    let Some(home) = home else {
        diagnostics.push(
            Diagnostic::warning(
                item.span,
                format!("`{source}` is not used: an empty volume of the cell is mounted"),
            )
            .with_help("a cell has no home directory: give one by `stack: { compose: …, variables: { HOME: /home/me } }`, a path of the agent's host"),
        );
        anonymous(item, &source);
        return;
    };
    let path = format!(
        "{}{}",
        home.trim_end_matches('/'),
        source.trim_start_matches('~')
    );
    match &mut item.value {
        NodeValue::Text(text) => {
            let rest = text.get(source.len()..).unwrap_or_default();
            *item = written_anew(format!("{path}{rest}"), item.span);
        }
        _ => {
            for entry in entries(item)
                .iter_mut()
                .filter(|entry| entry.key.text == "source")
            {
                entry.value = written_anew(path.clone(), entry.value.span);
            }
        }
    }
}

/// Makes a mount one of a volume without a name.
fn anonymous(item: &mut Node, source: &str) {
    let span = item.span;
    match &mut item.value {
        NodeValue::Text(text) => {
            let rest = text.get(source.len() + 1..).unwrap_or_default().to_owned();
            *item = written_anew(rest, span);
        }
        NodeValue::Map(keys) => {
            keys.retain(|key| !matches!(key.key.text.as_str(), "source" | "bind"));
            for key in keys.iter_mut().filter(|key| key.key.text == "type") {
                key.value.value = NodeValue::Text("volume".to_owned());
            }
        }
        _ => {}
    }
}
