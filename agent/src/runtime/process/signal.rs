//! Parses names of signals as people write them.

use crate::runtime::contract::{Fault, RuntimeError};
use nix::sys::signal::Signal;

/// Parses a signal such as `SIGTERM`, `term` or `15`.
pub fn parse(text: &str) -> Result<Signal, RuntimeError> {
    let name = text.trim().to_ascii_uppercase();
    let number = name.parse::<i32>().ok();
    number
        .and_then(|number| Signal::try_from(number).ok())
        .or_else(|| name.parse().ok())
        .or_else(|| format!("SIG{name}").parse().ok())
        .ok_or_else(|| {
            let reason = format!("`{text}` is no signal: write a name such as SIGTERM");
            RuntimeError::new(Fault::Command, reason)
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_short_names_and_numbers_are_understood() {
        for text in ["SIGTERM", "term", "15", " Term "] {
            assert_eq!(parse(text).unwrap(), Signal::SIGTERM);
        }
        for text in ["", "SIGNONE", "-3", "999"] {
            assert!(parse(text).is_err());
        }
    }
}
