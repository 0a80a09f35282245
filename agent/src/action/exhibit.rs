//! The excerpt of a request or an answer that a failure shows. The data is kept whole until it is shown: only then are
//! all secrets of the step known, and masks look for whole values before anything is shortened.

use phalanx_shared::mask::{Keep, Masks, Source};
use serde_json::Value;
use std::sync::Arc;

/// Maximum number of characters of a text that Phalanx composes (a request line, headers, a command).
const OWN: usize = 16_384;

/// Pieces of text, one after the other.
#[derive(Clone, Default)]
pub struct Exhibit(Vec<Piece>);

#[derive(Clone)]
enum Piece {
    Text(String),
    Part {
        bytes: Arc<[u8]>,
        keep: Keep,
        all: Option<String>,
    },
    Quoted {
        bytes: Arc<[u8]>,
        limit: usize,
    },
    Json {
        value: Arc<Value>,
        limit: usize,
    },
    Pieces(Exhibit),
}

impl Exhibit {
    /// Creates an empty exhibit.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a text.
    #[must_use]
    pub fn text(self, text: impl Into<String>) -> Self {
        self.and(Piece::Text(text.into()))
    }

    /// Appends a part of an output or a body.
    #[must_use]
    pub fn part(self, bytes: impl Into<Arc<[u8]>>, keep: Keep) -> Self {
        let bytes = bytes.into();
        self.and(Piece::Part {
            bytes,
            keep,
            all: None,
        })
    }

    /// Appends a part of data that wasn't kept whole; `all` says how large it was.
    #[must_use]
    pub fn part_of(self, bytes: impl Into<Arc<[u8]>>, keep: Keep, all: impl Into<String>) -> Self {
        let (bytes, all) = (bytes.into(), Some(all.into()));
        self.and(Piece::Part { bytes, keep, all })
    }

    /// Appends the beginning of a body in quotes.
    #[must_use]
    pub fn quoted(self, bytes: impl Into<Arc<[u8]>>, limit: usize) -> Self {
        let bytes = bytes.into();
        self.and(Piece::Quoted { bytes, limit })
    }

    /// Appends the beginning of a value, as JSON.
    #[must_use]
    pub fn json(self, value: Arc<Value>, limit: usize) -> Self {
        self.and(Piece::Json { value, limit })
    }

    /// Appends another exhibit.
    #[must_use]
    pub fn with(self, other: Exhibit) -> Self {
        self.and(Piece::Pieces(other))
    }

    fn and(mut self, piece: Piece) -> Self {
        self.0.push(piece);
        self
    }

    /// Returns the text to show. Call it when all secrets of the step are known.
    pub fn show(&self, masks: &Masks) -> String {
        // Phalanx chooses where pieces begin and end, so no secret spans two of them.
        self.0.iter().map(|piece| piece.show(masks)).collect()
    }
}

impl Piece {
    fn show(&self, masks: &Masks) -> String {
        match self {
            Piece::Text(text) => masks.excerpt(Source::whole(text.as_bytes()), Keep::Head(OWN)),
            Piece::Part { bytes, keep, all } => {
                let all = all.clone();
                let all = all.unwrap_or_else(|| format!("{} bytes in all", bytes.len()));
                masks.excerpt_saying(Source::whole(bytes), *keep, &all)
            }
            Piece::Quoted { bytes, limit } => {
                let shown = masks.excerpt(Source::whole(bytes), Keep::Head(*limit));
                format!("{shown:?}")
            }
            // Mask the value before it is quoted, and the text again: a string in the value may be JSON itself.
            Piece::Json { value, limit } => {
                let text = masks.json(value).to_string();
                masks.excerpt(Source::whole(text.as_bytes()), Keep::Head(*limit))
            }
            Piece::Pieces(exhibit) => exhibit.show(masks),
        }
    }
}

impl From<String> for Exhibit {
    fn from(text: String) -> Self {
        Exhibit::new().text(text)
    }
}

impl std::fmt::Debug for Exhibit {
    /// Prints the number of pieces only, because they may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Exhibit({} pieces)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use phalanx_shared::mask::Masker;
    use serde_json::json;

    #[test]
    fn every_piece_is_masked_before_it_is_cut_or_quoted() {
        let secret = "s3cr\"t-\n-of-many-characters";
        let masker = Masker::new();
        masker.add(secret).unwrap();
        let bytes = || format!("0123456789{secret}0123456789").into_bytes();
        let shown = Exhibit::new()
            .text(format!("GET /{secret}\n"))
            .part(bytes(), Keep::Head(20))
            .text("\n")
            .part_of(bytes(), Keep::Tail(20), "plenty")
            .text("\n")
            .quoted(bytes(), 20)
            .text("\n")
            .json(Arc::new(json!({ secret: [secret] })), 24)
            .with(format!(" {secret}").into())
            .show(&masker.masks());
        assert_eq!(
            shown,
            "GET /***\n0123456789***0123456… (47 bytes in all)\n(plenty) …3456789***0123456789\n\
             \"0123456789***0123456… (47 bytes in all)\"\n{\"***\":[\"***\"]} ***"
        );
    }
}
