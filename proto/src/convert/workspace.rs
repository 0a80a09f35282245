//! Converts the parts of a workspace. Digests and paths become file names, so they are checked to name nothing outside
//! the workspace.

use crate::limit::{CHUNK_BYTES, PATH_BYTES, WORKSPACE_BYTES};
use crate::v1;
use crate::v1::workspace_part::Part as Wire;
use crate::workspace::Part;

/// Why a part of a workspace is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPart {
    /// The message is empty, or of a kind that this version doesn't know.
    #[error("a message holds no part of a workspace that this version knows")]
    Unknown,
    /// The digest isn't 64 lower-case hexadecimal digits.
    #[error("{0:?} is not the digest of a workspace: 64 digits, hexadecimal, lower case")]
    Digest(String),
    /// The path is too long.
    #[error("a path has {0} bytes, the limit is {PATH_BYTES}")]
    LongPath(usize),
    /// The path leads out of the workspace, isn't normalized, or has forbidden characters.
    #[error(
        "{0:?} is not a path in a workspace: relative, without `.`, `..`, empty parts and control characters"
    )]
    Path(String),
    /// The link's target is empty, absolute, or has control characters.
    #[error("the link {path:?} leads to {target:?}: a relative path is needed")]
    Target {
        /// Path of the link.
        path: String,
        /// Target of the link.
        target: String,
    },
    /// The file is larger than a workspace may be.
    #[error("{path:?} has {size} bytes, a workspace has at most {WORKSPACE_BYTES}")]
    Size {
        /// Path of the file.
        path: String,
        /// Announced number of bytes.
        size: u64,
    },
    /// The piece has no bytes, or too many.
    #[error("a piece of a file has {0} bytes: between 1 and {CHUNK_BYTES} are allowed")]
    Piece(usize),
}

/// Checks the digest of a workspace.
pub fn workspace_digest(text: String) -> Result<String, InvalidPart> {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() == 64 && text.bytes().all(digit) {
        return Ok(text);
    }
    Err(InvalidPart::Digest(text.chars().take(100).collect()))
}

/// Checks a path in a workspace. A line break in it could give two workspaces the same digest.
fn path(text: String) -> Result<String, InvalidPart> {
    if text.len() > PATH_BYTES {
        return Err(InvalidPart::LongPath(text.len()));
    }
    let tidy = |part: &str| !matches!(part, "" | "." | "..");
    if text.split('/').all(tidy) && !text.contains(char::is_control) {
        return Ok(text);
    }
    Err(InvalidPart::Path(text))
}

fn target(path: &str, text: String) -> Result<String, InvalidPart> {
    if text.len() > PATH_BYTES {
        return Err(InvalidPart::LongPath(text.len()));
    }
    if !text.is_empty() && !text.starts_with('/') && !text.contains(char::is_control) {
        return Ok(text);
    }
    Err(InvalidPart::Target {
        path: path.to_owned(),
        target: text,
    })
}

impl TryFrom<v1::WorkspacePart> for Part {
    type Error = InvalidPart;

    fn try_from(wire: v1::WorkspacePart) -> Result<Self, InvalidPart> {
        let v1::WorkspacePart { part } = wire;
        Ok(match part.ok_or(InvalidPart::Unknown)? {
            Wire::Digest(digest) => Part::Digest(workspace_digest(digest)?),
            Wire::File(v1::WorkspaceFile {
                path: text,
                executable,
                size,
            }) => {
                let path = path(text)?;
                if size > WORKSPACE_BYTES {
                    return Err(InvalidPart::Size { path, size });
                }
                Part::File {
                    path,
                    executable,
                    size,
                }
            }
            Wire::Link(v1::WorkspaceLink {
                path: text,
                target: to,
            }) => {
                let path = path(text)?;
                let target = target(&path, to)?;
                Part::Link { path, target }
            }
            Wire::Data(data) if (1..=CHUNK_BYTES).contains(&data.len()) => Part::Data(data),
            Wire::Data(data) => return Err(InvalidPart::Piece(data.len())),
        })
    }
}

impl From<Part> for v1::WorkspacePart {
    fn from(part: Part) -> Self {
        let part = match part {
            Part::Digest(digest) => Wire::Digest(digest),
            Part::File {
                path,
                executable,
                size,
            } => Wire::File(v1::WorkspaceFile {
                path,
                executable,
                size,
            }),
            Part::Link { path, target } => Wire::Link(v1::WorkspaceLink { path, target }),
            Part::Data(data) => Wire::Data(data),
        };
        v1::WorkspacePart { part: Some(part) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(part: Wire) -> Result<Part, InvalidPart> {
        Part::try_from(v1::WorkspacePart { part: Some(part) })
    }

    fn file(path: &str, size: u64) -> Result<Part, InvalidPart> {
        of(Wire::File(v1::WorkspaceFile {
            path: path.to_owned(),
            executable: false,
            size,
        }))
    }

    #[test]
    fn a_digest_or_a_path_that_names_something_else_is_refused() {
        let good = "0a".repeat(32);
        assert_eq!(workspace_digest(good.clone()), Ok(good));
        for bad in [
            "",
            "../x",
            &"0A".repeat(32),
            &"a".repeat(63),
            &"/".repeat(64),
        ] {
            assert!(workspace_digest((*bad).to_owned()).is_err(), "{bad:?}");
        }
        for bad in [
            "",
            "/etc/passwd",
            "..",
            "a/../b",
            "./a",
            "a//b",
            "a/",
            "a\nb",
            "a\0b",
        ] {
            assert!(matches!(file(bad, 1), Err(InvalidPart::Path(_))), "{bad:?}");
        }
        assert!(file("a b/…/.c", 0).is_ok());
        assert!(matches!(
            file(&"x/".repeat(PATH_BYTES), 1),
            Err(InvalidPart::LongPath(_))
        ));
    }

    #[test]
    fn too_much_at_once_is_refused() {
        assert!(matches!(
            file("a", WORKSPACE_BYTES + 1),
            Err(InvalidPart::Size { .. })
        ));
        for length in [0, CHUNK_BYTES + 1] {
            assert_eq!(
                of(Wire::Data(vec![0; length])),
                Err(InvalidPart::Piece(length))
            );
        }
        assert!(of(Wire::Data(vec![0; CHUNK_BYTES])).is_ok());
        assert_eq!(
            Part::try_from(v1::WorkspacePart { part: None }),
            Err(InvalidPart::Unknown)
        );
    }

    #[test]
    fn a_link_without_a_relative_target_is_refused() {
        let link = |target: &str| {
            of(Wire::Link(v1::WorkspaceLink {
                path: "a".to_owned(),
                target: target.to_owned(),
            }))
        };
        for bad in ["", "/etc", "a\nb"] {
            assert!(
                matches!(link(bad), Err(InvalidPart::Target { .. })),
                "{bad:?}"
            );
        }
        assert!(link("../b").is_ok());
    }
}
