//! Saves the files of an attempt's containers and puts saved ones in place.
//!
//! **Volumes** are read and written as tar archives through the engine, so it may be on another machine and images need no
//! tools. Owners, modes, times, links and capabilities are kept. Other extended attributes aren't: the engine leaves them
//! out of its archives, as `docker commit` does.
//!
//! **A container's own files** become an image over that of its service. `docker commit` would write the container's
//! environment and command into it, which may contain secrets (I4). So the engine is given a second image with the same
//! layers and the configuration of the service's image, and the committed one is removed. The engine has all layers, so
//! nothing but that configuration is sent.
//!
//! With fuse-overlayfs `docker commit` compares all files of the image with all of the container, one request to a FUSE
//! process after the other, and takes minutes for an image of many files. So the layer is made of the directory in which
//! the driver keeps what the container changed ([`upper`]).

mod layer;
mod upper;

use super::attempt::Attempt;
use super::error::{runtime_of, said, status};
use super::govern::Work;
use super::labels::{self, Labels};
use super::lock::lock;
use super::member::Container;
use super::restored::{Restored, same};
use super::sweep;
use crate::private;
use crate::runtime::contract::{
    Fault, RuntimeError, SaveOrder, Saved, SavedImage, SavedService, SavedVolume,
};
use bollard::errors::Error;
use bollard::models::{
    ContainerConfig, ContainerCreateBody, ContainerInspectResponse, HostConfig, ImageInspect,
    Mount, MountType, MountVolumeOptions, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CommitContainerOptions, CreateContainerOptions, DownloadFromContainerOptionsBuilder,
    ImportImageOptionsBuilder, RemoveImageOptionsBuilder, RemoveVolumeOptionsBuilder,
    UploadToContainerOptionsBuilder,
};
use futures::StreamExt;
use phalanx_shared::language::service::MountKind;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Cursor, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{self, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio_util::io::ReaderStream;
use upper::Layer;

/// Repository of saved images.
const REPOSITORY: &str = "phalanx-snapshot";
/// Time limit for one archive or image beyond the usual one of a request.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Bytes of a file that are read at once.
const CHUNK: usize = 1 << 20;

/// Saves the files of the services.
pub(super) async fn save(attempt: &Attempt, order: SaveOrder) -> Result<Saved, RuntimeError> {
    let mut saved = Saved::default();
    let mut seen = HashSet::new();
    let mut left = order.max_bytes;
    for name in &order.services {
        let container = attempt.member(name).ok_or_else(|| {
            RuntimeError::of(name, Fault::State, "it can't be saved: it has no container")
        })?;
        let engine = &attempt.shared.engine;
        let inspected = engine.inspect(&container.id).await;
        let inspected = inspected.map_err(|error| runtime_of(name, "look at it", &error))?;
        for mount in inspected.mounts.clone().unwrap_or_default() {
            let target = mount.destination.unwrap_or_default();
            let volume = mount.name.unwrap_or_default();
            if mount.typ.as_deref() != Some("volume") || !seen.insert(volume) {
                continue;
            }
            let file = format!("{}.tar", saved.volumes.len());
            let path = order.directory.join(&file);
            let (sha256, bytes) = read_volume(&container, &target, &path, left).await?;
            left = left.saturating_sub(bytes);
            saved.volumes.push(SavedVolume {
                service: name.clone(),
                name: volume_name(&container, &target),
                target,
                file,
                sha256,
                bytes,
            });
        }
        let base = inspected.image.clone().unwrap_or_default();
        let image = match read_layer(attempt, name, &inspected, &order, left).await? {
            Some(None) => None,
            Some(Some(layer)) => Some(made_of(attempt, name, layer, &base, &order).await?),
            None => commit(attempt, &container, &base, &order).await?,
        };
        let bytes = image.as_ref().map_or(0, |image| image.bytes);
        if bytes > left {
            return Err(too_large(name, order.max_bytes));
        }
        left -= bytes;
        saved.services.push(SavedService {
            name: name.clone(),
            base,
            image,
        });
    }
    Ok(saved)
}

fn too_large(service: &str, max: u64) -> RuntimeError {
    let why = format!(
        "its files and those before it take more than {} MiB (`max-size`, or what the agent keeps of all snapshots)",
        max >> 20
    );
    RuntimeError::of(service, Fault::Machine, why)
}

fn volume_name(container: &Container, target: &str) -> Option<String> {
    let mounts = container.config.volumes.iter();
    mounts
        .filter(|mount| same(&mount.target, target))
        .find_map(|mount| match &mount.kind {
            MountKind::Named(name) => Some(name.clone()),
            _ => None,
        })
}

/// Writes a volume's archive to a file. Returns its digest and size.
async fn read_volume(
    container: &Container,
    target: &str,
    path: &Path,
    max: u64,
) -> Result<(String, u64), RuntimeError> {
    let service = &container.config.name;
    let doing = format!("save {target}");
    let wrong = |error: std::io::Error| match error.kind() {
        ErrorKind::FileTooLarge => too_large(service, max),
        _ => RuntimeError::of(service, Fault::Machine, format!("{doing}: {error}")),
    };
    let mut file = Digested::create(path, max).map_err(wrong)?;
    let options = DownloadFromContainerOptionsBuilder::default()
        .path(target)
        .build();
    let docker = container.shared.engine.patient(PATIENCE);
    let mut stream = std::pin::pin!(docker.download_from_container(&container.id, Some(options)));
    while let Some(part) = stream.next().await {
        let bytes = part.map_err(|error| runtime_of(service, &doing, &error))?;
        // A write of one part goes to the page cache and takes microseconds.
        file.write_all(&bytes).map_err(wrong)?;
    }
    let (_, digest, size) = file.finish();
    Ok((digest, size))
}

/// Writes a file and digests it at once. An error of the kind `FileTooLarge` says that there would be too many bytes.
struct Digested {
    file: File,
    digest: Sha256,
    bytes: u64,
    max: u64,
}

impl Digested {
    /// Creates a file that others can't read, of at most `max` bytes.
    fn create(path: &Path, max: u64) -> std::io::Result<Digested> {
        let file = private::file().create_new(true).write(true).open(path)?;
        Ok(Digested::over(file, max))
    }

    fn over(file: File, max: u64) -> Digested {
        Digested {
            file,
            digest: Sha256::new(),
            bytes: 0,
            max,
        }
    }

    /// Returns the file, the digest and the size.
    fn finish(self) -> (File, String, u64) {
        let digest = hex::encode(self.digest.finalize());
        (self.file, digest, self.bytes)
    }
}

impl Write for Digested {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.bytes += written as u64;
        if self.bytes > self.max {
            return Err(ErrorKind::FileTooLarge.into());
        }
        self.digest.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// Reads what a container changed as a layer, if its storage driver tells where it keeps it. `Some(None)` says that it
/// changed nothing.
async fn read_layer(
    attempt: &Attempt,
    service: &str,
    inspected: &ContainerInspectResponse,
    order: &SaveOrder,
    max: u64,
) -> Result<Option<Option<Layer>>, RuntimeError> {
    let Some(directory) = upper::directory(inspected) else {
        return Ok(None);
    };
    let base = inspected.image.as_deref().unwrap_or_default();
    match upper::read(attempt, directory, base, &order.directory, max).await {
        Ok(layer) => Ok(Some(layer)),
        Err(error) if error.kind() == ErrorKind::FileTooLarge => {
            Err(too_large(service, order.max_bytes))
        }
        Err(error) => {
            tracing::warn!(service, %error, "what its container changed can't be read directly; saving it takes longer");
            Ok(None)
        }
    }
}

/// Makes an image of a layer.
async fn made_of(
    attempt: &Attempt,
    service: &str,
    layer: Layer,
    base: &str,
    order: &SaveOrder,
) -> Result<SavedImage, RuntimeError> {
    let base = inspect(attempt, service, base).await?;
    let mut layers = layers_of(&base);
    layers.push(format!("sha256:{}", layer.sha256));
    make(attempt, service, &base, layers, Some(layer), order).await
}

/// Makes an image of what a container changed outside of its mounts, by the engine's own way.
async fn commit(
    attempt: &Attempt,
    container: &Container,
    base: &str,
    order: &SaveOrder,
) -> Result<Option<SavedImage>, RuntimeError> {
    let service = &container.config.name;
    let engine = &attempt.shared.engine;
    let failed = |doing: &str, error: &Error| runtime_of(service, doing, error);
    // A storage driver without layers of its own compares all files of the image, as it does to save them.
    let docker = engine.patient(PATIENCE);
    let changes = engine
        .ask(|| docker.container_changes(&container.id))
        .await
        .map_err(|error| failed("look at its changes", &error))?;
    if changes.unwrap_or_default().is_empty() {
        return Ok(None);
    }
    let committed = docker
        .commit_container(
            CommitContainerOptions {
                container: Some(container.id.clone()),
                pause: false,
                // If this agent is killed now, the next one knows by this that it may be removed.
                changes: Some(format!(
                    "LABEL {}={}.{}",
                    labels::SNAPSHOT_HALF,
                    order.store,
                    order.key
                )),
                ..CommitContainerOptions::default()
            },
            ContainerConfig::default(),
        )
        .await
        .map_err(|error| failed("save its container", &error))?;
    let made = clean(attempt, service, &committed.id, base, order).await;
    let options = RemoveImageOptionsBuilder::default().force(true).build();
    let removed = engine
        .ask(|| {
            engine
                .docker
                .remove_image(&committed.id, Some(options.clone()), None)
        })
        .await;
    let made = made?;
    match removed {
        Err(error) if status(&error) != Some(404) => {
            remove(engine, &made.id).await;
            Err(failed(
                "remove what its container was saved to at first",
                &error,
            ))
        }
        _ => Ok(Some(made)),
    }
}

async fn remove(engine: &super::client::Engine, image: &str) {
    let options = RemoveImageOptionsBuilder::default().force(true).build();
    let removed = engine
        .ask(|| {
            engine
                .docker
                .remove_image(image, Some(options.clone()), None)
        })
        .await;
    if let Err(error) = removed {
        tracing::debug!(image, error = %said(&error), "not removed");
    }
}

async fn inspect(attempt: &Attempt, service: &str, id: &str) -> Result<ImageInspect, RuntimeError> {
    let engine = &attempt.shared.engine;
    let found = engine.ask(|| engine.docker.inspect_image(id)).await;
    found.map_err(|error| runtime_of(service, "look at its image", &error))
}

fn layers_of(image: &ImageInspect) -> Vec<String> {
    let layers = image.root_fs.as_ref().and_then(|root| root.layers.clone());
    layers.unwrap_or_default()
}

/// Makes an image with the layers of a committed one and the configuration of the service's own image.
async fn clean(
    attempt: &Attempt,
    service: &str,
    committed: &str,
    base: &str,
    order: &SaveOrder,
) -> Result<SavedImage, RuntimeError> {
    let top = inspect(attempt, service, committed).await?;
    let base = inspect(attempt, service, base).await?;
    let layers = layers_of(&top);
    if layers.is_empty() {
        let why = "the engine doesn't tell the layers of its image";
        return Err(RuntimeError::of(service, Fault::Engine, why));
    }
    make(attempt, service, &base, layers, None, order).await
}

/// Makes an image of layers that the engine has, but for the last one if it is given, and of the configuration of the
/// service's own image.
async fn make(
    attempt: &Attempt,
    service: &str,
    base: &ImageInspect,
    layers: Vec<String>,
    last: Option<Layer>,
    order: &SaveOrder,
) -> Result<SavedImage, RuntimeError> {
    let engine = &attempt.shared.engine;
    let tag = format!("{REPOSITORY}:{}-{}", short(&order.key), tag_of(service));
    let of_snapshot = [
        (labels::SNAPSHOT, order.key.as_str()),
        (labels::SNAPSHOT_STORE, order.store.as_str()),
        (labels::SNAPSHOT_SERVICE, service),
    ];
    let last_file = layer_file(layers.len().saturating_sub(1));
    let (mut archive, id) = image_archive(&layers, base, &tag, &of_snapshot)
        .map_err(|why| RuntimeError::of(service, Fault::Engine, why))?;
    let body = match last {
        None => {
            archive.extend(END);
            bollard::body_full(archive.into())
        }
        Some(layer) => {
            archive.extend(member(&last_file, layer.bytes).as_bytes());
            let mut end = vec![0; padding(layer.bytes)];
            end.extend(END);
            let file = tokio::fs::File::from_std(layer.file);
            let whole = Cursor::new(archive).chain(file).chain(Cursor::new(end));
            bollard::body_try_stream(ReaderStream::with_capacity(whole, CHUNK))
        }
    };
    let docker = engine.patient(PATIENCE);
    let options = ImportImageOptionsBuilder::default().quiet(true).build();
    let mut loading = std::pin::pin!(docker.import_image(options, body, None));
    while let Some(part) = loading.next().await {
        part.map_err(|error| runtime_of(service, "save its container", &error))?;
    }
    // The engine's answer to the load has words only; the image itself is the proof.
    let made = inspect(attempt, service, &id).await.map_err(|error| {
        let why = format!("this engine takes no image by its layers, so a container that changed its own files can't be saved without its environment: {error}");
        RuntimeError::of(service, Fault::Unsupported, why)
    })?;
    let added = made.size.unwrap_or(0) - base.size.unwrap_or(0);
    Ok(SavedImage {
        id,
        bytes: u64::try_from(added).unwrap_or(0),
    })
}

/// Two empty blocks, which end an archive.
const END: [u8; 1024] = [0; 1024];

/// Returns the beginning of an archive for `docker load` that holds a configuration, and the id of the image that it makes.
/// Layers that the engine doesn't have come after it.
fn image_archive(
    layers: &[String],
    base: &ImageInspect,
    tag: &str,
    of_snapshot: &[(&str, &str)],
) -> Result<(Vec<u8>, String), String> {
    let unreadable =
        |error: &dyn std::fmt::Display| format!("its image can't be described: {error}");
    let config = base.config.clone().unwrap_or_default();
    let mut config = serde_json::to_value(config).map_err(|error| unreadable(&error))?;
    let mut all: Labels = base
        .config
        .as_ref()
        .and_then(|config| config.labels.clone())
        .unwrap_or_default();
    for (name, value) in of_snapshot {
        all.insert((*name).to_owned(), (*value).to_owned());
    }
    if let Some(fields) = config.as_object_mut() {
        fields.insert("Labels".to_owned(), json!(all));
    }
    let created = "1970-01-01T00:00:00Z";
    let history = json!({ "created": created, "created_by": "phalanx snapshot" });
    let described = json!({
        "architecture": base.architecture,
        "os": base.os,
        "variant": base.variant,
        "created": created,
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": layers },
        "history": vec![history; layers.len()],
    });
    let described = serde_json::to_vec(&described).map_err(|error| unreadable(&error))?;
    let digest = hex::encode(Sha256::digest(&described));
    // The engine doesn't open the files of layers that it has.
    let files: Vec<String> = (0..layers.len()).map(layer_file).collect();
    let manifest = json!([{
        "Config": format!("{digest}.json"),
        "RepoTags": [tag],
        "Layers": files,
    }]);
    let manifest = serde_json::to_vec(&manifest).map_err(|error| unreadable(&error))?;
    let mut archive = Vec::new();
    for (name, bytes) in [
        (format!("{digest}.json"), described),
        ("manifest.json".to_owned(), manifest),
    ] {
        let size = bytes.len() as u64;
        archive.extend(member(&name, size).as_bytes());
        archive.extend(bytes);
        archive.extend(vec![0; padding(size)]);
    }
    Ok((archive, format!("sha256:{digest}")))
}

fn layer_file(n: usize) -> String {
    format!("{n}/layer.tar")
}

/// Returns the header of a file in an archive. The name is short.
fn member(name: &str, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    let field = &mut header.as_old_mut().name;
    field
        .iter_mut()
        .zip(name.bytes())
        .for_each(|(to, byte)| *to = byte);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header
}

/// Returns how many bytes follow a content in an archive.
fn padding(size: u64) -> usize {
    // Less than a block.
    ((512 - size % 512) % 512) as usize
}

fn short(key: &str) -> &str {
    key.get(..12).unwrap_or(key)
}

/// Returns a service's name as a part of a tag.
fn tag_of(service: &str) -> String {
    let safe = |c: char| match c {
        c if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-') => c,
        _ => '_',
    };
    service.chars().map(safe).take(80).collect()
}

/// Puts saved files in place.
pub(super) async fn restore(
    attempt: Arc<Attempt>,
    saved: Saved,
    from: PathBuf,
) -> Result<(), RuntimeError> {
    let engine = &attempt.shared.engine;
    for service in &saved.services {
        let Some(image) = &service.image else {
            continue;
        };
        let found = engine.ask(|| engine.docker.inspect_image(&image.id)).await;
        found.map_err(|error| runtime_of(&service.name, "look at its saved image", &error))?;
    }
    let mut names = Vec::new();
    for (n, volume) in saved.volumes.iter().enumerate() {
        let name = match &volume.name {
            Some(name) => name.clone(),
            None => format!("snapshot-{n}"),
        };
        let name = labels::object(&attempt.scope.token, &name);
        let request = || VolumeCreateRequest {
            name: Some(name.clone()),
            labels: Some(attempt.labels.clone()),
            ..VolumeCreateRequest::default()
        };
        let made = engine.ask(|| engine.docker.create_volume(request())).await;
        made.map_err(|error| runtime_of(&volume.service, "restore its volume", &error))?;
        names.push(name);
    }
    fill(&attempt, &saved, &names, &from).await?;
    let mut restored: HashMap<String, Restored> = HashMap::new();
    for service in &saved.services {
        let mut of = Restored {
            image: service.image.as_ref().map(|image| image.id.clone()),
            base: Some(service.base.clone()),
            volumes: Vec::new(),
        };
        for (volume, name) in saved.volumes.iter().zip(&names) {
            // Volumes with a name are found by it: other services of the snapshot may mount them elsewhere.
            if volume.service == service.name {
                of.volumes.push((volume.target.clone(), name.clone()));
            }
        }
        restored.insert(service.name.clone(), of);
    }
    lock(&attempt.restored).extend(restored);
    Ok(())
}

/// Fills volumes through a container that never runs.
async fn fill(
    attempt: &Attempt,
    saved: &Saved,
    names: &[String],
    from: &Path,
) -> Result<(), RuntimeError> {
    let Some(first) = saved.volumes.first() else {
        return Ok(());
    };
    let base = saved.services.iter().find(|one| one.name == first.service);
    let image = base.map(|service| service.base.clone()).unwrap_or_default();
    let mounts = saved.volumes.iter().zip(names).enumerate();
    let mounts = mounts.map(|(n, (volume, name))| Mount {
        typ: Some(MountType::VOLUME),
        source: Some(name.clone()),
        target: Some(format!("{}/{}", place(n), last_part(&volume.target))),
        volume_options: Some(MountVolumeOptions {
            no_copy: Some(true),
            labels: Some(attempt.labels.clone()),
            ..MountVolumeOptions::default()
        }),
        ..Mount::default()
    });
    let body = ContainerCreateBody {
        image: Some(image),
        labels: Some(attempt.labels.clone()),
        entrypoint: Some(vec!["/phalanx-never-runs".to_owned()]),
        host_config: Some(HostConfig {
            mounts: Some(mounts.collect()),
            network_mode: Some("none".to_owned()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let name = labels::object(&attempt.scope.token, "snapshot-restore");
    let engine = &attempt.shared.engine;
    let what = |error: &Error| runtime_of(&first.service, "restore its volume", error);
    let turn = attempt.shared.governor.turn(Work::Create).await;
    let options = CreateContainerOptions {
        name: Some(name.clone()),
        platform: String::new(),
    };
    let created = engine
        .docker
        .create_container(Some(options), body)
        .await
        .map_err(|error| what(&error));
    drop(turn);
    let created = created?.id;
    let mut filled = Ok(());
    for (n, volume) in saved.volumes.iter().enumerate() {
        filled = write_volume(
            attempt,
            &created,
            &place(n),
            volume,
            &from.join(&volume.file),
        )
        .await;
        if filled.is_err() {
            break;
        }
    }
    // Its anonymous volumes are those that the image declares.
    let removed = sweep::remove_container(&attempt.shared, &created).await;
    filled?;
    removed.map_err(|error| what(&error))
}

fn place(n: usize) -> String {
    format!("/phalanx-volume-{n}")
}

/// Returns the name under which the engine puts a path into an archive.
fn last_part(target: &str) -> &str {
    let target = target.trim_end_matches('/');
    target.rsplit('/').next().unwrap_or(target)
}

/// Writes a volume's archive, and compares its digest.
async fn write_volume(
    attempt: &Attempt,
    container: &str,
    to: &str,
    volume: &SavedVolume,
    file: &Path,
) -> Result<(), RuntimeError> {
    let service = &volume.service;
    let doing = format!("restore {}", volume.target);
    let unreadable = |why: String| {
        let why = format!("{doing}: {}: {why}", file.display());
        RuntimeError::of(service, Fault::Machine, why)
    };
    let opened = tokio::fs::File::open(file).await;
    let digest = Arc::new(Mutex::new(Sha256::new()));
    let source = Hashing {
        file: opened.map_err(|error| unreadable(error.to_string()))?,
        digest: Arc::clone(&digest),
    };
    let body = bollard::body_try_stream(ReaderStream::with_capacity(source, CHUNK));
    let options = UploadToContainerOptionsBuilder::default().path(to).build();
    let docker = attempt.shared.engine.patient(PATIENCE);
    docker
        .upload_to_container(container, Some(options), body)
        .await
        .map_err(|error| runtime_of(service, &doing, &error))?;
    let found = hex::encode(lock(&digest).clone().finalize());
    match found == volume.sha256 {
        true => Ok(()),
        false => Err(unreadable("it isn't what was saved".to_owned())),
    }
}

/// Digests a file while it is read.
struct Hashing {
    file: tokio::fs::File,
    digest: Arc<Mutex<Sha256>>,
}

impl AsyncRead for Hashing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.file).poll_read(cx, buffer);
        let read = buffer.filled().get(before..).unwrap_or_default();
        lock(&self.digest).update(read);
        polled
    }
}

/// Removes the containers and the restored volumes of services.
pub(super) async fn discard(attempt: &Attempt, services: &[String]) -> Result<(), RuntimeError> {
    let doomed: Vec<Arc<Container>> = {
        let mut members = lock(&attempt.members);
        let (doomed, kept) = members
            .drain(..)
            .partition(|member| services.contains(&member.config.name));
        *members = kept;
        doomed
    };
    let engine = &attempt.shared.engine;
    for container in doomed {
        let name = container.config.name.clone();
        let removed = sweep::remove_container(&attempt.shared, &container.id).await;
        removed.map_err(|error| runtime_of(&name, "remove its restored container", &error))?;
        container.settle(Duration::from_secs(10)).await;
    }
    let restored: Vec<Restored> = {
        let mut all = lock(&attempt.restored);
        services
            .iter()
            .filter_map(|name| all.remove(name))
            .collect()
    };
    for (_, volume) in restored.into_iter().flat_map(|one| one.volumes) {
        let force = RemoveVolumeOptionsBuilder::default().force(true).build();
        let removed = engine
            .ask(|| engine.docker.remove_volume(&volume, Some(force.clone())))
            .await;
        match removed {
            Err(error) if status(&error) != Some(404) => {
                let what = "removing a restored volume";
                return Err(super::error::runtime(what, &error));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bollard::models::ImageConfig;
    use std::io::Read;

    #[test]
    fn a_saved_image_has_the_layers_of_the_container_and_the_configuration_of_its_image() {
        let layers = ["sha256:a", "sha256:b"].map(str::to_owned);
        let base = ImageInspect {
            os: Some("linux".to_owned()),
            config: Some(ImageConfig {
                env: Some(vec!["PATH=/bin".to_owned()]),
                labels: Some(HashMap::from([("of".to_owned(), "image".to_owned())])),
                ..ImageConfig::default()
            }),
            ..ImageInspect::default()
        };
        let (archive, id) =
            image_archive(&layers, &base, "x:y", &[("phalanx.snapshot", "k")]).unwrap();
        let mut texts = Vec::new();
        for entry in tar::Archive::new(archive.as_slice()).entries().unwrap() {
            let mut text = String::new();
            entry.unwrap().read_to_string(&mut text).unwrap();
            texts.push(text);
        }
        let config: serde_json::Value = serde_json::from_str(&texts[0]).unwrap();
        assert_eq!(
            config["rootfs"]["diff_ids"],
            json!(["sha256:a", "sha256:b"])
        );
        assert_eq!(config["config"]["Env"], json!(["PATH=/bin"]));
        assert_eq!(
            config["config"]["Labels"],
            json!({ "of": "image", "phalanx.snapshot": "k" })
        );
        assert_eq!(
            id,
            format!("sha256:{}", hex::encode(Sha256::digest(&texts[0])))
        );
        assert!(texts[1].contains("x:y"));
    }

    #[test]
    fn an_archive_s_name_of_a_path_is_its_last_part() {
        assert_eq!((last_part("/a/b/"), last_part("/a")), ("b", "a"));
    }
}
