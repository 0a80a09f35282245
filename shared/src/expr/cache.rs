//! Compiles each expression and template once.

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
    programs: Mutex<Compiled<Program>>,
    templates: Mutex<Compiled<TemplateProgram>>,
}

type Compiled<T> = HashMap<(Span, String), Result<Arc<T>, Diagnostic>>;

impl Cache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// The expression, parsed.
    pub fn program(&self, expr: &Expr) -> Result<Arc<Program>, Diagnostic> {
        find(&self.programs, expr.span, &expr.text, || {
            Program::parse(expr)
        })
    }

    /// The template, parsed.
    pub fn template(&self, template: &Template) -> Result<Arc<TemplateProgram>, Diagnostic> {
        find(&self.templates, template.span, &template.text, || {
            TemplateProgram::parse(template)
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
