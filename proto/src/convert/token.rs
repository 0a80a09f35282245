//! Converts tokens.

use super::identity::{InvalidId, id};
use crate::v1;
use phalanx_shared::event::AttemptRef;
use phalanx_shared::id::{CellId, RunId, Token};

/// Why a wire token is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// The message has no token.
    #[error("the token is missing")]
    Missing,
    /// An id is invalid.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// The attempt is 0; attempts count from 1.
    #[error("attempt 0: attempts count from 1")]
    ZeroAttempt,
}

/// Converts the token of a message that must have one.
pub(crate) fn required(wire: Option<v1::Token>) -> Result<Token, InvalidToken> {
    Token::try_from(wire.ok_or(InvalidToken::Missing)?)
}

impl TryFrom<v1::Token> for Token {
    type Error = InvalidToken;

    fn try_from(wire: v1::Token) -> Result<Self, InvalidToken> {
        let v1::Token {
            run,
            cell,
            attempt,
            epoch,
        } = wire;
        if attempt == 0 {
            return Err(InvalidToken::ZeroAttempt);
        }
        Ok(Token {
            run: RunId(id("the run id", run)?),
            cell: CellId(id("the cell id", cell)?),
            attempt,
            epoch,
        })
    }
}

impl From<Token> for v1::Token {
    fn from(token: Token) -> Self {
        let Token {
            run,
            cell,
            attempt,
            epoch,
        } = token;
        v1::Token {
            run: run.0,
            cell: cell.0,
            attempt,
            epoch,
        }
    }
}

impl TryFrom<v1::AttemptRef> for AttemptRef {
    type Error = InvalidToken;

    fn try_from(wire: v1::AttemptRef) -> Result<Self, InvalidToken> {
        let v1::AttemptRef { cell, attempt } = wire;
        if attempt == 0 {
            return Err(InvalidToken::ZeroAttempt);
        }
        Ok(AttemptRef {
            cell: CellId(id("the cell id", cell)?),
            attempt,
        })
    }
}

impl From<AttemptRef> for v1::AttemptRef {
    fn from(attempt: AttemptRef) -> Self {
        let AttemptRef { cell, attempt } = attempt;
        v1::AttemptRef {
            cell: cell.0,
            attempt,
        }
    }
}
