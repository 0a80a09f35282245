//! Reads single Compose files: text, tree, marks and variables. Counts what they cost together, because files that
//! include and extend each other multiply.

use super::reset::Resets;
use super::variables::Variables;
use crate::diagnostic::{Diagnostic, Span};
use crate::language::load::files::Files;
use crate::language::load::paths;
use crate::language::parse::Limits;
use crate::language::shape::check::found;
use crate::node::{Node, NodeValue, Text};

/// Maximum number of times that files are loaded, each time that one names another.
const MAX_LOADS: usize = 1000;

/// A Compose file with its variables expanded.
pub struct File {
    /// Tidy path of the file.
    pub path: String,
    /// The tree; always a map.
    pub tree: Node,
    /// What the file removes from earlier ones.
    pub resets: Resets,
}

/// Maximum number of bytes of all loaded files. Comments cost time too.
const MAX_READ: usize = 64 << 20;

/// Reads Compose files.
pub struct Reader<'a, 'r> {
    pub files: &'a mut Files<'r>,
    pub variables: Variables,
    /// Images that lack a variable's value.
    pub images: Vec<Diagnostic>,
    pub diagnostics: &'a mut Vec<Diagnostic>,
    /// Directories that a Compose file may name files in.
    pub within: Vec<String>,
    loads: usize,
    /// Bytes of all loaded files, each as often as it is loaded.
    read: usize,
    nodes: usize,
    bytes: usize,
    exhausted: bool,
}

impl<'a, 'r> Reader<'a, 'r> {
    pub fn new(
        files: &'a mut Files<'r>,
        variables: Variables,
        within: Vec<String>,
        diagnostics: &'a mut Vec<Diagnostic>,
    ) -> Self {
        Reader {
            files,
            variables,
            images: Vec::new(),
            diagnostics,
            within,
            loads: 0,
            read: 0,
            nodes: 0,
            bytes: 0,
            exhausted: false,
        }
    }

    /// Adds an error.
    pub fn error(&mut self, span: Span, message: String, help: &str) {
        let problem = Diagnostic::error(span, message).with_help(help);
        self.diagnostics.push(problem);
    }

    /// Returns the tidy path of a file that a Compose file names, if it may be read.
    pub fn place(&mut self, folder: &str, path: &Text) -> Option<String> {
        const REMOTE: [&str; 6] = ["http://", "https://", "git@", "git://", "ssh://", "oci://"];
        if path.text.contains("${{") {
            self.error(
                path.span,
                "this path is known only when a cell runs".to_owned(),
                "files are read before there are cells: write it out, or give its variable a plain value",
            );
            return None;
        }
        if REMOTE.iter().any(|start| path.text.starts_with(start)) {
            self.error(
                path.span,
                format!("`{}` is not a file of the workspace", path.text),
                "nothing is fetched: copy the file into the workspace",
            );
            return None;
        }
        let joined = paths::join(folder, &path.text);
        if !self.within.iter().any(|of| paths::is_within(&joined, of)) {
            self.error(
                path.span,
                format!("`{}` leads out of the workspace", path.text),
                "a Compose file can name files in the directories of the spec and of the first Compose file",
            );
            return None;
        }
        Some(joined)
    }

    /// Reads a Compose file and expands its variables.
    pub fn open(&mut self, joined: &str, named: &Text) -> Option<File> {
        if self.exhausted {
            return None;
        }
        self.loads += 1;
        if self.loads > MAX_LOADS {
            self.too_much(
                named.span,
                format!("Compose files are loaded more than {MAX_LOADS} times"),
            );
            return None;
        }
        let (file, text) = self.files.read_at(joined, named, self.diagnostics)?;
        self.read = self.read.saturating_add(text.len());
        if self.read > MAX_READ {
            self.too_much(
                named.span,
                format!("the Compose files have more than {} MiB", MAX_READ >> 20),
            );
            return None;
        }
        let (mut tree, marks) = self.files.parse_compose(file, &text, self.diagnostics)?;
        if !matches!(tree.value, NodeValue::Map(_)) {
            let message = format!("a Compose file is a map, not {}", found(&tree));
            self.diagnostics.push(Diagnostic::error(tree.span, message));
            return None;
        }
        let resets = Resets::take(&mut tree, &marks);
        if !self.spend(&tree, named.span) {
            return None;
        }
        self.variables
            .expand(&mut tree, &mut self.images, self.diagnostics);
        Some(File {
            path: joined.to_owned(),
            tree,
            resets,
        })
    }

    /// Counts a tree. Returns whether there is room for it.
    pub fn spend(&mut self, tree: &Node, span: Span) -> bool {
        let limits = Limits::default();
        let (nodes, bytes) = size(tree);
        self.nodes = self.nodes.saturating_add(nodes);
        self.bytes = self.bytes.saturating_add(bytes);
        let fits = self.nodes <= limits.nodes && self.bytes <= limits.scalar_bytes;
        if !fits {
            self.too_much(
                span,
                format!(
                    "the Compose files have more than {} values or {} MiB of text, once `include` and `extends` are followed",
                    limits.nodes,
                    limits.scalar_bytes >> 20
                ),
            );
        }
        fits
    }

    /// Returns whether the limit of all files is reached.
    pub fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    fn too_much(&mut self, span: Span, message: String) {
        if !std::mem::replace(&mut self.exhausted, true) {
            self.error(
                span,
                message,
                "files that include or extend each other multiply: take some out",
            );
        }
    }
}

/// Returns the number of nodes, and of bytes in keys and texts.
fn size(node: &Node) -> (usize, usize) {
    let mut total = (1, node.as_text().map_or(0, str::len));
    let mut add = |key: usize, (nodes, bytes): (usize, usize)| {
        total = (total.0 + nodes, total.1 + key + bytes);
    };
    node.items().iter().for_each(|item| add(0, size(item)));
    let entries = node.entries().iter();
    entries.for_each(|entry| add(entry.key.text.len(), size(&entry.value)));
    total
}
