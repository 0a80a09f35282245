//! The files of a spec: which ones were read, which file includes which, and how paths are joined.

use super::Read;
use crate::diagnostic::{Diagnostic, Source, Sources};
use crate::language::parse;
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
            paths: vec![tidy(&main.name)],
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
        let base = self.paths.get(from as usize).map_or("", String::as_str);
        let folder = base.rsplit_once('/').map_or("", |(folder, _)| folder);
        if path.starts_with('/') {
            tidy(path)
        } else if base.starts_with('/') || !folder.is_empty() {
            tidy(&format!("{folder}/{path}"))
        } else {
            tidy(path)
        }
    }
}

/// Normalizes a path: removes `.`, and each `..` that follows a directory name.
fn tidy(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if path.starts_with('/') => {}
            _ => parts.push(part),
        }
    }
    let root = if path.starts_with('/') { "/" } else { "" };
    format!("{root}{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_tidied_without_a_file_system() {
        for (path, tidied) in [
            ("a/./b.yaml", "a/b.yaml"),
            ("a/../b.yaml", "b.yaml"),
            ("../b.yaml", "../b.yaml"),
            ("/../b", "/b"),
            ("a//b", "a/b"),
            ("../../a/../b", "../../b"),
        ] {
            assert_eq!(tidy(path), tidied);
        }
    }
}
