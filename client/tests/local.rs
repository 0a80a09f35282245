//! Local mode end to end: from the text of a spec to a settled run, through the real coordinator and real agents over a
//! Unix socket. Each test runs with agents in this process and again with agents as child processes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use libtest_mimic::{Arguments, Failed, Trial};
use phalanx_agent::runtime::docker::DockerSettings;
use phalanx_client::local::{self, LocalRun, Options};
use phalanx_proto::v1;
use phalanx_shared::event::{Event, Recorded};
use phalanx_shared::id::RunId;
use phalanx_shared::invariant;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::{CellStatus, RunState};
use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio_stream::StreamExt;

/// Guards against hanging.
const BOUND: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    if let Some(code) = phalanx_client::entry::early_command() {
        return code;
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    if let Ok(filter) = tracing_subscriber::EnvFilter::try_from_env("PHALANX_LOG") {
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .init();
    }
    let mut trials = Vec::new();
    for processes in [false, true] {
        let place = if processes {
            "as processes"
        } else {
            "in this process"
        };
        let mut add = |name: &str, test: fn(bool) -> Result<(), Failed>| {
            trials.push(Trial::test(format!("{name} ({place})"), move || {
                test(processes)
            }));
        };
        add("the quickstart passes in every cell", |p| {
            block_on(quickstart(p))
        });
        add(
            "outcomes, reasons and logs arrive as the cells had them",
            |p| block_on(outcomes(p)),
        );
        add(
            "a cancelled run runs its always steps and leaves nothing",
            |p| block_on(cancelled(p)),
        );
        add(
            "a run that was cut off goes on without repeating a finished cell",
            |p| block_on(resumed(p)),
        );
        add(
            "two runs at once don't see each other and are listed together",
            |p| block_on(two(p)),
        );
        add("a failed cell is run again beside its run", |p| {
            block_on(rerun(p))
        });
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn block_on(test: impl Future<Output = ()>) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        tokio::time::timeout(BOUND, test)
            .await
            .map_err(|_| Failed::from("it hangs"))
    })
}

fn options(state_dir: &Path, agents_as_processes: bool) -> Options {
    Options {
        state_dir: state_dir.to_owned(),
        agents: 1,
        slots: 8,
        agents_as_processes,
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
        cancel_grace: Duration::from_secs(10),
        max_cells: None,
        tracer: None,
        program: Some(PathBuf::from(env!("CARGO_BIN_EXE_phalanx"))),
    }
}

fn request(text: &str) -> v1::SubmitRequest {
    v1::SubmitRequest {
        files: vec![v1::SourceFile {
            name: "spec.yaml".into(),
            text: text.to_owned(),
        }],
        ..Default::default()
    }
}

async fn submit(local: &LocalRun, request: v1::SubmitRequest) -> RunId {
    let answer = local.client().submit(request).await.unwrap();
    answer.into_inner().run_id.into()
}

/// Follows a run until a condition is true or the stream ends.
async fn follow(
    local: &LocalRun,
    run: &RunId,
    until: impl Fn(&RunState) -> bool,
) -> (RunState, Vec<Event>) {
    let request = v1::WatchRequest {
        run_id: run.to_string(),
        from_position: 1,
        follow: true,
    };
    let mut stream = local.client().watch(request).await.unwrap().into_inner();
    let (mut state, mut events) = (RunState::new(run.clone()), Vec::new());
    while let Some(item) = stream.next().await {
        let recorded = Recorded::try_from(item.unwrap()).unwrap();
        state.apply(&recorded.event);
        events.push(recorded.event);
        if until(&state) {
            break;
        }
    }
    (state, events)
}

/// Resumes a run. Retries, because a child that is forked at the moment of the kill holds the lock until its `exec`.
async fn resume_when_free(options: &Options, run: &RunId) -> LocalRun {
    for _ in 0..1000 {
        match LocalRun::resume(options, run, BTreeMap::new()).await {
            Err(local::Error::Live { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
            other => return other.unwrap(),
        }
    }
    panic!("the killed run's lock is still held after 10 s");
}

async fn to_the_end(local: &LocalRun, run: &RunId) -> RunState {
    let (state, events) = follow(local, run, |_| false).await;
    assert!(state.is_settled(), "{:?}", state.counts());
    invariant::one_outcome(run, &events).unwrap();
    state
}

fn reasons(state: &RunState) -> Vec<String> {
    let cells = state.cells.values();
    cells
        .map(|c| format!("{:?}: {:?}", c.outcome, c.reason))
        .collect()
}

async fn quickstart(processes: bool) {
    let place = tempfile::tempdir().unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/quickstart.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let local = LocalRun::start(&options(place.path(), processes))
        .await
        .unwrap();
    let run = submit(&local, request(&text)).await;
    assert_eq!(run, *local.run());
    let state = to_the_end(&local, &run).await;
    assert_eq!(
        state.outcome,
        Some(Outcome::Passed),
        "{:#?}",
        reasons(&state)
    );
    assert_eq!(state.counts().passed, 5);
    assert!(local.close().await, "everything was cleaned up");
}

const OUTCOMES: &str = r#"
name: outcomes
strategy: { matrix: { how: [passes, fails, skips] } }
cell: { name: "${{ matrix.how }}" }
phases:
  assert:
    - name: says its name
      when: matrix.how != 'skips'
      reason: nothing to do here
      run: echo "this is $((6 * 7)) ${{ matrix.how }}"
      expect: ["stdout.contains('42')", "matrix.how == 'passes'"]
"#;

async fn outcomes(processes: bool) {
    let place = tempfile::tempdir().unwrap();
    let local = LocalRun::start(&options(place.path(), processes))
        .await
        .unwrap();
    let run = submit(&local, request(OUTCOMES)).await;
    let state = to_the_end(&local, &run).await;
    let outcomes: Vec<_> = state.cells.values().map(|c| c.outcome.unwrap()).collect();
    assert_eq!(
        outcomes,
        [Outcome::Passed, Outcome::Failed, Outcome::Skipped],
        "{:#?}",
        reasons(&state)
    );
    assert_eq!(state.outcome, Some(Outcome::Failed));
    let skipped = state.cells[2]
        .newest()
        .unwrap()
        .steps
        .values()
        .last()
        .unwrap()
        .clone();
    assert_eq!(
        skipped.result.unwrap().reason.as_deref(),
        Some("nothing to do here")
    );
    assert!(local.close().await);
    // Whether it was killed or has ended, the journal can still be read.
    let look = local::open(place.path(), &run.as_str()[..20])
        .await
        .unwrap();
    let request = v1::WatchRequest {
        run_id: run.to_string(),
        from_position: 1,
        follow: true,
    };
    let stream = look.client().watch(request).await.unwrap().into_inner();
    let mut again = RunState::new(run.clone());
    let mut items = std::pin::pin!(stream);
    while let Some(item) = items.next().await {
        again.apply(&Recorded::try_from(item.unwrap()).unwrap().event);
    }
    assert_eq!(again, state);
}

const LONG: &str = r#"
name: long
strategy: { matrix: { n: [1, 2, 3] } }
phases:
  work:
    - { name: waits, run: "sleep 600" }
  after:
    - { name: tidies, always: true, run: "touch ${{ inputs.place }}/tidied-${{ matrix.n }}" }
inputs: { place: {} }
"#;

async fn cancelled(processes: bool) {
    let place = tempfile::tempdir().unwrap();
    let local = LocalRun::start(&options(place.path(), processes))
        .await
        .unwrap();
    let inputs = serde_json::json!({ "place": place.path() }).to_string();
    let run = submit(
        &local,
        v1::SubmitRequest {
            inputs_json: inputs.into_bytes(),
            ..request(LONG)
        },
    )
    .await;
    let running = |s: &RunState| {
        s.cells
            .values()
            .all(|c| c.newest().is_some_and(|a| a.step.is_some()))
    };
    follow(&local, &run, running).await;
    let cancel = v1::CancelRequest {
        run_id: run.to_string(),
        reason: "Ctrl-C".into(),
        force: false,
    };
    local.client().cancel(cancel).await.unwrap();
    let state = to_the_end(&local, &run).await;
    assert_eq!(
        state.outcome,
        Some(Outcome::Cancelled),
        "{:#?}",
        reasons(&state)
    );
    for n in 1..=3 {
        assert!(place.path().join(format!("tidied-{n}")).exists());
    }
    assert!(local.close().await);
}

const GATED: &str = r#"
name: gated
inputs: { place: {} }
strategy: { matrix: { n: [1, 2, 3, 4] } }
phases:
  work:
    - { name: counts, run: "echo run >> ${{ inputs.place }}/cell-${{ matrix.n }}" }
    - { name: waits for the gate, when: matrix.n > 2, run: "while [ ! -e ${{ inputs.place }}/gate ]; do sleep 0.05; done" }
"#;

/// Kills the command without any clean-up.
async fn resumed(processes: bool) {
    let place = tempfile::tempdir().unwrap();
    let options = options(place.path(), processes);
    let local = LocalRun::start(&options).await.unwrap();
    let inputs = serde_json::json!({ "place": place.path() }).to_string();
    let run = submit(
        &local,
        v1::SubmitRequest {
            inputs_json: inputs.into_bytes(),
            ..request(GATED)
        },
    )
    .await;
    let half = |s: &RunState| {
        s.counts().passed == 2
            && s.cells
                .values()
                .filter(|c| {
                    c.status == CellStatus::Running && c.newest().is_some_and(|a| a.steps.len() > 2)
                })
                .count()
                == 2
    };
    follow(&local, &run, half).await;
    assert!(matches!(
        local::LocalRun::resume(&options, &run, BTreeMap::new()).await,
        Err(local::Error::Live { .. })
    ));
    local.kill().await;
    std::fs::write(place.path().join("gate"), "").unwrap();
    let local = resume_when_free(&options, &run).await;
    let state = to_the_end(&local, &run).await;
    assert_eq!(
        state.outcome,
        Some(Outcome::Passed),
        "{:#?}",
        reasons(&state)
    );
    for (n, times) in [(1, 1), (2, 1), (3, 2), (4, 2)] {
        let said = std::fs::read_to_string(place.path().join(format!("cell-{n}"))).unwrap();
        assert_eq!(said.lines().count(), times, "cell {n}");
    }
    assert!(local.close().await);
}

async fn two(processes: bool) {
    let place = tempfile::tempdir().unwrap();
    let options = options(place.path(), processes);
    let (a, b) = tokio::join!(LocalRun::start(&options), LocalRun::start(&options));
    let (a, b) = (a.unwrap(), b.unwrap());
    let (run_a, run_b) = tokio::join!(submit(&a, request(OUTCOMES)), submit(&b, request(OUTCOMES)));
    let (state_a, _) = tokio::join!(to_the_end(&a, &run_a), to_the_end(&b, &run_b));
    assert_eq!(state_a.outcome, Some(Outcome::Failed));
    assert!(a.close().await);
    // One has ended, the other one is still alive.
    let runs = local::list(place.path(), 10, false).await.unwrap();
    let mut ids: Vec<String> = runs.iter().map(|r| r.run_id.clone()).collect();
    ids.sort();
    let mut expected = vec![run_a.to_string(), run_b.to_string()];
    expected.sort();
    assert_eq!(ids, expected);
    assert!(b.close().await);
}

async fn rerun(processes: bool) {
    let place = tempfile::tempdir().unwrap();
    let options = options(place.path(), processes);
    let local = LocalRun::start(&options).await.unwrap();
    let run = submit(&local, request(OUTCOMES)).await;
    to_the_end(&local, &run).await;
    assert!(local.close().await);
    let local = LocalRun::beside(&options, &run).await.unwrap();
    let request = v1::RerunRequest {
        run_id: run.to_string(),
        failed: true,
        ..Default::default()
    };
    let again: RunId = local
        .client()
        .rerun(request)
        .await
        .unwrap()
        .into_inner()
        .run_id
        .into();
    let state = to_the_end(&local, &again).await;
    assert_eq!(state.cells.len(), 1);
    assert_eq!(state.outcome, Some(Outcome::Failed));
    assert!(local.close().await);
    let found = local::find(place.path(), again.as_str()).await.unwrap();
    assert_eq!(found.run, again);
}
