//! From a submission to a plan and its jobs.
//!
//! The client prepares: what lies beside the spec is read on its machine and nowhere else. The coordinator plans once, when a run is
//! submitted: the plan is in the journal. A restarted one makes the jobs again from the spec's text and that plan.

mod jobs;
pub mod planner;

use crate::journal::Submission;
use async_trait::async_trait;
use phalanx_proto::convert::Refusal;
use phalanx_shared::diagnostic::Diagnostic;
use phalanx_shared::id::CellId;
use phalanx_shared::plan::{CellJob, Plan};
use std::sync::Arc;

pub use planner::SpecPlanner;

/// Makes the cells of one plan into jobs for agents.
#[async_trait]
pub trait Jobs: Send + Sync + 'static {
    /// What an agent needs to run a cell, or why it can't be made.
    async fn job(&self, cell: &CellId) -> Result<Arc<CellJob>, String>;
    /// Images that a cell needs, as far as they are known before it runs.
    fn images(&self, cell: &CellId) -> Vec<String>;
    /// Names of the secrets that its cells need.
    fn secrets(&self) -> Vec<String>;
}

/// A plan, and what its cells are made from.
#[derive(Clone)]
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// Its cells as jobs.
    pub jobs: Arc<dyn Jobs>,
    /// What is frowned upon.
    pub warnings: Vec<Diagnostic>,
}

/// Expands submissions.
pub trait Planner: Send + Sync + 'static {
    /// The plan of a submission, or everything that is wrong with it.
    fn plan(&self, submission: &Submission) -> Result<Planned, Refusal>;
    /// The jobs of a plan that was made of this submission before.
    fn jobs(&self, submission: &Submission, plan: &Plan) -> Result<Arc<dyn Jobs>, Refusal>;
}

/// Stands for the jobs of a run that can't be planned any more: none of its cells can start.
pub struct NoJobs(pub String);

#[async_trait]
impl Jobs for NoJobs {
    async fn job(&self, _: &CellId) -> Result<Arc<CellJob>, String> {
        Err(self.0.clone())
    }

    fn images(&self, _: &CellId) -> Vec<String> {
        Vec::new()
    }

    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }
}
