//! Builds jobs from a run's cells. All jobs share what is compiled for the plan. If cells have variables, evaluating
//! their expressions may take a while, so those jobs are built on a blocking thread.

use super::Jobs;
use async_trait::async_trait;
use phalanx_shared::id::{CellId, RunId};
use phalanx_shared::plan::{self, CellJob, Keep, SnapshotUse, WantedImage};
use phalanx_shared::policy::{Need, Rule};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The jobs of one plan.
pub(super) struct SpecJobs {
    jobs: Arc<plan::Jobs>,
    keep: Keep,
    pinned: BTreeMap<String, String>,
    snapshots: SnapshotUse,
}

impl SpecJobs {
    /// `pinned` are the images that replace those of the spec, by service.
    pub fn new(
        jobs: plan::Jobs,
        keep: Keep,
        pinned: BTreeMap<String, String>,
        snapshots: SnapshotUse,
    ) -> Self {
        SpecJobs {
            jobs: Arc::new(jobs),
            keep,
            pinned,
            snapshots,
        }
    }
}

#[async_trait]
impl Jobs for SpecJobs {
    async fn job(&self, cell: &CellId) -> Result<Arc<CellJob>, String> {
        let (keep, snapshots) = (self.keep, self.snapshots);
        let make = move |jobs: &plan::Jobs, cell: &CellId| {
            let family = match snapshots {
                SnapshotUse::Use | SnapshotUse::Refresh => jobs.snapshot_family(cell),
                SnapshotUse::Never => None,
            };
            jobs.job(cell, keep).map(|job| CellJob {
                snapshots,
                snapshot_family: family,
                ..job
            })
        };
        let job = if self.jobs.evaluates() {
            let (jobs, cell) = (Arc::clone(&self.jobs), cell.clone());
            let made = tokio::task::spawn_blocking(move || make(&jobs, &cell)).await;
            made.map_err(|error| format!("making the job failed: {error}"))?
        } else {
            make(&self.jobs, cell)
        };
        let pinned = |job| {
            Arc::new(CellJob {
                images: self.pinned.clone(),
                ..job
            })
        };
        job.map(pinned).map_err(|problems| {
            let messages: Vec<String> = problems.into_iter().map(|p| p.message).collect();
            messages.join("; ")
        })
    }

    fn images(&self, cell: &CellId, run: &RunId) -> Vec<WantedImage> {
        // The tags that the spec names aren't needed. The few cells that run with pinned images don't wait for a pull.
        match self.pinned.is_empty() {
            true => self.jobs.images(cell, run),
            false => Vec::new(),
        }
    }

    fn needs(&self, cell: &CellId) -> Vec<Need> {
        let mut needs = self.jobs.needs(cell);
        if !self.pinned.is_empty() {
            // The images that the spec names aren't used. The agent asks about the pinned ones.
            needs.retain(|need| need.rule != Rule::Registries);
        }
        needs
    }

    fn snapshot_family(&self, cell: &CellId) -> Option<String> {
        match self.snapshots {
            SnapshotUse::Use => self.jobs.snapshot_family(cell),
            // Each agent makes its own again.
            SnapshotUse::Never | SnapshotUse::Refresh => None,
        }
    }

    fn secrets(&self) -> Vec<String> {
        self.jobs.secrets()
    }
}
