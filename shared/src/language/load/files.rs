//! The files of a spec: which ones were read, which file includes which, and how paths are joined.

use super::Read;
use super::paths;
use crate::diagnostic::{Diagnostic, Source, Sources};
use crate::language::parse::{self, Marks};
use crate::node::{Node, Text};

/// Maximum number of files in one spec.
const MAX_FILES: usize = 100;

/// Files read so far.
pub struct Files<'r> {
    sources: Sources,
    /// Normalized path of each file.
    paths: Vec<String>,
    /// For each file, the file that includes it; none for the main file.
    parents: Vec<Option<u32>>,
    /// Whether a file that the spec names could not be read, or isn't YAML.
    lacking: bool,
    read: Read<'r>,
}

impl<'r> Files<'r> {
    pub fn new(main: Source, read: Read<'r>) -> Self {
        Files {
            paths: vec![paths::tidy(&main.name)],
            sources: Sources { files: vec![main] },
            parents: vec![None],
            lacking: false,
            read,
        }
    }

    pub fn into_sources(self) -> Sources {
        self.sources
    }

    /// Returns whether every requested file could be read.
    pub fn complete(&self) -> bool {
        !self.lacking
    }

    /// Parses the text of a file into a tree.
    pub fn parse(
        &mut self,
        file: u32,
        text: &str,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Option<Node> {
        let node = parse::parse(file, text, diagnostics);
        self.lacking |= node.is_none();
        node
    }

    /// Parses the text of a Compose file into a tree and its marked values.
    pub fn parse_compose(
        &mut self,
        file: u32,
        text: &str,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Option<(Node, Marks)> {
        let parsed = parse::parse_compose(file, text, diagnostics);
        self.lacking |= parsed.is_none();
        parsed
    }

    /// Returns the text of a file.
    pub fn text(&self, file: u32) -> Option<&str> {
        let source = self.sources.files.get(file as usize)?;
        Some(&source.text)
    }

    /// Returns the main file's name without directory and extension, used for a spec without a name.
    pub fn stem(&self) -> String {
        let path = self.paths.first().map_or("", String::as_str);
        let name = path.rsplit('/').next().unwrap_or(path);
        let stem = name
            .split('.')
            .find(|part| !part.is_empty())
            .unwrap_or("spec");
        stem.to_owned()
    }

    /// Reads a file that `from` includes. Returns `None` on an error, and for a file that is already included.
    pub fn include(
        &mut self,
        from: u32,
        path: &Text,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Option<(u32, String)> {
        let joined = self.join(from, &path.text);
        if self
            .ancestors(from)
            .any(|file| self.paths.get(file as usize) == Some(&joined))
        {
            diagnostics.push(
                Diagnostic::error(path.span, format!("`{}` includes itself", path.text))
                    .with_help("an included file can't include one that includes it"),
            );
            return None;
        }
        if self.paths.contains(&joined) {
            return None;
        }
        self.open(Some(from), joined, path, diagnostics)
    }

    /// Reads a file that the main file names other than under `include`.
    pub fn read(
        &mut self,
        path: &Text,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Option<(u32, String)> {
        let joined = self.join(path.span.file, &path.text);
        self.open(Some(path.span.file), joined, path, diagnostics)
    }

    /// Reads the file at a tidy path that a Compose file names, once however often it is named.
    pub fn read_at(
        &mut self,
        joined: &str,
        path: &Text,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Option<(u32, String)> {
        if let Some(at) = self.paths.iter().position(|known| known == joined) {
            let text = self.text(at as u32)?.to_owned();
            return Some((at as u32, text));
        }
        self.open(Some(path.span.file), joined.to_owned(), path, diagnostics)
    }

    fn open(
        &mut self,
        parent: Option<u32>,
        joined: String,
        path: &Text,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Option<(u32, String)> {
        if self.paths.len() >= MAX_FILES {
            self.lacking = true;
            diagnostics.push(Diagnostic::error(
                path.span,
                format!("more than {MAX_FILES} files in one spec"),
            ));
            return None;
        }
        match (self.read)(&joined) {
            Ok(source) => {
                let text = source.text.clone();
                let file = self.paths.len() as u32;
                self.paths.push(joined);
                self.parents.push(parent);
                self.sources.files.push(source);
                Some((file, text))
            }
            Err(problem) => {
                self.lacking = true;
                diagnostics.push(
                    Diagnostic::error(path.span, format!("can't read `{joined}`: {problem}"))
                        .with_help("paths are relative to the file that names them"),
                );
                None
            }
        }
    }

    /// Returns a file and all files that lead to it.
    fn ancestors(&self, file: u32) -> impl Iterator<Item = u32> + '_ {
        let mut next = Some(file);
        std::iter::from_fn(move || {
            let file = next?;
            next = self.parents.get(file as usize).copied().flatten();
            Some(file)
        })
    }

    fn join(&self, from: u32, path: &str) -> String {
        paths::join(&self.folder(from), path)
    }

    /// Returns the directory of a file that was read.
    pub fn folder(&self, file: u32) -> String {
        let path = self.paths.get(file as usize).map_or("", String::as_str);
        paths::folder(path).to_owned()
    }
}
