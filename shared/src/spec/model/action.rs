//! What a step can do.

use super::http::{Http, Sse};
use super::step::Step;
use crate::spec::node::{Node, Template, Text};
use serde::{Deserialize, Serialize};

/// What a step does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// One HTTP request.
    Http(Box<Http>),
    /// One event stream.
    Sse(Box<Sse>),
    /// A command inside a service.
    Exec(Exec),
    /// A command on the agent's host.
    Run(Run),
    /// A container's life.
    Container(ContainerAction),
    /// Waits for a service.
    Wait(Wait),
    /// Copies files into or out of a service.
    Cp(Cp),
    /// Runs a define's steps.
    Use(Use),
    /// A group.
    Steps(Vec<Step>),
    /// Steps at once.
    Parallel(Vec<Step>),
    /// `expect` (and `capture`) alone.
    Check,
}

/// A command: a list or a shell script.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// A list of words, or an expression that gives one.
    Words(Node),
    /// Run by `sh -eu`.
    Script(Template),
}

/// A command inside a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exec {
    /// Where.
    pub service: Template,
    /// What.
    pub command: Command,
    /// Fed to it.
    pub stdin: Option<Template>,
    /// A map of variables.
    pub env: Option<Node>,
    /// As whom.
    pub user: Option<Template>,
    /// In which directory.
    pub workdir: Option<Template>,
}

/// A command on the agent's host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// What.
    pub command: Command,
    /// A map of variables.
    pub env: Option<Node>,
    /// In which directory; the workspace without one.
    pub workdir: Option<Template>,
}

/// The verbs of `container:`.
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
    /// Start, and wait for the exit.
    Run,
}

/// `container: { verb: service }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerAction {
    /// What is done.
    pub verb: ContainerVerb,
    /// To which service.
    pub service: Template,
}

/// `wait:`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// Until a service is ready.
    Ready(Template),
    /// Until a service has exited.
    Exited(Template),
    /// For a time; frowned upon.
    For(Node),
}

/// `cp: { from, to }`, one side written `SERVICE:/path` as with `docker cp`; the other is in the workspace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cp {
    /// The source.
    pub from: Template,
    /// The destination.
    pub to: Template,
}

/// `use: NAME` with `with`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Use {
    /// The define.
    pub define: Text,
    /// Its arguments.
    pub with: Vec<(Text, Node)>,
}
