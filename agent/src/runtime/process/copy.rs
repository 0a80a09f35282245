//! Copies files and directories on the host, with the rules of `docker cp`; and runs what blocks.

use crate::runtime::contract::RuntimeError;
use std::io;
use std::path::{Path, PathBuf};

/// Runs what blocks on a thread of its own. A panic in it goes on in the caller.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only when the whole runtime shuts down: nobody is there to see the result.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Copies, without blocking, for a member.
pub async fn copied(from: PathBuf, to: PathBuf, to_is_directory: bool) -> Result<(), RuntimeError> {
    let description = format!("{} to {}", from.display(), to.display());
    blocking(move || copy(&from, &to, to_is_directory))
        .await
        .map_err(|error| RuntimeError::Failed(format!("can't copy {description}: {error}")))
}

/// Copies `from` to `to`. If `to` is a directory, or ends with `/`, the copy goes into it under its own name.
/// Blocks.
pub fn copy(from: &Path, to: &Path, to_is_directory: bool) -> io::Result<()> {
    let target = match from.file_name() {
        Some(name) if to_is_directory || to.is_dir() => to.join(name),
        _ => to.to_owned(),
    };
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent)?;
    }
    copy_tree(from, &target)
}

/// Symbolic links within are copied as links, so that a link to a parent doesn't end in an endless tree.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    if !std::fs::metadata(from)?.is_dir() {
        return std::fs::copy(from, to).map(|_| ());
    }
    std::fs::create_dir_all(to)?;
    // Read before anything is written: the copy may lie within.
    let entries: Vec<std::fs::DirEntry> = std::fs::read_dir(from)?.collect::<io::Result<_>>()?;
    for entry in entries {
        let target = to.join(entry.file_name());
        if entry.path() == to {
            continue;
        }
        if entry.file_type()?.is_symlink() {
            let _ = std::fs::remove_file(&target);
            std::os::unix::fs::symlink(std::fs::read_link(entry.path())?, target)?;
        } else {
            copy_tree(&entry.path(), &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn files_and_trees_are_copied_to_a_name_or_into_a_directory() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        std::fs::create_dir_all(root.join("tree/sub")).unwrap();
        std::fs::write(root.join("tree/sub/file"), "x").unwrap();
        std::os::unix::fs::symlink("..", root.join("tree/up")).unwrap();
        copy(&root.join("tree"), &root.join("named/deep"), false).unwrap();
        copy(&root.join("tree/sub/file"), &root.join("into"), true).unwrap();
        copy(&root.join("tree"), &root.join("into"), false).unwrap();
        let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
        assert_eq!(read("named/deep/sub/file"), "x");
        assert_eq!(read("into/file"), "x");
        assert_eq!(read("into/tree/sub/file"), "x");
        assert!(copy(&root.join("absent"), &root.join("y"), false).is_err());
    }
}
