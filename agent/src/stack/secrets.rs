//! The secrets of a Compose file: their texts are masked before the service that gets them is created.

use crate::cell::context::CellContext;
use phalanx_shared::mask::MAX_BYTES;
use phalanx_shared::spec::service::{FileSource, ServiceConfig};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Masks the texts of a service's secrets; what can't be masked is told.
pub async fn mask(context: &Arc<CellContext>, config: &ServiceConfig) -> Vec<String> {
    let mut notes = Vec::new();
    for file in config.files.iter().filter(|file| file.secret) {
        let text = match &file.source {
            FileSource::Text(text) => Some(text.clone()),
            FileSource::Path(path) => text_of(context.workspace.clone(), path.into()).await,
        };
        // What can't be read is an error of the service's creation.
        if let Some(Err(why)) = text.map(|text| context.masks.add(&text)) {
            notes.push(format!(
                "service {}: the secret {} is not masked: {why}",
                config.name, file.name
            ));
        }
    }
    notes
}

async fn text_of(workspace: Option<PathBuf>, path: PathBuf) -> Option<String> {
    let read = move || read(workspace.as_deref(), &path);
    tokio::task::spawn_blocking(read).await.ok().flatten()
}

fn read(workspace: Option<&Path>, path: &Path) -> Option<String> {
    let real = match workspace {
        Some(workspace) if path.is_relative() => {
            let root = workspace.canonicalize().ok()?;
            let real = root.join(path).canonicalize().ok()?;
            real.starts_with(&root).then_some(real)?
        }
        _ => path.canonicalize().ok()?,
    };
    if !real.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = Vec::new();
    let file = std::fs::File::open(real).ok()?;
    file.take(MAX_BYTES as u64 + 1)
        .read_to_end(&mut text)
        .ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}
