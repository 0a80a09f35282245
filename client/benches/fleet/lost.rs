//! Measures how soon a lost agent is given up: one that was killed (`kill -9`, reported by the process that it leaves
//! behind), and ones behind a network that drops everything. Uses real agents and the `attempt_lost` event of the run's
//! journal.

use crate::proxy::Proxy;
use crate::rig::{Coordinator, Fleet};
use crate::{row, runs, spread};
use phalanx_shared::event::{EventKind, Recorded};
use phalanx_shared::time::Timestamp;
use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const KILLS: u32 = 10;
/// One agent per eighth of the heartbeat interval.
const SILENT: u32 = 8;
const APART: Duration = Duration::from_millis(250);

pub async fn all() {
    killed().await;
    silent().await;
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(since.as_micros()).unwrap())
}

async fn killed() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let mut took = Vec::new();
    for round in 0..KILLS {
        let mut agent = fleet.agent(&format!("agent-{round}"), &at.url(), 1);
        let mut run = Held::submit(&at, 1).await;
        run.wait_until_all_run(1).await;
        let killed = now();
        agent.kill();
        took.push(run.next_loss().await.0.since(killed));
        runs::cancel(&at, &run.id).await;
    }
    let what = "agent killed (`kill -9`) → its attempt is lost, p50 / p99";
    row(what, &spread(took), &format!("{KILLS} agents; aim 1 s"));
}

async fn silent() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let mut proxies = HashMap::new();
    let mut agents = Vec::new();
    for number in 0..SILENT {
        let name = format!("agent-{number}");
        let proxy = Proxy::start(at.address).await;
        agents.push(fleet.agent(&name, &proxy.address, 1));
        proxies.insert(name, proxy);
    }
    let mut run = Held::submit(&at, SILENT).await;
    run.wait_until_all_run(SILENT as usize).await;
    let mut since = HashMap::new();
    for (name, proxy) in &proxies {
        proxy.swallow();
        since.insert(name.clone(), now());
        tokio::time::sleep(APART).await;
    }
    let mut took = Vec::new();
    for _ in 0..SILENT {
        let (lost, agent) = run.next_loss().await;
        took.push(lost.since(since[&agent]));
    }
    runs::cancel(&at, &run.id).await;
    let longest = took.iter().max().copied().unwrap_or_default();
    row(
        "network swallows everything → the agent's attempt is lost, p50 / p99",
        &spread(took),
        &format!(
            "{SILENT} agents at different moments of their heartbeat, the last after {longest:.1?}; aim 15 s"
        ),
    );
}

/// A run whose cells never end, and its events.
struct Held {
    id: String,
    events: tonic::Streaming<phalanx_proto::v1::Recorded>,
    /// The agent of each cell.
    agents: HashMap<String, String>,
}

impl Held {
    async fn submit(at: &Coordinator, cells: u32) -> Held {
        let spec = runs::spec(cells, "", "").replace("for: 1s", "for: 1h");
        let id = runs::submit(at, spec).await;
        Held {
            events: runs::watch(at, &id).await,
            id,
            agents: HashMap::new(),
        }
    }

    async fn next(&mut self) -> Recorded {
        let message = self.events.message().await.unwrap();
        Recorded::try_from(message.unwrap()).unwrap()
    }

    async fn wait_until_all_run(&mut self, cells: usize) {
        let mut running = 0;
        while running < cells {
            match self.next().await.event.kind {
                EventKind::CellOffered {
                    token, agent_name, ..
                } => {
                    self.agents.insert(token.cell.to_string(), agent_name);
                }
                EventKind::StepStarted { action, .. } if action == "wait" => running += 1,
                _ => {}
            }
        }
    }

    /// Returns when the next attempt was lost, and the agent that ran it.
    async fn next_loss(&mut self) -> (Timestamp, String) {
        loop {
            let event = self.next().await.event;
            if let EventKind::AttemptLost { token, .. } = event.kind {
                let cell = token.cell.to_string();
                return (event.at, self.agents.remove(&cell).unwrap());
            }
        }
    }
}
