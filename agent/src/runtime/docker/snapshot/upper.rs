//! Reads the directory in which a storage driver keeps what a container changed, and makes a layer of it.
//!
//! A container that never runs mounts the directory, and the engine sends it as an archive. So nothing is assumed of where
//! the engine runs and who may read its files, and owners and capabilities are told as in any of its archives.

use super::super::attempt::Attempt;
use super::super::copy::blocking;
use super::super::error::said;
use super::super::govern::Work;
use super::super::{labels, sweep};
use super::{Digested, PATIENCE, layer};
use crate::private;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, HostConfig, Mount, MountType,
};
use bollard::query_parameters::{CreateContainerOptions, DownloadFromContainerOptionsBuilder};
use futures::StreamExt;
use std::fs::File;
use std::io::{BufReader, BufWriter, Error, ErrorKind, Seek, Write};
use std::path::Path;

/// Where the directory is mounted.
const PLACE: &str = "/phalanx-changes";

/// A layer of an image, in a file without a name.
pub(super) struct Layer {
    pub file: File,
    pub sha256: String,
    pub bytes: u64,
}

/// Returns the directory, if the engine tells it and saving it is worthwhile and safe.
///
/// Only fuse-overlayfs needs it. overlay2 makes layers in this way itself, and where it doesn't, the kernel keeps more in the
/// directory than files (`redirect_dir`, `metacopy`).
pub(super) fn directory(inspected: &ContainerInspectResponse) -> Option<&str> {
    let driver = inspected.graph_driver.as_ref()?;
    let directory = driver.data.get("UpperDir").map(String::as_str);
    directory.filter(|_| driver.name == "fuse-overlayfs")
}

/// Returns the layer, or `None` if the container changed nothing. An error of the kind `FileTooLarge` says that it is larger
/// than `max`.
pub(super) async fn read(
    attempt: &Attempt,
    directory: &str,
    base: &str,
    into: &Path,
    max: u64,
) -> Result<Option<Layer>, Error> {
    let engine = &attempt.shared.engine;
    let failed = |error: bollard::errors::Error| Error::other(said(&error));
    let body = ContainerCreateBody {
        image: Some(base.to_owned()),
        labels: Some(attempt.labels.clone()),
        entrypoint: Some(vec!["/phalanx-never-runs".to_owned()]),
        host_config: Some(HostConfig {
            mounts: Some(vec![Mount {
                typ: Some(MountType::BIND),
                source: Some(directory.to_owned()),
                target: Some(PLACE.to_owned()),
                read_only: Some(true),
                ..Mount::default()
            }]),
            network_mode: Some("none".to_owned()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptions {
        name: Some(labels::object(&attempt.scope.token, "snapshot-save")),
        platform: String::new(),
    };
    let turn = attempt.shared.governor.turn(Work::Create).await;
    let created = engine.docker.create_container(Some(options), body).await;
    drop(turn);
    let created = created.map_err(failed)?.id;
    let archive = receive(attempt, &created, into, max).await;
    // What mounts the image declares are volumes of this container.
    let removed = sweep::remove_container(&attempt.shared, &created).await;
    let (archive, layer) = (archive?, unnamed(into)?);
    removed.map_err(failed)?;
    blocking(move || of_archive(archive, layer, max)).await
}

async fn receive(attempt: &Attempt, container: &str, into: &Path, max: u64) -> Result<File, Error> {
    let mut file = unnamed(into)?;
    // With the dot, names in the archive are relative to the directory.
    let options = DownloadFromContainerOptionsBuilder::default()
        .path(&format!("{PLACE}/."))
        .build();
    let docker = attempt.shared.engine.patient(PATIENCE);
    let mut stream = std::pin::pin!(docker.download_from_container(container, Some(options)));
    let mut left = max;
    while let Some(part) = stream.next().await {
        let part = part.map_err(|error| Error::other(said(&error)))?;
        left = left
            .checked_sub(part.len() as u64)
            .ok_or(ErrorKind::FileTooLarge)?;
        // A write of one part goes to the page cache and takes microseconds.
        file.write_all(&part)?;
    }
    Ok(file)
}

fn of_archive(mut archive: File, layer: File, max: u64) -> Result<Option<Layer>, Error> {
    archive.rewind()?;
    let mut digested = Digested::over(layer, max);
    let any = layer::write(BufReader::new(archive), BufWriter::new(&mut digested))?;
    if !any {
        return Ok(None);
    }
    let (mut file, sha256, bytes) = digested.finish();
    file.rewind()?;
    Ok(Some(Layer {
        file,
        sha256,
        bytes,
    }))
}

/// Creates a file that vanishes when its handle is closed.
fn unnamed(directory: &Path) -> Result<File, Error> {
    let path = directory.join(format!("{}.part", uuid::Uuid::new_v4().simple()));
    let mut options = private::file();
    let options = options.read(true).write(true).create_new(true);
    let file = options.open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bollard::models::DriverData;
    use std::collections::HashMap;

    #[test]
    fn only_fuse_overlayfs_has_its_directory_read() {
        let of = |name: &str, data: &[(&str, &str)]| {
            let data = data.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            let inspected = ContainerInspectResponse {
                graph_driver: Some(DriverData {
                    name: name.to_owned(),
                    data: data.collect::<HashMap<_, _>>(),
                }),
                ..ContainerInspectResponse::default()
            };
            directory(&inspected).map(str::to_owned)
        };
        let upper = [("UpperDir", "/d/diff"), ("MergedDir", "/d/merged")];
        assert_eq!(of("fuse-overlayfs", &upper), Some("/d/diff".to_owned()));
        assert_eq!(of("overlay2", &upper), None);
        assert_eq!(of("fuse-overlayfs", &[]), None);
    }
}
