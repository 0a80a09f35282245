//! Turns a submission into a plan and its jobs.
//!
//! The client prepares: files beside the spec are read only on its machine. The coordinator plans once, when a run is
//! submitted, and the journal keeps the plan. After a restart, the coordinator builds the jobs again from the spec's
//! text and that plan.

mod jobs;
pub mod planner;

use crate::journal::Submission;
use async_trait::async_trait;
use phalanx_proto::convert::Refusal;
use phalanx_shared::diagnostic::Diagnostic;
use phalanx_shared::id::{CellId, RunId};
use phalanx_shared::plan::{CellJob, Plan, WantedImage};
use phalanx_shared::policy::Need;
use std::sync::Arc;

pub use planner::SpecPlanner;

/// Builds jobs for agents from the cells of one plan.
#[async_trait]
pub trait Jobs: Send + Sync + 'static {
    /// Returns what an agent needs to run a cell, or the reason why the job can't be built.
    async fn job(&self, cell: &CellId) -> Result<Arc<CellJob>, String>;
    /// Returns what a cell needs of its agent's machine, as far as that is known before it runs.
    fn needs(&self, cell: &CellId) -> Vec<Need>;
    /// Returns the images that a cell needs in a run, as far as they are known before it runs.
    fn images(&self, cell: &CellId, run: &RunId) -> Vec<WantedImage>;
    /// Returns the family of the snapshot that a cell may restore, if it may restore one.
    fn snapshot_family(&self, _: &CellId) -> Option<String> {
        None
    }
    /// Returns the names of the secrets that the plan's cells need.
    fn secrets(&self) -> Vec<String>;
}

/// A plan and the jobs of its cells.
#[derive(Clone)]
pub struct Planned {
    /// The expanded plan.
    pub plan: Plan,
    /// Builds the jobs of its cells.
    pub jobs: Arc<dyn Jobs>,
    /// Warnings about the spec.
    pub warnings: Vec<Diagnostic>,
    /// Estimated number of spans, if the run is traced.
    pub spans: u64,
}

/// Expands submissions to plans.
pub trait Planner: Send + Sync + 'static {
    /// Returns the plan of a submission, or a refusal with every error in it.
    fn plan(&self, submission: &Submission) -> Result<Planned, Refusal>;
    /// Returns the jobs of a plan that was made from this submission earlier.
    fn jobs(&self, submission: &Submission, plan: &Plan) -> Result<Arc<dyn Jobs>, Refusal>;
}

/// Stands in for the jobs of a run that can't be planned any more: none of its cells can start. Holds the reason.
pub struct NoJobs(pub String);

#[async_trait]
impl Jobs for NoJobs {
    async fn job(&self, _: &CellId) -> Result<Arc<CellJob>, String> {
        Err(self.0.clone())
    }

    fn images(&self, _: &CellId, _: &RunId) -> Vec<WantedImage> {
        Vec::new()
    }

    fn needs(&self, _: &CellId) -> Vec<Need> {
        Vec::new()
    }

    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }
}
