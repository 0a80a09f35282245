//! Measures the time from a cancel until nothing is left in the engine. A client of the coordinator cancels cells in
//! the middle of a step, each with a network and a few containers. This is compared with the removal of as many objects
//! by bare calls, all cells at once, in alternating rounds.

use super::{bare, image, median, ours};
use bollard::Docker;
use futures::future::join_all;
use phalanx_client::local::LocalRun;
use phalanx_proto::v1;
use phalanx_shared::event::{EventKind, Recorded};
use phalanx_shared::id::RunId;
use std::time::{Duration, Instant};
use tokio_stream::StreamExt;

const SERVICES: usize = 3;

pub async fn all(docker: &Docker, rounds: usize) {
    println!(
        "Cancel → nothing left, medians of {rounds} alternating rounds, {SERVICES} containers and a network in each cell.\n"
    );
    println!(
        "| cells | stop_grace_period | bare removal (ms) | cancel → nothing left (ms) | (ours − grace) ÷ bare, median | of each round |"
    );
    println!("|---|---|---|---|---|---|");
    // The containers' process ignores SIGTERM, so the whole grace period is used up.
    for (cells, grace_s) in [(1, 0), (9, 0), (9, 2)] {
        let (mut bares, mut cancels) = (Vec::new(), Vec::new());
        for round in 0..=rounds {
            let bare = bare_removal(docker, cells).await;
            let cancel = cancelled(docker, cells, grace_s).await;
            if round > 0 {
                bares.push(bare);
                cancels.push(cancel);
            }
        }
        let grace = Duration::from_secs(grace_s);
        let mut ratios: Vec<f64> = bares
            .iter()
            .zip(&cancels)
            .map(|(bare, cancel)| cancel.saturating_sub(grace).as_secs_f64() / bare.as_secs_f64())
            .collect();
        let each: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        ratios.sort_by(f64::total_cmp);
        println!(
            "| {cells} | {grace_s} s | {} | {} | {:.2} | {} |",
            median(bares).as_millis(),
            median(cancels).as_millis(),
            ratios[ratios.len() / 2],
            each.join(" "),
        );
    }
}

/// Creates the objects of this many cells. Returns the time that their removal takes.
async fn bare_removal(docker: &Docker, cells: usize) -> Duration {
    let made = join_all((0..cells).map(|_| async {
        let network = bare::network(docker).await;
        let names: Vec<String> = (0..SERVICES).map(|n| format!("{network}-{n}")).collect();
        join_all(
            names
                .iter()
                .map(|name| bare::container(docker, &network, name)),
        )
        .await;
        (network, names)
    }))
    .await;
    let began = Instant::now();
    join_all(made.iter().map(|(network, names)| async move {
        join_all(
            names
                .iter()
                .map(|name| bare::remove_container(docker, name)),
        )
        .await;
        docker.remove_network(network).await.unwrap();
    }))
    .await;
    began.elapsed()
}

/// Returns the time from the client's cancel until the last cell reports that nothing is left. The engine confirms it.
async fn cancelled(docker: &Docker, cells: usize, grace_s: u64) -> Duration {
    let place = tempfile::tempdir().unwrap();
    let options = ours::options(place.path(), cells);
    let local = LocalRun::start(&options).await.unwrap();
    let source = v1::SourceFile {
        name: "cancel.yaml".to_owned(),
        text: spec(cells, grace_s),
    };
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
    let (mut waiting, mut gone, mut began) = (0, 0, None);
    while let Some(item) = stream.next().await {
        let recorded = Recorded::try_from(item.unwrap()).unwrap();
        match recorded.event.kind {
            EventKind::StepStarted { action, .. } if action == "wait" => waiting += 1,
            EventKind::TornDown { left, .. } => {
                assert!(left.is_empty(), "{left:?}");
                gone += 1;
            }
            _ => {}
        }
        if waiting == cells && began.is_none() {
            let request = v1::CancelRequest {
                run_id: run.to_string(),
                reason: "measured".to_owned(),
                force: false,
            };
            began = Some(Instant::now());
            local.client().cancel(request).await.unwrap();
        }
        if gone == cells {
            break;
        }
    }
    let took = began.unwrap().elapsed();
    assert_eq!(
        ours::left(docker, &run).await,
        0,
        "something of {run} is left"
    );
    assert!(local.close().await, "everything was cleaned up");
    took
}

fn spec(cells: usize, grace_s: u64) -> String {
    let (image, command) = (image::NAME, image::COMMAND.map(|word| format!("{word:?}")));
    let command = command.join(", ");
    let services: String = (0..SERVICES)
        .map(|n| format!("  s{n}: {{ image: {image:?}, pull_policy: never, command: [{command}], stop_grace_period: {grace_s}s }}\n"))
        .collect();
    let ready: String = (0..SERVICES)
        .map(|n| format!("    - exec: {{ service: s{n}, command: [\"true\"] }}\n"))
        .collect();
    format!(
        "name: cancel
strategy: {{ matrix: {{ n: \"${{{{ lists.range({cells}) }}}}\" }} }}
cell: {{ resources: {{ cpus: 0.01, memory: 1MiB }} }}
services:
{services}phases:
  hold:
{ready}    - wait: {{ for: 1h }}
"
    )
}
