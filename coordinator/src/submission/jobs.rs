//! Builds jobs from a run's cells. All jobs share what is compiled for the plan. If cells have variables, evaluating
//! their expressions may take a while, so those jobs are built on a blocking thread.

use super::Jobs;
use async_trait::async_trait;
use phalanx_shared::id::CellId;
use phalanx_shared::plan::{self, CellJob, Keep};
use std::sync::Arc;

/// The jobs of one plan.
pub(super) struct SpecJobs {
    jobs: Arc<plan::Jobs>,
    keep: Keep,
}

impl SpecJobs {
    pub fn new(jobs: plan::Jobs, keep: Keep) -> Self {
        SpecJobs {
            jobs: Arc::new(jobs),
            keep,
        }
    }
}

#[async_trait]
impl Jobs for SpecJobs {
    async fn job(&self, cell: &CellId) -> Result<Arc<CellJob>, String> {
        let job = if self.jobs.evaluates() {
            let (jobs, cell, keep) = (Arc::clone(&self.jobs), cell.clone(), self.keep);
            let made = tokio::task::spawn_blocking(move || jobs.job(&cell, keep)).await;
            made.map_err(|error| format!("making the job failed: {error}"))?
        } else {
            self.jobs.job(cell, self.keep)
        };
        job.map(Arc::new).map_err(|problems| {
            let messages: Vec<String> = problems.into_iter().map(|p| p.message).collect();
            messages.join("; ")
        })
    }

    fn images(&self, cell: &CellId) -> Vec<String> {
        self.jobs.images(cell)
    }

    fn secrets(&self) -> Vec<String> {
        self.jobs.secrets()
    }
}
