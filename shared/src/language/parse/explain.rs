//! Explains the YAML parser's errors to the author of a spec.

use super::position::Places;
use crate::diagnostic::Diagnostic;

/// Returns a syntax error with advice based on the text of its line.
pub fn syntax(places: &Places<'_>, info: &str, index: usize) -> Diagnostic {
    let line = places.line(index);
    if info.contains("recursion limit") {
        return Diagnostic::error(
            places.span(index, index + 1),
            "too many levels of lists and maps",
        )
        .with_help("lists and maps may be 128 levels deep");
    }
    let diagnostic = Diagnostic::error(
        places.span(index, index + 1),
        format!("this is not YAML: {info}"),
    );
    match advice(info, line) {
        Some(help) => diagnostic.with_help(help),
        None => diagnostic,
    }
}

fn advice(info: &str, line: &str) -> Option<&'static str> {
    if info.contains("tab") && line.contains('\t') {
        return Some("indent with spaces: YAML doesn't allow tabs there");
    }
    if info.contains("unknown anchor") {
        return Some(
            "`*name` repeats what `&name` marked earlier in the same file; quote a text that starts with `*`",
        );
    }
    if info.contains("indentation in flow") || info == "invalid indentation" {
        return Some(
            "a `[` or `{` before this line is not closed; inside of them quote a text that holds one of , [ ] { }",
        );
    }
    if info.contains("trailing content") && line.contains(['[', '{']) {
        return Some(
            "inside of [ ] and { } a comma ends a text: quote the whole, as in [\"body.contains('x')\"]",
        );
    }
    if unquoted_interpolation(line) {
        return Some(
            "inside `{ }` and `[ ]` quote a text that holds `${{ }}`: \"${{ matrix.version }}\"",
        );
    }
    if info.contains("mapping values are not allowed") || info.contains("illegal placement of ':'")
    {
        return Some("quote a text that holds `: `, such as a CEL expression `\"a ? b : c\"`");
    }
    if info.contains("block mapping") || info.contains("block collection") {
        return Some(
            "check the indentation, and quote a text that starts with one of [ ] { } ' \" or goes on after a closing one",
        );
    }
    if info.contains("flow mapping")
        || info.contains("flow sequence")
        || info.contains("simple key")
    {
        return Some(
            "check that each [ { ' \" is closed, and quote texts that hold one of , [ ] { }",
        );
    }
    if info.contains("quoted scalar") && info.contains("escape") {
        return Some("in double quotes write `\\\\` for a backslash, or use single quotes");
    }
    if info.contains("quoted scalar") {
        return Some("a quote that was opened isn't closed, or text follows the closing one");
    }
    if info.contains("plain scalar") || info.contains("next token") {
        return Some("quote a text that starts with one of - ? : , [ ] { } # & * ! | > ' \" % @ `");
    }
    None
}

/// Returns whether the line has a `${{` outside quotes.
fn unquoted_interpolation(line: &str) -> bool {
    let mut quote = None;
    let mut previous = ' ';
    let mut inside_flow = false;
    for (at, character) in line.char_indices() {
        match quote {
            Some(open) if open == character && previous != '\\' => quote = None,
            Some(_) => {}
            None if matches!(character, '"' | '\'') && !previous.is_alphanumeric() => {
                quote = Some(character);
            }
            None => {
                let rest = line.get(at..).unwrap_or_default();
                if inside_flow && rest.starts_with("${{") {
                    return true;
                }
            }
        }
        // Remember this instead of searching for it, because a line may be megabytes long.
        inside_flow |= matches!(character, '{' | '[');
        previous = character;
    }
    false
}
