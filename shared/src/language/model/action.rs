//! Actions of steps.

use super::http::{Http, Sse};
use super::step::Step;
use crate::node::{Node, Template, Text};
use serde::{Deserialize, Serialize};

/// The action of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Sends one HTTP request.
    Http(Box<Http>),
    /// Reads one event stream.
    Sse(Box<Sse>),
    /// Runs a command inside a service.
    Exec(Exec),
    /// Runs a command on the agent's host.
    Run(Run),
    /// Starts, stops or otherwise changes a container.
    Container(ContainerAction),
    /// Waits for a service or for a time.
    Wait(Wait),
    /// Copies files into or out of a service.
    Cp(Cp),
    /// Runs the steps of a define.
    Use(Use),
    /// Runs a group of steps in order.
    Steps(Vec<Step>),
    /// Runs steps concurrently.
    Parallel(Vec<Step>),
    /// Does nothing; the step has only `expect` (and `capture`).
    Check,
}

/// A command: a list of words or a shell script.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// List of words, or an expression for one.
    Words(Node),
    /// Script that `sh -eu` runs.
    Script(Template),
}

/// A command inside a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exec {
    /// Service to run the command in.
    pub service: Template,
    /// Command to run.
    pub command: Command,
    /// Text for the command's standard input.
    pub stdin: Option<Template>,
    /// Map of environment variables.
    pub env: Option<Node>,
    /// User to run the command as.
    pub user: Option<Template>,
    /// Working directory in the service.
    pub workdir: Option<Template>,
}

/// A command on the agent's host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Command to run.
    pub command: Command,
    /// Map of environment variables.
    pub env: Option<Node>,
    /// Working directory (default: the workspace).
    pub workdir: Option<Template>,
}

/// Verbs of `container:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum ContainerVerb {
    Start,
    Stop,
    Restart,
    Kill,
    Pause,
    Unpause,
    Disconnect,
    Connect,
    /// Starts the container and waits for its exit.
    Run,
}

/// Action `container: { verb: service }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerAction {
    /// Change to make.
    pub verb: ContainerVerb,
    /// Service to change.
    pub service: Template,
}

/// Action `wait:`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// Waits until a service is ready.
    Ready(Template),
    /// Waits until a service has exited.
    Exited(Template),
    /// Waits for a fixed time; discouraged, and reported as a warning.
    For(Node),
}

/// Action `cp: { from, to }`. One side is `SERVICE:/path`, as with `docker cp`; the other is a path in the workspace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cp {
    /// Source path.
    pub from: Template,
    /// Destination path.
    pub to: Template,
}

/// Action `use: NAME`, with its arguments in `with`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Use {
    /// Name of the define.
    pub define: Text,
    /// Arguments by parameter name.
    pub with: Vec<(Text, Node)>,
}
