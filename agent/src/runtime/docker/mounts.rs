//! Resolves a service's mounts and variable files, and keeps paths of the workspace inside it.
//!
//! Accesses the agent's file system, not the engine.

use super::convert::{PlacedMount, Source};
use super::labels;
use crate::beneath::{self, Root};
use crate::policy::Policy;
use crate::runtime::contract::{AttemptScope, Fault, RuntimeError};
use phalanx_shared::language::service::{FileSource, Mount, MountKind, ServiceConfig};
use phalanx_shared::policy::Refusal;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};

/// Returns the service's mounts with resolved sources.
pub(super) fn place(
    service: &str,
    mounts: &[Mount],
    scope: &AttemptScope,
) -> Result<Vec<PlacedMount>, RuntimeError> {
    mounts
        .iter()
        .map(|mount| {
            Ok(PlacedMount {
                source: source(service, mount, scope)?,
                target: mount.target.clone(),
                read_only: mount.read_only,
                propagation: mount.propagation,
            })
        })
        .collect()
}

fn source(service: &str, mount: &Mount, scope: &AttemptScope) -> Result<Source, RuntimeError> {
    Ok(match &mount.kind {
        MountKind::Bind(path) => Source::Path(
            found_or_made(path, scope.workspace.as_deref(), &scope.policy)
                .map_err(|why| why.of(service, &format!("mount of {path}")))?,
        ),
        MountKind::Named(name) => Source::Volume {
            name: Some(labels::object(&scope.token, name)),
            no_copy: mount.no_copy,
            subpath: mount.subpath.clone(),
        },
        MountKind::Anonymous => Source::Volume {
            name: None,
            no_copy: mount.no_copy,
            subpath: mount.subpath.clone(),
        },
        MountKind::Tmpfs => Source::Memory {
            size: mount.tmpfs_size,
            mode: mount.tmpfs_mode,
        },
    })
}

/// Reason why a path can't be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Misplaced {
    /// The path doesn't exist.
    #[error("{0}")]
    Missing(String),
    /// The path leads out of the workspace.
    #[error("{0}")]
    Outside(String),
    /// The agent's policy refuses the path.
    #[error("{0}; {help}", help = .0.help())]
    Refused(Refusal),
    /// The path leads to something else than when the container was created.
    #[error("the mount of {written}: what stands there was replaced while the cell ran: {why}")]
    Replaced {
        /// The path in the spec.
        written: String,
        /// What shows it.
        why: String,
    },
}

impl Misplaced {
    /// Returns it as the error of a service.
    pub fn of(&self, service: &str, what: &str) -> RuntimeError {
        let fault = match self {
            Misplaced::Refused(_) => Fault::Policy,
            Misplaced::Missing(_) | Misplaced::Outside(_) | Misplaced::Replaced { .. } => {
                Fault::Definition
            }
        };
        RuntimeError::of(service, fault, format!("{what}: {self}"))
    }
}

/// Returns the real path of a mount's source. What is missing in the workspace becomes an empty directory, as in
/// Compose: a database's files, say. The workspace is the attempt's own copy, so no other cell sees it.
fn found_or_made(
    path: &str,
    workspace: Option<&Path>,
    policy: &Policy,
) -> Result<PathBuf, Misplaced> {
    let found = in_workspace(path, workspace, policy);
    let (Err(Misplaced::Missing(_)), Some(workspace)) = (&found, workspace) else {
        return found;
    };
    let relative = Path::new(path).is_relative();
    let made =
        relative && Root::open(workspace).is_ok_and(|root| root.make(Path::new(path)).is_ok());
    match made {
        true => in_workspace(path, Some(workspace), policy),
        false => found,
    }
}

/// Returns the real path of `path`: an absolute path that the policy allows, or a relative one in the workspace and
/// nowhere else.
pub(super) fn in_workspace(
    path: &str,
    workspace: Option<&Path>,
    policy: &Policy,
) -> Result<PathBuf, Misplaced> {
    let written = Path::new(path);
    if written.is_absolute() {
        // As written first, so that nobody learns what exists where.
        policy.place(path).map_err(Misplaced::Refused)?;
        let real = written
            .canonicalize()
            .map_err(|error| Misplaced::Missing(format!("{error} on the agent's host")))?;
        policy
            .place(&real.to_string_lossy())
            .map_err(Misplaced::Refused)?;
        return Ok(real);
    }
    if leaves(written) {
        return Err(Misplaced::Outside(
            "it leaves the workspace by `..`".to_owned(),
        ));
    }
    let workspace = workspace.ok_or_else(|| {
        Misplaced::Missing("there is no workspace: submit one (`workspace.include`) or write an absolute path of the agent's host".to_owned())
    })?;
    let root = workspace.canonicalize().map_err(|error| {
        Misplaced::Missing(format!("workspace {}: {error}", workspace.display()))
    })?;
    let real = root.join(written).canonicalize().map_err(|error| {
        Misplaced::Missing(format!(
            "{error} in the workspace; does `workspace.include` name it?"
        ))
    })?;
    if !real.starts_with(&root) {
        return Err(Misplaced::Outside(format!(
            "it leaves the workspace by a link (to {}); write the absolute path if that is meant",
            real.display()
        )));
    }
    Ok(real)
}

/// Source of a mount in the workspace.
///
/// The engine takes a path and resolves it again at each start, and containers that have the workspace mounted may
/// meanwhile replace it with a link. So the path is checked before and after each start. (A new file of that name is
/// fine: a step may have written a new configuration.)
#[derive(Debug)]
pub(super) struct Pin {
    written: String,
    workspace: PathBuf,
    real: PathBuf,
}

impl Pin {
    fn new(written: &str, workspace: &Path, real: &Path) -> Pin {
        Pin {
            written: written.to_owned(),
            workspace: workspace.to_owned(),
            real: real.to_owned(),
        }
    }

    /// Checks that the path given to the engine still leads to the same path, through no link. Blocks, for
    /// microseconds.
    pub fn holds(&self) -> Result<(), Misplaced> {
        let replaced = |why: String| Misplaced::Replaced {
            written: self.written.clone(),
            why,
        };
        let looked_up = self.workspace.canonicalize().and_then(|root| {
            let below = self
                .real
                .strip_prefix(&root)
                .map_err(std::io::Error::other)?;
            let now = Root::open(&root)?.find(below)?;
            beneath::real_path(now.as_fd())
        });
        match looked_up {
            Ok(real) if real == self.real => Ok(()),
            Ok(real) => Err(replaced(format!("it leads to {} now", real.display()))),
            Err(error) => Err(replaced(error.to_string())),
        }
    }
}

/// Pins the sources that are in the workspace: of mounts, and of files that are mounted as they are.
pub(super) fn pins(
    config: &ServiceConfig,
    (mounts, files): (&[PlacedMount], &[PlacedMount]),
    scope: &AttemptScope,
) -> Vec<Pin> {
    let of_mounts = config.volumes.iter().map(|mount| match &mount.kind {
        MountKind::Bind(written) => Some(written),
        _ => None,
    });
    let of_files = config.files.iter().map(|file| match &file.source {
        FileSource::Path(written) => Some(written),
        FileSource::Text(_) => None,
    });
    let all = of_mounts.zip(mounts).chain(of_files.zip(files));
    all.filter_map(|(written, placed)| pin(written?, placed, scope.workspace.as_deref()?))
        .collect()
}

/// Pins a source, unless it is a path of the host or a copy that belongs to the attempt.
fn pin(written: &str, placed: &PlacedMount, workspace: &Path) -> Option<Pin> {
    let Source::Path(real) = &placed.source else {
        return None;
    };
    let inside = real.starts_with(workspace.canonicalize().ok()?);
    let pinned = inside && Path::new(written).is_relative();
    pinned.then(|| Pin::new(written, workspace, real))
}

/// Returns whether a relative path climbs above its start.
fn leaves(path: &Path) -> bool {
    let mut depth = 0i64;
    path.components().any(|component| {
        match component {
            Component::Normal(_) => depth += 1,
            Component::ParentDir => depth -= 1,
            _ => {}
        }
        depth < 0
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_path_stays_in_the_workspace() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("work");
        std::fs::create_dir_all(root.join("conf")).unwrap();
        std::fs::write(dir.path().join("outside"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path().join("outside"), root.join("link")).unwrap();
        let at = |path: &str| in_workspace(path, Some(&root), &Policy::open());
        assert!(at("./conf").unwrap().ends_with("work/conf"));
        assert!(at("conf/../conf").unwrap().ends_with("work/conf"));
        assert!(at("../outside").unwrap_err().to_string().contains("`..`"));
        assert!(at("link").unwrap_err().to_string().contains("by a link"));
        assert!(
            matches!(at("missing"), Err(Misplaced::Missing(why)) if why.contains("workspace.include"))
        );
        let absolute = dir.path().join("outside");
        assert!(at(absolute.to_str().unwrap()).is_ok());
        let closed = in_workspace(absolute.to_str().unwrap(), Some(&root), &Policy::closed());
        assert!(matches!(closed, Err(Misplaced::Refused(_))));
    }

    #[test]
    fn a_source_that_is_missing_becomes_a_directory_within_the_workspace() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("work");
        std::fs::create_dir_all(&root).unwrap();
        let policy = Policy::open();
        let made = |path: &str| found_or_made(path, Some(&root), &policy);
        assert!(made("./data/db").unwrap().ends_with("work/data/db"));
        assert!(root.join("data/db").is_dir());
        std::os::unix::fs::symlink(dir.path().join("beyond"), root.join("link")).unwrap();
        assert!(matches!(made("link"), Err(Misplaced::Missing(_))));
        assert!(made("link/x").is_err() && made("../beyond").is_err());
        let absolute = dir.path().join("beyond");
        assert!(made(absolute.to_str().unwrap()).is_err());
        assert!(!dir.path().join("beyond").exists());
        assert!(found_or_made("./data", None, &policy).is_err());
    }

    #[test]
    fn a_source_that_became_a_link_is_noticed_and_a_new_file_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join("work");
        std::fs::create_dir_all(root.join("a/conf")).unwrap();
        let pin = Pin::new("./a/conf", &root, &root.join("a/conf"));
        pin.holds().unwrap();
        std::fs::rename(root.join("a"), root.join("b")).unwrap();
        assert!(pin.holds().is_err());
        std::os::unix::fs::symlink("b", root.join("a")).unwrap();
        // The same directory, but the engine would follow a link that a container may change.
        assert!(pin.holds().is_err());
        std::fs::remove_file(root.join("a")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("a")).unwrap();
        assert!(pin.holds().is_err());
        std::fs::remove_file(root.join("a")).unwrap();
        std::fs::rename(root.join("b"), root.join("a")).unwrap();
        pin.holds().unwrap();
    }

    #[test]
    fn without_a_workspace_a_relative_path_is_refused() {
        assert!(
            in_workspace("a", None, &Policy::open())
                .unwrap_err()
                .to_string()
                .contains("no workspace")
        );
    }
}
