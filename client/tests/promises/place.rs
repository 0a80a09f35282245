//! A directory for each test with an input of `tests/field/`, and `phalanx` without the machine's settings.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// Longer than anything takes; guards against hanging.
pub const BOUND: Duration = Duration::from_secs(120);

pub struct Place {
    directory: tempfile::TempDir,
}

/// The result of a command.
#[derive(Debug)]
pub struct Said {
    /// Exit code; `None` if a signal or the time limit ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Place {
    pub fn new() -> Place {
        Place {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// Creates a directory with the files of an input of `tests/field/`.
    pub fn of_field(name: &str) -> Place {
        let place = Place::new();
        let from = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/field")
            .join(name);
        copy(&from, place.path());
        place
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap()
    }

    /// Replaces `from` by `to` in a file; the file must contain it.
    pub fn replace(&self, name: &str, from: &str, to: &str) {
        let text = self.read(name);
        assert!(text.contains(from), "{name} holds no {from}");
        self.write(name, text.replace(from, to));
    }

    pub fn phalanx(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_phalanx"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path())
            .env("PHALANX_STATE_DIR", self.path().join("state"))
            .current_dir(self.path())
            .args(arguments)
            .stdin(Stdio::null());
        if let Some(host) = std::env::var_os("DOCKER_HOST") {
            command.env("DOCKER_HOST", host);
        }
        command
    }

    /// Runs `phalanx` to its end.
    pub fn call(&self, arguments: &[&str]) -> Said {
        ended(&mut self.phalanx(arguments))
    }
}

/// Runs a command to its end, or until the time limit.
pub fn ended(command: &mut Command) -> Said {
    let mut bounded = Command::new("timeout");
    let seconds = BOUND.as_secs().to_string();
    bounded.args(["--signal=KILL", &seconds]);
    bounded.arg(command.get_program()).args(command.get_args());
    bounded
        .env_clear()
        .envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))))
        .stdin(Stdio::null());
    if let Some(directory) = command.get_current_dir() {
        bounded.current_dir(directory);
    }
    let Output {
        status,
        stdout,
        stderr,
    } = bounded.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Said {
        code: status.code(),
        stdout: text(stdout),
        stderr: text(stderr),
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
