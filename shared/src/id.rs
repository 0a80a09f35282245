//! Identifiers. Each is a newtype, so that a cell's id can't be passed where a run's id belongs.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// Returns the id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text)
            }
        }
    };
}

text_id! {
    /// Id of a run, which is one execution of a plan: a UUIDv7 in hyphenated text, so ids sort by submission time.
    RunId
}
text_id! {
    /// Id of a cell: 16 hexadecimal digits (64 bits) hashed from the cell's own axis values (I5).
    CellId
}
text_id! {
    /// Identity of an agent; it survives restarts of the agent's process.
    AgentId
}

/// The right to run one attempt: `(run, cell, attempt, epoch)`. Also the fence that rejects events of stale attempts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token {
    /// Run of the attempt.
    pub run: RunId,
    /// Cell of the attempt.
    pub cell: CellId,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Epoch (term of office) of the coordinator that offered the attempt.
    pub epoch: u64,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}#{}@{}",
            self.run, self.cell, self.attempt, self.epoch
        )
    }
}
