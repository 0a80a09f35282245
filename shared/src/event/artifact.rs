//! Artifacts: files that were kept with the run, and those that weren't.

use super::StepPath;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

/// A file that an entry of `artifacts` named, or an entry that has no file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Artifact {
    /// Number within the attempt, from 1.
    pub id: u32,
    /// Relative path under which it is kept, unique within the attempt.
    pub name: String,
    /// Place of the file: `SERVICE:/path`, or a path in the workspace. The pattern if there is no file.
    pub from: String,
    /// Step whose `artifacts` named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepPath>,
    /// Size in bytes of what is kept; of a file that isn't, its own.
    pub size: u64,
    /// SHA-256 of what is kept, in hexadecimal; empty if nothing is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// Media type, as far as content and name tell it; empty if nothing is kept.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// Why nothing is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lack: Option<Lack>,
}

/// Why a file is not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lack {
    /// What is wrong.
    pub problem: Problem,
    /// Reason, as shown in reports.
    pub reason: String,
}

/// What is wrong with an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Problem {
    /// No file matches.
    Missing,
    /// It is larger than a limit, or there are too many.
    TooLarge,
    /// It could not be read.
    Unreadable,
    /// It didn't reach the coordinator, or not whole.
    Cut,
}

impl Problem {
    /// Returns the problem as JSON spells it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl Artifact {
    /// Returns whether its content is kept.
    pub fn is_kept(&self) -> bool {
        self.lack.is_none() && !self.digest.is_empty()
    }
}
