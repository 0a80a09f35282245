//! Artifacts of steps, services and cells, from host processes and a workspace.

use crate::rig::{Ended, Rig, spec, steps};
use phalanx_agent::sink::ArtifactPart;
use phalanx_shared::event::{Artifact, ArtifactProblem, EventKind};
use phalanx_shared::outcome::Outcome;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// The facts of artifacts, in order.
fn told(ended: &Ended) -> Vec<Artifact> {
    let facts = ended.events.iter().filter_map(|kind| match kind {
        EventKind::ArtifactCollected(artifact) => Some((**artifact).clone()),
        _ => None,
    });
    facts.collect()
}

/// The content of what was sent completely, by name. Its digest is checked.
fn kept(ended: &Ended) -> BTreeMap<String, String> {
    let mut bytes: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    let mut complete = BTreeMap::new();
    for piece in &ended.pieces {
        match &piece.part {
            ArtifactPart::Bytes(more) => bytes.entry(piece.id).or_default().extend(more),
            ArtifactPart::End { digest, size } => {
                let content = bytes.remove(&piece.id).unwrap_or_default();
                if let Some(digest) = digest {
                    assert_eq!(*digest, hex::encode(Sha256::digest(&content)));
                    assert_eq!(*size, content.len() as u64);
                    complete.insert(piece.id, content);
                }
            }
        }
    }
    assert!(bytes.is_empty(), "what was begun was ended");
    let facts = told(ended).into_iter().filter(Artifact::is_kept);
    facts
        .map(|fact| {
            let content = complete.remove(&fact.id).unwrap();
            (fact.name, String::from_utf8_lossy(&content).into_owned())
        })
        .collect()
}

fn names(ended: &Ended) -> Vec<String> {
    kept(ended).into_keys().collect()
}

/// The reasons why something is not kept.
fn lacks(ended: &Ended) -> Vec<(ArtifactProblem, String)> {
    let facts = told(ended).into_iter();
    let lacks = facts.filter_map(|fact| fact.lack);
    lacks.map(|lack| (lack.problem, lack.reason)).collect()
}

fn in_workspace(mut rig: Rig, workspace: &Path) -> Rig {
    rig.workspace = Some(workspace.to_owned());
    rig
}

#[tokio::test]
async fn a_step_keeps_files_after_any_outcome_or_only_if_it_failed() {
    let workspace = tempfile::tempdir().unwrap();
    let rig = steps(
        "- run: mkdir -p out/deep && echo one > out/a.log && echo two > out/deep/b.log && echo shot > shot.png
  artifacts:
    - { from: 'out/**', name: logs }
    - { from: shot.png, when: failed }
- run: exit 1
  continue-on-failure: true
  artifacts: [{ from: shot.png, when: failed }]
- run: 'true'
  artifacts: shot.png",
    );
    let ended = in_workspace(rig, workspace.path()).run().await;
    assert_eq!(
        kept(&ended),
        BTreeMap::from(
            [
                ("logs/a.log", "one\n"),
                ("logs/deep/b.log", "two\n"),
                ("shot.png", "shot\n"),
                ("shot-2.png", "shot\n"),
            ]
            .map(|(name, content)| (name.to_owned(), content.to_owned()))
        )
    );
    let first = &told(&ended)[0];
    assert_eq!(first.step.as_deref(), Some("main/0"));
    assert_eq!(
        (first.from.as_str(), first.media_type.as_str(), first.size),
        ("out/a.log", "text/plain", 4)
    );
    // Facts come before the end of their step, and so before the verdict.
    let at = |found: &dyn Fn(&EventKind) -> bool| ended.events.iter().position(found).unwrap();
    let fact = at(&|kind| matches!(kind, EventKind::ArtifactCollected(_)));
    let step =
        at(&|kind| matches!(kind, EventKind::StepFinished(result) if result.path == "main/0"));
    assert!(fact < step);
}

#[tokio::test]
async fn a_pattern_without_a_file_is_told_and_an_error_only_if_the_spec_says_so() {
    let workspace = tempfile::tempdir().unwrap();
    let rig = steps(
        "- run: 'true'
  artifacts:
    - none/*.png
    - { from: nothing, if-no-files-found: ignore }",
    );
    let ended = in_workspace(rig, workspace.path()).run().await;
    assert_eq!(ended.outcome(), Outcome::Passed);
    let missing = "no file matches none/*.png".to_owned();
    assert_eq!(lacks(&ended), [(ArtifactProblem::Missing, missing)]);

    let rig = steps("- { run: 'true', artifacts: { from: shot.png, if-no-files-found: error } }");
    let ended = in_workspace(rig, workspace.path()).run().await;
    let reason = ended.step("main/0").reason.clone();
    assert_eq!(ended.outcome(), Outcome::Errored);
    assert_eq!(reason.as_deref(), Some("no file matches shot.png"));

    let rig = spec(
        "cell: { artifacts: { from: shot.png, if-no-files-found: error } }
phases: { main: [{ run: 'true' }] }",
    );
    let ended = in_workspace(rig, workspace.path()).run().await;
    let (outcome, reason) = ended.finished();
    assert_eq!(outcome, Outcome::Errored);
    assert_eq!(reason.as_deref(), Some("no file matches shot.png"));
}

#[tokio::test]
async fn services_and_the_cell_keep_files_when_the_last_step_is_over() {
    let workspace = tempfile::tempdir().unwrap();
    let rig = spec(
        "services:
  app:
    process: [sh, -c, 'mkdir -p data; echo up > data/app.log; exec sleep 100']
    working_dir: data-of-app
    ready: { exec: [test, -e, data/app.log] }
    artifacts: [data/*.log]
cell: { artifacts: { from: 'app:data/app.log', name: copy.log, when: failed } }
phases: { main: [{ wait: { service: app, until: ready } }, { run: exit 1 }] }",
    );
    std::fs::create_dir(workspace.path().join("data-of-app")).unwrap();
    let ended = in_workspace(rig, workspace.path()).run().await;
    assert_eq!(ended.outcome(), Outcome::Failed, "{:#?}", ended.events);
    assert_eq!(
        names(&ended),
        ["app.log", "copy.log"],
        "{:#?}",
        told(&ended)
    );
    let from: Vec<String> = told(&ended).into_iter().map(|fact| fact.from).collect();
    assert_eq!(from, ["app:data/app.log", "app:data/app.log"]);
}

#[tokio::test]
async fn a_step_that_is_cancelled_or_times_out_still_keeps_its_files() {
    for force in [false, true] {
        let workspace = tempfile::tempdir().unwrap();
        // The attempt has a workspace of its own.
        let file = workspace.path().join("begun");
        let rig = steps(&format!(
            "- run: echo half > out.log; echo begun > {}; sleep 100
  timeout: 1m
  artifacts: out.log",
            file.display()
        ));
        let mut running = in_workspace(rig, workspace.path()).begin();
        running.until_started("main/0").await;
        while std::fs::read_to_string(&file)
            .unwrap_or_default()
            .is_empty()
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        running.cancel(Duration::from_secs(20), force);
        let ended = running.end().await;
        assert_eq!(ended.outcome(), Outcome::Cancelled);
        match force {
            false => assert_eq!(kept(&ended)["out.log"], "half\n"),
            true => assert_eq!(
                lacks(&ended),
                [(
                    ArtifactProblem::Cut,
                    "no time was left to copy it".to_owned()
                )]
            ),
        }
    }
    let workspace = tempfile::tempdir().unwrap();
    let rig = steps(
        "- { run: echo half > out.log; sleep 100, timeout: 1s, artifacts: { from: out.log, when: failed } }",
    );
    let ended = in_workspace(rig, workspace.path()).run().await;
    assert_eq!(names(&ended), ["out.log"]);
}

#[tokio::test]
async fn secrets_are_masked_in_text_files_unless_the_spec_says_otherwise() {
    const KEY: &str = "s3cret-value-canary";
    let workspace = tempfile::tempdir().unwrap();
    let rig = spec(
        "secrets: [key]
phases:
  main:
    - run:
        env: { KEY: \"${{ secrets.key }}\" }
        script: |
          echo \"key=$KEY;\" > masked.txt
          echo \"key=$KEY;\" > plain.txt
          printf 'key=%s;\\000' \"$KEY\" > binary.dat
          printf 'GIF89a\\000%s' \"$KEY\" > shot.gif
          echo x > \"$KEY.log\"
      artifacts:
        - masked.txt
        - { from: plain.txt, mask: false }
        - binary.dat
        - shot.gif
        - '*.log'",
    );
    let rig = in_workspace(rig.secret("key", KEY), workspace.path());
    let ended = rig.run().await;
    assert_eq!(ended.outcome(), Outcome::Passed, "{:#?}", ended.events);
    let kept = kept(&ended);
    assert_eq!(kept["masked.txt"], "key=***;\n");
    assert_eq!(kept["plain.txt"], format!("key={KEY};\n"));
    assert_eq!(kept["binary.dat"], "key=***;\0");
    // Its bytes would be damaged.
    assert_eq!(kept["shot.gif"], format!("GIF89a\0{KEY}"));
    // A file's name is masked as well.
    let events = serde_json::to_string(&ended.events).unwrap();
    assert!(!events.contains(KEY), "{events}");
}

#[tokio::test]
async fn what_is_too_large_leads_out_or_is_no_file_is_said_and_not_kept() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "outside").unwrap();
    let workspace = outside.path().join("workspace");
    std::fs::create_dir(&workspace).unwrap();
    let rig = steps(
        "- run: |
    truncate -s 1T sparse.bin
    ln -s ../secret leads-out
    ln -s /etc/hostname absolute
    mkfifo pipe
    echo fine > fine.txt
  artifacts:
    - '*'
    - leads-out
    - absolute
    - pipe
    - { from: fine.txt, max: 1 }",
    );
    let ended = in_workspace(rig, &workspace).run().await;
    assert_eq!(ended.outcome(), Outcome::Passed);
    assert_eq!(names(&ended), ["fine.txt"]);
    let lacks = lacks(&ended);
    let problems: Vec<ArtifactProblem> = lacks.iter().map(|(problem, _)| *problem).collect();
    assert_eq!(
        problems,
        [
            ArtifactProblem::TooLarge,
            ArtifactProblem::Unreadable,
            ArtifactProblem::Unreadable,
            ArtifactProblem::Unreadable,
            ArtifactProblem::TooLarge,
        ],
        "{lacks:?}"
    );
    assert_eq!(lacks[0].1, "it has 1 TiB, more than 64 MiB (`max`)");
    assert_eq!(lacks[4].1, "it has 5 B, more than 1 B (`max`)");
}

#[tokio::test]
async fn a_retried_step_keeps_what_differs_between_its_tries() {
    let workspace = tempfile::tempdir().unwrap();
    let rig = steps(
        "- run: echo same > same.log; date +%N > run.log; test -e done || { touch done; exit 1; }
  retry: { times: 2 }
  artifacts: ['*.log']",
    );
    let ended = in_workspace(rig, workspace.path()).run().await;
    assert_eq!(ended.step("main/0").outcome, Outcome::Flaky);
    assert_eq!(names(&ended), ["run-2.log", "run.log", "same.log"]);
}

#[tokio::test]
async fn an_order_that_comes_while_files_are_kept_at_the_end_ends_that() {
    let workspace = tempfile::tempdir().unwrap();
    let rig = spec(
        "cell:
  artifacts: [{ from: large.bin, max: 1GiB }, later.txt]
phases:
  main:
    - run: truncate -s 400M large.bin; echo later > later.txt",
    );
    let mut running = in_workspace(rig, workspace.path()).begin();
    // More than fits on its way: the rest waits until the order has come.
    assert!(running.artifacts.recv().await.is_some());
    running.cancel(Duration::from_secs(20), true);
    let ended = running.end().await;
    assert_eq!(ended.outcome(), Outcome::Passed);
    let cut = || {
        let reason = "no time was left to copy it".to_owned();
        (ArtifactProblem::Cut, reason)
    };
    assert_eq!(lacks(&ended), [cut(), cut()]);
}

#[tokio::test]
async fn a_file_that_is_named_like_the_directory_of_another_gets_a_number() {
    let workspace = tempfile::tempdir().unwrap();
    let rig = steps(
        "- run: echo a > app.log; mkdir logs; echo b > logs/b.log
  artifacts:
    - { from: app.log, name: logs }
    - { from: 'logs/**', name: logs }",
    );
    let ended = in_workspace(rig, workspace.path()).run().await;
    assert_eq!(names(&ended), ["logs", "logs-2/b.log"]);
}

#[tokio::test]
async fn many_tries_that_leave_the_same_files_use_up_no_limit() {
    let workspace = tempfile::tempdir().unwrap();
    let rig = steps(
        "- run: for n in $(seq 250); do echo $n > $n.txt; done; exit 1
  retry: { times: 5 }
  artifacts: ['*.txt', 'nothing']
- run: echo last > last.log
  always: true
  artifacts: last.log",
    );
    let ended = in_workspace(rig, workspace.path()).run().await;
    assert_eq!(names(&ended).len(), 251);
    let lacks = lacks(&ended);
    assert_eq!(lacks.len(), 1, "told once: {lacks:?}");
}
