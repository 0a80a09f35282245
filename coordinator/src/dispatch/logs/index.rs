//! The index of an attempt's logs: one JSON object per line and record, in the order of arrival. The line's number is the record's number for readers.

use phalanx_proto::log::Source;
use phalanx_shared::event::LogStream;
use serde::{Deserialize, Serialize};

/// The index's file name.
pub const INDEX: &str = "index";

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The agent's number of the record; 0 for a gap that the coordinator found itself.
    pub n: u64,
    /// What it holds.
    #[serde(flatten)]
    pub held: Held,
}

/// What a record holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// Bytes.
    Chunk {
        service: String,
        stream: LogStream,
        /// Of the first byte in the stream.
        offset: u64,
        len: u64,
        /// Of the first byte in the file: differs from `offset` after a gap.
        position: u64,
        /// Microseconds since the epoch.
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
    /// Nothing follows.
    End {},
}

impl Held {
    /// The output it is of.
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

/// The file of a source. Names that could leave the directory, hide, or clash with another's are escaped.
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
    let stream = match source.stream {
        LogStream::Stdout => "stdout",
        LogStream::Stderr => "stderr",
    };
    format!("{name}.{stream}")
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
