//! Secrets of a Compose file: their contents are masked before the service that receives them is created.

use crate::beneath;
use crate::context::CellContext;
use phalanx_shared::language::service::{FileSource, ServiceConfig};
use std::path::PathBuf;
use std::sync::Arc;

/// Maximum number of bytes read from a file. Masks accept less and return an error for more.
const LARGEST: u64 = 16 << 20;

/// Masks the contents of a service's secrets. Returns a note for each secret that can't be masked.
pub async fn mask(context: &Arc<CellContext>, config: &ServiceConfig) -> Vec<String> {
    let mut notes = Vec::new();
    for file in config.files.iter().filter(|file| file.secret) {
        let text = match &file.source {
            FileSource::Text(text) => Some(text.clone()),
            FileSource::Path(path) => text_of(context.workspace.clone(), path.into()).await,
        };
        // A file that can't be read fails later, when the service is created.
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
    let read = move || match &workspace {
        Some(workspace) => beneath::read(workspace, &path, LARGEST),
        None => beneath::read_absolute(&path, LARGEST),
    };
    let text = tokio::task::spawn_blocking(read).await.ok()?.ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}
