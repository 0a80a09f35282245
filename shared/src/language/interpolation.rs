//! Compose's interpolation: `$NAME` and `${NAME}`, with a default (`:-`, `-`), an error (`:?`, `?`) or an alternative
//! (`:+`, `+`), possibly nested; `$$` is `$`.
//!
//! A variable's value may hold expressions (`${{ }}`), which are known only when a cell runs. Then the result holds
//! them too, and a default, error or alternative that depends on such a value becomes an expression. The caller
//! supplies the values.

use crate::expr::{TextPart, interpolation_end, parts_of_text};
use std::ops::Range;

/// Maximum nesting of variables in the defaults of other variables.
const MAX_DEPTH: usize = 20;

/// Maximum size of a value, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// Part of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text, used unchanged.
    Text(String),
    /// A CEL expression, evaluated when a cell runs.
    Expression(String),
}

/// A value: the texts and expressions it consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Value(Vec<Piece>);

impl Value {
    /// Returns a value that is only text.
    pub fn text(text: &str) -> Value {
        let mut value = Value::default();
        value.push_text(text);
        value
    }

    /// Splits a text with `${{ }}` into texts and expressions. Returns `None` if an expression is not closed.
    pub fn of_template(text: &str) -> Option<Value> {
        let parts = parts_of_text(text)?;
        let single = matches!(
            parts
                .iter()
                .filter(|part| !matches!(part, TextPart::Literal(text) if text.trim().is_empty()))
                .collect::<Vec<_>>()
                .as_slice(),
            [TextPart::Expression(_)]
        );
        let mut value = Value::default();
        for part in parts {
            match part {
                TextPart::Literal(_) if single => {}
                TextPart::Literal(text) => value.push_text(&text),
                TextPart::Expression(inner) => value.0.push(Piece::Expression(inner)),
            }
        }
        Some(value)
    }

    /// Returns the text, if the value holds no expression.
    pub fn as_text(&self) -> Option<String> {
        self.0
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => Some(text.as_str()),
                Piece::Expression(_) => None,
            })
            .collect()
    }

    /// Returns the value as a text of a spec: expressions in `${{ }}`, and a literal `${{` as `$${{`.
    pub fn to_template(&self) -> String {
        let mut out = String::new();
        for (at, piece) in self.0.iter().enumerate() {
            match piece {
                Piece::Expression(inner) => {
                    out.push_str("${{");
                    out.push_str(inner);
                    out.push_str("}}");
                }
                Piece::Text(text) => {
                    let last = at + 1 == self.0.len();
                    // A `$` directly before an expression would turn it into a literal.
                    let body = if last {
                        text
                    } else {
                        text.trim_end_matches('$')
                    };
                    out.push_str(&body.replace("${{", "$${{"));
                    let dollars = text.get(body.len()..).unwrap_or_default();
                    if !dollars.is_empty() {
                        out.push_str(&format!("${{{{ {} }}}}", quoted(dollars)));
                    }
                }
            }
        }
        out
    }

    /// Returns the value as a CEL expression.
    pub fn to_expression(&self) -> String {
        match self.0.as_slice() {
            [] => "''".to_owned(),
            [Piece::Expression(inner)] => group(inner),
            pieces => pieces
                .iter()
                .map(|piece| match piece {
                    Piece::Text(text) => quoted(text),
                    Piece::Expression(inner) => {
                        let inner = group(inner);
                        format!("({inner} == null ? '' : string({inner}))")
                    }
                })
                .collect::<Vec<_>>()
                .join(" + "),
        }
    }

    fn push_text(&mut self, more: &str) {
        match self.0.last_mut() {
            _ if more.is_empty() => {}
            Some(Piece::Text(text)) => text.push_str(more),
            _ => self.0.push(Piece::Text(more.to_owned())),
        }
    }

    fn append(&mut self, other: Value) {
        for piece in other.0 {
            match piece {
                Piece::Text(text) => self.push_text(&text),
                expression => self.0.push(expression),
            }
        }
    }

    fn bytes(&self) -> usize {
        let sizes = self.0.iter().map(|piece| match piece {
            Piece::Text(text) | Piece::Expression(text) => text.len(),
        });
        sizes.sum()
    }

    /// Returns whether the value counts as unset. An expression that evaluates to null does.
    fn lacks(&self, empty_too: bool) -> Truth {
        let mut expressions = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(_) => return Truth::No,
                Piece::Expression(inner) => expressions.push(group(inner)),
            }
        }
        let empty = |inner: &String| format!("({inner} == null || {inner} == '')");
        match (expressions.as_slice(), empty_too) {
            ([], true) => Truth::Yes,
            ([], false) => Truth::No,
            ([inner], false) => Truth::If(format!("{inner} == null")),
            (_, false) => Truth::No,
            (all, true) => Truth::If(all.iter().map(empty).collect::<Vec<_>>().join(" && ")),
        }
    }
}

/// Truth of a condition, as far as it is known.
enum Truth {
    Yes,
    No,
    /// True if the CEL expression is true.
    If(String),
}

fn group(inner: &str) -> String {
    // A comment would swallow the closing parenthesis.
    let end = if inner.contains("//") { "\n" } else { "" };
    format!("({}{end})", inner.trim())
}

/// Returns a text as a CEL string literal.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Reason why a text can't be expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// `${` is not followed by a variable.
    Syntax(Range<usize>),
    /// An expression is not closed; its evaluation reports the error.
    Unclosed,
    /// A variable that `:?` or `?` requires has no value, with the message that the author gave for this case.
    Required {
        name: String,
        says: String,
        range: Range<usize>,
    },
    /// Variables are nested too deeply in the defaults of others.
    Deep(Range<usize>),
    /// The value would be longer than [`MAX_BYTES`].
    Long,
}

/// Result of expanding a text.
#[derive(Debug, Default)]
pub struct Expanded {
    /// Expanded value.
    pub value: Value,
    /// Names and places of the variables that became empty because they have no value.
    pub unset: Vec<(String, Range<usize>)>,
}

/// Function that returns the value of a variable, or `None` if it isn't set.
pub type Lookup<'l> = &'l mut dyn FnMut(&str) -> Option<Value>;

/// Expands a text. With `expressions`, the text may hold `${{ }}`, which are kept.
pub fn expand(text: &str, expressions: bool, lookup: Lookup<'_>) -> Result<Expanded, Problem> {
    let mut unset = Vec::new();
    let value = Expansion {
        expressions,
        lookup,
        unset: &mut unset,
    }
    .text(text, 0, 0)?;
    Ok(Expanded { value, unset })
}

/// Returns the ranges of a text that [`expand`] would replace: variables and `$$`.
pub fn find(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some((start, token)) = next(text, at, true) {
        at = match &token {
            Token::Variable { end, .. } | Token::Expression { end, .. } => *end,
            Token::Dollars
                if text
                    .get(start..)
                    .is_some_and(|rest| rest.starts_with("$${{")) =>
            {
                at = start + 4;
                continue;
            }
            Token::Dollars => start + 2,
            Token::Broken => start + 2,
            Token::Unclosed => break,
        };
        if matches!(token, Token::Variable { .. } | Token::Dollars) {
            found.push(start..at);
        }
    }
    found
}

struct Expansion<'e, 'l> {
    expressions: bool,
    lookup: Lookup<'l>,
    unset: &'e mut Vec<(String, Range<usize>)>,
}

impl Expansion<'_, '_> {
    /// Expands part of a text. `offset` is its position in the whole text.
    fn text(&mut self, text: &str, offset: usize, depth: usize) -> Result<Value, Problem> {
        if depth > MAX_DEPTH {
            return Err(Problem::Deep(offset..offset + text.len()));
        }
        let mut value = Value::default();
        let mut at = 0;
        while let Some((start, token)) = next(text, at, self.expressions) {
            value.push_text(text.get(at..start).unwrap_or_default());
            at = match token {
                Token::Dollars => {
                    value.push_text("$");
                    start + 2
                }
                Token::Expression { inner, end } => {
                    value.0.push(Piece::Expression(inner.to_owned()));
                    end
                }
                Token::Unclosed => return Err(Problem::Unclosed),
                Token::Broken => {
                    return Err(Problem::Syntax(offset + start..offset + text.len()));
                }
                Token::Variable {
                    name,
                    operator,
                    end,
                } => {
                    let range = offset + start..offset + end;
                    let found = self.variable(name, operator, range, offset, depth)?;
                    value.append(found);
                    end
                }
            };
            if value.bytes() > MAX_BYTES {
                return Err(Problem::Long);
            }
        }
        value.push_text(text.get(at..).unwrap_or_default());
        Ok(value)
    }

    fn variable(
        &mut self,
        name: &str,
        operator: Option<Operator<'_>>,
        range: Range<usize>,
        offset: usize,
        depth: usize,
    ) -> Result<Value, Problem> {
        let value = (self.lookup)(name);
        let Some(operator) = operator else {
            return Ok(value.unwrap_or_else(|| {
                self.unset.push((name.to_owned(), range));
                Value::default()
            }));
        };
        let lacking = value
            .as_ref()
            .map_or(Truth::Yes, |value| value.lacks(operator.empty_too));
        let value = value.unwrap_or_default();
        let argument = |this: &mut Self| {
            let at = offset + operator.at;
            this.text(operator.argument, at, depth + 1)
        };
        let choice = |condition: String, yes: String, no: String| {
            Value(vec![Piece::Expression(format!(
                " {condition} ? {yes} : {no} "
            ))])
        };
        let says = |argument: &Value| {
            let says = argument.to_template();
            match says.is_empty() {
                true => format!("required variable {name} is missing a value"),
                false => format!("required variable {name} is missing a value: {says}"),
            }
        };
        match (operator.verb, lacking) {
            (Verb::Default, Truth::Yes) | (Verb::Alternative, Truth::No) => argument(self),
            (Verb::Default | Verb::Required, Truth::No) => Ok(value),
            (Verb::Alternative, Truth::Yes) => Ok(Value::default()),
            (Verb::Required, Truth::Yes) => Err(Problem::Required {
                name: name.to_owned(),
                says: says(&argument(self)?),
                range,
            }),
            (Verb::Default, Truth::If(condition)) => {
                let default = argument(self)?.to_expression();
                Ok(choice(condition, default, value.to_expression()))
            }
            (Verb::Alternative, Truth::If(condition)) => {
                let alternative = argument(self)?.to_expression();
                Ok(choice(condition, "''".to_owned(), alternative))
            }
            (Verb::Required, Truth::If(condition)) => {
                // Only a failing expression can report a value that turns out to be missing during evaluation.
                let missing = format!("{{}}[{}]", quoted(&says(&argument(self)?)));
                Ok(choice(condition, missing, value.to_expression()))
            }
        }
    }
}

enum Token<'t> {
    /// `$$`
    Dollars,
    /// `${{ inner }}`
    Expression { inner: &'t str, end: usize },
    /// `$NAME`, `${NAME}`, `${NAME:-…}`
    Variable {
        name: &'t str,
        operator: Option<Operator<'t>>,
        end: usize,
    },
    /// `${` followed by anything but a variable.
    Broken,
    /// `${{` without a closing `}}`.
    Unclosed,
}

#[derive(Clone, Copy)]
struct Operator<'t> {
    verb: Verb,
    /// Whether an empty value counts as unset (the operator has a colon).
    empty_too: bool,
    argument: &'t str,
    /// Position of the argument.
    at: usize,
}

#[derive(Clone, Copy)]
enum Verb {
    Default,
    Required,
    Alternative,
}

/// Returns the next token from `at` on, with its start. A `$` before anything else is text.
fn next(text: &str, at: usize, expressions: bool) -> Option<(usize, Token<'_>)> {
    let mut at = at;
    loop {
        let start = at + text.get(at..)?.find('$')?;
        let rest = text.get(start + 1..)?;
        if rest.starts_with('$') {
            return Some((start, Token::Dollars));
        }
        if expressions && rest.starts_with("{{") {
            let token = match interpolation_end(text, start + 3) {
                Some(end) => Token::Expression {
                    inner: text.get(start + 3..end)?,
                    end: end + 2,
                },
                None => Token::Unclosed,
            };
            return Some((start, token));
        }
        if let Some(braced) = rest.strip_prefix('{') {
            let token = in_braces(text, start, braced).unwrap_or(Token::Broken);
            return Some((start, token));
        }
        let name = name_at(rest);
        if !name.is_empty() {
            let end = start + 1 + name.len();
            let operator = None;
            return Some((
                start,
                Token::Variable {
                    name,
                    operator,
                    end,
                },
            ));
        }
        at = start + 1;
    }
}

fn in_braces<'t>(text: &'t str, start: usize, braced: &'t str) -> Option<Token<'t>> {
    let name = name_at(braced);
    if name.is_empty() {
        return None;
    }
    let end = closing(text, start)?;
    let after = start + 2 + name.len();
    let mut rest = text.get(after..end)?;
    let operator = if rest.is_empty() {
        None
    } else {
        let empty_too = rest.starts_with(':');
        rest = rest.strip_prefix(':').unwrap_or(rest);
        let verb = match rest.chars().next()? {
            '-' => Verb::Default,
            '?' => Verb::Required,
            '+' => Verb::Alternative,
            _ => return None,
        };
        let argument = rest.get(1..)?;
        Some(Operator {
            verb,
            empty_too,
            argument,
            at: end - argument.len(),
        })
    };
    Some(Token::Variable {
        name,
        operator,
        end: end + 1,
    })
}

/// Returns the brace that closes the one after the `$` at `start`. A `${` in between opens another level.
fn closing(text: &str, start: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut open, mut at) = (0_usize, start);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'$' if bytes.get(at + 1) == Some(&b'{') => {
                open += 1;
                at += 1;
            }
            b'}' => {
                open = open.checked_sub(1)?;
                if open == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Returns whether a text is the name of a variable.
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && name_at(text).len() == text.len()
}

fn name_at(text: &str) -> &str {
    let fits = |(at, byte): (usize, u8)| {
        byte == b'_' || byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit())
    };
    let end = text
        .bytes()
        .enumerate()
        .find(|(at, byte)| !fits((*at, *byte)))
        .map_or(text.len(), |(at, _)| at);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn lookup(name: &str) -> Option<Value> {
        match name {
            "SET" => Some(Value::text("value")),
            "EMPTY" => Some(Value::default()),
            "_u1" => Some(Value::text("under")),
            "DOLLAR" => Some(Value::text("$SET ${{ x }}")),
            "TAG" => Value::of_template("${{ matrix.tag }}"),
            "MIXED" => Value::of_template("v${{ matrix.tag }}"),
            _ => None,
        }
    }

    fn said(text: &str) -> Result<String, Problem> {
        Ok(expand(text, true, &mut lookup)?.value.to_template())
    }

    #[test]
    fn variables_are_expanded_as_compose_expands_them() {
        for (text, right) in [
            ("plain", "plain"),
            ("$SET", "value"),
            ("${SET}s", "values"),
            ("$SETs", ""),
            ("${_u1}", "under"),
            ("a$$SET$$", "a$SET$"),
            ("$", "$"),
            ("$1 $(date) $!", "$1 $(date) $!"),
            (
                "${SET:-d}|${SET-d}|${SET:+a}|${SET+a}|${SET:?e}",
                "value|value|a|a|value",
            ),
            (
                "${EMPTY:-d}|${EMPTY-d}|${EMPTY:+a}|${EMPTY+a}|${EMPTY?e}",
                "d|||a|",
            ),
            ("${NONE:-d}|${NONE-d}|${NONE:+a}|${NONE+a}", "d|d||"),
            ("${NONE:-${EMPTY:-${SET}/x}}y", "value/xy"),
            ("${NONE:-a:-b?c}", "a:-b?c"),
            ("${NONE-}", ""),
            ("${NONE:-$$5}", "$5"),
            ("${NONE:-{\"a\": 1}}", "{\"a\": 1}"),
            ("${DOLLAR}", "$SET $${{ x }}"),
            ("$${{ matrix.tag }}", "$${{ matrix.tag }}"),
        ] {
            assert_eq!(said(text).as_deref(), Ok(right), "{text}");
        }
    }

    #[test]
    fn what_has_no_value_is_named_where_it_stands() {
        let found = expand(
            "a ${NONE}/$NONE/${NO:-$OTHER}/${SET:-$OTHER}",
            true,
            &mut lookup,
        );
        let names: Vec<_> = found.unwrap().unset;
        let named = |name: &str, range| (name.to_owned(), range);
        assert_eq!(
            names,
            [
                named("NONE", 2..9),
                named("NONE", 10..15),
                named("OTHER", 22..28)
            ]
        );
    }

    #[test]
    fn what_is_required_and_what_is_no_variable_is_an_error() {
        let required = |text: &str| match said(text) {
            Err(Problem::Required { says, .. }) => says,
            other => format!("{other:?}"),
        };
        assert_eq!(
            required("x ${NONE:?set it to $SET}"),
            "required variable NONE is missing a value: set it to value"
        );
        assert_eq!(
            required("${EMPTY:?}"),
            "required variable EMPTY is missing a value"
        );
        for text in [
            "${", "${}", "${1}", "a ${A.B}", "${A!b}", "${SET", "${SET:x}",
        ] {
            assert!(matches!(said(text), Err(Problem::Syntax(_))), "{text}");
        }
        let deep = format!("{}d{}", "${N:-".repeat(50), "}".repeat(50));
        assert!(matches!(said(&deep), Err(Problem::Deep(_))));
    }

    #[test]
    fn a_value_that_is_known_later_makes_an_expression() {
        for (text, right) in [
            ("${TAG}", "${{ matrix.tag }}"),
            ("bb:$TAG", "bb:${{ matrix.tag }}"),
            ("${MIXED:-d}", "v${{ matrix.tag }}"),
            ("$$$TAG", "${{ \"$\" }}${{ matrix.tag }}"),
            ("${{ vars.x }}-${SET}", "${{ vars.x }}-value"),
            (
                "${TAG:-1}",
                "${{ ((matrix.tag) == null || (matrix.tag) == '') ? \"1\" : (matrix.tag) }}",
            ),
            ("${TAG+a}", "${{ (matrix.tag) == null ? '' : \"a\" }}"),
        ] {
            assert_eq!(said(text).as_deref(), Ok(right), "{text}");
        }
    }

    #[test]
    fn values_do_not_grow_without_end() {
        let big = |_: &str| Some(Value::text(&"x".repeat(MAX_BYTES / 2)));
        assert_eq!(
            expand("$A$A$A", false, &mut { big }).unwrap_err(),
            Problem::Long
        );
    }

    #[test]
    fn what_would_be_expanded_is_found() {
        let found = |text: &'static str| -> Vec<&str> {
            find(text).into_iter().map(|range| &text[range]).collect()
        };
        assert_eq!(
            found("a ${X:-1} $Y $$ ${{ a }} $${{ b }} $(x) ${"),
            ["${X:-1}", "$Y", "$$"]
        );
    }
}
