//! What the cells of all runs want of agents, for whoever starts and stops these.

use super::core::Scheduler;
use super::queue::At;
use phalanx_shared::plan::Resources;
use std::collections::{BTreeMap, BTreeSet};

/// What the cells with the same labels want.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Labels that an agent must offer.
    pub labels: BTreeSet<String>,
    /// Number of waiting cells.
    pub waiting: u64,
    /// Waiting cells that more agents would start: the limits of their runs and labels allow it.
    pub startable: u64,
    /// Number of cells that are placed on agents.
    pub placed: u64,
    /// What the startable and the placed cells reserve. Cells share no subnets, so these add up too.
    pub resources: Resources,
}

impl Wanted {
    fn add(&mut self, one: &Resources, count: u64) {
        let sum = &mut self.resources;
        let add = |sum: u64, one: u64| sum.saturating_add(one.saturating_mul(count));
        sum.millicpus = add(sum.millicpus, one.millicpus);
        sum.memory_bytes = add(sum.memory_bytes, one.memory_bytes);
        let subnets = add(sum.subnets.into(), one.subnets.into());
        sum.subnets = u32::try_from(subnets).unwrap_or(u32::MAX);
    }
}

impl Scheduler {
    /// Returns what the cells of all runs want, by their labels. Limits of runs and labels go to the cells in the order of
    /// the runs.
    pub fn demand(&self) -> Vec<Wanted> {
        let mut by_labels: BTreeMap<&BTreeSet<String>, Wanted> = BTreeMap::new();
        let mut of_label: BTreeMap<&str, u64> = self
            .label_limits
            .iter()
            .map(|(label, limit)| {
                let running = self.label_running.get(label).copied().unwrap_or(0);
                (label.as_str(), limit.saturating_sub(running).into())
            })
            .collect();
        for queue in self.runs.values() {
            let room = queue
                .max_parallel
                .map(|limit| limit.saturating_sub(queue.running));
            let mut room = room.map_or(u64::MAX, u64::from);
            for (class, cells) in &queue.queues {
                let Some(class) = self.classes.get(*class) else {
                    continue;
                };
                let waiting = cells.len() as u64;
                let labels = class.key.labels.iter();
                let limits = labels
                    .clone()
                    .filter_map(|label| of_label.get(label.as_str()));
                let startable = limits.fold(waiting.min(room), |most, limit| most.min(*limit));
                room -= startable;
                for label in labels {
                    if let Some(left) = of_label.get_mut(label.as_str()) {
                        *left -= startable;
                    }
                }
                let wanted = by_labels.entry(&class.key.labels).or_default();
                wanted.waiting += waiting;
                wanted.startable += startable;
                wanted.add(&class.key.resources(), startable);
            }
            for entry in queue.cells.values() {
                if let (At::On(_), Some(class)) = (&entry.at, self.classes.get(entry.class)) {
                    let wanted = by_labels.entry(&class.key.labels).or_default();
                    wanted.placed += 1;
                    wanted.add(&class.key.resources(), 1);
                }
            }
        }
        let named = by_labels.into_iter().map(|(labels, wanted)| Wanted {
            labels: labels.clone(),
            ..wanted
        });
        named.collect()
    }
}
