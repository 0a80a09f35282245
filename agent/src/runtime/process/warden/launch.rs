//! Starts the service with its command, environment, directory, input and user, or reports why it can't, as a shell
//! would.

use super::spawn;
use crate::limits;
use crate::runtime::process::wire::{Report, Start};
use base64::Engine;
use nix::unistd::Pid;
use phalanx_shared::expr::closest;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Maximum names of a program directory that are considered for a suggestion.
const MAX_NAMES: usize = 10_000;

/// Reason why the service could not be started.
pub enum Unlaunched {
    /// The working directory can't be entered.
    Directory(io::Error),
    /// The program can't be executed.
    Program(io::Error),
}

/// Starts the service. It inherits the warden's standard output and standard error.
pub fn launch(start: &Start) -> Result<Pid, Unlaunched> {
    // The warden enters the directory by its descriptor: a path would be resolved a second time, as the service's user.
    let entered = start.workdir.open().and_then(|directory| {
        rustix::process::fchdir(directory.directory()).map_err(io::Error::from)
    });
    entered.map_err(Unlaunched::Directory)?;
    let launched = spawn(start);
    // The warden must not hold the directory.
    let _ = std::env::set_current_dir("/");
    launched.map_err(Unlaunched::Program)
}

fn spawn(start: &Start) -> io::Result<Pid> {
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
        .stdin(stdin_of(start)?);
    if let Some((user, group)) = start.user {
        command.uid(user).gid(group);
    }
    spawn::own_session_tied_to_parent(&mut command, start.limits);
    let child = command.spawn()?;
    // The handle is not needed: the warden waits for all its children alike.
    i32::try_from(child.id())
        .map(Pid::from_raw)
        .map_err(io::Error::other)
}

/// Returns the standard input: empty, or an in-memory file with the content to read.
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

/// Returns the report that says why the service could not be started, as a shell would.
pub fn refusal(start: &Start, why: &Unlaunched) -> Report {
    let (Unlaunched::Directory(error) | Unlaunched::Program(error)) = why;
    if limits::has_nothing_left(error) {
        let program = start.command.first().map_or("", String::as_str);
        let message = format!("can't run {program}: {error}");
        return Report::Unable { message };
    }
    let (exit_code, message) = match why {
        Unlaunched::Directory(error) => (126, directory_refused(start, error)),
        Unlaunched::Program(error) => program_refused(start, error),
    };
    Report::Refused { exit_code, message }
}

fn directory_refused(start: &Start, error: &io::Error) -> String {
    let directory = start.workdir.display();
    match error.kind() {
        io::ErrorKind::NotFound => format!("the working directory {directory} does not exist"),
        _ => format!("the working directory {directory} can't be used: {error}"),
    }
}

fn program_refused(start: &Start, error: &io::Error) -> (i64, String) {
    let program = start.command.first().map_or("", String::as_str);
    if error.kind() != io::ErrorKind::NotFound {
        return (126, format!("can't run {program}: {error}"));
    }
    if program.contains('/') {
        let where_from = start.workdir.display();
        let why = match start
            .workdir
            .open()
            .and_then(|root| root.find(Path::new(program)))
        {
            Ok(_) => "its interpreter or its loader is missing".to_owned(),
            Err(_) => format!("there is no such file (looked from {where_from})"),
        };
        return (127, format!("can't run {program}: {why}"));
    }
    let names = programs(start);
    let hint = closest(program, names.iter().map(String::as_str))
        .map_or(String::new(), |meant| format!("; did you mean `{meant}`?"));
    let message = format!("there is no program `{program}` in the PATH of the agent's host{hint}");
    (127, message)
}

/// Returns the names in the directories of its `PATH`.
fn programs(start: &Start) -> Vec<String> {
    let path = start.env.get("PATH").map_or("", String::as_str);
    std::env::split_paths(path)
        .filter_map(|directory| std::fs::read_dir(directory).ok())
        .flat_map(|entries| entries.flatten().take(MAX_NAMES))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}
