//! Codes of the errors that users see. Each has a page, `docs/errors/PHX….md`, which `phalanx explain` prints.
//!
//! A code stands for a kind of problem with a common remedy, not for a single message.

use std::fmt;
use strum::VariantArray;

/// Kind of a problem. The number is part of the code and never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, VariantArray)]
#[repr(u16)]
pub enum ErrorCode {
    /// The coordinator can't be reached.
    Unreachable = 1,
    /// Other machines could reach a coordinator that has no passwords.
    Insecure = 2,
    /// Every step was skipped.
    AllSkipped = 3,
    /// A run can't be resumed.
    NotResumable = 4,
    /// Nothing of a service was kept.
    NothingKept = 5,
    /// A file is not a whole exported run.
    Archive = 6,
    /// There is no such run, cell or service.
    Unknown = 7,
    /// A secret has no usable value.
    Secret = 8,
    /// The journal or the state directory can't be used.
    Journal = 9,
    /// A file of the spec can't be read as text or YAML.
    Unreadable = 10,
    /// A key or a value of the spec is wrong.
    Key = 11,
    /// A name or an expression of the spec refers to nothing.
    Name = 12,
    /// A definition of a service is wrong.
    Service = 13,
    /// The cells of the spec can't be planned.
    Plan = 14,
    /// The workspace can't be packed or sent.
    Workspace = 15,
    /// The workspace of an earlier run is not here.
    WorkspaceGone = 16,
    /// The coordinator has no room for the request.
    Busy = 17,
    /// No agent offers the labels of a cell.
    Labels = 18,
    /// A setting is wrong.
    Setting = 19,
    /// A report can't be written.
    Report = 20,
    /// A local run can't start its agent.
    AgentStart = 21,
    /// The coordinator is too old for the request.
    OldCoordinator = 22,
    /// A terminal is needed, or must not be used.
    Terminal = 23,
    /// An address can't be listened on.
    Listen = 24,
    /// A cell failed.
    Failed = 30,
    /// A cell errored.
    Errored = 31,
    /// A run was cancelled.
    Cancelled = 32,
    /// A coordinator needs a token.
    NoToken = 40,
    /// The role or the namespace of a token isn't enough.
    Role = 41,
    /// The coordinator's certificate isn't the one that is known, or TLS fails otherwise.
    Certificate = 42,
    /// An agent has no valid identity.
    Identity = 43,
}

impl ErrorCode {
    /// Returns all codes in the order of their numbers.
    pub fn all() -> impl Iterator<Item = ErrorCode> {
        ErrorCode::VARIANTS.iter().copied()
    }

    /// Returns the code with this text, in upper or lower case.
    pub fn parse(text: &str) -> Option<ErrorCode> {
        let text = text.to_uppercase();
        ErrorCode::all().find(|code| code.to_string() == text)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PHX{:04}", *self as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_as_it_is_written() {
        for code in ErrorCode::all() {
            assert_eq!(ErrorCode::parse(&code.to_string()), Some(code));
        }
        assert_eq!(ErrorCode::parse("phx0031"), Some(ErrorCode::Errored));
        assert_eq!(ErrorCode::parse("PHX9999"), None);
    }
}
