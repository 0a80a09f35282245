//! What steps, probes and expressions need of an attempt's services. The stack implements it, so that they don't depend
//! on how services are run.

use crate::runtime::contract::{Exit, Fault, Member, RuntimeError};
use crate::runtime::head_tail::HeadTail;
use async_trait::async_trait;
use phalanx_shared::event::{Failure, LogTail};
use phalanx_shared::expr::Scope;
use phalanx_shared::language::model::ContainerVerb;
use phalanx_shared::outcome::Outcome;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

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
    /// Returns the handle of a service's container or process, once created.
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
    /// Waits until output in transit has been taken, at most 200 ms.
    async fn settle_output(&self);
    /// Returns the last lines of a service's output, masked.
    fn tail(&self, name: &str, lines: usize) -> LogTail;
    /// Records the whole output of a service from now on, up to a limit in bytes per stream.
    fn record(&self, name: &str, limit: usize);
    /// Ends the recording and returns stdout and stderr.
    fn recorded(&self, name: &str) -> [HeadTail; 2];
}

/// A service that went down, or never became ready.
#[derive(Clone, Debug, PartialEq)]
pub struct Down {
    /// Name of the service.
    pub service: String,
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
    NotRunning(String),
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
