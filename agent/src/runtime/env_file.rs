//! Files of variables (`env_file`), with Compose's syntax: `NAME=value` lines, `#` comments, `export`, quotes.
//!
//! `${VAR}` is not expanded, as nowhere in Phalanx.

use super::contract::RuntimeError;
use indexmap::IndexMap;
use phalanx_shared::spec::service::ServiceConfig;
use std::path::Path;

/// The service's variables: those of its files in their order, then its own over them. `None` as value takes a variable away.
/// Paths are relative to `base`.
pub async fn environment(
    config: &ServiceConfig,
    base: Option<&Path>,
) -> Result<IndexMap<String, Option<String>>, RuntimeError> {
    let mut merged = IndexMap::new();
    for file in &config.env_file {
        let path = base.map_or_else(|| file.path.clone().into(), |base| base.join(&file.path));
        let text = match tokio::fs::read_to_string(&path).await {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !file.required => {
                continue;
            }
            Err(error) => {
                return Err(RuntimeError::Failed(format!(
                    "service {}: can't read env_file {}: {error}",
                    config.name,
                    path.display()
                )));
            }
        };
        let variables = parse(&text).map_err(|(line, message)| {
            RuntimeError::Failed(format!(
                "service {}: env_file {}:{line}: {message}",
                config.name,
                path.display()
            ))
        })?;
        merged.extend(
            variables
                .into_iter()
                .map(|(name, value)| (name, Some(value))),
        );
    }
    merged.extend(config.environment.clone());
    Ok(merged)
}

/// The variables of a file's text; an error with its line.
pub fn parse(text: &str) -> Result<Vec<(String, String)>, (usize, String)> {
    let mut variables = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let number = index + 1;
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line
            .split_once('=')
            .ok_or_else(|| (number, format!("no `=` in `{line}`: write NAME=value")))?;
        let name = name.trim_end();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err((number, format!("`{name}` is no name of a variable")));
        }
        let value = value.trim_start();
        let value = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => quoted(
                value.get(1..).unwrap_or_default(),
                quote,
                number,
                &mut lines,
            )?,
            _ => unquoted(value),
        };
        variables.push((name.to_owned(), value));
    }
    Ok(variables)
}

/// Up to a ` #` comment.
fn unquoted(value: &str) -> String {
    let end = value.find(" #").unwrap_or(value.len());
    value.get(..end).unwrap_or(value).trim_end().to_owned()
}

/// Up to the closing quote, over several lines if need be; with `"` the escapes `\n \r \t \\ \" \$` mean what they mean.
fn quoted<'a>(
    first: &'a str,
    quote: char,
    number: usize,
    lines: &mut impl Iterator<Item = (usize, &'a str)>,
) -> Result<String, (usize, String)> {
    let mut value = String::new();
    let mut line = first;
    loop {
        let mut characters = line.chars();
        while let Some(character) = characters.next() {
            match character {
                c if c == quote => return Ok(value),
                '\\' if quote == '"' => match characters.next() {
                    Some('n') => value.push('\n'),
                    Some('r') => value.push('\r'),
                    Some('t') => value.push('\t'),
                    Some(c @ ('\\' | '"' | '$')) => value.push(c),
                    Some(c) => value.extend(['\\', c]),
                    None => value.push('\\'),
                },
                c => value.push(c),
            }
        }
        value.push('\n');
        line = match lines.next() {
            Some((_, line)) => line,
            None => return Err((number, format!("the {quote} quote is never closed"))),
        };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn plain_quoted_and_exported_variables_are_read() {
        let text = "# a comment\n\nA=1\nexport B = two words # and why\nC='x # y'\nD=\"a\\nb \\\"q\\\"\"\nE=\nF=http://h/#frag\n";
        assert_eq!(
            pairs(text),
            [
                pair("A", "1"),
                pair("B", "two words"),
                pair("C", "x # y"),
                pair("D", "a\nb \"q\""),
                pair("E", ""),
                pair("F", "http://h/#frag"),
            ]
        );
    }

    #[test]
    fn a_quoted_value_may_span_lines() {
        assert_eq!(
            pairs("K=\"one\n two\"\nL=3"),
            [pair("K", "one\n two"), pair("L", "3")]
        );
    }

    #[test]
    fn a_broken_line_is_named() {
        assert_eq!(parse("A=1\nnonsense\n").unwrap_err().0, 2);
        assert_eq!(parse("A B=1").unwrap_err().0, 1);
        assert!(parse("A='open\n").unwrap_err().1.contains("never closed"));
    }

    #[tokio::test]
    async fn a_service_s_own_variables_win_over_its_files() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a.env"), "A=file\nB=file\n").unwrap();
        let file = |path: &str, required| phalanx_shared::spec::service::EnvFile {
            path: path.to_owned(),
            required,
        };
        let mut config = ServiceConfig {
            env_file: vec![file("a.env", true), file("none.env", false)],
            environment: IndexMap::from([
                ("B".to_owned(), None),
                ("C".to_owned(), Some("own".to_owned())),
            ]),
            ..ServiceConfig::default()
        };
        let merged = environment(&config, Some(directory.path())).await.unwrap();
        assert_eq!(merged.get("A"), Some(&Some("file".to_owned())));
        assert_eq!(merged.get("B"), Some(&None));
        assert_eq!(merged.get("C"), Some(&Some("own".to_owned())));
        config.env_file = vec![file("none.env", true)];
        assert!(environment(&config, Some(directory.path())).await.is_err());
    }
}
