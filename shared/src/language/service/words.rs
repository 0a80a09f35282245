//! Splits a text into the words of a command as a POSIX shell does: with quotes and backslashes, but without expansion.

/// Returns the words, or the problem with the text.
pub fn split(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next() {
                        Some('\'') => break,
                        Some(character) => word.push(character),
                        None => return Err("a single quote isn't closed"),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next() {
                        Some('"') => break,
                        Some('\\') => match characters.next() {
                            Some(escaped @ ('"' | '\\' | '$' | '`')) => word.push(escaped),
                            Some('\n') => {}
                            Some(other) => word.extend(['\\', other]),
                            None => return Err("a double quote isn't closed"),
                        },
                        Some(character) => word.push(character),
                        None => return Err("a double quote isn't closed"),
                    }
                }
            }
            '\\' => match characters.next() {
                Some('\n') => {}
                Some(escaped) => word.get_or_insert_default().push(escaped),
                None => return Err("a backslash stands at the end"),
            },
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::split;

    #[test]
    fn words_are_split_as_a_shell_splits_them() {
        let words = split(r#"sh -c 'echo "a  b"' --x="c d" e\ f "" "\$x \n""#).unwrap();
        assert_eq!(
            words,
            ["sh", "-c", "echo \"a  b\"", "--x=c d", "e f", "", "$x \\n"]
        );
        // As in Compose, `#` begins no comment.
        assert_eq!(split("echo #1 a#b").unwrap(), ["echo", "#1", "a#b"]);
        assert!(split("'open").is_err());
        assert!(split("\"open").is_err());
        assert!(split("end\\").is_err());
        assert!(split("  ").unwrap().is_empty());
    }
}
