//! The parts of a workspace on its way to the coordinator, as a checked domain type.

/// One message of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The first one: SHA-256 in lower-case hexadecimal.
    Digest(String),
    /// A file begins.
    File {
        /// Relative, tidy, without control characters.
        path: String,
        /// Whether it may be executed.
        executable: bool,
        /// Its bytes; they follow.
        size: u64,
    },
    /// A link.
    Link {
        /// As a file's.
        path: String,
        /// Where it leads, relative to its directory. Whether that is inside is the receiver's to see.
        target: String,
    },
    /// Bytes of the file that began last; some, and at most [`crate::limit::CHUNK_BYTES`].
    Data(Vec<u8>),
}
