//! Snapshots of real containers: files come back as they were, and nothing leaks.

use crate::image::BUSYBOX;
use crate::lab::Lab;
use crate::rig::{Ended, Rig, spec};
use bollard::query_parameters::{CommitContainerOptions, ListImagesOptionsBuilder};
use phalanx_agent::clock::{Clock, SystemClock};
use phalanx_agent::snapshot::tidy::{Tidied, Wish, tidy};
use phalanx_agent::snapshot::{Bounds, Removal, Store};
use phalanx_shared::event::SnapshotState::{self, Missed, Restored, Saved, Unsaved, Waiting};
use std::collections::HashMap;
use std::sync::Arc;
use tempfile::TempDir;

crate::cases![
    files_come_back_as_they_were,
    what_was_done_to_the_files_of_the_image_comes_back,
    a_caller_s_secret_is_in_no_image_manifest_or_event,
    a_changed_file_makes_another_snapshot,
    what_is_too_large_is_not_kept,
    two_cells_at_once_make_one_snapshot,
    what_a_killed_agent_left_is_removed,
    what_does_not_fit_goes_with_its_images,
    what_a_cell_has_restored_is_not_removed_under_it,
];

struct Place {
    lab: Arc<Lab>,
    directory: TempDir,
    store: Store,
}

impl Place {
    fn new(lab: &Arc<Lab>) -> Place {
        let directory = TempDir::new().unwrap();
        let store = Store::open(directory.path()).unwrap();
        Place {
            lab: lab.clone(),
            directory,
            store,
        }
    }

    fn rig(&self, yaml: &str) -> Rig {
        Rig {
            store: Some(self.store.clone()),
            runtime: Some(self.lab.runtime.clone()),
            ..spec(yaml)
        }
    }

    /// Images of this place's store, by label.
    async fn images(&self) -> Vec<String> {
        let mut found = Vec::new();
        for label in ["phalanx.snapshot.store", "phalanx.snapshot.half"] {
            let filter = HashMap::from([("label", vec![label])]);
            let options = ListImagesOptionsBuilder::default()
                .all(true)
                .filters(&filter);
            let listed = self
                .lab
                .docker
                .list_images(Some(options.build()))
                .await
                .unwrap();
            let ours = listed.into_iter().filter(|image| {
                image
                    .labels
                    .get(label)
                    .is_some_and(|of| of.starts_with(self.store.id()))
            });
            found.extend(ours.map(|image| image.id));
        }
        found
    }

    /// Keeps the store within a size.
    async fn tidy(&self, max_bytes: u64) -> Tidied {
        let wish = Wish {
            bounds: Bounds {
                max_bytes: Some(max_bytes),
                ..Bounds::NONE
            },
            now: SystemClock::default().wall(),
            dry_run: false,
        };
        let tidied = tidy(Some(&self.lab.runtime), &self.store, wish).await;
        assert_eq!(tidied.problems, Vec::<String>::new());
        tidied
    }

    /// Removes everything, and checks that it is gone.
    async fn end(self) {
        for manifest in self.store.list().unwrap() {
            self.store.remove(&manifest.key).unwrap();
        }
        phalanx_agent::snapshot::remove_images(&self.lab.runtime, &self.store)
            .await
            .unwrap();
        assert_eq!(self.images().await, Vec::<String>::new());
    }
}

#[track_caller]
fn states(ended: &Ended, expected: &[SnapshotState]) {
    assert_eq!(
        ended.snapshots(),
        expected,
        "{:#?}\n{}",
        ended.detail(),
        ended.everything()
    );
}

/// What a step printed.
fn said(ended: &Ended, path: &str) -> String {
    let output = ended.step(path).output.clone();
    output.map(|output| output.stdout).unwrap_or_default()
}

/// A service that writes into two volumes and into its own files, and removes one of its image's.
fn files() -> String {
    format!(
        r#"
services:
  db:
    image: {BUSYBOX}
    command: [sh, -c, "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
    restart: always
    volumes: ["named:/data", "/srv/deep/anonymous"]
phases:
  setup:
    - id: made
      snapshot: {{ services: [db] }}
      steps:
        - exec:
            service: db
            script: |
              cd /data; mkdir -p a/b; echo one > a/b/f; ln a/b/f hard; ln -s a/b/f soft; mkdir empty
              chown 70:71 a/b/f; chmod 2750 a/b; touch own-user; chmod 4711 own-user; chown 5:6 /data; chmod 700 /data
              dd if=/dev/zero of=sparse bs=1 count=1 seek=1000000; touch -d 200001020304 a/b
              echo two > /srv/deep/anonymous/g; chmod 1777 /srv/deep/anonymous
              echo three > /etc/own; mkdir /opt; chown 8:9 /opt; rm /bin/tee
  main:
    - exec:
        service: db
        script: "find /data /srv/deep/anonymous /etc/own /opt | sort | while read p; do stat -c '%n %F %a %u %g %h %s %Y' $p; done; cat /data/soft /srv/deep/anonymous/g /etc/own; test -e /bin/tee || echo no tee"
"#
    )
}

async fn files_come_back_as_they_were(lab: Arc<Lab>) {
    let place = Place::new(&lab);
    let first = place.rig(&files()).run().await;
    first.passed();
    states(&first, &[Missed, Saved]);
    let second = place.rig(&files()).run().await;
    second.passed();
    states(&second, &[Restored]);
    let (one, other) = (said(&first, "main/0"), said(&second, "main/0"));
    assert!(
        one.contains("no tee") && one.contains("one\ntwo\nthree"),
        "{one}"
    );
    assert!(one.contains("/data directory 700 5 6"), "{one}");
    assert_eq!(one, other);
    place.end().await;
}

/// Directories that were replaced and removed, links to files that weren't changed, files that aren't files. The engine's own
/// comparison would lose the link, so this also shows that fuse-overlayfs is read directly.
async fn what_was_done_to_the_files_of_the_image_comes_back(lab: Arc<Lab>) {
    let place = Place::new(&lab);
    let long = "x".repeat(160);
    let yaml = format!(
        r#"
services:
  app:
    build:
      dockerfile_inline: |
        FROM {BUSYBOX}
        RUN mkdir -p /pack/in /pack/gone && cd /pack && echo a > in/a && echo b > in/b && echo g > gone/g && echo c > c && ln c d && echo e > e && echo f > f
    command: [sh, -c, "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
phases:
  setup:
    - snapshot: {{ services: [app] }}
      steps:
        - exec:
            service: app
            script: |
              cd /pack; rm -r in gone; mkdir in; echo new > in/new; echo more >> c; ln e e2; mv f moved
              busybox mkfifo fifo; mknod null c 1 3; ln -s nowhere soft; echo long > "ü {long}"; chown 5:6 .; chmod 1775 .
  main:
    - exec:
        service: app
        script: |
          find /pack | sort | while read p; do stat -c '%n %F %a %u %g %h %s %Y %t:%T' "$p"; done; cat /pack/c /pack/d /pack/in/* /pack/moved
"#
    );
    let first = place.rig(&yaml).run().await;
    first.passed();
    states(&first, &[Missed, Saved]);
    let second = place.rig(&yaml).run().await;
    second.passed();
    states(&second, &[Restored]);
    let (one, other) = (said(&first, "main/0"), said(&second, "main/0"));
    let paths: Vec<&str> = one
        .lines()
        .filter_map(|line| line.split(" directory").next())
        .collect();
    assert!(
        paths
            .iter()
            .all(|path| !path.contains("gone") && !path.contains("in/a")),
        "{one}"
    );
    for part in [
        "/pack directory 1775 5 6",
        "/pack/e2 regular file 644 0 0 2",
        "fifo",
        "1:3",
        &long,
        "new",
    ] {
        assert!(one.contains(part), "{part}: {one}");
    }
    assert_eq!(one, other);
    place.end().await;
}

async fn a_caller_s_secret_is_in_no_image_manifest_or_event(lab: Arc<Lab>) {
    let canary = "canary-5c1f0e";
    let place = Place::new(&lab);
    let yaml = format!("secrets: [pw]\n{}", files()).replace(
        "    restart: always\n",
        "    restart: always\n    environment: { PW: \"${{ secrets.pw }}\" }\n    labels: { pw: \"${{ secrets.pw }}\" }\n",
    );
    let yaml = yaml.replace(
        "sleep 0.1; done\"]",
        "sleep 0.1; done\", \"${{ secrets.pw }}\"]",
    );
    let mut told = String::new();
    for expected in [&[Missed, Saved][..], &[Restored]] {
        let ended = place.rig(&yaml).secret("pw", canary).run().await;
        ended.passed();
        states(&ended, expected);
        told.push_str(&ended.everything());
    }
    for image in place.images().await {
        for what in [&["inspect"][..], &["history", "--no-trunc"]] {
            // All that the engine tells: the client's types leave parts out.
            let mut docker = std::process::Command::new("docker");
            let output = docker.args(what).arg(&image).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            told.push_str(&String::from_utf8_lossy(&output.stdout));
        }
    }
    assert!(
        told.contains("phalanx snapshot"),
        "the saved image was looked at"
    );
    for manifest in place.store.list().unwrap() {
        told.push_str(&serde_json::to_string(&manifest).unwrap());
    }
    assert!(!told.contains(canary));
    let other = place.rig(&yaml).secret("pw", "another-value").run().await;
    states(&other, &[Missed, Saved]);
    place.end().await;
}

async fn a_changed_file_makes_another_snapshot(lab: Arc<Lab>) {
    let place = Place::new(&lab);
    let workspace = TempDir::new().unwrap();
    let yaml = files().replace("\"named:/data\"", "\"named:/data\", \"./conf:/conf:ro\"");
    let mut keys = Vec::new();
    for (text, expected) in [
        ("one", &[Missed, Saved][..]),
        ("one", &[Restored]),
        ("onE", &[Missed, Saved]),
    ] {
        std::fs::create_dir_all(workspace.path().join("conf")).unwrap();
        std::fs::write(workspace.path().join("conf/f"), text).unwrap();
        let mut rig = place.rig(&yaml);
        rig.workspace = Some(workspace.path().to_owned());
        let ended = rig.run().await;
        ended.passed();
        states(&ended, expected);
        keys.push(ended.key());
    }
    assert!(keys[0] == keys[1] && keys[1] != keys[2]);
    place.end().await;
}

async fn what_is_too_large_is_not_kept(lab: Arc<Lab>) {
    let place = Place::new(&lab);
    let yaml = files().replace("services: [db] }", "services: [db], max-size: 64KiB }");
    let ended = place.rig(&yaml).run().await;
    ended.passed();
    states(&ended, &[Missed, Unsaved]);
    assert!(ended.snapshot_reason(Unsaved).contains("max-size"));
    assert!(place.store.list().unwrap().is_empty());
    place.end().await;
}

async fn two_cells_at_once_make_one_snapshot(lab: Arc<Lab>) {
    let place = Place::new(&lab);
    let (one, other) = tokio::join!(place.rig(&files()).run(), place.rig(&files()).run());
    let mut all = [one.snapshots(), other.snapshots()];
    one.passed();
    other.passed();
    all.sort_by_key(|states| states.contains(&Restored));
    assert_eq!(all[0], [Missed, Saved]);
    assert!(matches!(
        all[1].as_slice(),
        [Waiting, Restored] | [Restored]
    ));
    place.end().await;
}

async fn what_a_killed_agent_left_is_removed(lab: Arc<Lab>) {
    let place = Place::new(&lab);
    let key = "ab".repeat(32);
    let half = place
        .directory
        .path()
        .join("making")
        .join(format!("{key}.x"));
    std::fs::create_dir_all(&half).unwrap();
    std::fs::write(half.join("0.tar"), "half").unwrap();
    let cell = lab.cell().await;
    let config = phalanx_shared::language::service::ServiceConfig {
        name: "db".to_owned(),
        image: Some(BUSYBOX.to_owned()),
        command: Some(vec!["true".to_owned()]),
        ..Default::default()
    };
    cell.create(config).await.unwrap();
    let commit = CommitContainerOptions {
        container: cell.inspect("db").await.id,
        changes: Some(format!(
            "LABEL phalanx.snapshot.half={}.{key}",
            place.store.id()
        )),
        ..CommitContainerOptions::default()
    };
    let config = bollard::models::ContainerConfig::default();
    lab.docker.commit_container(commit, config).await.unwrap();
    cell.down().await;
    let making = place.store.begin(&key).unwrap();
    assert_eq!(place.store.sweep().unwrap(), 0);
    phalanx_agent::snapshot::remove_images(&lab.runtime, &place.store)
        .await
        .unwrap();
    assert_eq!(place.images().await.len(), 1, "it is being made");
    drop(making);
    assert_eq!(place.store.sweep().unwrap(), 1);
    phalanx_agent::snapshot::remove_images(&lab.runtime, &place.store)
        .await
        .unwrap();
    assert!(place.images().await.is_empty() && !half.exists());
    place.end().await;
}

async fn what_does_not_fit_goes_with_its_images(lab: Arc<Lab>) {
    let place = Place::new(&lab);
    let other = files().replace("echo two >", "echo TWO >");
    let first = place.rig(&files()).run().await;
    states(&first, &[Missed, Saved]);
    let images_of_first = place.images().await;
    let second = place.rig(&other).run().await;
    states(&second, &[Missed, Saved]);
    assert_eq!((images_of_first.len(), place.images().await.len()), (1, 2));
    let all = place.store.bytes().unwrap();
    assert_eq!(place.tidy(all).await.removed, [], "both fit");
    assert_eq!(place.images().await.len(), 2);
    let removed = place.tidy(all - 1).await.removed;
    assert_eq!(removed.len(), 1, "{removed:?}");
    assert!(removed[0].what.contains(&first.key()[..12]), "{removed:?}");
    let left = place.images().await;
    assert!(left.len() == 1 && left[0] != images_of_first[0]);
    // A clean miss, which is made again; the other one is as it was.
    let third = place.rig(&files()).run().await;
    third.passed();
    states(&third, &[Missed, Saved]);
    states(&place.rig(&other).run().await, &[Restored]);
    // By name, with its images.
    let remove = async |key: &str| {
        let removed = phalanx_agent::snapshot::remove(&lab.runtime, &place.store, key);
        removed.await.unwrap()
    };
    assert_eq!(remove(&third.key()).await, Removal::Removed);
    assert_eq!(remove(&third.key()).await, Removal::NotKept);
    assert_eq!(place.images().await, left);
    place.end().await;
}

async fn what_a_cell_has_restored_is_not_removed_under_it(lab: Arc<Lab>) {
    let place = Place::new(&lab);
    let gate = TempDir::new().unwrap();
    let at = gate.path().display();
    let waiting = files().replace(
        "  main:\n",
        &format!("  wait:\n    - run: {{ script: 'touch {at}/begun; while [ ! -e {at}/gate ]; do sleep 0.05; done' }}\n    - container: {{ restart: db }}\n  main:\n"),
    );
    let first = place.rig(&files()).run().await;
    states(&first, &[Missed, Saved]);
    let cell = tokio::spawn(place.rig(&waiting).run());
    while !gate.path().join("begun").exists() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let images = place.images().await;
    assert_eq!(place.tidy(0).await.removed, []);
    let key = first.key();
    let removed = phalanx_agent::snapshot::remove(&lab.runtime, &place.store, &key);
    assert_eq!(removed.await.unwrap(), Removal::InUse);
    assert_eq!(place.images().await, images);
    std::fs::write(gate.path().join("gate"), "").unwrap();
    let ended = cell.await.unwrap();
    ended.passed();
    states(&ended, &[Restored]);
    assert_eq!(said(&ended, "main/0"), said(&first, "main/0"));
    assert_eq!(place.tidy(0).await.removed.len(), 1);
    assert_eq!(place.images().await, Vec::<String>::new());
    place.end().await;
}
