#![allow(clippy::unwrap_used)]
use super::*;
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

fn submission(root: &Path) -> Submission {
    let file = |name: &str, text: &str| Source {
        name: name.into(),
        text: text.into(),
    };
    Submission {
        files: vec![file("shop.yaml", SPEC), file("more.yaml", "coverage: {}\n")],
        inputs: json!({"v": "2"}).as_object().unwrap().clone(),
        workspace_root: Some(root.to_owned()),
        ..Submission::default()
    }
}

fn planner(folder: &Path) -> SpecPlanner {
    SpecPlanner {
        workspaces: folder.join("store"),
        max_cells: None,
    }
}

#[tokio::test]
async fn a_submission_becomes_a_plan_whose_jobs_can_be_made_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("spec");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("shop.toml"), "release = 7").unwrap();
    let planner = planner(folder.path());
    let (submission, planned) = planner
        .plan(submission(&root))
        .unwrap_or_else(|r| panic!("{r:?}"));
    assert_eq!(planned.plan.inputs["v"], "2");
    let cell = planned.plan.cells[1].id.clone();
    assert_eq!(planned.jobs.images(&cell), ["shop:7-y"]);
    assert_eq!(planned.jobs.secrets(), ["licence"]);
    let warned = |text: &str| planned.warnings.iter().any(|w| w.message.contains(text));
    assert!(warned("`none/**` matches no file"));
    // The files are gone when the coordinator is back.
    std::fs::remove_dir_all(&root).unwrap();
    let jobs = planner
        .jobs(&submission, &planned.plan)
        .unwrap_or_else(|r| panic!("{r:?}"));
    let (first, again) = (
        planned.jobs.job(&cell).await.unwrap(),
        jobs.job(&cell).await.unwrap(),
    );
    assert_eq!(again.vars["release"], 7);
    assert_eq!(first, again);
}

#[test]
fn a_wrong_submission_is_refused_with_every_finding() {
    let folder = tempfile::tempdir().unwrap();
    let planner = planner(folder.path());
    let refusal = |submission| {
        let refused = planner.plan(submission).err().unwrap();
        refused.diagnostics[0].message.clone()
    };
    assert!(refusal(submission(folder.path())).contains("file: "));
    let mut without = submission(folder.path());
    without.files.pop();
    assert!(refusal(without).contains("it isn't part of the submission"));
    assert!(refusal(Submission::default()).contains("no spec file"));
    std::fs::write(folder.path().join("shop.toml"), "release = 7").unwrap();
    let only = Submission {
        only: vec!["a=z".into()],
        ..submission(folder.path())
    };
    assert!(refusal(only).contains("no cell has a = z"));
}
