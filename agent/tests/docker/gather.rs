//! Files that are kept: from containers that run and that don't, in pieces, and nothing but files.

use crate::lab::{Lab, idle};
use phalanx_agent::runtime::contract::Member;
use phalanx_agent::runtime::gather::{Gather, Gathered};
use phalanx_agent::runtime::search::Pattern;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

crate::cases![
    files_come_from_running_and_stopped_containers,
    what_is_no_file_or_too_large_is_never_read,
];

#[derive(Debug, Default, PartialEq)]
struct Taken {
    files: BTreeMap<String, Vec<u8>>,
    too_large: Vec<(String, u64)>,
}

async fn gathered(member: &Arc<dyn Member>, pattern: &str, max_file: u64) -> Result<Taken, String> {
    let (out, mut parts) = mpsc::channel(2);
    let gather = Gather {
        pattern: Pattern::new(pattern).unwrap(),
        max_file,
        out,
    };
    let take = async {
        let mut taken = Taken::default();
        let mut current = String::new();
        while let Some(part) = parts.recv().await {
            match part {
                Gathered::File { path, .. } => {
                    current.clone_from(&path);
                    taken.files.insert(path, Vec::new());
                }
                Gathered::Bytes(bytes) => taken.files.get_mut(&current).unwrap().extend(bytes),
                Gathered::End => {}
                Gathered::TooLarge { path, size } => taken.too_large.push((path, size)),
            }
        }
        taken
    };
    let (sent, taken) = tokio::join!(member.gather(gather), take);
    sent.map(|()| taken).map_err(|error| error.reason)
}

fn names(taken: &Taken) -> Vec<&str> {
    taken.files.keys().map(String::as_str).collect()
}

async fn files_come_from_running_and_stopped_containers(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let app = cell.up(idle("app")).await;
    let made = app
        .sh("mkdir -p /out/deep && echo one > /out/a.log && head -c 300000 /dev/zero > /out/deep/b.log && echo x > /out/c.txt && ln -s /out/c.txt /linked.txt")
        .await;
    assert_eq!(made.exit_code, 0, "{made:?}");
    for stopped in [false, true] {
        if stopped {
            app.member.stop(Some(Duration::ZERO)).await.unwrap();
        }
        let taken = gathered(&app.member, "/out/**/*.log", 1 << 20)
            .await
            .unwrap();
        assert_eq!(names(&taken), ["/out/a.log", "/out/deep/b.log"]);
        assert_eq!(taken.files["/out/a.log"], b"one\n");
        assert_eq!(taken.files["/out/deep/b.log"].len(), 300_000);
        let one = gathered(&app.member, "/out/c.txt", 1 << 20).await.unwrap();
        assert_eq!(one.files["/out/c.txt"], b"x\n");
        let linked = gathered(&app.member, "/linked.txt", 1 << 20).await.unwrap();
        assert_eq!(linked.files.values().next().unwrap(), b"x\n");
        for none in ["/out/none.log", "/none/*.log"] {
            let taken = gathered(&app.member, none, 1 << 20).await;
            assert_eq!(taken, Ok(Taken::default()), "{none}");
        }
    }
    cell.down().await;
}

async fn what_is_no_file_or_too_large_is_never_read(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let app = cell.up(idle("app")).await;
    let made = app
        .sh("mkdir /out && cd /out && truncate -s 1099511627776 sparse.bin && ln -s /etc/passwd link && ln -s ../../../../etc/hostname up && mkfifo pipe && echo fine > fine && mknod zero c 1 5 && ln -s /out/zero /zero")
        .await;
    assert_eq!(made.exit_code, 0, "{made:?}");
    // By its name the size is known before anything is read.
    let taken = gathered(&app.member, "/out/sparse.bin", 1 << 20)
        .await
        .unwrap();
    assert_eq!(taken.too_large, [("/out/sparse.bin".to_owned(), 1 << 40)]);
    for (path, reason) in [
        ("/zero", "not a regular file"),
        ("/out/zero", "not a regular file"),
        ("/out/pipe", "not a regular file"),
        ("/out", "it is a directory"),
        ("out/fine", "begins with `/`"),
        ("/*", "name a directory"),
    ] {
        let error = gathered(&app.member, path, 1 << 20).await.unwrap_err();
        assert!(error.contains(reason), "{path}: {error}");
    }
    // In a directory the engine would send all of its zeros, so the archive is given up.
    let error = gathered(&app.member, "/out/*", 1 << 20).await.unwrap_err();
    assert!(error.contains("a file there has 1 TiB"), "{error}");
    let removed = app.sh("rm /out/sparse.bin").await;
    assert_eq!(removed.exit_code, 0);
    let taken = gathered(&app.member, "/out/*", 1 << 20).await.unwrap();
    assert_eq!(names(&taken), ["/out/fine"], "links aren't followed");
    cell.down().await;
}
