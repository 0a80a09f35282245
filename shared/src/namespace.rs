//! Names of namespaces. Runs, and everything that hangs on them, belong to one.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Longest name.
const LENGTH: usize = 63;

/// Name of a namespace: lower-case letters, digits and `-`, beginning with a letter or digit, at most 63.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Namespace(String);

/// A name that no namespace can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} can't be a namespace: write up to 63 of a-z, 0-9 and `-`, a letter or digit first")]
pub struct InvalidNamespace(String);

impl Namespace {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Namespace {
    /// Returns the namespace of everything for which none was chosen.
    fn default() -> Namespace {
        Namespace("default".to_owned())
    }
}

impl FromStr for Namespace {
    type Err = InvalidNamespace;

    fn from_str(text: &str) -> Result<Namespace, InvalidNamespace> {
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let valid = !text.is_empty()
            && text.len() <= LENGTH
            && text.bytes().all(allowed)
            && !text.starts_with('-');
        match valid {
            true => Ok(Namespace(text.to_owned())),
            // A mistyped name may be anything, so that only its beginning is shown.
            false => Err(InvalidNamespace(text.chars().take(LENGTH + 1).collect())),
        }
    }
}

impl TryFrom<String> for Namespace {
    type Error = InvalidNamespace;

    fn try_from(text: String) -> Result<Namespace, InvalidNamespace> {
        text.parse()
    }
}

impl From<Namespace> for String {
    fn from(namespace: Namespace) -> String {
        namespace.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_name_is_short_and_plain() {
        let longest = "a".repeat(LENGTH);
        for name in ["default", "team-a", "7", &longest] {
            assert_eq!(name.parse::<Namespace>().unwrap().as_str(), name);
        }
        let longer = "a".repeat(LENGTH + 1);
        for name in ["", "*", "-a", "Team", "a/b", "..", "a b", "ä", &longer] {
            assert!(name.parse::<Namespace>().is_err(), "{name}");
        }
    }
}
