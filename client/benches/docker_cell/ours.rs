//! The same cells run by Phalanx: submits a spec to a coordinator and watches its events.

use super::{Round, Took, image};
use bollard::Docker;
use bollard::query_parameters::{ListContainersOptionsBuilder, ListNetworksOptionsBuilder};
use phalanx_agent::runtime::docker::DockerSettings;
use phalanx_client::local::{LocalRun, Options};
use phalanx_proto::v1;
use phalanx_shared::event::{EventKind, Recorded};
use phalanx_shared::id::{CellId, RunId};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::RunState;
use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio_stream::StreamExt;

pub async fn round(docker: &Docker, cells: usize, at_once: usize) -> Round {
    let place = tempfile::tempdir().unwrap();
    let local = LocalRun::start(&options(place.path(), at_once))
        .await
        .unwrap();
    // One at a time means one run after the other: each is submitted when nothing of the previous one is left.
    let runs = cells.div_ceil(at_once);
    let began = Instant::now();
    let mut all = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..runs {
        let (run, cells) = run(&local, cells / runs).await;
        all.extend(cells);
        ids.push(run);
    }
    let wall = began.elapsed();
    assert_eq!(all.len(), cells);
    for run in &ids {
        assert_eq!(left(docker, run).await, 0, "something of {run} is left");
    }
    assert!(local.close().await, "everything was cleaned up");
    Round { cells: all, wall }
}

/// Returns the options for a coordinator and one agent in this process, with the machine's engine.
pub fn options(place: &Path, slots: usize) -> Options {
    Options {
        state_dir: place.to_owned(),
        agents: 1,
        slots: u32::try_from(slots).unwrap(),
        agents_as_processes: false,
        cpu_overcommit: 8.0,
        memory_overcommit: 1.0,
        snapshots_mib: 0,
        snapshots_days: 0,
        policy: phalanx_shared::policy::Rules::open(phalanx_shared::policy::rules::OPEN),
        labels: vec![],
        docker: DockerSettings {
            ready_networks: 0,
            ..DockerSettings::default()
        },
        cancel_grace: Duration::ZERO,
        max_cells: None,
        tracer: None,
        program: None,
    }
}

fn spec(cells: usize) -> String {
    let (image, command) = (image::NAME, image::COMMAND.map(|word| format!("{word:?}")));
    format!(
        "name: bench
strategy: {{ matrix: {{ n: \"${{{{ lists.range({cells}) }}}}\" }} }}
cell: {{ resources: {{ cpus: 0.01, memory: 1MiB }} }}
services:
  s: {{ image: {image:?}, pull_policy: never, command: [{}], stop_grace_period: 0s }}
phases:
  check:
    - exec: {{ service: s, command: [\"true\"] }}
",
        command.join(", ")
    )
}

async fn run(local: &LocalRun, cells: usize) -> (RunId, Vec<Took>) {
    let source = v1::SourceFile {
        name: "bench.yaml".to_owned(),
        text: spec(cells),
    };
    let began = Instant::now();
    let request = v1::SubmitRequest {
        files: vec![source],
        ..v1::SubmitRequest::default()
    };
    let answer = local.client().submit(request).await.unwrap();
    let run: RunId = answer.into_inner().run_id.into();
    let request = v1::WatchRequest {
        run_id: run.to_string(),
        from_position: 1,
        follow: true,
    };
    let mut stream = local.client().watch(request).await.unwrap().into_inner();
    let mut state = RunState::new(run.clone());
    let mut outcomes: HashMap<CellId, Duration> = HashMap::new();
    let mut gone: HashMap<CellId, Duration> = HashMap::new();
    while let Some(item) = stream.next().await {
        let recorded = Recorded::try_from(item.unwrap()).unwrap();
        state.apply(&recorded.event);
        let now = began.elapsed();
        match (&recorded.event.kind, &recorded.event.attempt) {
            (EventKind::CellFinished { cell, .. }, _) => {
                outcomes.insert(cell.clone(), now);
            }
            (EventKind::TornDown { left, .. }, Some(attempt)) => {
                assert!(left.is_empty(), "{left:?}");
                gone.insert(attempt.cell.clone(), now);
            }
            _ => {}
        }
    }
    assert_eq!(state.outcome, Some(Outcome::Passed), "{state:#?}");
    let cells = outcomes.into_iter().map(|(cell, outcome)| Took {
        outcome,
        whole: gone[&cell].max(outcome),
    });
    (run, cells.collect())
}

/// Returns the number of containers and networks of a run in the engine.
pub async fn left(docker: &Docker, run: &RunId) -> usize {
    let filter = HashMap::from([("label".to_owned(), vec![format!("phalanx.run={run}")])]);
    let options = ListContainersOptionsBuilder::default();
    let options = options.all(true).filters(&filter).build();
    let containers = docker.list_containers(Some(options)).await.unwrap();
    let options = ListNetworksOptionsBuilder::default().filters(&filter);
    let networks = docker.list_networks(Some(options.build())).await.unwrap();
    containers.len() + networks.len()
}
