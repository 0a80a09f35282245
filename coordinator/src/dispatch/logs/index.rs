//! The index of an attempt's logs: one JSON object per line, one line per record, in the order of arrival. Readers
//! number records by line.

use phalanx_proto::log::Source;
use phalanx_shared::event::LogStream;
use serde::{Deserialize, Serialize};

/// File name of the index.
pub const INDEX: &str = "index";

/// One line of the index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The agent's number of the record; 0 for a gap that the coordinator found itself.
    pub n: u64,
    /// Content of the record.
    #[serde(flatten)]
    pub held: Held,
}

/// Content of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// Bytes of one output.
    Chunk {
        service: String,
        stream: LogStream,
        /// Offset of the first byte in the stream.
        offset: u64,
        len: u64,
        /// Position of the first byte in the file. Differs from `offset` after a gap.
        position: u64,
        /// Unix time in microseconds.
        at: i64,
    },
    /// Bytes that could not be kept.
    Gap {
        service: String,
        stream: LogStream,
        from: u64,
        to: u64,
        reason: String,
    },
    /// End of the attempt's logs.
    End {},
}

impl Held {
    /// Returns the output that the record belongs to; none for the end.
    pub fn source(&self) -> Option<Source> {
        match self {
            Held::Chunk {
                service, stream, ..
            }
            | Held::Gap {
                service, stream, ..
            } => Some(Source {
                service: service.clone(),
                stream: *stream,
            }),
            Held::End {} => None,
        }
    }
}

/// Returns the file name of a source. Escapes names that could leave the directory, be hidden, or clash with another
/// name.
pub fn file_name(source: &Source) -> String {
    let mut name = String::new();
    for byte in source.service.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(byte as char),
            b'.' if !name.is_empty() => name.push('.'),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    if name.len() > 120 {
        use sha2::Digest;
        let hash = hex::encode(sha2::Sha256::digest(source.service.as_bytes()));
        name.truncate(64);
        name = format!("{name}%{hash}");
    }
    format!("{name}.{}", source.stream.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_service_can_name_a_file_outside_or_anothers() {
        let long = "x".repeat(300);
        let longer = "x".repeat(301);
        let services = [
            "db", "../db", "/db", ".db", "%2Fdb", "db\n", "", "ä", &long, &longer,
        ];
        let names: BTreeSet<String> = services
            .iter()
            .map(|service| {
                file_name(&Source {
                    service: (*service).to_owned(),
                    stream: LogStream::Stdout,
                })
            })
            .collect();
        assert_eq!(names.len(), services.len());
        for name in &names {
            assert!(!name.contains('/') && name.len() < 200, "{name}");
            assert!(!name.starts_with("..") && name != INDEX, "{name}");
        }
    }
}
