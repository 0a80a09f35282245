//! Errors of commands, each with its exit code.

use super::exit;
use phalanx_shared::error_code::ErrorCode;
use std::fmt;

/// An error for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliError {
    /// Exit code of the program.
    pub code: u8,
    /// What is wrong: lower case, without full stop. Empty if everything was printed already.
    pub message: String,
    /// How to fix it.
    pub help: Option<String>,
    /// Code of the page that explains this kind of problem.
    pub explained: Option<ErrorCode>,
}

impl CliError {
    /// The call or an input is wrong.
    pub fn usage(message: impl Into<String>) -> CliError {
        CliError {
            code: exit::USAGE,
            message: message.into(),
            help: None,
            explained: None,
        }
    }

    /// The work could not be done.
    pub fn errored(message: impl Into<String>) -> CliError {
        CliError {
            code: exit::ERRORED,
            message: message.into(),
            help: None,
            explained: None,
        }
    }

    /// An error whose message was printed already.
    pub fn said(code: u8) -> CliError {
        CliError {
            code,
            message: String::new(),
            help: None,
            explained: None,
        }
    }

    /// Names the page that explains this kind of problem, unless a closer one is named already.
    #[must_use]
    pub fn explained_by(mut self, code: ErrorCode) -> CliError {
        self.explained.get_or_insert(code);
        self
    }

    /// Adds advice.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> CliError {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CliError {}

impl From<tonic::Status> for CliError {
    /// Converts a coordinator's error.
    fn from(status: tonic::Status) -> CliError {
        use tonic::Code;
        let code = match status.code() {
            Code::NotFound
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::Unauthenticated
            | Code::PermissionDenied => exit::USAGE,
            _ => exit::ERRORED,
        };
        let message = match status.message() {
            "" => format!("the coordinator answered {:?}", status.code()),
            _ => phalanx_proto::broken(&status),
        };
        CliError {
            code,
            message,
            help: None,
            explained: match status.code() {
                Code::NotFound => Some(ErrorCode::Unknown),
                Code::Unauthenticated => Some(ErrorCode::NoToken),
                Code::PermissionDenied => Some(ErrorCode::Role),
                Code::Unavailable => Some(ErrorCode::Unreachable),
                Code::ResourceExhausted => Some(ErrorCode::Busy),
                Code::DataLoss => Some(ErrorCode::Journal),
                Code::Unimplemented => Some(ErrorCode::OldCoordinator),
                _ => None,
            },
        }
    }
}
