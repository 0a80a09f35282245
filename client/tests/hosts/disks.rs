//! Full disks, under `phalanx serve` and under an agent: the error is clear, nothing is corrupted, and work continues
//! once there is room.

use crate::proxy::Proxy;
use crate::rig::{Coordinator, Fleet, attempts, eventually};
use phalanx_proto::v1;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// What a coordinator reports while its journal has no room.
const UNWRITTEN: &str = "the journal can't be written";

/// A small disk of its own, unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: PathBuf, size: &str) -> Disk {
        fs::create_dir_all(&at).unwrap();
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        let mount = mount
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(&at);
        let output = mount.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        Disk(at)
    }

    /// Fills the disk completely.
    fn fill(&self) -> Filler {
        let path = self.0.join("filler");
        let mut file = File::create(&path).unwrap();
        for size in [1 << 16, 1] {
            let piece = vec![0; size];
            while file.write_all(&piece).is_ok() {}
        }
        Filler(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// The file that fills the disk.
struct Filler(PathBuf);

impl Filler {
    fn make_room(self) {
        fs::remove_file(self.0).unwrap();
    }
}

/// The disk of `phalanx serve` fills up during a run. Agents continue, and the coordinator reports the problem, also
/// after it was killed and started again without room. Once there is room, everything that happened meanwhile is
/// journaled, once.
pub fn the_coordinators_disk_is_full_for_a_while() {
    let fleet = Fleet::new();
    let disk = Disk::mount(fleet.path("state"), "16m");
    let at = fleet.serve();
    let agent = fleet.agent("a", &at.url(), 4);
    fleet.wait_for_state(&at, "a", "connected");
    let run = fleet.submit(&at, "run", &[]);
    run.wait_at_gate(&[1, 2, 3, 4], 1);
    assert_eq!(at.get("/healthz").1, "ok\n");

    let filler = disk.fill();
    run.open_gate();
    eventually("the cells end by themselves", || {
        let ended = |n: &u32| run.marks(*n).len() == 2;
        [1, 2, 3, 4].iter().all(ended).then_some(())
    });
    // Logs are refused earlier: the remaining room is kept for the journal.
    let (status, reason) = eventually("the coordinator is not well", || {
        Some(at.get("/healthz")).filter(|(_, reason)| reason.contains(UNWRITTEN))
    });
    assert!(status.contains("503"), "{status} {reason}");
    assert!(reason.contains("full"), "{status} {reason}");
    at.process.wait_for("can't write to the journal");
    assert_eq!(fleet.show(&at, &run)["outcome"], serde_json::Value::Null);

    // Killed and started again without room, it reports that, whether or not it gets as far as listening.
    let address = at.killed();
    let said = fleet.path("without-room");
    let mut without = fleet.phalanx(&["serve", "--listen", &address, "--http", ""]);
    let mut without = without
        .stderr(File::create(&said).unwrap())
        .spawn()
        .unwrap();
    eventually("it says what it lacks", || {
        let said = fs::read_to_string(&said).unwrap();
        said.contains("the disk is full").then_some(())
    });
    let _ = without.kill();
    without.wait().unwrap();

    filler.make_room();
    let at = fleet.serve_at(&address);
    let shown = fleet.finished(&at, &run);
    assert_eq!(shown["outcome"], "passed", "{}", agent.said());
    assert!(attempts(&shown).iter().all(|(_, attempts)| *attempts == 1));
    for n in 1..=4 {
        assert_eq!(run.marks(n), ["begins", "ends"], "cell {n}");
    }

    // The disk fills up and gets room again, this time without a restart.
    let run = fleet.submit(&at, "again", &[]);
    run.wait_at_gate(&[1, 2, 3, 4], 1);
    let filler = disk.fill();
    run.open_gate();
    eventually("it is not well again", || {
        at.get("/healthz").1.contains(UNWRITTEN).then_some(())
    });
    filler.make_room();
    let shown = fleet.finished(&at, &run);
    assert_eq!(shown["outcome"], "passed", "{}", agent.said());
    at.process.wait_for("the journal is written again");
    assert_eq!(at.get("/healthz").1, "ok\n");
    assert!(attempts(&shown).iter().all(|(_, attempts)| *attempts == 1));
}

/// The text of a line; all lines have the same length.
const LINE: &str = "line 0000000 says as much as a line of a hundred bytes can say, and that is not much, believe me or";
const LINES: u32 = 330_000;

/// Waits at the gate, then prints more than an agent keeps in memory.
const SPEC: &str = r#"
name: talk
inputs: { place: {} }
cell: { name: talk, resources: { cpus: 0.05, memory: 16MiB } }
services:
  talker:
    process:
      - sh
      - -c
      - |
        while [ ! -e ${{ inputs.place }}/gate ]; do sleep 0.1; done
        seq -f 'line %07.0f says as much as a line of a hundred bytes can say, and that is not much, believe me or' 0 329999
        : > ${{ inputs.place }}/said; exec sleep 3600
phases:
  work:
    - wait: { service: talker, until: ready }
    - run: |
        echo $$ >> ${{ inputs.place }}/waits-1
        while [ ! -e ${{ inputs.place }}/said ]; do sleep 0.1; done
"#;

/// An agent can neither send nor store the output of a service. The lost part is named, everything else is there, and
/// the run continues.
pub fn an_agents_disk_is_full_for_a_while() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let fleet = Fleet::new();
    fs::write(fleet.path("gate.yaml"), SPEC).unwrap();
    // The cut must be shorter than the lease, however slow this machine is.
    fs::write(fleet.path("phalanx.toml"), "[lease]\ntime_s = 100\n").unwrap();
    let disk = Disk::mount(fleet.path("agent-a"), "32m");
    let at = fleet.serve();
    let proxy = runtime.block_on(Proxy::start(at.address));
    let agent = fleet.agent("a", &proxy.address, 1);
    fleet.wait_for_state(&at, "a", "connected");
    let run = fleet.submit(&at, "run", &[]);
    run.wait_at_gate(&[1], 1);

    let filler = disk.fill();
    proxy.swallow();
    run.open_gate();
    eventually("all is said", || {
        run.place.join("said").exists().then_some(())
    });
    // What the agent has read and not yet stored is on its way inside the agent, and no event tells when that ends.
    std::thread::sleep(Duration::from_secs(2));
    proxy.heal();
    let shown = fleet.finished(&at, &run);
    assert_eq!(shown["outcome"], "passed", "{}", agent.said());
    assert!(attempts(&shown).iter().all(|(_, attempts)| *attempts == 1));
    let lost = runtime.block_on(missing(&at, &run.id));
    assert!(lost > 0, "more was said than an agent keeps in memory");

    filler.make_room();
    let again = fleet.submit(&at, "again", &[]);
    again.wait_at_gate(&[1], 1);
    proxy.swallow();
    again.open_gate();
    eventually("all is said", || {
        again.place.join("said").exists().then_some(())
    });
    proxy.heal();
    let shown = fleet.finished(&at, &again);
    assert_eq!(shown["outcome"], "passed", "{}", agent.said());
    assert_eq!(
        runtime.block_on(missing(&at, &again.id)),
        0,
        "there was room"
    );
}

/// Reads a run's log and checks that its contents are right and that gaps have a reason. Returns the number of missing
/// bytes.
async fn missing(at: &Coordinator, run: &str) -> u64 {
    let expected: String = (0..LINES)
        .map(|n| format!("{}\n", LINE.replacen("0000000", &format!("{n:07}"), 1)))
        .collect();
    let request = v1::LogsRequest {
        run_id: run.to_owned(),
        cell: "talk".to_owned(),
        service: "talker".to_owned(),
        stream: v1::LogStream::Stdout.into(),
        ..v1::LogsRequest::default()
    };
    let mut stream = at.client().await.logs(request).await.unwrap().into_inner();
    let (mut position, mut lost) = (0, 0);
    while let Some(record) = stream.message().await.unwrap() {
        assert_eq!(record.offset, position, "no hole that isn't named");
        match record.gap_to {
            Some(to) => {
                assert!(
                    record.gap_reason.contains("No space left"),
                    "{}",
                    record.gap_reason
                );
                lost += to - position;
                position = to;
            }
            None => {
                let from = usize::try_from(position).unwrap();
                let there = expected.as_bytes().get(from..from + record.data.len());
                assert!(there == Some(&record.data[..]), "bytes at {position}");
                position += record.data.len() as u64;
            }
        }
    }
    assert_eq!(position, expected.len() as u64);
    lost
}
