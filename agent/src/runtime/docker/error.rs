//! Converts errors of the engine: classifies whose fault they are and adds a hint about the cause.

use super::endpoint::InvalidEndpoint;
use super::subnet::core::InvalidPool;
use crate::runtime::contract::{Fault, RuntimeError};
use bollard::errors::Error;

/// Why no engine can be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The settings don't say which agent creates objects.
    #[error("the Docker runtime needs the agent's identity to label what it makes")]
    NoIdentity,
    /// There is no engine, or its address can't be used.
    #[error(transparent)]
    Endpoint(#[from] InvalidEndpoint),
    /// The engine can't be reached, or refuses.
    #[error("engine {host}: {said}")]
    Failed {
        /// Address of the engine.
        host: String,
        /// Its answer.
        said: String,
    },
    /// The engine at this address doesn't answer.
    #[error("engine {0} did not answer within 20 s")]
    Silent(String),
    /// The settings describe no pool of subnets.
    #[error(transparent)]
    Subnets(#[from] InvalidPool),
    /// The engine's networks can't be listed.
    #[error("listing the engine's networks: {0}")]
    Networks(String),
}

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

/// What engines say in words only, without a code of its own. Their words stand here and nowhere else; Docker's and
/// Podman's differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// What the spec asked of the container can't run.
    ContainersFault,
    /// The container doesn't run.
    NotRunning,
    /// The container is paused already.
    AlreadyPaused,
    /// The container isn't paused.
    NotPaused,
    /// The container is on the network already.
    AlreadyConnected,
    /// The container isn't on the network.
    NotConnected,
    /// The image has no user of that name.
    NoSuchUser,
    /// The image's list of users has no such entry.
    NotInPasswd,
    /// The engine has no such image.
    NoSuchImage,
    /// Another network has the subnet.
    SubnetTaken,
    /// A pull failed for a reason that another try doesn't change.
    PullIsHopeless,
}

impl Said {
    fn words(self) -> &'static [&'static str] {
        match self {
            Said::ContainersFault => &[
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
            ],
            Said::NotRunning => &["is not running"],
            Said::AlreadyPaused => &["already paused"],
            Said::NotPaused => &["not paused"],
            Said::AlreadyConnected => {
                &["already exists in network", "already connected to network"]
            }
            Said::NotConnected => &["is not connected to"],
            Said::NoSuchUser => &["unable to find user"],
            Said::NotInPasswd => &["no matching entries"],
            Said::NoSuchImage => &["no such image", "No such image"],
            Said::SubnetTaken => &["overlap", "already used", "is being used"],
            Said::PullIsHopeless => &[
                "manifest unknown",
                "not found",
                "pull access denied",
                "unauthorized",
                "authentication required",
                "no basic auth credentials",
                "denied",
                "invalid reference format",
                "no matching manifest",
                "no space left on device",
            ],
        }
    }

    /// Returns whether an engine's answer says it.
    pub fn is_in(self, error: &Error) -> bool {
        self.is_in_text(&said(error))
    }

    /// Returns whether an engine's text says it.
    pub fn is_in_text(self, text: &str) -> bool {
        self.words().iter().any(|words| text.contains(words))
    }
}

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

/// Like [`runtime`], for an operation on a service.
pub(super) fn runtime_of(service: &str, doing: &str, error: &Error) -> RuntimeError {
    runtime(&format!("service {service}: {doing}"), error).naming(service)
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
    let fault = match hint {
        None if Said::ContainersFault.is_in_text(said) => Fault::Command,
        _ => Fault::Engine,
    };
    RuntimeError::new(fault, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use phalanx_shared::outcome::Outcome;

    #[test]
    fn a_missing_program_is_the_systems_fault_and_a_full_disk_the_machinerys() {
        let missing = judge(
            "start a",
            "OCI runtime create failed: exec: \"x\": executable file not found in $PATH: unknown",
        );
        assert_eq!(missing.outcome(), Outcome::Failed);
        let full = judge("create a", "write /x: no space left on device");
        assert_eq!(full.outcome(), Outcome::Errored);
        assert!(full.reason.contains("disk is full"), "{full}");
    }

    #[test]
    fn an_unknown_answer_is_the_machinerys_fault() {
        let error = Error::DockerResponseServerError {
            status_code: 500,
            message: "something new\n".into(),
        };
        let mapped = runtime("start a", &error);
        assert_eq!(mapped.outcome(), Outcome::Errored);
        assert_eq!(mapped.reason, "start a: something new");
    }

    #[test]
    fn both_engines_words_for_what_is_connected_already_are_known() {
        let known = |said| Said::AlreadyConnected.is_in_text(said);
        assert!(known("endpoint with name a already exists in network n"));
        assert!(known(
            "container 8443 is already connected to network \"n\": network is already connected"
        ));
        assert!(!known("network n not found"));
    }

    #[test]
    fn a_wrong_name_is_final_and_a_timeout_is_not() {
        let is_final = |said| Said::PullIsHopeless.is_in_text(said);
        assert!(is_final("manifest for a:1 not found: manifest unknown"));
        assert!(is_final("pull access denied for a"));
        assert!(!is_final("net/http: TLS handshake timeout"));
        assert!(!is_final("toomanyrequests: limit"));
        assert!(!is_final("received unexpected HTTP status: 503"));
    }
}
