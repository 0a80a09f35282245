//! Why an archive can't be written or read.

use super::VERSION;
use std::fmt;

/// An error of an archive.
#[derive(Debug)]
pub enum Error {
    /// The file is something else.
    NotAnArchive,
    /// The format is of a later version.
    Version {
        /// Version of the format.
        found: u32,
        /// Version of the program that wrote the file, if it says so.
        by: Option<String>,
    },
    /// The file ends too early.
    Truncated,
    /// The content contradicts itself or can't be decoded. Holds what was found.
    Damaged(String),
    /// Something exceeds its limit. Holds what, and the limit.
    TooLarge(String),
    /// Reading or writing failed.
    Io(std::io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotAnArchive => f.write_str("it is not an exported run"),
            Error::Version { found, by } => {
                write!(
                    f,
                    "its format {found} is newer than {VERSION}, the newest that this phalanx reads"
                )?;
                by.as_ref()
                    .map_or(Ok(()), |by| write!(f, " (written by phalanx {by})"))
            }
            Error::Truncated => f.write_str("it is truncated: its end is missing"),
            Error::Damaged(found) => write!(f, "it is damaged: {found}"),
            Error::TooLarge(what) => write!(f, "too large: {what}"),
            Error::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}
