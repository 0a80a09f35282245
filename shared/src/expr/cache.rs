//! Compiles each expression and template once.

use super::keys::MatrixKeys;
use super::program::Program;
use super::template::TemplateProgram;
use crate::diagnostic::{Diagnostic, Span};
use crate::spec::node::{Expr, Template};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Compiled expressions and templates of one spec, by text and place. Shared between threads; it grows with the spec,
/// not with its cells.
#[derive(Debug, Default)]
pub struct Cache {
    keys: MatrixKeys,
    programs: Mutex<Compiled<Program>>,
    templates: Mutex<Compiled<TemplateProgram>>,
}

type Compiled<T> = HashMap<(Span, String), Result<Arc<T>, Diagnostic>>;

impl Cache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty cache, for expressions where `matrix` has these keys.
    pub fn knowing(keys: MatrixKeys) -> Self {
        Cache {
            keys,
            ..Self::default()
        }
    }

    /// The expression, parsed.
    pub fn program(&self, expr: &Expr) -> Result<Arc<Program>, Diagnostic> {
        find(&self.programs, expr.span, &expr.text, || {
            Program::parse_knowing(expr, &self.keys)
        })
    }

    /// The template, parsed.
    pub fn template(&self, template: &Template) -> Result<Arc<TemplateProgram>, Diagnostic> {
        find(&self.templates, template.span, &template.text, || {
            TemplateProgram::parse_knowing(template, &self.keys)
        })
    }
}

fn find<T>(
    compiled: &Mutex<Compiled<T>>,
    span: Span,
    text: &str,
    parse: impl FnOnce() -> Result<T, Diagnostic>,
) -> Result<Arc<T>, Diagnostic> {
    let mut compiled = compiled.lock().unwrap_or_else(PoisonError::into_inner);
    compiled
        .entry((span, text.to_owned()))
        .or_insert_with(|| parse().map(Arc::new))
        .clone()
}
