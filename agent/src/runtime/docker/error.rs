//! Converts errors of the engine: classifies whose fault they are and adds a hint about the cause.

use crate::runtime::contract::RuntimeError;
use bollard::errors::Error;

/// Returns whether the connection to the engine broke or could not be made, so that a retry may help.
pub(super) fn is_cut(error: &Error) -> bool {
    matches!(
        error,
        Error::HyperLegacyError { .. }
            | Error::HyperResponseError { .. }
            | Error::IOError { .. }
            | Error::SocketNotFoundError(_)
    ) || matches!(
        error,
        Error::DockerResponseServerError {
            status_code: 502..=504,
            ..
        }
    )
}

/// Returns whether no connection could be made at all: no engine listens.
pub(super) fn is_refused(error: &Error) -> bool {
    match error {
        Error::HyperLegacyError { err } => err.is_connect(),
        Error::SocketNotFoundError(_) => true,
        _ => false,
    }
}

/// Returns the engine's status code, if it answered.
pub(super) fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// Returns the error text without the client library's wrapping.
pub(super) fn said(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError {
            message,
            status_code,
        } if message.is_empty() => {
            format!("the engine answered with status {status_code}")
        }
        Error::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        Error::DockerStreamError { error } => error.trim().to_owned(),
        Error::RequestTimeoutError => "the engine did not answer in time".to_owned(),
        cut if is_cut(cut) => format!("no connection to the engine: {}", chain(cut)),
        other => chain(other),
    }
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = inner.source();
    }
    text
}

/// Engine messages which mean that what the spec asked of the container can't run.
const THE_CONTAINERS_FAULT: [&str; 10] = [
    "executable file not found",
    "no such file or directory: unknown",
    "permission denied: unknown",
    "exec format error",
    "unable to find user",
    "unable to find group",
    "no matching entries in passwd",
    "is not running",
    "container state improper",
    "is paused",
];

/// Engine messages with hints for the user.
const HINTS: [(&str, &str); 10] = [
    (
        "no space left on device",
        "the engine's disk is full: free space with `docker system df` and `docker image prune`",
    ),
    (
        "port is already allocated",
        "another container holds that host port",
    ),
    (
        "address already in use",
        "another program holds that host port",
    ),
    (
        "no basic auth credentials",
        "log in to the registry with `docker login`",
    ),
    (
        "pull access denied",
        "check the image's name, or log in with `docker login`",
    ),
    ("manifest unknown", "check the image's tag"),
    (
        "toomanyrequests",
        "the registry limits pulls: log in with `docker login`, or use a mirror",
    ),
    (
        "no such host",
        "the registry's name doesn't resolve from the engine",
    ),
    (
        "no available IPv4 addresses",
        "the cell's network is full: lower `subnet_prefix` in the agent's Docker settings",
    ),
    (
        "cannot allocate memory",
        "the engine's host is out of memory",
    ),
];

/// Converts the error of an operation `what` (such as `start shop`) and decides whose fault it is.
pub(super) fn runtime(what: &str, error: &Error) -> RuntimeError {
    judge(what, &said(error))
}

/// Like [`runtime`], for an error text of the engine.
pub(super) fn judge(what: &str, said: &str) -> RuntimeError {
    let hint = HINTS
        .iter()
        .find(|(text, _)| said.contains(text))
        .map(|(_, hint)| *hint);
    let message = match hint {
        Some(hint) => format!("{what}: {said} ({hint})"),
        None => format!("{what}: {said}"),
    };
    if hint.is_none() && THE_CONTAINERS_FAULT.iter().any(|text| said.contains(text)) {
        RuntimeError::Failed(message)
    } else {
        RuntimeError::Errored(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_the_systems_fault_and_a_full_disk_the_machinerys() {
        assert!(matches!(
            judge(
                "start a",
                "OCI runtime create failed: exec: \"x\": executable file not found in $PATH: unknown"
            ),
            RuntimeError::Failed(_)
        ));
        let full = judge("create a", "write /x: no space left on device");
        assert!(
            matches!(&full, RuntimeError::Errored(m) if m.contains("disk is full")),
            "{full}"
        );
    }

    #[test]
    fn an_unknown_answer_is_the_machinerys_fault() {
        let error = Error::DockerResponseServerError {
            status_code: 500,
            message: "something new\n".into(),
        };
        let mapped = runtime("start a", &error);
        assert!(matches!(&mapped, RuntimeError::Errored(m) if m == "start a: something new"));
    }
}
