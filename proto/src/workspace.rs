//! The parts of a workspace being sent to the coordinator, as a checked domain type.

/// One message of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// First message: the SHA-256 in lower-case hexadecimal.
    Digest(String),
    /// Start of a file.
    File {
        /// Path: relative, normalized, without control characters.
        path: String,
        /// Whether the file is executable.
        executable: bool,
        /// Number of bytes; they follow.
        size: u64,
    },
    /// A symbolic link.
    Link {
        /// Path, with the same rules as for a file.
        path: String,
        /// Target, relative to the link's directory. The receiver checks that it is inside the workspace.
        target: String,
    },
    /// Bytes of the file that started last; at least one and at most [`crate::limit::CHUNK_BYTES`].
    Data(Vec<u8>),
}
