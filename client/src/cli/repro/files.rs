//! Finds the workspace of an earlier run: in the run's own directory, or as files with the same content.

use super::{CliError, Context, Original};
use crate::config::place::STATE_DIR;
use crate::local;
use crate::spec_file;
use crate::workspace::{self, Packed};
use std::path::{Path, PathBuf};

/// Where the workspace comes from.
pub(super) enum Workspace {
    /// The spec has none.
    None,
    /// The run's own copy is still here.
    Kept {
        /// Digest of the workspace.
        digest: String,
        /// The archive.
        archive: PathBuf,
    },
    /// Files of a directory.
    Packed {
        /// Digest that the run's workspace had.
        wanted: String,
        /// The directory.
        root: PathBuf,
        /// The files as they are now.
        packed: Box<Packed>,
    },
    /// Neither is here.
    Missing {
        /// Digest that the run's workspace had.
        wanted: String,
        /// Why the files can't be taken.
        why: String,
    },
}

impl Workspace {
    /// Returns the digest of the workspace that the new run gets.
    pub(super) fn digest(&self) -> Option<&str> {
        match self {
            Workspace::None | Workspace::Missing { .. } => None,
            Workspace::Kept { digest, .. } => Some(digest),
            Workspace::Packed { packed, .. } => Some(&packed.digest),
        }
    }
}

/// Finds the workspace. A directory that the user names comes first, then the run's own copy, then the spec's directory.
pub(super) async fn find(
    original: &Original,
    directory: Option<&Path>,
    context: &Context,
) -> Result<Workspace, CliError> {
    let wanted = original.submission.workspace_digest.clone();
    if wanted.is_empty() {
        return Ok(Workspace::None);
    }
    if directory.is_none() {
        let state_dir = context.settings.get(&STATE_DIR);
        if let Some(archive) = local::workspace_of(&state_dir, &original.run, &wanted).await {
            return Ok(Workspace::Kept {
                digest: wanted,
                archive,
            });
        }
    }
    let root = match (directory, original.path()) {
        (Some(directory), _) => Ok(directory.to_owned()),
        (None, Some(path)) => spec_file::folder(&path).map_err(|_| path),
        (None, None) => Ok(PathBuf::from(".")),
    };
    let root = match root {
        Ok(root) => root,
        Err(path) => {
            let why = format!("the run's copy is gone, and so is the directory of {path}");
            return Ok(Workspace::Missing { wanted, why });
        }
    };
    let patterns = original.loaded.spec.workspace.iter();
    let include: Vec<String> = patterns.map(|pattern| pattern.text.clone()).collect();
    let at = root.clone();
    // A large workspace takes a while to read.
    let packed = tokio::task::spawn_blocking(move || workspace::pack(&at, &include)).await;
    let packed = packed
        .map_err(|error| CliError::errored(format!("reading the workspace failed: {error}")))?;
    Ok(match packed {
        Ok(packed) => Workspace::Packed {
            wanted,
            root,
            packed: Box::new(packed),
        },
        Err(error) => {
            let why = error.to_string();
            let why = why.strip_prefix("workspace: ").unwrap_or(&why).to_owned();
            Workspace::Missing { wanted, why }
        }
    })
}
