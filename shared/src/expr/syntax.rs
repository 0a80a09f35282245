//! Turns the parser's errors into readable messages.

use super::scan::{Flaw, token_at};
use cel::ParseErrors;
use std::ops::Range;

/// Returns the first error in a text that [`super::scan::check`] accepted.
pub(super) fn flaw(text: &str, errors: &ParseErrors) -> Flaw {
    let Some(error) = errors.errors.iter().min_by_key(|e| e.pos) else {
        return Flaw::new(0..text.len(), "not an expression");
    };
    // A conditional without its `:` is reported at its start, and again where the `:` is missing.
    let error = errors
        .errors
        .iter()
        .find(|e| e.msg.contains("mismatched input"))
        .filter(|_| error.msg.starts_with("Incomplete"))
        .unwrap_or(error);
    let at = offset(text, error.pos);
    let message = error.msg.trim_start_matches("Syntax error: ");
    if let Some(name) = message.strip_prefix("reserved identifier: ") {
        return Flaw::new(at..at + name.len(), format!("`{name}` is reserved in CEL"))
            .help("a field of that name is read as x['…']");
    }
    if message.starts_with("invalid argument to has()") {
        return Flaw::new(word(text, at), "`has` asks for a field: has(a.b)");
    }
    if message.starts_with("argument must be a simple name") {
        return Flaw::new(
            word(text, at),
            "a macro's first argument is the name of its variable",
        );
    }
    if message.starts_with("invalid int literal") {
        return Flaw::new(word(text, at), "this integer needs more than 64 bits");
    }
    if at >= text.trim_end().len() {
        return at_the_end(text);
    }
    unexpected(text, at, message)
}

fn at_the_end(text: &str) -> Flaw {
    let end = text.trim_end().len();
    let last = text
        .trim_end()
        .chars()
        .next_back()
        .map_or(0, char::len_utf8);
    let flaw = Flaw::new(end - last..end, "the expression ends too early");
    match unmatched_question_mark(text) {
        true => flaw.help("a condition is written a ? b : c"),
        false => flaw,
    }
}

fn unmatched_question_mark(text: &str) -> bool {
    let count = |symbol: char| text.chars().filter(|c| *c == symbol).count();
    count('?') > count(':')
}

fn unexpected(text: &str, at: usize, message: &str) -> Flaw {
    let range = word(text, at);
    let found = text.get(range.clone()).unwrap_or_default();
    let flaw = Flaw::new(range.clone(), format!("unexpected `{found}`"));
    let before = text.get(..at).unwrap_or_default().trim_end();
    match found {
        "matches" | "contains" | "like" => {
            flaw.help(format!("write x.{found}('text')").replace("like", "matches"))
        }
        "and" => flaw.help("write `&&`"),
        "or" => flaw.help("write `||`"),
        "not" | "is" => flaw.help("write `!x`, `==` or `!=`"),
        _ if message.starts_with("missing") => {
            let missing = message.split(" at ").next().unwrap_or_default();
            flaw.help(missing.replace('\'', "`"))
        }
        _ if before.ends_with(|c: char| c.is_alphanumeric() || ")]}'\"_".contains(c)) => {
            flaw.help("an operator is missing before it")
        }
        _ if message.starts_with("invalid") => Flaw::new(range, message.to_owned()),
        _ => flaw,
    }
}

/// Returns the token at an offset.
fn word(text: &str, at: usize) -> Range<usize> {
    match token_at(text, at) {
        Ok(token) => token.start..token.end,
        Err(flaw) => flaw.range,
    }
}

/// Returns the byte offset of a line and a column; both count from 1, the column in characters.
fn offset(text: &str, (line, column): (isize, isize)) -> usize {
    let line = usize::try_from(line).unwrap_or(1).max(1);
    let column = usize::try_from(column).unwrap_or(1).max(1);
    let start: usize = text
        .split_inclusive('\n')
        .take(line - 1)
        .map(str::len)
        .sum();
    let rest = text.get(start..).unwrap_or_default();
    start
        + rest
            .char_indices()
            .nth(column - 1)
            .map_or(rest.len(), |(at, _)| at)
}
