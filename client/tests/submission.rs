//! A client's plan equals the coordinator's plan: one spec through both.
#![allow(clippy::unwrap_used)]

use phalanx_client::prepare::{Prepared, prepare};
use phalanx_client::workspace::Packed;
use phalanx_coordinator::journal::Submission;
use phalanx_coordinator::submission::{Planner, SpecPlanner};
use phalanx_coordinator::workspace::Workspaces;
use phalanx_shared::diagnostic::Source;
use serde_json::json;
use std::path::Path;

const SPEC: &str = "
name: shop
include: [more.yaml]
inputs: { v: { default: '1' } }
workspace: { include: ['*.toml', 'none/**'] }
strategy: { matrix: { a: [x, y] } }
vars: { release: \"${{ fromTOML(file('shop.toml')).release }}\" }
secrets: [licence]
services: { s: { image: \"shop:${{ vars.release }}-${{ matrix.a }}\" } }
phases: { assert: [{ run: 'true' }] }
";

fn submission() -> Submission {
    let file = |name: &str, text: &str| Source {
        name: name.into(),
        text: text.into(),
    };
    Submission {
        files: vec![file("shop.yaml", SPEC), file("more.yaml", "coverage: {}\n")],
        inputs: json!({"v": "2"}).as_object().unwrap().clone(),
        ..Submission::default()
    }
}

fn planner(folder: &Path) -> SpecPlanner {
    SpecPlanner {
        workspaces: Workspaces::new(folder.join("store")),
        max_cells: None,
    }
}

fn prepared(submission: Submission, root: &Path) -> Prepared {
    prepare(submission, root, None).unwrap_or_else(|r| panic!("{r:?}"))
}

/// Creates a directory with the files that the spec needs.
fn root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("shop.toml"), "release = 7").unwrap();
    root
}

/// Stores a workspace as an upload does.
fn send(packed: &Packed, store: &Workspaces) {
    let mut parts = Vec::new();
    packed
        .send(&mut |part| {
            parts.push(part);
            true
        })
        .unwrap();
    let mut parts = parts.into_iter().skip(1);
    store.take(&packed.digest, &mut || parts.next()).unwrap();
}

#[tokio::test]
async fn a_submission_becomes_a_plan_whose_jobs_can_be_made_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let planner = planner(folder.path());
    let root = root();
    let prepared = prepared(submission(), root.path());
    let warned = |text: &str| prepared.warnings.iter().any(|w| w.message.contains(text));
    assert!(warned("`none/**` matches no file"));
    send(prepared.workspace.as_ref().unwrap(), &planner.workspaces);
    // The coordinator doesn't need the client's files.
    drop(root);
    let submission = prepared.submission;
    let planned = planner
        .plan(&submission)
        .unwrap_or_else(|r| panic!("{r:?}"));
    assert_eq!(planned.plan, prepared.plan);
    assert_eq!(planned.plan.inputs["v"], "2");
    let cell = planned.plan.cells[1].id.clone();
    let images = planned.jobs.images(&cell, &"r".into());
    assert_eq!(images, ["shop:7-y".into()]);
    assert_eq!(planned.jobs.secrets(), ["licence"]);
    // The journal keeps enough of the submission for a restarted coordinator.
    let kept = serde_json::to_string(&submission).unwrap();
    let kept: Submission = serde_json::from_str(&kept).unwrap();
    let jobs = planner
        .jobs(&kept, &planned.plan)
        .unwrap_or_else(|r| panic!("{r:?}"));
    let (first, again) = (
        planned.jobs.job(&cell).await.unwrap(),
        jobs.job(&cell).await.unwrap(),
    );
    assert_eq!(again.vars["release"], 7);
    assert_eq!(first, again);
}

#[test]
fn what_a_submission_does_not_bring_is_said_and_not_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let planner = planner(folder.path());
    let root = root();
    let ready = prepared(submission(), root.path());
    let refusal = |submission: &Submission| {
        let refused = planner.plan(submission).err().unwrap();
        refused.diagnostics[0].message.clone()
    };
    // Its digest is known, but its files aren't uploaded yet.
    let digest = ready.submission.workspace_digest.clone().unwrap();
    assert!(refusal(&ready.submission).contains(&format!("doesn't hold the workspace {digest}")));
    send(ready.workspace.as_ref().unwrap(), &planner.workspaces);
    assert!(planner.plan(&ready.submission).is_ok());
    let without = Submission {
        workspace_digest: None,
        ..ready.submission.clone()
    };
    assert!(refusal(&without).contains("brought no files"));
    let file = root.path().join("shop.toml").display().to_string();
    let mut absolute = ready.submission.clone();
    absolute.files[0].text = SPEC.replace("shop.toml", &file);
    assert!(refusal(&absolute).contains("didn't bring this file"));
}

#[test]
fn a_wrong_submission_is_refused_with_every_finding() {
    let root = root();
    let refusal = |submission, root: &Path| {
        let refused = prepare(submission, root, None).err().unwrap();
        refused.diagnostics[0].message.clone()
    };
    let empty = tempfile::tempdir().unwrap();
    assert!(refusal(submission(), empty.path()).contains("file: "));
    let mut without = submission();
    without.files.pop();
    assert!(refusal(without, root.path()).contains("it isn't part of the submission"));
    assert!(refusal(Submission::default(), root.path()).contains("no spec file"));
    let only = Submission {
        only: vec!["a=z".into()],
        ..submission()
    };
    assert!(refusal(only, root.path()).contains("no cell has a = z"));
    let mut out = submission();
    out.files[0].text = SPEC.replace("shop.toml", "../shop.toml");
    assert!(refusal(out, root.path()).contains("leads out of the workspace"));
}

#[test]
fn more_than_can_be_sent_is_refused_before_it_is_sent() {
    let root = tempfile::tempdir().unwrap();
    let mut names = Vec::new();
    for n in 0..5 {
        let large = " ".repeat(15 << 20);
        std::fs::write(root.path().join(n.to_string()), large).unwrap();
        names.push(format!("size(file('{n}'))"));
    }
    let text = format!(
        "name: x\nvars: {{ all: \"${{{{ {} }}}}\" }}\nphases: {{ p: [{{ run: 'true' }}] }}\n",
        names.join(" + ")
    );
    let name = "x.yaml".to_owned();
    let submission = Submission {
        files: vec![Source { name, text }],
        ..Submission::default()
    };
    let refused = prepare(submission, root.path(), None).err().unwrap();
    let message = &refused.diagnostics[0].message;
    assert!(message.contains("5 files with 75 MiB"), "{message}");
}
