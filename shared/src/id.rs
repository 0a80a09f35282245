//! Identifiers. Each is a newtype, so that a cell's id can't be passed where a run's belongs.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// The id as text.
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
    /// One execution of a plan. A UUIDv7 in hyphenated text, so ids sort by the time of submission.
    RunId
}
text_id! {
    /// A cell: 16 hexadecimal digits (64 bits) hashed from the cell's own axis values (I5).
    CellId
}
text_id! {
    /// A runner's identity; stable over restarts of its process.
    AgentId
}

/// The right to run one attempt, and the fence against late ones: `(run, cell, attempt, epoch)`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token {
    /// The run.
    pub run: RunId,
    /// The cell.
    pub cell: CellId,
    /// The try, from 1.
    pub attempt: u32,
    /// The coordinator's term of office in which the attempt was offered.
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
