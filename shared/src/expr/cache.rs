//! Compiles each expression and template once.

use super::keys::MatrixKeys;
use super::program::Program;
use super::template::TemplateProgram;
use crate::diagnostic::{Diagnostic, Span};
use crate::node::{Expr, Template};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Compiled expressions and templates of one spec, by text and place. Threads may share it. Its size depends on the
/// spec, not on the number of cells.
#[derive(Debug, Default)]
pub struct Cache {
    keys: MatrixKeys,
    programs: Mutex<Compiled<Program>>,
    templates: Mutex<Compiled<TemplateProgram>>,
}

type Compiled<T> = HashMap<(Span, String), Result<Arc<T>, Diagnostic>>;

impl Cache {
    /// Returns an empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns an empty cache for expressions in which `matrix` has these keys.
    pub fn knowing(keys: MatrixKeys) -> Self {
        Cache {
            keys,
            ..Self::default()
        }
    }

    /// Returns the parsed expression.
    pub fn program(&self, expr: &Expr) -> Result<Arc<Program>, Diagnostic> {
        find(&self.programs, expr.span, &expr.text, || {
            Program::parse_knowing(expr, &self.keys)
        })
    }

    /// Returns the parsed template.
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
