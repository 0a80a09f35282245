//! Digests the files that services mount and steps read, for the key. Blocks.
//!
//! A digest covers names, types, executable bits, link targets and contents, and neither times nor owners: two checkouts
//! of the same commit give the same digest.

use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Maximum number of bytes that one digest reads. More makes a key slower than what it saves.
const MAX_BYTES: u64 = 1 << 30;
/// Maximum number of files that one digest covers.
const MAX_FILES: u64 = 200_000;

/// Returns the digest of a file or directory; of a path where nothing is, the text `missing`.
pub fn digest(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut left = Left {
        bytes: MAX_BYTES,
        files: MAX_FILES,
    };
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok("missing".to_owned()),
        Err(error) => return Err(error),
        Ok(_) => add(path, &mut hasher, &mut left)?,
    }
    Ok(hex::encode(hasher.finalize()))
}

struct Left {
    bytes: u64,
    files: u64,
}

fn add(path: &Path, hasher: &mut Sha256, left: &mut Left) -> io::Result<()> {
    left.files = left
        .files
        .checked_sub(1)
        .ok_or_else(|| io::Error::other(format!("more than {MAX_FILES} files")))?;
    let meta = path.symlink_metadata()?;
    let kind = meta.file_type();
    if kind.is_symlink() {
        let target = fs::read_link(path)?;
        part(hasher, b"link", target.as_os_str().as_encoded_bytes());
    } else if kind.is_dir() {
        let mut names: Vec<_> = fs::read_dir(path)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<Result<_, _>>()?;
        names.sort();
        part(hasher, b"directory", names.len().to_string().as_bytes());
        for name in names {
            part(hasher, b"name", name.as_encoded_bytes());
            add(&path.join(&name), hasher, left)?;
        }
    } else if kind.is_file() {
        let executable = meta.permissions().mode() & 0o111 != 0;
        part(hasher, b"file", if executable { b"x" } else { b"-" });
        contents(path, meta.len(), hasher, left)?;
    } else {
        part(hasher, b"special", b"");
    }
    Ok(())
}

fn contents(path: &Path, length: u64, hasher: &mut Sha256, left: &mut Left) -> io::Result<()> {
    left.bytes = left
        .bytes
        .checked_sub(length)
        .ok_or_else(|| io::Error::other(format!("more than {} MiB", MAX_BYTES >> 20)))?;
    let mut of_file = Sha256::new();
    let mut file = fs::File::open(path)?.take(length);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        of_file.update(buffer.get(..read).unwrap_or_default());
    }
    part(hasher, b"contents", &of_file.finalize());
    Ok(())
}

fn part(hasher: &mut Sha256, what: &[u8], bytes: &[u8]) {
    hasher.update(what);
    hasher.update((bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_byte_name_link_and_executable_bit_counts_and_times_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("w");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join("sub/a"), "one").unwrap();
        let of = || digest(&root).unwrap();
        let first = of();
        fs::write(root.join("sub/a"), "one").unwrap();
        assert_eq!(of(), first);
        fs::write(root.join("sub/a"), "onE").unwrap();
        assert_ne!(of(), first);
        fs::write(root.join("sub/a"), "one").unwrap();
        assert_eq!(of(), first);
        fs::rename(root.join("sub/a"), root.join("sub/b")).unwrap();
        let renamed = of();
        assert_ne!(renamed, first);
        fs::set_permissions(root.join("sub/b"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_ne!(of(), renamed);
        fs::remove_file(root.join("sub/b")).unwrap();
        std::os::unix::fs::symlink("x", root.join("sub/b")).unwrap();
        let link = of();
        fs::remove_file(root.join("sub/b")).unwrap();
        std::os::unix::fs::symlink("y", root.join("sub/b")).unwrap();
        assert_ne!(of(), link);
        assert_eq!(digest(&root.join("none")).unwrap(), "missing");
    }
}
