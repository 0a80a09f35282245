//! Reads a spec and its includes from the file system, whatever kind of file the path names.
//!
//! Never waits for a FIFO or a device, and never reads more than the size limit of a spec. [`phalanx_shared::spec`]
//! interprets the text.

use nix::fcntl::OFlag;
use phalanx_shared::diagnostic::{Diagnostic, Severity, Source, Sources};
use phalanx_shared::language::parse::Limits;
use phalanx_shared::language::{self, Loaded};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Loads the spec at a path (`-` is standard input), with the files that it includes.
pub fn load(path: &str) -> Loaded {
    match read_main(path) {
        Ok(main) => language::load(main, &mut |path| read(path)),
        Err(problem) => Loaded {
            spec: None,
            sources: Sources::default(),
            diagnostics: vec![unreadable(path, problem)],
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

fn read_main(path: &str) -> Result<Source, String> {
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
pub fn read(path: &str) -> Result<Source, String> {
    // Without O_NONBLOCK, opening a FIFO would wait for a writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => "there is no such file".to_owned(),
            ErrorKind::PermissionDenied => "you may not read it".to_owned(),
            _ => error.to_string(),
        })?;
    regular(&file)?;
    Ok(Source {
        name: path.to_owned(),
        text: text_of(file)?,
    })
}

fn regular(file: &File) -> Result<(), String> {
    let kind = file
        .metadata()
        .map_err(|error| error.to_string())?
        .file_type();
    let is = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(format!("it is {is}, not a file"))
}

/// Returns the whole text, or an error if it isn't UTF-8 or too large.
fn text_of(reader: impl Read) -> Result<String, String> {
    let most = Limits::default().bytes;
    let mut bytes = Vec::new();
    reader
        .take(most as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() > most {
        return Err(format!("it is bigger than {} MiB", most >> 20));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = error.as_bytes().get(..valid).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("it is not UTF-8: line {line} (byte {valid}) holds something else")
    })
}

fn unreadable(path: &str, problem: String) -> Diagnostic {
    let help = if problem.contains("no such file") {
        neighbour(path).map(|name| format!("did you mean `{name}`?"))
    } else if problem.contains("a directory") {
        Some("name the spec in it".to_owned())
    } else if problem.contains("bigger") {
        Some("split it with `include`, or put big data into files of the workspace".to_owned())
    } else {
        None
    };
    Diagnostic {
        severity: Severity::Error,
        message: format!("can't read `{path}`: {problem}"),
        span: None,
        help,
        related: None,
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
