//! Submits and watches runs of a coordinator.

use crate::rig::Coordinator;
use phalanx_proto::v1;
use phalanx_shared::event::Recorded;

/// Returns a spec with many cells of one step each. `strategy` and `cell` are additional keys of these.
pub fn spec(cells: u32, strategy: &str, cell: &str) -> String {
    format!(
        "name: fleet
strategy: {{ fail-fast: false, {strategy} matrix: {{ n: \"${{{{ lists.range({cells}) }}}}\" }} }}
cell: {{ {cell} resources: {{ cpus: 0.001, memory: 1MiB }} }}
phases: {{ work: [ {{ wait: {{ for: 1s }} }} ] }}
"
    )
}

pub async fn submit(at: &Coordinator, spec: String) -> String {
    let source = v1::SourceFile {
        name: "fleet.yaml".to_owned(),
        text: spec,
    };
    let request = v1::SubmitRequest {
        files: vec![source],
        ..v1::SubmitRequest::default()
    };
    let answer = at.client().await.submit(request).await;
    answer.unwrap().into_inner().run_id
}

pub async fn cancel(at: &Coordinator, run: &str) {
    let request = v1::CancelRequest {
        run_id: run.to_owned(),
        reason: "measured".to_owned(),
        force: true,
    };
    at.client().await.cancel(request).await.unwrap();
}

/// Streams the events of a run; the stream ends after the run's last stack is removed.
pub async fn watch(at: &Coordinator, run: &str) -> tonic::Streaming<v1::Recorded> {
    let request = v1::WatchRequest {
        run_id: run.to_owned(),
        from_position: 1,
        follow: true,
    };
    let client = at.client().await;
    let mut client = client.max_decoding_message_size(phalanx_proto::limit::CLIENT_ANSWER_BYTES);
    client.watch(request).await.unwrap().into_inner()
}

/// Returns all events of a run after its end.
pub async fn events(at: &Coordinator, run: &str) -> Vec<Recorded> {
    let mut stream = watch(at, run).await;
    let mut events = Vec::new();
    while let Some(recorded) = stream.message().await.unwrap() {
        events.push(Recorded::try_from(recorded).unwrap());
    }
    events
}
