//! Loads a spec from its main file: reads the files it includes, decodes all of them, and reports every error.
//!
//! The caller does the reading, through a function from path to text. Paths are relative to the file that names them.
//! They are joined and normalized here, without access to any file system.

mod compose;
mod files;
mod paths;

use super::decode::{self, Parts};
use super::model::Spec;
use super::parse;
use crate::diagnostic::{Diagnostic, Severity, Source, Sources, Span};
use crate::error_code::ErrorCode;
use crate::node::{Entry, Text};
use files::Files;
use indexmap::IndexMap;

/// Result of loading a spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The spec, present if and only if there is no error.
    pub spec: Option<Spec>,
    /// All files that were read; spans refer to them.
    pub sources: Sources,
    /// Errors and warnings, sorted by file and place.
    pub diagnostics: Vec<Diagnostic>,
}

/// Function that returns the text of a file, given its path.
pub type Read<'r> = &'r mut dyn FnMut(&str) -> Result<Source, String>;

/// Loads a spec. Calls `read` for included files and the Compose file.
pub fn load(main: Source, read: Read<'_>) -> Loaded {
    let mut files = Files::new(main, read);
    let mut diagnostics = Vec::new();
    let spec = decode_all(&mut files, &mut diagnostics);
    // If a file can't be read, its names are unknown. Reporting them as missing would hide the actual error.
    if let Some(spec) = spec.as_ref().filter(|_| files.complete()) {
        super::check::check(spec, &mut diagnostics);
    }
    Diagnostic::mark(&mut diagnostics, ErrorCode::Name);
    tidy(&mut diagnostics);
    let failed = diagnostics.iter().any(|d| d.severity == Severity::Error);
    Loaded {
        spec: spec.filter(|_| !failed),
        sources: files.into_sources(),
        diagnostics,
    }
}

/// Sorts by file and place, errors before warnings, and removes duplicates (a part merged into several services is
/// checked several times).
fn tidy(diagnostics: &mut Vec<Diagnostic>) {
    let key = |d: &Diagnostic| {
        let span = d.span.unwrap_or_default();
        (
            span.file,
            span.offset,
            std::cmp::Reverse(d.severity),
            span.len,
        )
    };
    diagnostics.sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| a.message.cmp(&b.message)));
    diagnostics.dedup_by(|a, b| a.span == b.span && a.message == b.message);
}

fn decode_all(files: &mut Files<'_>, diagnostics: &mut Vec<Diagnostic>) -> Option<Spec> {
    let text = files.text(0)?.to_owned();
    let node = parse::parse(0, &text, diagnostics);
    Diagnostic::mark(diagnostics, ErrorCode::Unreadable);
    let (main, parts) = decode::main(&node?, diagnostics);
    let mut merged = Merged::default();
    let mut waiting = vec![(0, parts)];
    while let Some((file, mut parts)) = waiting.pop() {
        let include = std::mem::take(&mut parts.include);
        merged.add(parts, diagnostics);
        Diagnostic::mark(diagnostics, ErrorCode::Key);
        for path in include.into_iter().rev() {
            let included = files.include(file, &path, diagnostics);
            let node = included.and_then(|(file, text)| {
                let node = files.parse(file, &text, diagnostics)?;
                Some((file, node))
            });
            Diagnostic::mark(diagnostics, ErrorCode::Unreadable);
            if let Some((file, node)) = node {
                waiting.push((file, decode::included(&node, diagnostics)));
            }
            Diagnostic::mark(diagnostics, ErrorCode::Key);
        }
    }
    let name = main.name.unwrap_or_else(|| files.stem());
    let mut compose = match main.compose.is_empty() {
        false => {
            let stack = compose::Stack {
                name: &name,
                paths: &main.compose,
                profiles: main.profiles.as_deref(),
                variables: &main.variables,
                env_files: &main.env_files,
            };
            let root = files.folder(0);
            compose::read(files, &stack, &root, diagnostics)
        }
        true => compose::Compose::default(),
    };
    for (name, entry) in merged.services {
        super::service::expansions(&entry.value, diagnostics);
        compose::override_service(&mut compose.services, name, entry);
    }
    compose.settle(diagnostics);
    let services = decode::services(&compose.services, diagnostics);
    Diagnostic::mark(diagnostics, ErrorCode::Service);
    Some(Spec {
        name,
        inputs: merged.inputs.into_values().collect(),
        require: main.require,
        strategy: main.strategy,
        cell: main.cell,
        coverage: merged.coverage.into_values().collect(),
        secrets: main.secrets,
        vars: merged.vars.into_values().collect(),
        workspace: main.workspace,
        network: main.network,
        compose: main.compose.into_iter().next(),
        compose_variables: main.variables,
        services,
        sessions: merged.sessions.into_values().collect(),
        default_session: main.default_session,
        define: merged.define.into_values().collect(),
        phases: main.phases,
    })
}

/// Parts of all files, by name.
#[derive(Default)]
struct Merged {
    inputs: IndexMap<String, super::model::InputDecl>,
    coverage: IndexMap<String, super::model::CoverageRow>,
    vars: IndexMap<String, (Text, crate::node::Node)>,
    services: IndexMap<String, Entry>,
    sessions: IndexMap<String, super::model::Session>,
    define: IndexMap<String, super::model::Define>,
}

impl Merged {
    fn add(&mut self, parts: Parts, diagnostics: &mut Vec<Diagnostic>) {
        let Parts {
            include: _,
            inputs,
            coverage,
            vars,
            services,
            sessions,
            define,
        } = parts;
        add(
            &mut self.inputs,
            inputs,
            "input",
            |input| &input.name,
            diagnostics,
        );
        add(
            &mut self.coverage,
            coverage,
            "coverage row",
            |row| &row.key,
            diagnostics,
        );
        add(
            &mut self.vars,
            vars,
            "variable",
            |(name, _)| name,
            diagnostics,
        );
        add(
            &mut self.services,
            services,
            "service",
            |entry| &entry.key,
            diagnostics,
        );
        add(
            &mut self.sessions,
            sessions,
            "session",
            |session| &session.name,
            diagnostics,
        );
        add(
            &mut self.define,
            define,
            "define",
            |define| &define.name,
            diagnostics,
        );
    }
}

fn add<T>(
    known: &mut IndexMap<String, T>,
    more: Vec<T>,
    what: &str,
    name: impl Fn(&T) -> &Text,
    diagnostics: &mut Vec<Diagnostic>,
) {
    for item in more {
        let Text { text, span } = name(&item).clone();
        match known.get(&text) {
            None => {
                known.insert(text, item);
            }
            Some(earlier) => diagnostics.push(twice(what, &text, span, name(earlier).span)),
        }
    }
}

fn twice(what: &str, name: &str, span: Span, earlier: Span) -> Diagnostic {
    Diagnostic::error(span, format!("duplicate {what} `{name}`"))
        .with_related(earlier, "first written here")
        .with_help("names are unique across a spec and the files it includes")
}

#[cfg(test)]
mod tests;
