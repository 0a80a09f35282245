//! What steps, probes and expressions need of an attempt's services. The stack implements it, so that they don't depend
//! on how services are run.

use super::acts::Acts;
use super::group::Group;
use crate::runtime::contract::{Exit, Fault, Member, RuntimeError};
use crate::runtime::head_tail::HeadTail;
use async_trait::async_trait;
use phalanx_shared::event::{Failure, LogTail};
use phalanx_shared::expr::Scope;
use phalanx_shared::id::RunId;
use phalanx_shared::language::model::ContainerVerb;
use phalanx_shared::outcome::Outcome;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// The services of an attempt and their output.
#[async_trait]
pub trait Services: Send + Sync {
    /// Returns whether the spec has a service of this name.
    fn is_known(&self, name: &str) -> bool;
    /// Returns the services that start without a step.
    fn automatic(&self) -> Vec<String>;
    /// Returns the current value of `services` in expressions.
    fn values(&self) -> Value;
    /// Returns whether one of the services has this address.
    fn has_address(&self, address: IpAddr) -> bool;
    /// Returns whether a port of a service is reached at an address.
    fn has_endpoint(&self, address: SocketAddr) -> bool;
    /// Returns the names of a service's replicas if it has several, or else its own.
    fn replicas(&self, name: &str) -> Vec<String>;
    /// Returns the handle of a service's container or process, once created: that of its first replica.
    fn member(&self, name: &str) -> Option<Arc<dyn Member>>;
    /// Returns whether a job has ended with exit code 0.
    fn is_completed(&self, name: &str) -> bool;
    /// Waits until the service is ready. Returns an error as soon as it can't become ready.
    async fn ready(&self, name: &str) -> Result<(), Unavailable>;
    /// Waits until all of the services are ready. Returns an error as soon as one of them can't become ready.
    async fn all_ready(&self, names: &BTreeSet<String>) -> Result<(), Unavailable> {
        for name in names {
            self.ready(name).await?;
        }
        Ok(())
    }
    /// Waits until the service has stopped running, and returns its exit if known.
    async fn exited(&self, name: &str) -> Result<Option<Exit>, Unavailable>;
    /// Applies a step's action. Returns when the action is done, which may be before the service is ready. `scope` holds
    /// the names that the step sees, for a definition that is evaluated now.
    async fn act(&self, name: &str, verb: ContainerVerb, scope: &Scope) -> Result<(), NotDone>;
    /// Returns what steps have done to services so far.
    fn acts(&self) -> Acts;
    /// Returns these services and all that they depend on, as far as their definitions are known.
    fn with_dependencies(&self, names: &BTreeSet<String>) -> BTreeSet<String>;
    /// Waits until output in transit has been taken, at most 200 ms.
    async fn settle_output(&self);
    /// Returns the last lines of a service's output, masked.
    fn tail(&self, name: &str, lines: usize) -> LogTail;
    /// Records the whole output of a service from now on, up to a limit in bytes per stream.
    fn record(&self, name: &str, limit: usize);
    /// Ends the recording and returns stdout and stderr.
    fn recorded(&self, name: &str) -> [HeadTail; 2];
    /// Returns what a group with a snapshot has made, once the services that it names are ready with the restored files.
    /// `None` if the group's steps must run.
    async fn recall(&self) -> Result<Option<Box<Recalled>>, Unavailable> {
        Ok(None)
    }
    /// Saves what the group has made, unless there is a reason not to, and returns when the services are ready again.
    async fn remember(&self, made: Made) -> Result<(), Unavailable> {
        let _ = made;
        Ok(())
    }
    /// Ends the making of a snapshot whose group didn't pass, or of which a step was flaky.
    async fn forget(&self, reason: String) {
        let _ = reason;
    }
}

/// What a group made in an earlier cell.
#[derive(Clone, Debug)]
pub struct Recalled {
    /// The snapshot's key.
    pub key: String,
    /// Run that made it.
    pub run: RunId,
    /// What is kept of the group.
    pub group: Group,
}

/// What a group has made in this cell.
#[derive(Clone, Debug)]
pub struct Made {
    /// Name of the group.
    pub name: String,
    /// How long its steps took.
    pub took: Duration,
    /// What is kept of it.
    pub group: Group,
}

/// A service that went down, or never became ready.
#[derive(Clone, Debug, PartialEq)]
pub struct Down {
    /// Name of the service.
    pub service: String,
    /// The service that was down first: this one, unless it could not start because of another one.
    pub root: String,
    /// `failed` or `errored`.
    pub outcome: Outcome,
    /// Reason in one line.
    pub reason: String,
    /// Evidence: the tail of its log and the result of inspecting it.
    pub failure: Failure,
}

/// Reasons why a step can't use a service.
#[derive(Clone, Debug)]
pub enum Unavailable {
    /// It exited unexpectedly or can't become ready.
    Down(Arc<Down>),
    /// It isn't running and isn't being started.
    NotRunning {
        /// Name of the service.
        service: String,
        /// Reason in one line.
        reason: String,
    },
    /// The service doesn't exist.
    Unknown(String),
}

/// Reasons why an action on a service was not done.
#[derive(Clone, Debug)]
pub enum NotDone {
    /// A dependency can't be met; the evidence is that of the root cause.
    Down(Arc<Down>),
    /// The runtime could not do it, or the service isn't in a state that allows it.
    Runtime(RuntimeError),
}

impl From<RuntimeError> for NotDone {
    fn from(error: RuntimeError) -> Self {
        NotDone::Runtime(error)
    }
}

impl NotDone {
    /// The actor that could do it is gone.
    pub fn gone() -> Self {
        RuntimeError::new(Fault::Misuse, "the service's actor is gone").into()
    }
}

impl From<NotDone> for RuntimeError {
    fn from(not_done: NotDone) -> Self {
        match not_done {
            NotDone::Runtime(error) => error,
            NotDone::Down(down) => {
                let fault = match down.outcome {
                    Outcome::Errored => Fault::Engine,
                    _ => Fault::Dependency,
                };
                RuntimeError::new(fault, down.reason.clone()).naming(&down.service)
            }
        }
    }
}
