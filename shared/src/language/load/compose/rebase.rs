//! Makes the paths of a Compose file relative to another directory: those of an included file to the project that
//! includes it, those of the project to the workspace.

use super::forms;
use crate::diagnostic::Diagnostic;
use crate::node::{Entry, Node, NodeValue, Text, written_anew};

/// Beginnings of build contexts that are no directories.
const REMOTE: [&str; 8] = [
    "git@",
    "github.com/",
    "docker-image:",
    "service:",
    "target:",
    "oci-layout:",
    "ssh:",
    "http:",
];

/// Prefixes the paths of a tree.
pub struct Rebase<'d> {
    /// The way from where the paths shall be relative to, to where they are now.
    way: String,
    /// Whether a build without a context gets the directory as its context.
    contexts: bool,
    diagnostics: &'d mut Vec<Diagnostic>,
}

/// Rebases all paths of a whole Compose file, in which a build without a context is built from the file's directory.
pub fn file(tree: &mut Node, way: &str, diagnostics: &mut Vec<Diagnostic>) {
    whole(tree, way, true, diagnostics);
}

/// Rebases the paths of a file that services extend. A build's default context is that of the project.
pub fn extended(tree: &mut Node, way: &str, diagnostics: &mut Vec<Diagnostic>) {
    whole(tree, way, false, diagnostics);
}

fn whole(tree: &mut Node, way: &str, contexts: bool, diagnostics: &mut Vec<Diagnostic>) {
    if way.is_empty() {
        return;
    }
    let mut rebase = Rebase {
        way: way.to_owned(),
        contexts,
        diagnostics,
    };
    for section in entries(tree) {
        let name = section.key.text.clone();
        for entry in entries(&mut section.value) {
            match name.as_str() {
                "services" => rebase.service(&mut entry.value),
                "secrets" | "configs" => rebase.path_of(&mut entry.value, "file"),
                _ => {}
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

fn items(node: &mut Node) -> &mut [Node] {
    match &mut node.value {
        NodeValue::List(items) => items,
        _ => &mut [],
    }
}

impl Rebase<'_> {
    fn service(&mut self, service: &mut Node) {
        for entry in entries(service) {
            let node = &mut entry.value;
            match entry.key.text.as_str() {
                "build" => self.build(node),
                "env_file" | "label_file" => {
                    self.path(node);
                    for item in items(node) {
                        self.path(item);
                        self.path_of(item, "path");
                    }
                }
                "extends" => self.path_of(node, "file"),
                "volumes" => items(node).iter_mut().for_each(|item| self.volume(item)),
                _ => {}
            }
        }
    }

    fn build(&mut self, build: &mut Node) {
        self.context(build);
        let span = build.span;
        let NodeValue::Map(keys) = &mut build.value else {
            return;
        };
        for key in keys.iter_mut() {
            match key.key.text.as_str() {
                "context" => self.context(&mut key.value),
                "additional_contexts" => {
                    for entry in entries(&mut key.value) {
                        self.context(&mut entry.value);
                    }
                    for item in items(&mut key.value) {
                        self.named_context(item);
                    }
                }
                _ => {}
            }
        }
        if self.contexts && !keys.iter().any(|key| key.key.text == "context") {
            let text = "context".to_owned();
            keys.push(Entry {
                key: Text { text, span },
                value: written_anew(self.moved("."), span),
            });
        }
    }

    /// Rebases `NAME=context`.
    fn named_context(&mut self, item: &mut Node) {
        let Some((name, context)) = item.as_text().and_then(|text| text.split_once('=')) else {
            return;
        };
        let name = name.to_owned();
        let mut node = written_anew(context.to_owned(), item.span);
        self.context(&mut node);
        if let Some(context) = node.as_text() {
            *item = written_anew(format!("{name}={context}"), item.span);
        }
    }

    fn context(&mut self, node: &mut Node) {
        let Some(text) = node.as_text() else { return };
        let remote = REMOTE.iter().any(|start| text.starts_with(start));
        if !remote && !text.contains("://") {
            self.path(node);
        }
    }

    fn volume(&mut self, item: &mut Node) {
        if let Some(text) = item.as_text() {
            let parts = forms::split(text, ':');
            let (Some(source), true) = (parts.first(), parts.len() > 1) else {
                return;
            };
            if source.starts_with("${{") {
                self.unknown(item);
            } else if source.starts_with('.') {
                let source = self.moved(source);
                let rest = parts.get(1..).unwrap_or_default().join(":");
                *item = written_anew(format!("{source}:{rest}"), item.span);
            }
            return;
        }
        let is_bind = item.get("type").and_then(Node::as_text) == Some("bind");
        if is_bind {
            self.path_of(item, "source");
        }
    }

    fn path_of(&mut self, node: &mut Node, key: &str) {
        for entry in entries(node) {
            if entry.key.text == key {
                self.path(&mut entry.value);
            }
        }
    }

    fn path(&mut self, node: &mut Node) {
        let Some(text) = node.as_text() else { return };
        if text.starts_with("${{") {
            self.unknown(node);
        } else if !text.starts_with(['/', '~']) && !text.is_empty() {
            *node = written_anew(self.moved(text), node.span);
        }
    }

    fn unknown(&mut self, node: &Node) {
        let message = "this path is known only when a cell runs, and the file is in another directory than the spec";
        self.diagnostics.push(
            Diagnostic::error(node.span, message)
                .with_help("write the directory before the variable: `./${NAME}`"),
        );
    }

    /// Returns a relative path behind the way. A path that goes down from its directory begins with `./`.
    fn moved(&self, text: &str) -> String {
        let mut base: Vec<&str> = self
            .way
            .split('/')
            .filter(|part| !part.is_empty())
            .collect();
        let mut rest = text;
        loop {
            match rest.split_once('/').unwrap_or((rest, "")) {
                ("" | ".", after) if rest != after => rest = after,
                ("..", after) => {
                    match base.last() {
                        Some(last) if *last != ".." => {
                            base.pop();
                        }
                        _ => base.push(".."),
                    }
                    rest = after;
                }
                _ => break,
            }
        }
        if !rest.is_empty() {
            base.push(rest);
        }
        match base.first() {
            Some(&"..") => base.join("/"),
            Some(_) => format!("./{}", base.join("/")),
            None => ".".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_moved_without_a_file_system() {
        let moved = |way: &str, text: &str| {
            let way = way.to_owned();
            Rebase {
                way,
                contexts: true,
                diagnostics: &mut Vec::new(),
            }
            .moved(text)
        };
        for (way, text, right) in [
            ("sub", "x", "./sub/x"),
            ("sub", "./x/y", "./sub/x/y"),
            ("sub", ".", "./sub"),
            ("sub", "./", "./sub"),
            ("sub", "..", "."),
            ("sub", "../x", "./x"),
            ("sub", "../../x", "../x"),
            ("..", "./x", "../x"),
            ("..", "../x", "../../x"),
            ("a/b", "../c", "./a/c"),
            ("a", "./${{ matrix.x / 2 }}/y", "./a/${{ matrix.x / 2 }}/y"),
        ] {
            assert_eq!(moved(way, text), right, "{way} and {text}");
        }
    }
}
