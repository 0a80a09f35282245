//! Parses files of variables (`env_file`, `--env-file`) as Compose does.
//!
//! Supports `NAME=value` and `NAME: value`, `#` comments, `export`, quotes over several lines, and variables of earlier
//! lines. Skips a byte order mark and Windows line ends. No message quotes the file's text, because it may be secret.

use super::interpolation::{self, Problem, Value};

/// Maximum size of a file of variables, and of its values together, in bytes.
pub const MAX_BYTES: usize = 4 << 20;

/// Result of parsing a file of variables.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Variables {
    /// Names and values in the order written; the last of equal names wins.
    pub set: Vec<(String, Value)>,
    /// Numbers of the lines that hold only a name for which no value is known, so the variable is not set.
    pub bare: Vec<usize>,
    /// Numbers of the lines that use a variable without a value, which expands to nothing.
    pub unset: Vec<usize>,
}

impl Variables {
    /// Returns the names and values that hold no expression.
    pub fn texts(self) -> impl Iterator<Item = (String, String)> {
        let pairs = self.set.into_iter();
        pairs.filter_map(|(name, value)| Some((name, value.as_text()?)))
    }
}

/// Error in a file of variables, with its line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct Flaw {
    /// Line number, from 1.
    pub line: usize,
    /// Problem, without any of the file's text.
    pub message: &'static str,
}

/// Looks up a variable outside the file. A value found there takes precedence over those of earlier lines.
pub type Lookup<'l> = &'l dyn Fn(&str) -> Option<Value>;

/// Parses the text of a file of variables.
///
/// # Errors
/// Returns the first line that is not a variable.
pub fn parse(text: &str, lookup: Lookup<'_>) -> Result<Variables, Flaw> {
    let text = normal(text)?;
    let mut reader = Reader {
        text: &text,
        at: 0,
        bytes: 0,
        lookup,
        found: Variables::default(),
    };
    while reader.skip_to_statement() {
        reader.statement()?;
    }
    Ok(reader.found)
}

/// Parses a file of `format: raw`: everything after the first `=` is the value, unchanged.
///
/// # Errors
/// Returns the first line without a name.
pub fn parse_raw(text: &str, lookup: Lookup<'_>) -> Result<Variables, Flaw> {
    let text = normal(text)?;
    let mut found = Variables::default();
    for (at, line) in text.lines().enumerate() {
        let (number, line) = (at + 1, line.trim_start());
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(Value::text(value))),
            None => (line.trim_end(), lookup(line.trim_end())),
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(flaw(number, NO_NAME));
        }
        match value {
            Some(value) => found.set.push((name.to_owned(), value)),
            None => found.bare.push(number),
        }
    }
    Ok(found)
}

const NO_NAME: &str = "this is no name of a variable: write NAME=value";

fn flaw(line: usize, message: &'static str) -> Flaw {
    Flaw { line, message }
}

/// Removes the byte order mark and the carriage returns of line ends.
fn normal(text: &str) -> Result<String, Flaw> {
    if text.len() > MAX_BYTES {
        return Err(flaw(1, "the file is too long"));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    Ok(text.replace("\r\n", "\n"))
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    /// Size of all values so far.
    bytes: usize,
    lookup: Lookup<'t>,
    found: Variables,
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn line(&self) -> usize {
        let before = self.text.get(..self.at).unwrap_or_default();
        before.matches('\n').count() + 1
    }

    /// Skips white space and comments; returns false at the end of the text.
    fn skip_to_statement(&mut self) -> bool {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with('#') {
                return !trimmed.is_empty();
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    fn statement(&mut self) -> Result<(), Flaw> {
        let number = self.line();
        if let Some(after) = self.rest().strip_prefix("export")
            && after.starts_with([' ', '\t'])
        {
            self.at = self.text.len() - after.trim_start_matches([' ', '\t']).len();
        }
        let rest = self.rest();
        let end = rest.find(['=', ':', '\n']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let name = name.trim_end();
        let fits = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']');
        if name.is_empty() || !name.chars().all(fits) {
            return Err(flaw(number, NO_NAME));
        }
        self.at += end;
        if after.is_empty() || after.starts_with('\n') {
            match (self.lookup)(name) {
                Some(value) => self.found.set.push((name.to_owned(), value)),
                None => self.found.bare.push(number),
            }
            return Ok(());
        }
        self.at += 1;
        let rest = self.rest();
        self.at += rest.len()
            - rest
                .trim_start_matches([' ', '\t', '\r', '\u{b}', '\u{c}'])
                .len();
        let value = match self.rest().chars().next() {
            Some(quote @ ('"' | '\'')) => self.quoted(quote, number)?,
            _ => self.unquoted(number)?,
        };
        self.found.set.push((name.to_owned(), value));
        Ok(())
    }

    /// Reads a value up to a ` #` comment or the end of the line.
    fn unquoted(&mut self, number: usize) -> Result<Value, Flaw> {
        let rest = self.rest();
        let line = rest.get(..rest.find('\n').unwrap_or(rest.len()));
        let line = line.unwrap_or_default();
        self.at += line.len();
        let value = line.split_once(" #").map_or(line, |(value, _)| value);
        self.expanded(value.trim_end(), number)
    }

    /// Reads a value up to the closing quote. Within `"`, escapes are resolved and variables expanded.
    fn quoted(&mut self, quote: char, number: usize) -> Result<Value, Flaw> {
        let mut value = String::new();
        let rest = self.rest();
        let mut characters = rest.char_indices().skip(1);
        while let Some((at, c)) = characters.next() {
            match c {
                c if c == quote => {
                    self.at += at + 1;
                    self.ends_here(number)?;
                    return match quote {
                        '"' => self.expanded(&unescaped(&value), number),
                        _ => self.counted(Value::text(&value), number),
                    };
                }
                '\\' => match characters.next() {
                    Some((_, escaped)) if escaped == quote => value.push(escaped),
                    Some((_, other)) => value.extend(['\\', other]),
                    None => value.push('\\'),
                },
                c => value.push(c),
            }
        }
        Err(flaw(number, "the quote that opens here is never closed"))
    }

    /// Returns an error if text follows the closing quote: a reader would take it for part of the value, Compose would
    /// not.
    fn ends_here(&self, number: usize) -> Result<(), Flaw> {
        match self.rest().chars().next() {
            Some(c) if !c.is_whitespace() && c != '#' => Err(flaw(
                number,
                "text follows the closing quote: escape quotes within quotes by `\\`",
            )),
            _ => Ok(()),
        }
    }

    fn expanded(&mut self, text: &str, number: usize) -> Result<Value, Flaw> {
        let (set, lookup) = (&self.found.set, self.lookup);
        let mut known = |name: &str| {
            lookup(name).or_else(|| {
                let earlier = set.iter().rev().find(|(earlier, _)| earlier == name);
                earlier.map(|(_, value)| value.clone())
            })
        };
        let expanded =
            interpolation::expand(text, false, &mut known).map_err(|problem| match problem {
                Problem::Syntax(_) | Problem::Unclosed => flaw(
                    number,
                    "`${` begins no variable: write `$$` for a plain `$`, or single quotes",
                ),
                Problem::Required { .. } => {
                    flaw(number, "a variable that `?` requires has no value")
                }
                Problem::Deep(_) => flaw(number, "variables stand in each other too deep"),
                Problem::Long => flaw(number, TOO_LONG),
            })?;
        if !expanded.unset.is_empty() {
            self.found.unset.push(number);
        }
        self.counted(expanded.value, number)
    }

    fn counted(&mut self, value: Value, number: usize) -> Result<Value, Flaw> {
        self.bytes = self.bytes.saturating_add(value.to_template().len());
        match self.bytes > MAX_BYTES {
            true => Err(flaw(number, TOO_LONG)),
            false => Ok(value),
        }
    }
}

const TOO_LONG: &str = "the values are too long";

/// Resolves a shell's escapes; `\$` becomes `$$`, which later expands to `$`. Unknown escapes stay as they are.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let simple = |c: char| {
            Some(match c {
                'a' => "\u{7}",
                'b' => "\u{8}",
                'f' => "\u{c}",
                'n' => "\n",
                'r' => "\r",
                't' => "\t",
                'v' => "\u{b}",
                '"' => "\"",
                '\\' => "\\",
                '$' => "$$",
                _ => return None,
            })
        };
        let octal = from.get(1..5).filter(|digits| digits.starts_with('0'));
        let octal = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        let next = from.chars().nth(1);
        let length = match (octal, next.and_then(simple)) {
            (Some(byte), _) => {
                out.push(char::from(byte));
                5
            }
            (None, Some(means)) => {
                out.push_str(means);
                2
            }
            (None, None) => {
                out.push('\\');
                1
            }
        };
        rest = from.get(length..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text, &|_| None).unwrap().texts().collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn plain_quoted_and_exported_variables_are_read() {
        let text = "# a comment\n\nA=1\nexport B = two words # and why\nC='x # y' # z\nD=\"a\\nb \\\"q\\\"\"\nE=\nF=http://h/#frag\nG: yaml\n";
        assert_eq!(
            pairs(text),
            [
                pair("A", "1"),
                pair("B", "two words"),
                pair("C", "x # y"),
                pair("D", "a\nb \"q\""),
                pair("E", ""),
                pair("F", "http://h/#frag"),
                pair("G", "yaml"),
            ]
        );
    }

    #[test]
    fn windows_files_are_read() {
        assert_eq!(
            pairs("\u{feff}A=one\r\nB=\"two\r\nlines\"\r\n# c\r\nC=3"),
            [pair("A", "one"), pair("B", "two\nlines"), pair("C", "3")]
        );
    }

    #[test]
    fn quotes_within_quotes_are_escaped() {
        assert_eq!(
            pairs("A='Let\\'s go'\nB='a\\nb\\\\'\nC=\"\\$A \\\\ \\t| \\x \\0123 ${A}\"\nD='$A'"),
            [
                pair("A", "Let's go"),
                pair("B", "a\\nb\\\\"),
                pair("C", "$A \\ \t| \\x S Let's go"),
                pair("D", "$A"),
            ]
        );
    }

    #[test]
    fn later_lines_see_earlier_ones() {
        let text = "A=1\nB=$A-${A}-${NONE:-d}-$$A\nA=2\nC=\"$A\"\nD=$NONE";
        let found = parse(text, &|_| None).unwrap();
        assert_eq!(found.unset, [5]);
        let all: Vec<_> = found.texts().collect();
        let right = [
            pair("A", "1"),
            pair("B", "1-1-d-$A"),
            pair("A", "2"),
            pair("C", "2"),
            pair("D", ""),
        ];
        assert_eq!(all, right);
    }

    #[test]
    fn a_name_alone_takes_a_value_from_elsewhere() {
        let lookup = |name: &str| (name == "KNOWN").then(|| Value::text("v"));
        let found = parse("KNOWN\nexport UNKNOWN\nA=1\nLAST", &lookup).unwrap();
        assert_eq!(found.bare, [2, 4]);
        let all: Vec<_> = found.texts().collect();
        assert_eq!(all, [pair("KNOWN", "v"), pair("A", "1")]);
    }

    #[test]
    fn a_broken_line_is_told_by_its_number_and_not_by_its_text() {
        for (text, line) in [
            ("A=1\nsecret words here\n", 2),
            ("A B=1", 1),
            ("=secret", 1),
            ("A=1\nB='secret\n", 2),
            ("A='it''s'", 1),
            ("A='x'secret", 1),
            ("A=${secret", 1),
            ("A=${B:?secret}", 1),
            ("root!x=secret", 1),
        ] {
            let flaw = parse(text, &|_| None).unwrap_err();
            assert_eq!(flaw.line, line, "{text}");
            assert!(!flaw.to_string().contains("secret"), "{flaw}");
        }
    }

    #[test]
    fn values_do_not_grow_without_end() {
        let mut text = format!("A0={}\n", "x".repeat(1000));
        for n in 1..40 {
            text.push_str(&format!("A{n}=$A{0}$A{0}\n", n - 1));
        }
        assert_eq!(parse(&text, &|_| None).unwrap_err().message, TOO_LONG);
    }

    #[test]
    fn a_raw_file_is_taken_as_it_stands() {
        let found = parse_raw("\u{feff}A='x' # y\r\n#c\nB=$A\nC\n", &|_| None).unwrap();
        assert_eq!(found.bare, [4]);
        let all: Vec<_> = found.texts().collect();
        assert_eq!(all, [pair("A", "'x' # y"), pair("B", "$A")]);
    }
}
