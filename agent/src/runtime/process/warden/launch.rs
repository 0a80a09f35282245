//! Starts the service: its words, environment, directory, input and user; or says why it can't be, as a shell would.

use super::spawn;
use crate::limits;
use crate::runtime::process::wire::{Report, Start};
use base64::Engine;
use nix::unistd::Pid;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Starts it. Its outputs are the warden's own.
pub fn launch(start: &Start) -> io::Result<Pid> {
    let (program, arguments) = start
        .command
        .split_first()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the command is empty"))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(&start.env)
        .envs(start.marker.variables())
        .current_dir(&start.workdir)
        .stdin(stdin_of(start)?);
    if let Some((user, group)) = start.user {
        command.uid(user).gid(group);
    }
    spawn::own_session_tied_to_parent(&mut command, start.open_files);
    let child = command.spawn()?;
    // The handle is not needed: the warden waits for all its children alike.
    i32::try_from(child.id())
        .map(Pid::from_raw)
        .map_err(io::Error::other)
}

/// Nothing, or a file in memory with what shall be read.
fn stdin_of(start: &Start) -> io::Result<Stdio> {
    let Some(encoded) = &start.stdin else {
        return Ok(Stdio::null());
    };
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .map_err(io::Error::other)?;
    let memory = nix::sys::memfd::memfd_create(c"stdin", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
    let mut file = File::from(memory);
    file.write_all(&bytes)?;
    file.rewind()?;
    Ok(Stdio::from(file))
}

/// Why it could not be started.
pub fn refusal(start: &Start, error: &io::Error) -> Report {
    let program = start
        .command
        .first()
        .map(String::as_str)
        .unwrap_or_default();
    if limits::has_nothing_left(error) {
        let message = format!("can't run {program}: {error}");
        return Report::Unable { message };
    }
    let workdir_missing = !start.workdir.is_dir();
    let message = if workdir_missing {
        format!(
            "the working directory {} does not exist",
            start.workdir.display()
        )
    } else {
        format!("can't run {program}: {error}")
    };
    Report::Refused {
        exit_code: if error.kind() == io::ErrorKind::NotFound && !workdir_missing {
            127
        } else {
            126
        },
        message,
    }
}
