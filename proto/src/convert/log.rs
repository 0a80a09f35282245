//! Converts the messages of the log stream.

use super::identity::{InvalidId, id, short};
use super::token::{InvalidToken, required};
use super::workspace::workspace_digest;
use crate::limit::LOG_CHUNK_BYTES;
use crate::log::{Body, LogDown, LogUp, Record, Source};
use crate::v1;
use phalanx_shared::event::LogStream;
use phalanx_shared::id::{AgentId, Token};
use phalanx_shared::time::Timestamp;
use v1::log_down::Message as Down;
use v1::log_up::Message as Up;

/// The log stream's number is unknown to this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("log stream {0} is not known to this version")]
pub struct UnknownLogStream(pub i32);

/// Converts a wire number to a stream; unspecified (both or neither) becomes `None`.
pub fn stream_from_wire(number: i32) -> Result<Option<LogStream>, UnknownLogStream> {
    Ok(
        match v1::LogStream::try_from(number).map_err(|_| UnknownLogStream(number))? {
            v1::LogStream::Unspecified => None,
            v1::LogStream::Stdout => Some(LogStream::Stdout),
            v1::LogStream::Stderr => Some(LogStream::Stderr),
        },
    )
}

/// Converts a stream to its wire value; `None` becomes unspecified.
pub fn stream_to_wire(stream: Option<LogStream>) -> v1::LogStream {
    match stream {
        None => v1::LogStream::Unspecified,
        Some(LogStream::Stdout) => v1::LogStream::Stdout,
        Some(LogStream::Stderr) => v1::LogStream::Stderr,
    }
}

/// Why a log message from an agent is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLogUp {
    /// The message is empty, or of a kind that this version doesn't know.
    #[error("an empty message, or one of a later version")]
    Unknown,
    /// A token is invalid.
    #[error(transparent)]
    Token(#[from] InvalidToken),
    /// An id or a text is invalid.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// The stream's number is unknown.
    #[error(transparent)]
    Stream(#[from] UnknownLogStream),
    /// The record names neither stdout nor stderr.
    #[error("a log record names no stream")]
    NoStream,
    /// The record's number is 0; records count from 1.
    #[error("log record 0: records count from 1")]
    ZeroNumber,
    /// The record is empty or too large, or it ends before its start.
    #[error(
        "a log record of {length} bytes from {from}; 1 to {LOG_CHUNK_BYTES} bytes are allowed, ends beyond 2^64 are not"
    )]
    Extent { from: u64, length: u64 },
    /// The digest of an artifact isn't 64 lower-case hexadecimal digits.
    #[error("the digest of an artifact is no SHA-256 in hexadecimal")]
    Digest,
}

impl TryFrom<v1::LogUp> for LogUp {
    type Error = InvalidLogUp;

    fn try_from(wire: v1::LogUp) -> Result<Self, InvalidLogUp> {
        let v1::LogUp { message } = wire;
        let (token, number, body) = match message.ok_or(InvalidLogUp::Unknown)? {
            Up::Hello(v1::LogHello { agent_id }) => {
                let agent = AgentId(id("the agent id", agent_id)?);
                return Ok(LogUp::Hello { agent });
            }
            Up::Chunk(chunk) => chunk_from_wire(chunk)?,
            Up::Gap(gap) => gap_from_wire(gap)?,
            Up::End(v1::LogEnd { token, number }) => (token, number, Body::End),
            Up::ArtifactChunk(chunk) => artifact_from_wire(chunk)?,
            Up::ArtifactEnd(end) => artifact_end_from_wire(end)?,
        };
        if number == 0 {
            return Err(InvalidLogUp::ZeroNumber);
        }
        Ok(LogUp::Record {
            token: required(token)?,
            record: Record { number, body },
        })
    }
}

type Parts = (Option<v1::Token>, u64, Body);

fn source(service: String, stream: i32) -> Result<Source, InvalidLogUp> {
    Ok(Source {
        service: short("the service's name", service)?,
        stream: stream_from_wire(stream)?.ok_or(InvalidLogUp::NoStream)?,
    })
}

fn chunk_from_wire(wire: v1::LogChunk) -> Result<Parts, InvalidLogUp> {
    let v1::LogChunk {
        token,
        number,
        service,
        stream,
        offset,
        at_us,
        data,
    } = wire;
    let length = data.len() as u64;
    let fits = !data.is_empty() && data.len() <= LOG_CHUNK_BYTES;
    if !fits || offset.checked_add(length).is_none() {
        return Err(InvalidLogUp::Extent {
            from: offset,
            length,
        });
    }
    let body = Body::Chunk {
        source: source(service, stream)?,
        offset,
        at: Timestamp(at_us),
        bytes: data,
    };
    Ok((token, number, body))
}

fn gap_from_wire(wire: v1::LogGap) -> Result<Parts, InvalidLogUp> {
    let v1::LogGap {
        token,
        number,
        service,
        stream,
        from,
        to,
        reason,
    } = wire;
    if to <= from {
        return Err(InvalidLogUp::Extent { from, length: 0 });
    }
    let body = Body::Gap {
        source: source(service, stream)?,
        from,
        to,
        reason: short("the reason", reason)?,
    };
    Ok((token, number, body))
}

fn artifact_from_wire(wire: v1::ArtifactChunk) -> Result<Parts, InvalidLogUp> {
    let v1::ArtifactChunk {
        token,
        number,
        artifact: id,
        offset,
        data: bytes,
    } = wire;
    let length = bytes.len() as u64;
    let fits = !bytes.is_empty() && bytes.len() <= LOG_CHUNK_BYTES;
    if !fits || offset.checked_add(length).is_none() {
        return Err(InvalidLogUp::Extent {
            from: offset,
            length,
        });
    }
    Ok((token, number, Body::Artifact { id, offset, bytes }))
}

fn artifact_end_from_wire(wire: v1::ArtifactEnd) -> Result<Parts, InvalidLogUp> {
    let v1::ArtifactEnd {
        token,
        number,
        artifact: id,
        digest,
        size,
    } = wire;
    // The digest becomes a file name.
    let digest = match digest.is_empty() {
        true => None,
        false => Some(workspace_digest(digest).map_err(|_| InvalidLogUp::Digest)?),
    };
    Ok((token, number, Body::ArtifactEnd { id, digest, size }))
}

impl From<LogUp> for v1::LogUp {
    fn from(message: LogUp) -> Self {
        let message = match message {
            LogUp::Hello { agent } => Up::Hello(v1::LogHello { agent_id: agent.0 }),
            LogUp::Record { token, record } => record_to_wire(token, record),
        };
        v1::LogUp {
            message: Some(message),
        }
    }
}

fn record_to_wire(token: Token, record: Record) -> Up {
    let Record { number, body } = record;
    let token = Some(token.into());
    match body {
        Body::Chunk {
            source: Source { service, stream },
            offset,
            at: Timestamp(at_us),
            bytes,
        } => Up::Chunk(v1::LogChunk {
            token,
            number,
            service,
            stream: stream_to_wire(Some(stream)).into(),
            offset,
            at_us,
            data: bytes,
        }),
        Body::Gap {
            source: Source { service, stream },
            from,
            to,
            reason,
        } => Up::Gap(v1::LogGap {
            token,
            number,
            service,
            stream: stream_to_wire(Some(stream)).into(),
            from,
            to,
            reason,
        }),
        Body::Artifact { id, offset, bytes } => Up::ArtifactChunk(v1::ArtifactChunk {
            token,
            number,
            artifact: id,
            offset,
            data: bytes,
        }),
        Body::ArtifactEnd { id, digest, size } => Up::ArtifactEnd(v1::ArtifactEnd {
            token,
            number,
            artifact: id,
            digest: digest.unwrap_or_default(),
            size,
        }),
        Body::End => Up::End(v1::LogEnd { token, number }),
    }
}

/// Why a log message from the coordinator is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLogDown {
    /// The message is empty, or of a kind that this version doesn't know.
    #[error("an empty message, or one of a later version")]
    Unknown,
    /// A token is invalid.
    #[error(transparent)]
    Token(#[from] InvalidToken),
}

impl TryFrom<v1::LogDown> for LogDown {
    type Error = InvalidLogDown;

    fn try_from(wire: v1::LogDown) -> Result<Self, InvalidLogDown> {
        let v1::LogDown { message } = wire;
        Ok(match message.ok_or(InvalidLogDown::Unknown)? {
            Down::Welcome(v1::LogWelcome { window_bytes }) => LogDown::Welcome { window_bytes },
            Down::Ack(v1::LogAck { token, number }) => LogDown::Ack {
                token: required(token)?,
                number,
            },
            Down::Refused(v1::LogRefused { token, reason }) => LogDown::Refused {
                token: required(token)?,
                reason,
            },
            Down::ArtifactRefused(v1::ArtifactRefused {
                token,
                artifact: id,
                reason,
            }) => LogDown::ArtifactRefused {
                token: required(token)?,
                id,
                reason,
            },
        })
    }
}

impl From<LogDown> for v1::LogDown {
    fn from(message: LogDown) -> Self {
        let message = match message {
            LogDown::Welcome { window_bytes } => Down::Welcome(v1::LogWelcome { window_bytes }),
            LogDown::Ack { token, number } => Down::Ack(v1::LogAck {
                token: Some(token.into()),
                number,
            }),
            LogDown::Refused { token, reason } => Down::Refused(v1::LogRefused {
                token: Some(token.into()),
                reason,
            }),
            LogDown::ArtifactRefused { token, id, reason } => {
                Down::ArtifactRefused(v1::ArtifactRefused {
                    token: Some(token.into()),
                    artifact: id,
                    reason,
                })
            }
        };
        v1::LogDown {
            message: Some(message),
        }
    }
}
