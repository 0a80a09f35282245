//! Snapshots, with a fake for containers: when they are made, restored and thrown away, and what is told of it.

use crate::rig::{Ended, Rig, spec};
use phalanx_agent::policy::Policy;
use phalanx_agent::runtime::contract::{Fault, RuntimeError};
use phalanx_agent::runtime::fake::script::{CommandScript, Script, ServiceScript};
use phalanx_agent::snapshot::Store;
use phalanx_shared::event::SnapshotState::{
    self, Discarded, Missed, Restored, Saved, Unsaved, Waiting,
};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::plan::SnapshotUse;
use tempfile::TempDir;

const SPEC: &str = r#"
services:
  db: { image: "db:1", restart: always }
  app: { image: "app:1", restart: always, depends_on: [db] }
phases:
  setup:
    - id: group
      name: prepare
      snapshot: { services: [db, app] }
      steps:
        - { id: row, exec: { service: db, command: [insert] }, capture: { id: "stdout", token: { secret: "'tok-' + stdout + '-secret'" } } }
        - { name: nothing, when: "false", reason: not needed, exec: { service: db, command: [insert] } }
      capture: { of: steps.row.id }
  main:
    - { exec: { service: app, command: [show, "${{ steps.row.id }}", "${{ steps.group.of }}"] }, expect: ["stdout == 'shown'", "steps.row.token == 'tok-7-secret'"] }
"#;

fn script() -> Script {
    let commands = vec![
        CommandScript::prints("insert", "7"),
        CommandScript::prints("show 7 7", "shown"),
    ];
    let service = ServiceScript {
        commands,
        image_id: Some("sha256:1".to_owned()),
        ..ServiceScript::default()
    };
    Script::default()
        .service("db", service.clone())
        .service("app", service)
}

struct Place {
    directory: TempDir,
    store: Store,
}

impl Place {
    fn new() -> Place {
        let directory = TempDir::new().unwrap();
        let store = Store::open(directory.path()).unwrap();
        Place { directory, store }
    }

    fn rig(&self, yaml: &str) -> Rig {
        Rig {
            store: Some(self.store.clone()),
            ..spec(yaml).script(script())
        }
    }

    async fn run(&self) -> Ended {
        self.rig(SPEC).run().await
    }
}

fn ran(ended: &Ended, call: &str) -> usize {
    ended
        .calls
        .iter()
        .filter(|known| known.starts_with(call))
        .count()
}

#[track_caller]
fn states(ended: &Ended, expected: &[SnapshotState]) {
    assert_eq!(ended.snapshots(), expected, "{:#?}", ended.detail());
}

#[tokio::test]
async fn what_one_cell_sets_up_another_one_starts_with() {
    let place = Place::new();
    let first = place.run().await;
    first.passed();
    states(&first, &[Missed, Saved]);
    let stops: Vec<&String> = first
        .calls
        .iter()
        .filter(|call| call.starts_with("s"))
        .collect();
    assert_eq!(
        stops,
        [
            "start db",
            "start app",
            "stop app",
            "stop db",
            "save db app",
            "start db",
            "start app"
        ]
    );
    assert_eq!(first.step("setup/0").restored, None);

    let second = place.run().await;
    second.passed();
    states(&second, &[Restored]);
    assert_eq!((ran(&second, "restore"), ran(&second, "save")), (1, 0));
    assert!(ran(&second, "exec `insert`") == 0, "{:?}", second.calls);
    for path in ["setup/0", "setup/0/0"] {
        let step = second.step(path);
        let restored = step.restored.clone().unwrap();
        assert_eq!(
            (step.outcome, step.elapsed_us),
            (Outcome::Passed, 0),
            "{path}"
        );
        assert_eq!(restored.key, first.key());
    }
    let skipped = second.step("setup/0/1");
    assert_eq!(skipped.outcome, Outcome::Skipped);
    assert_eq!(skipped.reason.as_deref(), Some("not needed"));
    assert!(skipped.restored.is_some());
    assert_eq!(
        second.step("setup/0/0").captured,
        first.step("setup/0/0").captured
    );
    assert!(second.step("main/0").restored.is_none());
    assert!(!second.everything().contains("tok-7-secret"));
}

#[tokio::test]
async fn no_secret_is_readable_in_the_store() {
    let place = Place::new();
    let rig = place.rig(SPEC);
    let first = rig.secret("password", "canary-of-the-caller").run().await;
    states(&first, &[Missed, Saved]);
    let mut files = vec![place.directory.path().to_owned()];
    let mut seen = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(
                std::fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            continue;
        }
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        assert!(
            !text.contains("tok-7-secret") && !text.contains("canary"),
            "{path:?}"
        );
        seen += 1;
    }
    assert!(seen >= 5);
}

#[tokio::test]
async fn an_image_a_definition_a_step_or_a_define_that_changes_gives_another_key() {
    let place = Place::new();
    let key = place.run().await.key();
    let changed = |from: &str, to: &str| {
        assert!(SPEC.contains(from), "{from}");
        place.rig(&SPEC.replace(from, to))
    };
    for (from, to) in [
        (
            "restart: always }\n  app",
            "restart: always, environment: { A: b } }\n  app",
        ),
        (
            "command: [insert] }, capture",
            "command: [insert, more] }, capture",
        ),
        (
            "services: [db, app] }",
            "services: [db, app], key: [\"1 + 1\"] }",
        ),
        ("services: [db, app] }", "services: [db] }"),
    ] {
        let other = changed(from, to).run().await;
        assert_ne!(other.key(), key, "{to}");
        assert!(other.snapshots().contains(&Missed));
    }
    let mut image = script();
    image.services.get_mut("app").unwrap().image_id = Some("sha256:2".to_owned());
    let other = place.rig(SPEC).script(image).run().await;
    assert_ne!(other.key(), key);
    // What the group doesn't see changes nothing: a tag of the same image, later steps, comments.
    for (from, to) in [
        ("db:1", "db:2"),
        ("command: [show", "user: root, command: [show"),
        ("name: prepare", "name: prepare # again"),
    ] {
        let same = changed(from, to).run().await;
        assert_eq!(same.key(), key, "{to}");
        states(&same, &[Restored]);
    }
}

#[tokio::test]
async fn inputs_files_and_secrets_count_if_the_group_reads_them() {
    let place = Place::new();
    let files = TempDir::new().unwrap();
    let yaml = SPEC
        .replace(
            "image: \"db:1\"",
            "image: \"db:1\", volumes: [\"./conf:/etc/x:ro\"], environment: { P: \"${{ secrets.pw }}\" }",
        )
        .replace("command: [insert] }, capture", "command: [insert, \"${{ inputs.url }}\"] }, capture")
        .replace("\nservices:", "\nsecrets: [pw]\nservices:");
    let run = async |conf: &str, a: &str, pw: &str| {
        std::fs::create_dir_all(files.path().join("conf")).unwrap();
        std::fs::write(files.path().join("conf/f"), conf).unwrap();
        std::fs::write(files.path().join("other"), conf).unwrap();
        let mut rig = place.rig(&yaml);
        rig.workspace = Some(files.path().to_owned());
        rig.url(a).secret("pw", pw).run().await
    };
    let first = run("one", "1", "password-1").await;
    states(&first, &[Missed, Saved]);
    states(&run("one", "1", "password-1").await, &[Restored]);
    for (conf, a, pw) in [
        ("onE", "1", "password-1"),
        ("one", "2", "password-1"),
        ("one", "1", "password-2"),
    ] {
        let other = run(conf, a, pw).await;
        assert_ne!(other.key(), first.key(), "{conf} {a} {pw}");
        states(&other, &[Missed, Saved]);
    }
}

#[tokio::test]
async fn a_service_that_cannot_start_with_the_files_is_made_anew_once_and_the_steps_run() {
    let place = Place::new();
    states(&place.run().await, &[Missed, Saved]);
    let mut broken = script();
    let error = RuntimeError::new(Fault::Engine, "the files are broken");
    broken.services.get_mut("db").unwrap().restored_error = Some(error);
    let second = place.rig(SPEC).script(broken).run().await;
    second.passed();
    states(&second, &[Restored, Discarded, Saved]);
    assert!(
        second
            .snapshot_reason(Discarded)
            .contains("the files are broken")
    );
    assert_eq!(second.step("setup/0/0").restored, None);
    let third = place.run().await;
    states(&third, &[Restored]);
}

#[tokio::test]
async fn damaged_files_are_found_before_anything_starts_with_them() {
    let place = Place::new();
    let first = place.run().await;
    let file = place
        .store
        .find(&first.key())
        .unwrap()
        .directory
        .join("db.tar");
    std::fs::write(file, "something else").unwrap();
    let second = place.run().await;
    second.passed();
    states(&second, &[Discarded, Missed, Saved]);
    states(&place.run().await, &[Restored]);
    let captures = place
        .store
        .find(&first.key())
        .unwrap()
        .directory
        .join("captures");
    std::fs::write(captures, "something else").unwrap();
    states(&place.run().await, &[Discarded, Missed, Saved]);
}

#[tokio::test]
async fn nothing_is_kept_of_a_group_that_failed_or_that_could_not_be_saved() {
    let place = Place::new();
    let failing = SPEC.replace(
        "capture: { of: steps.row.id }",
        "capture: { of: steps.row.id }\n      expect: [\"false\"]",
    );
    let failed = place.rig(&failing).run().await;
    assert_eq!(failed.outcome(), Outcome::Failed);
    states(&failed, &[Missed, Unsaved]);
    let mut full = script();
    full.save_error = Some(RuntimeError::new(Fault::Machine, "no space left"));
    let unsaved = place.rig(SPEC).script(full).run().await;
    unsaved.passed();
    states(&unsaved, &[Missed, Unsaved]);
    assert_eq!(unsaved.snapshot_reason(Unsaved), "no space left");
    assert!(place.store.list().unwrap().is_empty());
    let left = std::fs::read_dir(place.directory.path().join("making")).unwrap();
    assert_eq!(left.count(), 0);
}

#[tokio::test]
async fn of_sixteen_cells_one_makes_it_and_the_others_wait() {
    let place = Place::new();
    let cells = (0..16).map(|_| place.run());
    let all = futures::future::join_all(cells).await;
    let mut made = 0;
    for ended in &all {
        ended.passed();
        match ended.snapshots().as_slice() {
            [Missed, Saved] => made += 1,
            [Restored] | [Waiting, Restored] => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(made, 1);
    assert_eq!(
        all.iter()
            .map(|ended| ran(ended, "exec `insert`"))
            .sum::<usize>(),
        1
    );
}

#[tokio::test]
async fn a_run_can_do_without_or_make_them_again() {
    let place = Place::new();
    states(&place.run().await, &[Missed, Saved]);
    let with = |snapshots| Rig {
        snapshots,
        ..place.rig(SPEC)
    };
    let never = with(SnapshotUse::Never).run().await;
    never.passed();
    states(&never, &[]);
    assert_eq!(ran(&never, "stop"), 0);
    let again = with(SnapshotUse::Refresh).run().await;
    again.passed();
    states(&again, &[Missed, Saved]);
    states(&place.run().await, &[Restored]);
}

#[tokio::test]
async fn nothing_is_prepared_for_the_key_if_the_policy_refuses_one_of_the_services() {
    let place = Place::new();
    let mut rig = place.rig(
        r#"
services:
  db: { image: "db:1", privileged: true }
  tool: { image: "tool:1", start: manual }
phases:
  setup:
    - snapshot: { services: [db] }
      steps:
        - { exec: { service: db, command: [insert] } }
        - { container: { start: tool } }
        - { exec: { service: tool, command: [insert] } }
"#,
    );
    rig.policy = Policy::closed();
    let ended = rig.run().await;
    assert_eq!(ended.outcome(), Outcome::Errored);
    for told in [ended.reason("setup/0"), ended.snapshot_reason(Unsaved)] {
        assert!(
            told.contains("`privileged: true` (rule `privileged`"),
            "{told}"
        );
    }
    let idle = |call: &&String| !call.starts_with("open") && !call.starts_with("close");
    let done: Vec<_> = ended.calls.iter().filter(idle).collect();
    assert!(done.is_empty(), "{done:?}");
}
