//! Text with `${{ expr }}` in it.

use super::keys::MatrixKeys;
use super::meter::{self, Group};
use super::place::{EvalError, place};
use super::program::{self, Call, Program, Reference};
use super::scan::{Flaw, end_of_interpolation};
use super::scope::Scope;
use super::text::to_text;
use super::weight::weight;
use crate::diagnostic::{Diagnostic, Span};
use crate::node::Template;
use serde_json::Value;
use std::ops::Range;

/// A parsed text. An interpolation `${{ expr }}` ends where the expression ends; `$${{` is the literal text `${{`.
#[derive(Debug)]
pub struct TemplateProgram {
    pieces: Vec<Piece>,
    span: Span,
}

#[derive(Debug)]
enum Piece {
    Literal(String),
    Expression(Box<Program>),
}

impl TemplateProgram {
    /// Parses a text and the expressions in it; errors have their exact place.
    pub fn parse(template: &Template) -> Result<TemplateProgram, Diagnostic> {
        Self::parse_knowing(template, &MatrixKeys::default())
    }

    /// Parses a text in which `matrix` has these keys.
    pub fn parse_knowing(
        template: &Template,
        keys: &MatrixKeys,
    ) -> Result<TemplateProgram, Diagnostic> {
        let text = &template.text;
        let locate = |range: &Range<usize>| place(template.span, text, range);
        let pieces = split(text).map_err(|flaw| Diagnostic {
            help: flaw.help,
            ..Diagnostic::error(locate(&flaw.range), flaw.message)
        })?;
        let pieces = pieces
            .into_iter()
            .map(|piece| match piece {
                Part::Literal(text) => Ok(Piece::Literal(text)),
                Part::Expression(range) => {
                    let inner = text.get(range.clone()).unwrap_or_default();
                    let shift =
                        |r: &Range<usize>| locate(&(range.start + r.start..range.start + r.end));
                    let program = program::parse(inner, locate(&range), keys, shift)?;
                    Ok(Piece::Expression(Box::new(program)))
                }
            })
            .collect::<Result<_, Diagnostic>>()?;
        Ok(TemplateProgram {
            pieces,
            span: template.span,
        })
    }

    /// Returns whether the text contains no expression.
    pub fn is_static(&self) -> bool {
        self.programs().next().is_none()
    }

    /// Returns the expressions in order.
    pub fn programs(&self) -> impl Iterator<Item = &Program> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Expression(program) => Some(program.as_ref()),
            Piece::Literal(_) => None,
        })
    }

    /// Returns every use of a name, in the order of the text.
    pub fn references(&self) -> impl Iterator<Item = &Reference> {
        self.programs().flat_map(Program::references)
    }

    /// Returns the calls of functions that aren't built in.
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.programs().flat_map(Program::calls)
    }

    /// Returns the expression if the text is only one `${{ }}`, apart from white space: then the value keeps its type.
    pub fn single(&self) -> Option<&Program> {
        let mut found = None;
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) if text.trim().is_empty() => {}
                Piece::Expression(program) if found.is_none() => found = Some(program.as_ref()),
                _ => return None,
            }
        }
        found
    }

    /// Returns the value: of any type if the text is only one `${{ }}`, otherwise text.
    pub fn eval(&self, scope: &Scope) -> Result<Value, EvalError> {
        match self.single() {
            Some(program) => program.eval(scope),
            None => self.eval_text(scope).map(Value::String),
        }
    }

    /// Returns the value as text, whatever its type.
    pub fn eval_text(&self, scope: &Scope) -> Result<String, EvalError> {
        if let Some(program) = self.single() {
            return Ok(to_text(&program.eval(scope)?));
        }
        let _together = Group::start();
        let mut out = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Expression(program) => {
                    let text = to_text(&program.eval(scope)?);
                    meter::make(text.len() as u64)
                        .map_err(|message| EvalError::new(self.span, message))?;
                    out.push_str(&text);
                }
            }
        }
        Ok(out)
    }

    /// Returns the text as far as it is known: an expression that can't be evaluated here becomes `{expression}`.
    pub fn eval_known(&self, scope: &Scope) -> String {
        let _together = Group::start();
        let known = |program: &Program| match program.eval(scope) {
            Ok(value) if meter::make(weight(&value)).is_ok() => to_text(&value),
            _ => format!("{{{}}}", program.text().trim()),
        };
        if let Some(program) = self.single() {
            return known(program);
        }
        let pieces = self.pieces.iter().map(|piece| match piece {
            Piece::Literal(text) => text.clone(),
            Piece::Expression(program) => known(program),
        });
        pieces.collect()
    }

    /// Returns the place of the text.
    pub fn span(&self) -> Span {
        self.span
    }
}

/// A part of a text, for code that composes texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextPart {
    /// Literal text after unescaping: `$${{` is read as `${{`.
    Literal(String),
    /// Expression between `${{` and `}}`.
    Expression(String),
}

/// Returns the parts of a text; `None` if an expression in it isn't closed.
pub fn parts_of_text(text: &str) -> Option<Vec<TextPart>> {
    let parts = split(text).ok()?.into_iter();
    let whole = parts.map(|part| match part {
        Part::Literal(text) => Some(TextPart::Literal(text)),
        Part::Expression(range) => Some(TextPart::Expression(text.get(range)?.to_owned())),
    });
    whole.collect()
}

/// Returns the offset of the `}}` that closes the expression starting at `start`.
pub(crate) fn interpolation_end(text: &str, start: usize) -> Option<usize> {
    end_of_interpolation(text, start).ok()
}

enum Part {
    Literal(String),
    Expression(Range<usize>),
}

fn split(text: &str) -> Result<Vec<Part>, Flaw> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(dollar) = rest.find('$') else {
            literal.push_str(rest);
            break;
        };
        let (before, from) = rest.split_at(dollar);
        literal.push_str(before);
        at += dollar;
        if from.starts_with("$${{") {
            literal.push_str("${{");
            at += 4;
        } else if from.starts_with("${{") {
            let end = end_of_interpolation(text, at + 3)?;
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(Part::Expression(at + 3..end));
            at = end + 2;
        } else {
            literal.push('$');
            at += 1;
        }
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    Ok(parts)
}
