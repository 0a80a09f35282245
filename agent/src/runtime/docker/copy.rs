//! Copies files into and out of a container, as tar archives. `tree` reads and writes them on the agent's side.

use super::error::{runtime, said, status};
use super::member::Container;
use crate::beneath::{Place, Root};
use crate::runtime::contract::{Fault, RuntimeError};
use crate::runtime::tree;
use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, DownloadFromContainerOptionsBuilder,
    UploadToContainerOptionsBuilder,
};
use futures::StreamExt;
use std::fs::File;
use std::io::{Error, ErrorKind, Seek};
use std::path::Path;
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;

/// Directory bit of Go's file mode.
pub(super) const GO_DIRECTORY: u32 = 1 << 31;

/// Copies a file or directory from the agent into the container.
pub(super) async fn copy_in(
    container: &Container,
    from: Place,
    to: String,
) -> Result<(), RuntimeError> {
    let what = format!(
        "service {}: copying {} to {to}",
        container.config.name,
        from.display()
    );
    let (directory, name) = target(container, &from.path, &to).await?;
    let archive = blocking({
        let from = from.clone();
        move || pack(&from, &name)
    })
    .await
    .map_err(|error| judged(&what, &error))?;
    let options = UploadToContainerOptionsBuilder::default()
        .path(&directory)
        .build();
    let body = bollard::body_try_stream(ReaderStream::new(tokio::fs::File::from_std(archive)));
    container
        .shared
        .engine
        .docker
        .upload_to_container(&container.id, Some(options), body)
        .await
        .map_err(|error| match status(&error) {
            Some(404) => RuntimeError::new(
                Fault::Path,
                format!("{what}: there is no directory {directory} in the container"),
            ),
            _ => runtime(&what, &error),
        })
}

/// Returns the container directory that receives the copy, and the name of the copy in it.
async fn target(
    container: &Container,
    from: &Path,
    to: &str,
) -> Result<(String, String), RuntimeError> {
    if is_directory(container, to).await? {
        let name = from.file_name().map(|n| n.to_string_lossy().into_owned());
        return Ok((to.to_owned(), name.unwrap_or_else(|| ".".to_owned())));
    }
    let path = Path::new(to);
    let parent = match path.parent().map(|parent| parent.to_string_lossy()) {
        Some(parent) if !parent.is_empty() => parent.into_owned(),
        _ => "/".to_owned(),
    };
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
    // Checked beforehand: some engines create a missing directory, some refuse.
    match name {
        Some(name) if !to.ends_with('/') && is_directory(container, &parent).await? => {
            Ok((parent, name))
        }
        _ => {
            let why = format!(
                "there is no directory {} in the container to copy {} into",
                if to.ends_with('/') { to } else { &parent },
                from.display()
            );
            Err(RuntimeError::of(&container.config.name, Fault::Path, why))
        }
    }
}

async fn is_directory(container: &Container, path: &str) -> Result<bool, RuntimeError> {
    let options = ContainerArchiveInfoOptionsBuilder::default()
        .path(path)
        .build();
    let docker = &container.shared.engine.docker;
    let engine = &container.shared.engine;
    let asked =
        engine.ask(|| docker.get_container_archive_info(&container.id, Some(options.clone())));
    match asked.await {
        Ok(info) => Ok(info.file_mode & GO_DIRECTORY != 0),
        // Any answer of the engine means that there is no directory to copy into; without an answer nothing is known.
        Err(error) if status(&error).is_none() => {
            let what = format!("service {}: looking at {path}", container.config.name);
            Err(runtime(&what, &error))
        }
        Err(_) => Ok(false),
    }
}

/// Classifies an error. A path that is missing, or that leads out of the workspace (perhaps by a link that was put
/// there), is the fault of the system under test.
pub(super) fn judged(what: &str, error: &Error) -> RuntimeError {
    let fault = match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::NotFound => Fault::Path,
        _ => Fault::Machine,
    };
    RuntimeError::new(fault, format!("{what}: {error}"))
}

fn pack(from: &Place, name: &str) -> Result<File, Error> {
    let mut file = unnamed_file()?;
    {
        let mut archive = tar::Builder::new(&mut file);
        let root = Root::open(&from.root)?;
        tree::pack(&mut archive, &root, &from.path, Path::new(name))?;
        archive.finish()?;
    }
    file.rewind()?;
    Ok(file)
}

/// Copies a file or directory out of the container.
pub(super) async fn copy_out(
    container: &Container,
    from: String,
    to: Place,
) -> Result<(), RuntimeError> {
    let what = format!(
        "service {}: copying {from} to {}",
        container.config.name,
        to.display()
    );
    let wrong = |error: Error| RuntimeError::new(Fault::Machine, format!("{what}: {error}"));
    let options = DownloadFromContainerOptionsBuilder::default()
        .path(&from)
        .build();
    let mut archive = tokio::fs::File::from_std(unnamed_file().map_err(wrong)?);
    let stream = container
        .shared
        .engine
        .docker
        .download_from_container(&container.id, Some(options));
    let mut stream = std::pin::pin!(stream);
    while let Some(part) = stream.next().await {
        let bytes = part.map_err(|error| match status(&error) {
            Some(404) => RuntimeError::new(Fault::Path, format!("{what}: {}", said(&error))),
            _ => runtime(&what, &error),
        })?;
        archive.write_all(&bytes).await.map_err(wrong)?;
    }
    archive.flush().await.map_err(wrong)?;
    let mut archive = archive.into_std().await;
    // The task that unpacks goes on if this future is dropped, so it holds the lock.
    let placing = container.placing.copy().await;
    blocking(move || {
        let _placing = placing;
        archive.rewind()?;
        tree::unpack(archive, &Root::open(&to.root)?, &to.path)
    })
    .await
    .map_err(|error| judged(&what, &error))
}

/// Creates a file without a name, which vanishes when its handle is closed.
pub(super) fn unnamed_file() -> Result<File, Error> {
    let path = std::env::temp_dir().join(format!("phalanx-{}.tar", uuid::Uuid::new_v4().simple()));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|panic| Err(Error::other(panic.to_string())))
}
