//! Finds files in a container by a path or a glob, and fetches them. The engine gives archives only, so a glob fetches the
//! directory before its first wildcard.

use super::copy::{GO_DIRECTORY, blocking, judged, unnamed_file};
use super::error::{runtime, status};
use super::member::Container;
use crate::runtime::contract::{Fault, RuntimeError};
use crate::runtime::search::{self, ARCHIVE, FoundFile, Search};
use bollard::container::PathStatResponse;
use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, DownloadFromContainerOptionsBuilder,
};
use futures::StreamExt;
use std::fs::File;
use std::io::{Error, Seek};
use tokio::io::AsyncWriteExt;

/// Maximum links that one path may lead through.
const LINKS: usize = 8;

/// Finds files.
pub(super) async fn find(
    container: &Container,
    search: Search,
) -> Result<Vec<FoundFile>, RuntimeError> {
    let pattern = search.pattern.as_str().to_owned();
    let wrong = |why: &str| {
        let why = format!("{pattern}: {why}");
        RuntimeError::of(&container.config.name, Fault::Path, why)
    };
    if !pattern.starts_with('/') {
        return Err(wrong("a path in a container begins with `/`"));
    }
    if search.pattern.is_path() {
        let Some((path, stat)) = resolved(container, &pattern).await? else {
            return Ok(Vec::new());
        };
        if stat.file_mode & GO_DIRECTORY != 0 {
            return Err(wrong(
                "it is a directory: write a glob, such as `/DIR/*.xml`",
            ));
        }
        return one(container, &pattern, &path, &stat, &search).await;
    }
    if search.pattern.base().is_empty() {
        return Err(wrong("name a directory before the first wildcard"));
    }
    let what = format!("service {}: looking for {pattern}", container.config.name);
    let Some(archive) = fetched(container, search.pattern.base(), &what).await? else {
        return Ok(Vec::new());
    };
    let mut files = blocking(move || search::in_archive(archive, &search))
        .await
        .map_err(|error| refused(&what, &error))?;
    for file in &mut files {
        // Times in archives are whole seconds, in which a file may have been written twice.
        if let Some(stat) = stat(container, &file.path).await? {
            file.stamp = stamp(&stat);
        }
    }
    Ok(files)
}

/// Returns one file by its path in the container; `named` is its path in the pattern.
async fn one(
    container: &Container,
    named: &str,
    path: &str,
    stat: &PathStatResponse,
    search: &Search,
) -> Result<Vec<FoundFile>, RuntimeError> {
    let found = |bytes| FoundFile {
        path: named.to_owned(),
        stamp: stamp(stat),
        bytes,
    };
    if !search.content {
        return Ok(vec![found(Vec::new())]);
    }
    let what = format!("service {}: fetching {named}", container.config.name);
    let Some(archive) = fetched(container, path, &what).await? else {
        return Ok(Vec::new());
    };
    let wanted = Search {
        pattern: search::Pattern::exactly(path),
        content: true,
    };
    let files = blocking(move || search::in_archive(archive, &wanted))
        .await
        .map_err(|error| refused(&what, &error))?;
    Ok(files.into_iter().map(|file| found(file.bytes)).collect())
}

fn stamp(stat: &PathStatResponse) -> String {
    let time = stat.modification_time.as_deref().unwrap_or_default();
    format!("{time} {}", stat.size)
}

/// Returns the file at a path, where links have led; `None` if there is none.
pub(super) async fn resolved(
    container: &Container,
    path: &str,
) -> Result<Option<(String, PathStatResponse)>, RuntimeError> {
    let mut path = path.to_owned();
    for _ in 0..=LINKS {
        match stat(container, &path).await? {
            // The engine gives the target within the container.
            Some(stat) if stat.link_target.starts_with('/') => path = stat.link_target,
            found => return Ok(found.map(|stat| (path, stat))),
        }
    }
    let why = format!("{path}: too many links");
    Err(RuntimeError::of(&container.config.name, Fault::Path, why))
}

async fn stat(container: &Container, path: &str) -> Result<Option<PathStatResponse>, RuntimeError> {
    let options = ContainerArchiveInfoOptionsBuilder::default()
        .path(path)
        .build();
    let docker = &container.shared.engine.docker;
    let engine = &container.shared.engine;
    let asked =
        engine.ask(|| docker.get_container_archive_info(&container.id, Some(options.clone())));
    match asked.await {
        Ok(stat) => Ok(Some(stat)),
        Err(error) if status(&error) == Some(404) => Ok(None),
        Err(error) => {
            let what = format!("service {}: looking at {path}", container.config.name);
            Err(runtime(&what, &error))
        }
    }
}

/// Fetches a file or directory as an archive; `None` if there is none.
async fn fetched(
    container: &Container,
    path: &str,
    what: &str,
) -> Result<Option<File>, RuntimeError> {
    let wrong = |error: Error| RuntimeError::new(Fault::Machine, format!("{what}: {error}"));
    let options = DownloadFromContainerOptionsBuilder::default()
        .path(path)
        .build();
    let mut archive = tokio::fs::File::from_std(unnamed_file().map_err(wrong)?);
    let docker = &container.shared.engine.docker;
    let stream = docker.download_from_container(&container.id, Some(options));
    let mut stream = std::pin::pin!(stream);
    let mut bytes: u64 = 0;
    while let Some(part) = stream.next().await {
        let part = match part {
            Ok(part) => part,
            Err(error) if status(&error) == Some(404) => return Ok(None),
            Err(error) => return Err(runtime(what, &error)),
        };
        bytes = bytes.saturating_add(part.len() as u64);
        if bytes > ARCHIVE {
            let why = format!(
                "{what}: {path} holds more than {} MiB: write a narrower path",
                ARCHIVE >> 20
            );
            return Err(RuntimeError::new(Fault::Path, why));
        }
        archive.write_all(&part).await.map_err(wrong)?;
    }
    archive.flush().await.map_err(wrong)?;
    let mut archive = archive.into_std().await;
    archive.rewind().map_err(wrong)?;
    Ok(Some(archive))
}

/// Classifies an error of a search: too much is found, or the archive is broken.
pub(super) fn refused(what: &str, error: &Error) -> RuntimeError {
    match error.kind() {
        std::io::ErrorKind::Other => RuntimeError::new(Fault::Path, format!("{what}: {error}")),
        _ => judged(what, error),
    }
}
