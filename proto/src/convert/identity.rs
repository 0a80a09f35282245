//! Checks texts that name things. Ids become file names and parts of paths, so only harmless characters are allowed.

use crate::limit::{ID_CHARS, TEXT_BYTES};

/// Why a name is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The text is empty.
    #[error("{what} is empty")]
    Empty { what: &'static str },
    /// The text is longer than its limit.
    #[error("{what} has {length} bytes, the limit is {limit}")]
    TooLong {
        what: &'static str,
        length: usize,
        limit: usize,
    },
    /// The text has a control character, which could move a terminal's cursor or do worse.
    #[error("{what} has a control character")]
    Control { what: &'static str },
    /// The text has a character that could change a path or a line.
    #[error(
        "{what} has the character {character:?}; letters, digits, '.', '_' and '-' are allowed, the first not a '.'"
    )]
    Character { what: &'static str, character: char },
}

/// Checks an id: letters, digits, `.`, `_`, `-`, not starting with a dot.
pub(crate) fn id(what: &'static str, text: String) -> Result<String, InvalidId> {
    let Some(first) = text.chars().next() else {
        return Err(InvalidId::Empty { what });
    };
    if text.len() > ID_CHARS {
        return Err(InvalidId::TooLong {
            what,
            length: text.len(),
            limit: ID_CHARS,
        });
    }
    let harmless = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match text.chars().find(|c| !harmless(*c)) {
        Some(character) => Err(InvalidId::Character { what, character }),
        None if first == '.' => Err(InvalidId::Character {
            what,
            character: first,
        }),
        None => Ok(text),
    }
}

/// Checks that a text is within the limit for short texts.
pub(crate) fn short(what: &'static str, text: String) -> Result<String, InvalidId> {
    if text.len() > TEXT_BYTES {
        return Err(InvalidId::TooLong {
            what,
            length: text.len(),
            limit: TEXT_BYTES,
        });
    }
    Ok(text)
}

/// Checks that a text is within a limit and has no control characters, because it is shown in tables and on terminals.
pub(crate) fn printable(
    what: &'static str,
    text: String,
    limit: usize,
) -> Result<String, InvalidId> {
    if text.len() > limit {
        return Err(InvalidId::TooLong {
            what,
            length: text.len(),
            limit,
        });
    }
    if text.chars().any(char::is_control) {
        return Err(InvalidId::Control { what });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_for_tables_is_short_and_has_no_escapes() {
        let of = |text: &str| printable("a label", text.to_owned(), 8);
        assert_eq!(of("gpu=äö").as_deref(), Ok("gpu=äö"));
        assert!(of("123456789").is_err());
        assert!(of("\u{1b}[31m").is_err());
        assert!(of("a\nb").is_err());
    }

    #[test]
    fn an_id_that_would_leave_its_directory_is_refused() {
        for bad in ["..", ".hidden", "a/b", "a\\b", "", "a b", "a\n", "ä"] {
            assert!(id("run", bad.to_owned()).is_err(), "{bad:?}");
        }
        assert!(id("run", "x".repeat(ID_CHARS + 1)).is_err());
        assert_eq!(
            id("run", "0193-ab_c.d".to_owned()).as_deref(),
            Ok("0193-ab_c.d")
        );
    }
}
