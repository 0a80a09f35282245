//! Reads a spec and its includes from the file system, whatever kind of file the path names.
//!
//! Never waits for a FIFO or a device, and never reads more than the size limit of a spec.
//! [`phalanx_shared::language`] interprets the text.

use nix::fcntl::OFlag;
use phalanx_shared::diagnostic::{Diagnostic, Severity, Source, Sources};
use phalanx_shared::error_code::ErrorCode;
use phalanx_shared::language::parse::Limits;
use phalanx_shared::language::{self, Loaded};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Loads the spec at a path (`-` is standard input), with the files that it includes.
pub fn load(path: &str) -> Loaded {
    match read_main(path) {
        Ok(main) => language::load(main, &mut |path| {
            read(path).map_err(|problem| problem.to_string())
        }),
        Err(problem) => Loaded {
            spec: None,
            sources: Sources::default(),
            diagnostics: vec![unreadable(path, &problem)],
        },
    }
}

/// Returns the directory that a spec's relative paths refer to: the spec's own, or the current one for standard input.
pub fn folder(path: &str) -> std::io::Result<PathBuf> {
    let folder = match Path::new(path).parent() {
        Some(parent) if path != "-" && !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::canonicalize(folder)
}

/// Why a file can't be read as a part of a spec.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Nothing is at the path.
    #[error("there is no such file")]
    Missing,
    /// The user lacks the permission.
    #[error("you may not read it")]
    Forbidden,
    /// A directory is at the path.
    #[error("it is a directory, not a file")]
    Directory,
    /// Something else that isn't a regular file is at the path, with its name.
    #[error("it is {0}, not a file")]
    Special(&'static str),
    /// The file is larger than a spec may be, with the limit in bytes.
    #[error("it is bigger than {} MiB", .0 >> 20)]
    TooLarge(usize),
    /// The file is not text.
    #[error("it is not UTF-8: line {line} (byte {byte}) holds something else")]
    NotText {
        /// Line of the first wrong byte, from 1.
        line: usize,
        /// Offset of the first wrong byte.
        byte: usize,
    },
    /// Any other error of the file system.
    #[error(transparent)]
    Other(std::io::Error),
}

impl From<std::io::Error> for Unreadable {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Unreadable::Missing,
            ErrorKind::PermissionDenied => Unreadable::Forbidden,
            _ => Unreadable::Other(error),
        }
    }
}

fn read_main(path: &str) -> Result<Source, Unreadable> {
    if path != "-" {
        return read(path);
    }
    let text = text_of(std::io::stdin().lock())?;
    Ok(Source {
        name: "<stdin>".into(),
        text,
    })
}

/// Reads one file of a spec.
pub fn read(path: &str) -> Result<Source, Unreadable> {
    // Without O_NONBLOCK, opening a FIFO would wait for a writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    regular(&file)?;
    Ok(Source {
        name: path.to_owned(),
        text: text_of(file)?,
    })
}

fn regular(file: &File) -> Result<(), Unreadable> {
    let kind = file.metadata().map_err(Unreadable::Other)?.file_type();
    if kind.is_file() {
        return Ok(());
    }
    Err(match kind {
        kind if kind.is_dir() => Unreadable::Directory,
        kind if kind.is_fifo() => Unreadable::Special("a FIFO"),
        kind if kind.is_socket() => Unreadable::Special("a socket"),
        _ => Unreadable::Special("a device"),
    })
}

/// Returns the whole text, or an error if it isn't UTF-8 or too large.
fn text_of(reader: impl Read) -> Result<String, Unreadable> {
    let most = Limits::default().bytes;
    let mut bytes = Vec::new();
    let mut reader = reader.take(most as u64 + 1);
    reader.read_to_end(&mut bytes).map_err(Unreadable::Other)?;
    if bytes.len() > most {
        return Err(Unreadable::TooLarge(most));
    }
    String::from_utf8(bytes).map_err(|error| {
        let byte = error.utf8_error().valid_up_to();
        let before = error.as_bytes().get(..byte).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Unreadable::NotText { line, byte }
    })
}

fn unreadable(path: &str, problem: &Unreadable) -> Diagnostic {
    let help = match problem {
        Unreadable::Missing => neighbour(path).map(|name| format!("did you mean `{name}`?")),
        Unreadable::Directory => Some("name the spec in it".to_owned()),
        Unreadable::TooLarge(_) => {
            Some("split it with `include`, or put big data into files of the workspace".to_owned())
        }
        _ => None,
    };
    Diagnostic {
        severity: Severity::Error,
        message: format!("can't read `{path}`: {problem}"),
        span: None,
        help,
        related: None,
        code: Some(ErrorCode::Unreadable),
    }
}

/// Returns a file in the same directory with a name similar to the missing one.
fn neighbour(path: &str) -> Option<String> {
    let path = Path::new(path);
    let wanted = path.file_name()?.to_str()?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let names = std::fs::read_dir(folder.unwrap_or(Path::new("."))).ok()?;
    names
        .take(1000)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .map(|name| (strsim::osa_distance(wanted, &name), name))
        .filter(|(distance, _)| *distance <= (wanted.len() / 3).max(2))
        .min()
        .map(|(_, name)| match folder {
            Some(folder) => folder.join(name).display().to_string(),
            None => name,
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn message(path: &Path) -> String {
        let loaded = load(path.to_str().unwrap());
        assert!(loaded.spec.is_none());
        let found = loaded.diagnostics.first().unwrap();
        format!(
            "{} / {}",
            found.message,
            found.help.clone().unwrap_or_default()
        )
    }

    #[test]
    fn whatever_stands_at_the_path_gets_a_clear_message() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("shop.yaml"), "name: x").unwrap();
        assert!(message(&at("shpo.yaml")).ends_with("shop.yaml`?"));
        assert!(
            message(folder.path()).ends_with("it is a directory, not a file / name the spec in it")
        );
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(message(&at("fifo")).contains("it is a FIFO, not a file"));
        assert!(message(Path::new("/dev/zero")).contains("it is a device, not a file"));
        std::fs::write(at("big"), vec![b'x'; 20 << 20]).unwrap();
        assert!(message(&at("big")).contains("it is bigger than 4 MiB"));
        std::fs::write(at("latin"), b"name: x\nphases: \xff").unwrap();
        assert!(message(&at("latin")).contains("not UTF-8: line 2 (byte 16)"));
        std::fs::write(at("empty"), "").unwrap();
        assert!(message(&at("empty")).contains("the file is empty"));
    }

    #[test]
    fn included_files_are_relative_to_the_file_that_includes_them() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("lib")).unwrap();
        std::fs::write(
            folder.path().join("spec.yaml"),
            "include: [lib/a.yaml]\nphases: { p: [{ expect: vars.b == 1 }] }",
        )
        .unwrap();
        std::fs::write(folder.path().join("lib/a.yaml"), "include: [b.yaml]").unwrap();
        std::fs::write(
            folder.path().join("lib/b.yaml"),
            "include: [a.yaml]\nvars: { b: 1 }",
        )
        .unwrap();
        let loaded = load(folder.path().join("spec.yaml").to_str().unwrap());
        let messages: Vec<_> = loaded
            .diagnostics
            .iter()
            .map(|d| d.message.as_str())
            .collect();
        assert_eq!(messages, ["`a.yaml` includes itself"]);
        std::fs::write(folder.path().join("lib/b.yaml"), "vars: { b: 1 }").unwrap();
        let loaded = load(folder.path().join("spec.yaml").to_str().unwrap());
        assert_eq!(loaded.diagnostics, vec![]);
        assert_eq!(loaded.sources.files.len(), 3);
    }
}
