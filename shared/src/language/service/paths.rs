//! The paths of the workspace that a service needs, as far as they are known before a cell runs.

use super::{MountKind, mount, splice};
use crate::diagnostic::Span;
use crate::node::{Node, NodeValue, Text};

/// What a service needs a path for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It is mounted; if nothing is there, an empty directory is.
    Mount,
    /// It is read: an env file, a secret or config, a Dockerfile.
    File,
    /// Its image is built from the directory.
    Context,
}

/// A path of the workspace that a service needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// The path, relative to the workspace and with its place.
    pub path: Text,
    /// What it is needed for.
    pub need: Need,
}

/// Returns the paths that a definition names. Leaves out absolute paths and those that only a cell knows.
pub fn needed(definition: &Node) -> Vec<Needed> {
    let settled = splice::settle(definition);
    let mut found = Vec::new();
    for entry in settled.entries() {
        let node = &entry.value;
        match entry.key.text.as_str() {
            "volumes" => node
                .items()
                .iter()
                .for_each(|item| volume(item, &mut found)),
            "env_file" => {
                add(Need::File, Some(node), &mut found);
                for item in node.items() {
                    add(Need::File, Some(item), &mut found);
                    let required = item.get("required").map(|required| &required.value);
                    if matches!(required, None | Some(NodeValue::Bool(true))) {
                        add(Need::File, item.get("path"), &mut found);
                    }
                }
            }
            "secrets" | "configs" => {
                for item in node.items() {
                    add(Need::File, item.get("file"), &mut found);
                }
            }
            "build" => build(node, &mut found),
            _ => {}
        }
    }
    found
}

fn add(need: Need, node: Option<&Node>, found: &mut Vec<Needed>) {
    let Some((text, span)) = node.and_then(|node| Some((node.as_text()?, node.span))) else {
        return;
    };
    let text = text.to_owned();
    let outside = text.starts_with('/') || text.starts_with('~') || text.contains("${{");
    if !outside && !text.is_empty() {
        let path = Text { text, span };
        found.push(Needed { path, need });
    }
}

fn volume(item: &Node, found: &mut Vec<Needed>) {
    if item.get("type").and_then(Node::as_text) == Some("bind") {
        add(Need::Mount, item.get("source"), found);
    }
    let Some(text) = item.as_text().filter(|_| !item.is_template()) else {
        return;
    };
    if let Ok(mount) = mount::short(text)
        && let MountKind::Bind(source) = mount.kind
    {
        let node = Node {
            value: NodeValue::Text(source),
            span: item.span,
        };
        add(Need::Mount, Some(&node), found);
    }
}

fn build(node: &Node, found: &mut Vec<Needed>) {
    let context = match node.value {
        NodeValue::Text(_) => Some(node),
        _ => node.get("context"),
    };
    let text = context.map_or(Some("."), Node::as_text).unwrap_or("${{");
    let remote =
        text.contains("://") || text.starts_with("git@") || text.starts_with("github.com/");
    let contexts = node
        .get("additional_contexts")
        .map_or(&[][..], Node::entries);
    for entry in contexts {
        let text = entry.value.as_text().unwrap_or_default();
        if !text.contains(':') {
            add(Need::Context, Some(&entry.value), found);
        }
    }
    let inline = node
        .get("dockerfile_inline")
        .is_some_and(|node| !node.is_null());
    if remote || text.contains("${{") || text.starts_with('/') {
        return;
    }
    if !(inline && context.is_none_or(|node| node.as_text() == Some("."))) {
        let whole = Node {
            value: NodeValue::Text(text.to_owned()),
            span: context.unwrap_or(node).span,
        };
        add(Need::Context, Some(&whole), found);
    }
    let dockerfile = node.get("dockerfile").filter(|node| !node.is_null());
    let name = dockerfile.map_or(Some("Dockerfile"), Node::as_text);
    // A Dockerfile elsewhere than in the context is for the builder to find.
    let Some(name) = name.filter(|name| !name.starts_with('/') && !name.contains("..")) else {
        return;
    };
    if !inline {
        let file = Node {
            value: NodeValue::Text(format!("{text}/{name}")),
            span: dockerfile.or(context).unwrap_or(node).span,
        };
        add(Need::File, Some(&file), found);
    }
}

/// A mount as a definition writes it; parts that only a cell knows are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WrittenMount {
    /// Path in the container.
    pub target: Option<String>,
    /// Name of the volume.
    pub volume: Option<String>,
    /// Whether it is a file system in memory.
    pub memory: bool,
    /// Whether it is a path of the machine to which the container may write.
    pub writable_bind: bool,
    /// Its place.
    pub span: Span,
}

/// Returns the mounts and in-memory file systems of a definition. Leaves out those that only a cell knows.
pub fn mounts_as_written(definition: &Node) -> Vec<WrittenMount> {
    let settled = splice::settle(definition);
    let mut found = Vec::new();
    if let Some(tmpfs) = settled.get("tmpfs") {
        let lines = std::iter::once(tmpfs).chain(tmpfs.items());
        for line in lines.filter(|line| !line.is_template()) {
            let Some(text) = line.as_text() else { continue };
            let target = text.split(':').next().unwrap_or_default();
            found.push(WrittenMount {
                target: Some(target.to_owned()),
                memory: true,
                span: line.span,
                ..WrittenMount::default()
            });
        }
    }
    let volumes = settled.get("volumes").map_or(&[][..], Node::items);
    found.extend(volumes.iter().filter_map(written));
    found
}

fn written(item: &Node) -> Option<WrittenMount> {
    let span = item.span;
    if let Some(text) = item.as_text() {
        let mount = mount::short(text).ok().filter(|_| !item.is_template())?;
        let (volume, bind) = match mount.kind {
            MountKind::Named(name) => (Some(name), false),
            MountKind::Bind(_) => (None, true),
            MountKind::Anonymous | MountKind::Tmpfs => (None, false),
        };
        return Some(WrittenMount {
            target: Some(mount.target),
            volume,
            memory: false,
            writable_bind: bind && !mount.read_only,
            span,
        });
    }
    let text = |key: &str| item.get(key).filter(|node| !node.is_template())?.as_text();
    let kind = text("type").unwrap_or_default();
    let read_only = item.get("read_only").map(|node| &node.value);
    let source = text("source").filter(|_| kind == "volume");
    Some(WrittenMount {
        target: text("target").map(str::to_owned),
        volume: source.map(str::to_owned),
        memory: kind == "tmpfs",
        writable_bind: kind == "bind" && matches!(read_only, None | Some(NodeValue::Bool(false))),
        span,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_a_service_needs_of_the_workspace_is_found() {
        let text = "build: { context: ./app, dockerfile: D, additional_contexts: [lib=./lib, base=service:x] }\nvolumes: ['./x:/x', '/abs:/y', 'named:/z', '${{ vars.a }}:/w', { type: bind, source: b, target: /b }, { type: volume, source: v, target: /v }]\nenv_file: [a.env, { path: b.env, required: false }, { path: c.env }]\nsecrets: [{ source: s, target: /s, file: ./s.txt }, { source: t, target: /t, content: x }]\n";
        let node = crate::language::parse::parse(0, text, &mut Vec::new()).unwrap();
        let found: Vec<(Need, String)> = needed(&node)
            .into_iter()
            .map(|needed| (needed.need, needed.path.text))
            .collect();
        let of = |need: Need, path: &str| (need, path.to_owned());
        assert_eq!(
            found,
            [
                of(Need::Context, "./lib"),
                of(Need::Context, "./app"),
                of(Need::File, "./app/D"),
                of(Need::Mount, "./x"),
                of(Need::Mount, "b"),
                of(Need::File, "a.env"),
                of(Need::File, "c.env"),
                of(Need::File, "./s.txt"),
            ]
        );
        for (build, right) in [
            (
                "build: .",
                vec![of(Need::Context, "."), of(Need::File, "./Dockerfile")],
            ),
            ("build: { dockerfile_inline: FROM x }", vec![]),
            ("build: https://h/r.git", vec![]),
            ("build: '${{ matrix.dir }}'", vec![]),
        ] {
            let node = crate::language::parse::parse(0, build, &mut Vec::new()).unwrap();
            let found: Vec<_> = needed(&node)
                .into_iter()
                .map(|n| (n.need, n.path.text))
                .collect();
            assert_eq!(found, right, "{build}");
        }
    }
}
