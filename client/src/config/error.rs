//! Errors in settings.

use super::ALL;
use std::fmt;

/// One error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// No setting has the key.
    #[error("unknown setting `{key}` ({origin}){}", suggestion.as_ref().map(|s| format!(": did you mean `{s}`?")).unwrap_or_default())]
    Unknown {
        /// The key as written.
        key: String,
        /// Where it was written.
        origin: String,
        /// The most similar key.
        suggestion: Option<String>,
    },
    /// The value doesn't fit the setting.
    #[error("setting `{key}` ({origin}) is `{found}`, expected {expected}")]
    Invalid {
        /// The setting's key.
        key: String,
        /// Where it was written.
        origin: String,
        /// The value as written.
        found: String,
        /// Description of valid values.
        expected: String,
    },
    /// A project's file may not give the setting, because a checkout could redirect its users.
    #[error(
        "setting `{key}` ({origin}) can't be set by a project: the author of the checkout would decide where your work, secrets and state go, or what runs on your machine. Put it into ~/.config/phalanx/config.toml or {variable}{}",
        match key.as_str() {
            "coordinator" => ", or give --coordinator",
            _ => "",
        }
    )]
    NotOfAProject {
        /// The setting's key.
        key: String,
        /// Where it was written.
        origin: String,
        /// The variable that can give it.
        variable: String,
    },
    /// A file or variable can't be read.
    #[error("can't read settings: {0}")]
    Unreadable(String),
}

impl SettingError {
    pub(super) fn unknown(key: &str, origin: &str) -> SettingError {
        SettingError::Unknown {
            key: key.to_owned(),
            origin: origin.to_owned(),
            suggestion: nearest(key),
        }
    }
}

/// Returns the known key that a typo most likely meant.
pub(super) fn nearest(key: &str) -> Option<String> {
    let near = ALL.iter().map(|setting| setting.key());
    let near = near.map(|known| (strsim::damerau_levenshtein(known, key), known));
    let near = near.filter(|(distance, known)| *distance <= (known.len() / 4).max(2));
    near.min().map(|(_, known)| known.to_owned())
}

/// All errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingErrors(pub Vec<SettingError>);

impl fmt::Display for SettingErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for SettingErrors {}
