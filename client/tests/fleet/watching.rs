//! Any number of watchers, from anywhere, and logs while they are written.

use crate::rig::Fleet;
use phalanx_proto::v1;
use std::fs;

#[tokio::test(flavor = "multi_thread")]
async fn watchers_begin_anywhere_and_one_that_never_reads_slows_nobody() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let _agent = fleet.agent("a", &at.url(), 4);
    fleet.wait_for_state(&at, "a", "connected");
    let run = fleet.submit(&at, "run", &[]);
    let watch = |from_position| v1::WatchRequest {
        run_id: run.id.clone(),
        from_position,
        follow: true,
    };
    // These never read. They use their own connection, because unread data blocks all of its streams.
    let mut never = at.client().await;
    let mut deaf = Vec::new();
    for _ in 0..50 {
        deaf.push(never.watch(watch(1)).await.unwrap());
    }
    run.wait_at_gate(&[1, 2, 3, 4], 1);
    run.open_gate();
    let client = at.client().await;
    let read = |from| {
        let mut client = client.clone();
        let request = watch(from);
        async move {
            let mut stream = client.watch(request).await.unwrap().into_inner();
            let mut positions = Vec::new();
            while let Some(recorded) = stream.message().await.unwrap() {
                positions.push(recorded.position);
            }
            positions
        }
    };
    let all = read(1).await;
    let expected: Vec<u64> = (1..=all.len() as u64).collect();
    assert_eq!(
        all, expected,
        "from the beginning, without a hole, to the end"
    );
    for from in [0, 2, 7, all.len() as u64, all.len() as u64 + 5] {
        let behind = usize::try_from(from.max(1) - 1).unwrap().min(all.len());
        assert_eq!(read(from).await, all[behind..], "from {from}");
    }
    assert_eq!(fleet.finished(&at, &run)["outcome"], "passed");
    drop(deaf);
}

const TALKING: &str = r#"
name: talking
inputs: { place: {} }
cell: { resources: { cpus: 0.05, memory: 16MiB } }
services:
  talker:
    process:
      - sh
      - -c
      - |
        i=0; while [ $i -lt 3000 ]; do echo "line $i of a talker that has a lot to say"; i=$((i+1)); done
        while [ ! -e ${{ inputs.place }}/more ]; do sleep 0.1; done
        echo the last words; : > ${{ inputs.place }}/said; exec sleep 3600
phases:
  work:
    - wait: { service: talker, until: ready }
    - run: while [ ! -e ${{ inputs.place }}/said ]; do sleep 0.1; done
"#;

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_read_from_any_offset_while_they_are_written() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let _agent = fleet.agent("a", &at.url(), 4);
    fleet.wait_for_state(&at, "a", "connected");
    fs::write(fleet.path("gate.yaml"), TALKING).unwrap();
    let run = fleet.submit(&at, "run", &[]);
    let request = |offset, follow| v1::LogsRequest {
        run_id: run.id.clone(),
        cell: "talking".to_owned(),
        service: "talker".to_owned(),
        stream: v1::LogStream::Stdout.into(),
        offset,
        follow,
        ..v1::LogsRequest::default()
    };
    let lines = (0..3000).map(|i| format!("line {i} of a talker that has a lot to say\n"));
    let first: String = lines.collect();
    let whole = format!("{first}the last words\n").into_bytes();
    let cell = fleet.json(&at, &["show", &run.id, "--format", "json"])["cells"][0]["name"].clone();
    let cell = cell.as_str().unwrap().to_owned();
    let mut readers = Vec::new();
    for offset in [0, 1, 70_001, first.len() as u64, first.len() as u64 + 4] {
        let mut client = at.client().await;
        let request = v1::LogsRequest {
            cell: cell.clone(),
            ..request(offset, true)
        };
        readers.push(tokio::spawn(async move {
            // Logs of an attempt that hasn't begun don't exist yet.
            let mut stream = loop {
                match client.logs(request.clone()).await {
                    Ok(stream) => break stream.into_inner(),
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
                }
            };
            let mut bytes = Vec::new();
            while let Some(record) = stream.message().await.unwrap() {
                assert_eq!(record.gap_to, None, "{record:?}");
                bytes.extend(record.data);
            }
            (offset, bytes)
        }));
    }
    fs::write(run.place.join("more"), "").unwrap();
    for reader in readers {
        let (offset, bytes) = reader.await.unwrap();
        let from = usize::try_from(offset).unwrap();
        assert!(
            bytes == whole[from..],
            "from {offset}: {} bytes",
            bytes.len()
        );
    }
    assert_eq!(fleet.finished(&at, &run)["outcome"], "passed");
}
