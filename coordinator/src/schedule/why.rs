//! Explains to users why a cell waits: the constraints that aren't met, with numbers.

use super::ahead::Preparing;
use super::core::Scheduler;
use super::fleet::Agent;
use super::queue::{At, RunQueue};
use super::request::ClassKey;
use phalanx_shared::id::{AgentId, CellId, RunId};
use phalanx_shared::policy::Refusal;
use std::fmt;
use std::time::Duration;

/// State of a cell in the scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The scheduler doesn't know the cell: it has finished, its run holds it back, or it isn't a cell of this run.
    Unknown,
    /// The cell is placed on an agent.
    Placed { agent: AgentId },
    /// The cell waits for all of these.
    For(Vec<Constraint>),
}

/// A constraint that keeps a cell waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Constraint {
    /// No agent is known.
    NoAgents,
    /// No agent offers all labels; `missing` are those that no agent offers.
    Labels {
        wanted: Vec<String>,
        missing: Vec<String>,
    },
    /// The run has reached its own limit.
    MaxParallel { running: u32, limit: u32 },
    /// The fleet has reached its limit for a label.
    LabelLimit {
        label: String,
        running: u32,
        limit: u32,
    },
    /// No agent with these labels has this much, even when idle.
    TooBig {
        what: &'static str,
        wanted: String,
        most: String,
    },
    /// Every agent with the right labels is in a pool of another namespace.
    Pools,
    /// An agent with the right labels refuses what the cell needs.
    Policy { agent: String, refusal: Refusal },
    /// An agent with the right labels, and why it doesn't take the cell now.
    Agent { agent: String, reason: String },
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Constraint::NoAgents => f.write_str("no agent is connected"),
            Constraint::Labels { wanted, missing } if missing.is_empty() => {
                write!(f, "no agent offers all of the labels {}", wanted.join(", "))
            }
            Constraint::Labels { missing, .. } => {
                write!(f, "no agent offers label {}", missing.join(", "))
            }
            Constraint::MaxParallel { running, limit } => {
                write!(
                    f,
                    "max-parallel: {running} of {limit} cells of the run are running"
                )
            }
            Constraint::LabelLimit {
                label,
                running,
                limit,
            } => write!(
                f,
                "limit of label {label}: {running} of {limit} cells are running"
            ),
            Constraint::TooBig { what, wanted, most } => write!(
                f,
                "needs {wanted} of {what}, the largest agent with its labels has {most}"
            ),
            Constraint::Pools => f.write_str(
                "the agents with its labels are in pools of other namespaces (`serve.pools`)",
            ),
            Constraint::Policy { agent, refusal } => write!(
                f,
                "agent {agent}: {}",
                refusal
                    .to_string()
                    .replace("the agent's policy", "its policy")
            ),
            Constraint::Agent { agent, reason } => write!(f, "agent {agent}: {reason}"),
        }
    }
}

/// Maximum number of agents listed individually.
const NAMED: usize = 10;

impl Scheduler {
    /// Returns why a cell waits.
    pub fn why(&self, run: &RunId, cell: &CellId, now: Duration) -> Waiting {
        let Some((queue, entry)) = self
            .runs
            .get(run)
            .and_then(|queue| Some((queue, queue.cells.get(cell)?)))
        else {
            return Waiting::Unknown;
        };
        if let At::On(agent) = &entry.at {
            let agent = agent.clone();
            return Waiting::Placed { agent };
        }
        let mut constraints = self.limits(queue, &entry.request.labels);
        constraints.extend(self.lacking(&ClassKey::of(&entry.request), now));
        Waiting::For(constraints)
    }

    /// Returns what agents do ahead for a waiting cell.
    pub fn prepares(&self, run: &RunId, cell: &CellId) -> Vec<Preparing> {
        let entry = self.runs.get(run).and_then(|queue| queue.cells.get(cell));
        let waiting = entry.filter(|entry| matches!(entry.at, At::Waiting(_)));
        let class = waiting.and_then(|entry| self.classes.get(entry.class));
        class
            .map(|class| self.prepares_for(class))
            .unwrap_or_default()
    }

    /// Returns why the waiting cells of a run wait, and what is done ahead for them. Cells of the same class form one group.
    pub fn why_all(
        &self,
        run: &RunId,
        now: Duration,
    ) -> Vec<(Vec<Constraint>, Vec<Preparing>, Vec<CellId>)> {
        let Some(queue) = self.runs.get(run) else {
            return Vec::new();
        };
        let groups = queue.queues.iter().filter_map(|(class, cells)| {
            let class = self.classes.get(*class)?;
            let mut constraints = self.limits(queue, &class.key.labels);
            constraints.extend(self.lacking(&class.key, now));
            let ahead = self.prepares_for(class);
            Some((constraints, ahead, cells.values().cloned().collect()))
        });
        groups.collect()
    }

    /// Returns the limits of the run and of the fleet that are reached.
    fn limits<'a>(
        &self,
        queue: &RunQueue,
        labels: impl IntoIterator<Item = &'a String>,
    ) -> Vec<Constraint> {
        let mut constraints = Vec::new();
        if let Some(limit) = queue.max_parallel.filter(|_| !queue.has_room()) {
            let running = queue.running;
            constraints.push(Constraint::MaxParallel { running, limit });
        }
        for label in labels {
            let running = self.label_running.get(label).copied().unwrap_or(0);
            if let Some(limit) = self.label_limits.get(label).filter(|l| running >= **l) {
                constraints.push(Constraint::LabelLimit {
                    label: label.clone(),
                    running,
                    limit: *limit,
                });
            }
        }
        constraints
    }

    /// Returns what the agents lack for a class.
    fn lacking(&self, class: &ClassKey, now: Duration) -> Vec<Constraint> {
        let agents: Vec<&Agent> = self.fleet.agents().collect();
        if agents.is_empty() {
            return vec![Constraint::NoAgents];
        }
        let offers = |agent: &Agent, label: &String| agent.info.labels.contains(label);
        let fitting: Vec<&Agent> = agents
            .iter()
            .filter(|agent| class.labels.iter().all(|label| offers(agent, label)))
            .copied()
            .collect();
        if fitting.is_empty() {
            let wanted = class.labels.iter();
            let missing = wanted.filter(|label| !agents.iter().any(|a| offers(a, label)));
            return vec![Constraint::Labels {
                missing: missing.cloned().collect(),
                wanted: class.labels.iter().cloned().collect(),
            }];
        }
        let open = |agent: &&Agent| !agent.info.labels.iter().any(|l| class.avoids.contains(l));
        let fitting: Vec<&Agent> = fitting.into_iter().filter(open).collect();
        if fitting.is_empty() {
            return vec![Constraint::Pools];
        }
        let refused = |agent: &&Agent| {
            let refusal = agent.info.policy.as_ref()?.refuses_one(&class.needs)?;
            let agent = agent.info.name.clone();
            Some(Constraint::Policy { agent, refusal })
        };
        let (refusing, fitting): (Vec<&Agent>, Vec<&Agent>) = fitting
            .into_iter()
            .partition(|agent| refused(agent).is_some());
        if fitting.is_empty() {
            return refusing.iter().filter_map(refused).take(NAMED).collect();
        }
        let too_big = too_big(class, &fitting);
        if !too_big.is_empty() {
            return too_big;
        }
        let busy = fitting.iter().filter_map(|agent| {
            let reason = refusal(class, agent, now)?;
            let agent = agent.info.name.clone();
            Some(Constraint::Agent { agent, reason })
        });
        busy.take(NAMED).collect()
    }
}

/// Returns the resources of a class that no agent has, even when idle.
fn too_big(class: &ClassKey, agents: &[&Agent]) -> Vec<Constraint> {
    let most = |of: fn(&Agent) -> u64| agents.iter().map(|a| of(a)).max().unwrap_or(0);
    let cpus = most(|a| a.info.resources.millicpus);
    let memory = most(|a| a.info.resources.memory_bytes);
    let subnets = most(|a| u64::from(a.info.resources.subnets));
    let wanted_subnets = u64::from(class.subnets);
    let mut too_big = Vec::new();
    let mut add = |what, wanted: String, most: String| {
        too_big.push(Constraint::TooBig { what, wanted, most });
    };
    if class.cpus > cpus {
        add("CPUs", show_cpus(class.cpus), show_cpus(cpus));
    }
    if class.memory > memory {
        add("memory", show_bytes(class.memory), show_bytes(memory));
    }
    if wanted_subnets > subnets {
        add("subnets", class.subnets.to_string(), subnets.to_string());
    }
    too_big
}

/// Returns why an agent with the right labels doesn't take a cell now; `None` if it would.
fn refusal(class: &ClassKey, agent: &Agent, now: Duration) -> Option<String> {
    let free = agent.free();
    let short = |what: &str, wanted: String, free: String| {
        Some(format!("{wanted} of {what} wanted, {free} free"))
    };
    if !agent.connected {
        return Some("not connected".to_owned());
    }
    if agent.draining {
        return Some("draining".to_owned());
    }
    if !agent.takes()
        && let Some(pause) = &agent.pause
    {
        let wait = pause.until.saturating_sub(now).as_secs_f64();
        let reason = &pause.reason;
        return Some(format!("declined ({reason}), is asked again in {wait:.1}s"));
    }
    if agent.free_slots() == 0 {
        return Some(match agent.info.slots {
            1 => "its only slot is taken".to_owned(),
            slots => format!("all {slots} slots are taken"),
        });
    }
    if class.cpus > free.millicpus {
        return short("CPUs", show_cpus(class.cpus), show_cpus(free.millicpus));
    }
    if class.memory > free.memory_bytes {
        return short(
            "memory",
            show_bytes(class.memory),
            show_bytes(free.memory_bytes),
        );
    }
    if class.subnets > free.subnets {
        return short(
            "subnets",
            class.subnets.to_string(),
            free.subnets.to_string(),
        );
    }
    None
}

fn show_cpus(millicpus: u64) -> String {
    #[allow(clippy::cast_precision_loss)] // A number for people.
    let cpus = millicpus as f64 / 1000.0;
    format!("{cpus}")
}

fn show_bytes(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss)] // A number for people.
    let mib = bytes as f64 / 1_048_576.0;
    if mib >= 1024.0 {
        format!("{:.1}GiB", mib / 1024.0)
    } else {
        format!("{mib:.0}MiB")
    }
}
