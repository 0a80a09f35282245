//! Sends files of a container. The engine gives archives only, so a glob reads through the directory before its first
//! wildcard; nothing is written to the agent's disk, and only as much is read as is taken.

use super::copy::{GO_DIRECTORY, blocking};
use super::error::{runtime, status};
use super::find::{refused, resolved};
use super::member::Container;
use crate::runtime::contract::{Fault, RuntimeError};
use crate::runtime::gather::{self, ARCHIVE, Gather, Gathered};
use crate::runtime::search::Pattern;
use bollard::query_parameters::DownloadFromContainerOptionsBuilder;
use bytes::Bytes;
use futures::StreamExt;
use std::io::{self, Read};
use tokio::sync::mpsc;

/// Parts of an archive that may wait to be read.
const WAITING: usize = 8;

/// Bits of Go's file mode that no regular file has: directory, link, device, pipe, socket, character device, irregular.
const GO_SPECIAL: u32 = 1 << 31 | 1 << 27 | 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19;

/// Sends files that match.
pub(super) async fn gather(container: &Container, gather: Gather) -> Result<(), RuntimeError> {
    let pattern = gather.pattern.as_str().to_owned();
    let wrong = |why: &str| {
        let why = format!("{pattern}: {why}");
        RuntimeError::of(&container.config.name, Fault::Path, why)
    };
    if !pattern.starts_with('/') {
        return Err(wrong("a path in a container begins with `/`"));
    }
    if !gather.pattern.is_path() {
        if gather.pattern.base().is_empty() {
            return Err(wrong("name a directory before the first wildcard"));
        }
        let base = gather.pattern.base().to_owned();
        return read(container, &base, gather).await;
    }
    let Some((path, stat)) = resolved(container, &pattern).await? else {
        return is_there(container).await;
    };
    if stat.file_mode & GO_DIRECTORY != 0 {
        return Err(wrong("it is a directory: write a glob, such as `/DIR/**`"));
    }
    if stat.file_mode & GO_SPECIAL != 0 {
        return Err(wrong("it is not a regular file"));
    }
    let size = u64::try_from(stat.size).unwrap_or(0);
    if size > gather.max_file {
        let part = Gathered::TooLarge {
            path: pattern.clone(),
            size,
        };
        let _ = gather.out.send(part).await;
        return Ok(());
    }
    // The file has the name that links led to.
    let exactly = Gather {
        pattern: Pattern::exactly(&path),
        ..gather
    };
    read(container, &path, exactly).await
}

/// Returns an error if the container was removed: an engine answers the same about a file that isn't in one.
async fn is_there(container: &Container) -> Result<(), RuntimeError> {
    match container.shared.engine.inspect(&container.id).await {
        Err(error) if status(&error) == Some(404) => {
            let why = "its container was removed".to_owned();
            Err(RuntimeError::of(&container.config.name, Fault::State, why))
        }
        _ => Ok(()),
    }
}

/// Reads the archive of a path while its files are sent.
async fn read(container: &Container, path: &str, gather: Gather) -> Result<(), RuntimeError> {
    let what = format!(
        "service {}: fetching {}",
        container.config.name,
        gather.pattern.as_str()
    );
    let options = DownloadFromContainerOptionsBuilder::default()
        .path(path)
        .build();
    let docker = &container.shared.engine.docker;
    let (parts, arrived) = mpsc::channel(WAITING);
    let stream = docker.download_from_container(&container.id, Some(options));
    let pump = async {
        let mut stream = std::pin::pin!(stream);
        let mut bytes: u64 = 0;
        while let Some(part) = stream.next().await {
            let part = match part {
                Ok(part) => part,
                Err(error) if status(&error) == Some(404) => return Ok(true),
                Err(error) => return Err(runtime(&what, &error)),
            };
            bytes = bytes.saturating_add(part.len() as u64);
            if bytes > ARCHIVE {
                let why = format!(
                    "{what}: {path} holds more than {} GiB: write a narrower path",
                    ARCHIVE >> 30
                );
                return Err(RuntimeError::new(Fault::Path, why));
            }
            // What follows the last file that is wanted isn't read.
            if parts.send(part).await.is_err() {
                break;
            }
        }
        drop(parts);
        Ok(false)
    };
    let reading = blocking(move || gather::from_archive(Arriving::new(arrived), &gather));
    let (pumped, read) = tokio::join!(pump, reading);
    // An archive that was cut off is broken too; the reason for that comes first.
    match (pumped?, read) {
        (true, _) => is_there(container).await,
        (false, Ok(())) => Ok(()),
        (false, Err(error)) => Err(refused(&what, &error)),
    }
}

/// Reads bytes as they arrive.
struct Arriving {
    parts: mpsc::Receiver<Bytes>,
    part: Bytes,
}

impl Arriving {
    fn new(parts: mpsc::Receiver<Bytes>) -> Self {
        Arriving {
            parts,
            part: Bytes::new(),
        }
    }
}

impl Read for Arriving {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            match self.parts.blocking_recv() {
                Some(part) => self.part = part,
                None => return Ok(0),
            }
        }
        let len = into.len().min(self.part.len());
        let piece = self.part.split_to(len);
        into.get_mut(..len)
            .ok_or(io::ErrorKind::UnexpectedEof)?
            .copy_from_slice(&piece);
        Ok(len)
    }
}
