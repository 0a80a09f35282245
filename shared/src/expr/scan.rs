//! Scans CEL text without parsing it: words, strings, comments and brackets.
//!
//! The scanner finds where an expression within text ends, rejects text that would overflow a parser's stack, and
//! explains in plain words what is wrong with text that can't be CEL. The grammar itself is implemented by the `cel`
//! crate.

use std::ops::Range;

/// Maximum length of an expression, in bytes.
pub const MAX_LENGTH: usize = 32 * 1024;

/// Maximum nesting depth of an expression: brackets, operators and accesses, all added up.
pub const MAX_DEPTH: usize = 90;

/// A problem in text that can't be CEL: range, message, and how to fix it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    pub range: Range<usize>,
    pub message: String,
    pub help: Option<String>,
}

impl Flaw {
    pub(super) fn new(range: Range<usize>, message: impl Into<String>) -> Self {
        Flaw {
            range,
            message: message.into(),
            help: None,
        }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Space,
    Comment,
    Text,
    Word,
    Number,
    Open,
    Close,
    Symbol,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
}

impl Token {
    pub(super) fn text<'t>(&self, text: &'t str) -> &'t str {
        text.get(self.start..self.end).unwrap_or_default()
    }

    fn range(&self) -> Range<usize> {
        self.start..self.end
    }
}

/// Returns the token that starts at byte `start`, which must be a character boundary before the end.
pub(super) fn token_at(text: &str, start: usize) -> Result<Token, Flaw> {
    let rest = text.get(start..).unwrap_or_default();
    let Some(first) = rest.chars().next() else {
        return Err(Flaw::new(start..start, "the expression ends too early"));
    };
    let token = |kind, len| Token {
        kind,
        start,
        end: start + len,
    };
    let run = |test: fn(char) -> bool| rest.find(|c| !test(c)).unwrap_or(rest.len());
    Ok(match first {
        c if c.is_whitespace() => token(Kind::Space, run(char::is_whitespace)),
        '/' if rest.starts_with("//") => {
            token(Kind::Comment, rest.find('\n').unwrap_or(rest.len()))
        }
        '\'' | '"' => token(Kind::Text, string_length(text, start, 0)?),
        '(' | '[' | '{' => token(Kind::Open, 1),
        ')' | ']' | '}' => token(Kind::Close, 1),
        c if c.is_ascii_digit() => token(Kind::Number, number_length(rest)),
        c if is_word(c) => {
            let len = run(is_word);
            let prefix = rest.get(..len).unwrap_or_default();
            let quoted = rest.as_bytes().get(len).is_some_and(|b| b"'\"".contains(b));
            match quoted && matches!(prefix.to_ascii_lowercase().as_str(), "r" | "b" | "br") {
                true => token(Kind::Text, string_length(text, start, len)?),
                false => token(Kind::Word, len),
            }
        }
        c => token(Kind::Symbol, c.len_utf8()),
    })
}

pub(super) fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Returns the length of a number: digits with a fraction, a signed exponent, hexadecimal digits or the `u` of unsigned
/// numbers.
fn number_length(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let mut end = 0;
    while let Some(&b) = bytes.get(end) {
        let next_is_digit = bytes.get(end + 1).is_some_and(u8::is_ascii_digit);
        let after_exponent = end > 0 && matches!(bytes.get(end - 1), Some(b'e' | b'E'));
        let goes_on = b.is_ascii_alphanumeric()
            || (b == b'.' && next_is_digit)
            || (matches!(b, b'+' | b'-') && after_exponent && !rest.starts_with("0x"));
        if !goes_on {
            break;
        }
        end += 1;
    }
    end
}

/// Returns the length of the string literal at `start`, including its prefix of `prefix` bytes.
fn string_length(text: &str, start: usize, prefix: usize) -> Result<usize, Flaw> {
    let rest = text.get(start..).unwrap_or_default();
    let raw = rest.get(..prefix).is_some_and(|p| p.contains(['r', 'R']));
    let body = rest.get(prefix..).unwrap_or_default();
    let quote = body.get(..1).unwrap_or_default();
    let triple = quote.repeat(3);
    let long = body.starts_with(&triple);
    let close = if long { triple.as_str() } else { quote };
    let mut chars = body.char_indices().skip(close.len()).peekable();
    while let Some((at, c)) = chars.next() {
        if body.get(at..).is_some_and(|b| b.starts_with(close)) {
            return Ok(prefix + at + close.len());
        }
        match c {
            '\\' if !raw => {
                let escape = chars.next().map(|(_, c)| c);
                let known = escape.is_some_and(|c| "abfnrtv\\?\"'`xXuU0123".contains(c));
                if let (Some(escape), false) = (escape, known) {
                    let from = start + prefix + at;
                    return Err(Flaw::new(
                        from..from + 1 + escape.len_utf8(),
                        format!("`\\{escape}` is not an escape in CEL"),
                    )
                    .help(format!(
                        "write `\\\\{escape}`, or a raw string: r{quote}…{quote}"
                    )));
                }
            }
            '\n' if !long => break,
            _ => {}
        }
    }
    Err(Flaw::new(
        start..start + prefix + close.len(),
        "this string is not closed",
    )
    .help(format!(
        "close it with {close}{}",
        if long {
            ""
        } else {
            "; a string of several lines takes three quotes"
        }
    )))
}

/// Pairs of brackets of a text that [`check`] accepted, as the byte offsets of both.
pub(super) type Pairs = Vec<(usize, usize)>;

/// Result of checking a text that may be CEL.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub pairs: Pairs,
    /// Upper bound of the height of the text's tree.
    pub height: usize,
}

/// Rejects text that can't be CEL, or is too long or too deep to be parsed and evaluated safely.
pub(super) fn check(text: &str) -> Result<Checked, Flaw> {
    if text.len() > MAX_LENGTH {
        return Err(Flaw::new(
            0..text.len(),
            format!(
                "the expression has {} bytes, more than {MAX_LENGTH}",
                text.len()
            ),
        )
        .help("move data into an input, `vars` or a file of the workspace"));
    }
    let mut depth = Depth::default();
    let mut pairs = Pairs::new();
    let mut at = 0;
    let mut empty = true;
    while at < text.len() {
        let token = token_at(text, at)?;
        match token.kind {
            Kind::Open => depth.open(token.start),
            Kind::Close => pairs.push((depth.close(text, &token)?, token.start)),
            Kind::Symbol => symbol(text, &token)?,
            _ => {}
        }
        depth.count(text, &token)?;
        empty &= matches!(token.kind, Kind::Space | Kind::Comment);
        at = token.end;
    }
    if empty {
        return Err(Flaw::new(0..text.len(), "an expression is missing here"));
    }
    depth.closed(text)?;
    let height = depth.here.height();
    Ok(Checked { pairs, height })
}

/// Computes an upper bound of the height of the text's tree, so that recursion over it can't overflow a stack.
#[derive(Default)]
struct Depth {
    open: Vec<(usize, Level)>,
    here: Level,
    outer: usize,
}

/// One level of brackets.
#[derive(Default)]
struct Level {
    /// Height of the operand that is being read: operators, accesses, and the content of its closed brackets.
    chain: usize,
    /// Height of the highest operand before it; a comma, `&&` or `||` begins a new operand.
    highest: usize,
    /// Number of operands; the parser balances chains of `&&` and `||`.
    operands: usize,
}

impl Level {
    fn next_operand(&mut self) {
        self.highest = self.height();
        self.operands += 1;
        self.chain = (usize::BITS - self.operands.leading_zeros()) as usize;
    }

    fn height(&self) -> usize {
        self.highest.max(self.chain)
    }
}

impl Depth {
    fn open(&mut self, at: usize) {
        let level = std::mem::take(&mut self.here);
        self.outer += level.chain + 1;
        self.open.push((at, level));
    }

    fn close(&mut self, text: &str, token: &Token) -> Result<usize, Flaw> {
        let bracket = token.text(text);
        let Some((at, mut level)) = self.open.pop() else {
            return Err(Flaw::new(
                token.range(),
                format!("`{bracket}` closes nothing"),
            ));
        };
        let opened = text.get(at..at + 1).unwrap_or_default();
        if closing(opened) != bracket {
            return Err(
                Flaw::new(at..at + 1, format!("`{opened}` is not closed")).help(format!(
                    "`{}` is expected before the `{bracket}`",
                    closing(opened)
                )),
            );
        }
        self.outer -= level.chain + 1;
        level.chain += 1 + self.here.height();
        self.here = level;
        Ok(at)
    }

    fn count(&mut self, text: &str, token: &Token) -> Result<(), Flaw> {
        match (token.kind, token.text(text)) {
            (Kind::Symbol, "," | "&" | "|") => self.here.next_operand(),
            (Kind::Symbol, _) | (Kind::Word, "in") => self.here.chain += 1,
            _ => {}
        }
        if self.here.chain + self.outer > MAX_DEPTH {
            return Err(Flaw::new(
                token.range(),
                format!("the expression is nested too deeply: more than {MAX_DEPTH} levels"),
            )
            .help("split it: a capture, a `vars` entry or a `define` can hold a part"));
        }
        Ok(())
    }

    fn closed(&self, text: &str) -> Result<(), Flaw> {
        match self.open.last() {
            None => Ok(()),
            Some(&(at, _)) => {
                let bracket = text.get(at..at + 1).unwrap_or_default();
                Err(Flaw::new(at..at + 1, format!("`{bracket}` is not closed"))
                    .help(format!("`{}` is missing", closing(bracket))))
            }
        }
    }
}

fn closing(bracket: &str) -> &'static str {
    match bracket {
        "(" => ")",
        "[" => "]",
        _ => "}",
    }
}

/// Rejects symbols that people write by habit from other languages.
fn symbol(text: &str, token: &Token) -> Result<(), Flaw> {
    let found = token.text(text);
    let before = text.get(..token.start).unwrap_or_default();
    let after = text.get(token.end..).unwrap_or_default();
    let doubled = before.ends_with(found) || after.starts_with(found);
    let flaw = |message: String| Flaw::new(token.range(), message);
    match found {
        "=" if before.ends_with("==") || before.ends_with("!=") => Err(flaw(format!(
            "`{}=` is not an operator",
            &before[before.len() - 2..]
        ))
        .help("write `==` or `!=`: values of different types are never equal anyway")),
        "=" if doubled || before.ends_with(['!', '<', '>']) => Ok(()),
        "=" if after.starts_with('~') => Err(flaw("`=~` is not an operator".into())
            .help("write x.matches('pattern'); `^` and `$` are yours to write")),
        "=" => Err(flaw("`=` is not an operator".into()).help("write `==` to compare")),
        "&" | "|" if doubled => Ok(()),
        "&" | "|" => {
            Err(flaw(format!("`{found}` is not an operator"))
                .help(format!("write `{found}{found}`")))
        }
        "$" if after.starts_with("{{") => Err(flaw("`${{` inside an expression".into())
            .help("this is an expression already: write the part without `${{ }}`")),
        "." | "," | "?" | ":" | "+" | "-" | "*" | "/" | "%" | "!" | "<" | ">" => Ok(()),
        "~" => Err(flaw("`~` is not an operator".into()).help("write x.matches('pattern')")),
        other => Err(flaw(format!("`{other}` is not part of CEL"))),
    }
}

/// Returns the offset of the `}}` that closes the expression starting at `start`.
pub(super) fn end_of_interpolation(text: &str, start: usize) -> Result<usize, Flaw> {
    let mut open: Vec<usize> = Vec::new();
    let mut at = start;
    while at < text.len() {
        let token = token_at(text, at)?;
        match token.kind {
            Kind::Open => open.push(token.start),
            Kind::Close => match open.pop() {
                None if text.get(at..).is_some_and(|t| t.starts_with("}}")) => return Ok(at),
                None => {
                    return Err(Flaw::new(
                        token.range(),
                        format!("`{}` closes nothing", token.text(text)),
                    ));
                }
                Some(opened) => {
                    let bracket = text.get(opened..opened + 1).unwrap_or_default();
                    if closing(bracket) != token.text(text) {
                        return Err(Flaw::new(
                            opened..opened + 1,
                            format!("`{bracket}` is not closed"),
                        )
                        .help(format!("`{}` is missing", closing(bracket))));
                    }
                }
            },
            _ => {}
        }
        at = token.end;
    }
    Err(
        Flaw::new(start.saturating_sub(3)..start, "`${{` is not closed")
            .help("close it with `}}`; `$${{` is literal text"),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn flaw(text: &str) -> (String, String) {
        let flaw = check(text).unwrap_err();
        (text[flaw.range.clone()].to_owned(), flaw.message)
    }

    #[test]
    fn brackets_in_strings_and_comments_do_not_count() {
        assert!(check("'(' + r\"[\" + b'{' + '''\n]''' // )\n + 'it\\'s'").is_ok());
    }

    #[test]
    fn a_flaw_names_the_exact_place() {
        assert_eq!(flaw("a && (b"), ("(".into(), "`(` is not closed".into()));
        assert_eq!(flaw("a + b]"), ("]".into(), "`]` closes nothing".into()));
        assert_eq!(
            flaw("a == 'b"),
            ("'".into(), "this string is not closed".into())
        );
        assert_eq!(flaw("a = 1").0, "=");
        assert_eq!(flaw("a & b").0, "&");
        assert_eq!(flaw("x.matches('\\d')").0, "\\d");
        assert_eq!(flaw("1 + ${{ a }}").0, "$");
        assert_eq!(flaw("ü + 1").0, "ü");
        assert_eq!(flaw(" // nothing").1, "an expression is missing here");
    }

    #[test]
    fn comparisons_are_no_assignments() {
        for text in ["a == b", "a != b", "a <= b", "a >= b", "a && b", "a || b"] {
            assert!(check(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn depth_is_bounded_and_width_is_not() {
        assert!(check(&vec!["'text'"; 2_000].join(", ")).is_ok());
        assert!(check(&"(".repeat(500)).is_err());
        assert!(check(&vec!["1"; 500].join("+")).is_err());
        assert!(check(&format!("a{}", ".b".repeat(500))).is_err());
        assert!(check(&format!("a{}", "[0]".repeat(500))).is_err());
    }

    #[test]
    fn an_interpolation_ends_where_the_expression_does() {
        let text = " {'a': {'b': '}}'}}['a'] }} tail }}";
        assert_eq!(
            &text[end_of_interpolation(text, 0).unwrap()..],
            "}} tail }}"
        );
        assert!(end_of_interpolation(" f( }}", 0).is_err());
        assert!(end_of_interpolation(" 'a }}", 0).is_err());
        assert!(end_of_interpolation(" a ", 0).is_err());
    }
}
