//! Secrets of a Compose file: their contents are masked before the service or build that receives them
//! begins.

use crate::context::CellContext;
use phalanx_shared::language::service::{FileSource, ServiceConfig};
use std::path::PathBuf;
use std::sync::Arc;

/// Maximum number of bytes read from a file. Masks accept less and return an error for more.
const LARGEST: u64 = 16 << 20;

/// Masks the contents of a service's secrets. Returns a note for each secret that can't be masked.
pub async fn mask(context: &Arc<CellContext>, config: &ServiceConfig) -> Vec<String> {
    let mut notes = Vec::new();
    let mounted = config.files.iter().filter(|file| file.secret);
    let mounted = mounted.map(|file| (&file.name, &file.source));
    let build = config.build.iter().flat_map(|build| &build.secrets);
    let all = mounted.chain(build.map(|secret| (&secret.id, &secret.source)));
    for (name, source) in all {
        let text = match source {
            FileSource::Text(text) => Some(text.clone()),
            FileSource::Path(path) => text_of(context, path.into()).await,
        };
        // A file that can't be read fails later, when the image is built or the service created.
        if let Some(Err(why)) = text.map(|text| context.masks.add(&text)) {
            notes.push(format!(
                "service {}: the secret {} is not masked: {why}",
                config.name, name
            ));
        }
    }
    notes
}

async fn text_of(context: &CellContext, path: PathBuf) -> Option<String> {
    let (workspace, policy) = (
        context.workspace.clone(),
        Arc::clone(context.guard.policy()),
    );
    let read = move || policy.read(workspace.as_deref(), &path, LARGEST);
    let text = tokio::task::spawn_blocking(read).await.ok()?.ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}
