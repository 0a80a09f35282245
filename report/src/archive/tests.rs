#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use flate2::write::GzEncoder;
use phalanx_shared::event::{AttemptRef, Event, EventKind};
use phalanx_shared::time::Timestamp;
use serde_json::json;
use std::io::Write;

fn head() -> Head {
    Head {
        id: RunId::from("0193-aaaa"),
        files: vec![Source {
            name: "spec.yaml".to_owned(),
            text: "name: x\n".to_owned(),
        }],
        inputs: Map::new(),
        only: Vec::new(),
        cells: Vec::new(),
        keep: Keep::Never,
        fail_fast: None,
        max_parallel: Some(3),
        priority: 0,
        workspace: None,
        images: [("db".to_owned(), "sha256:0a".to_owned())].into(),
        origin: Map::from_iter([("secrets".to_owned(), json!(["token"]))]),
    }
}

fn plan() -> Value {
    json!({
        "digest": "d", "spec": "x", "inputs": {}, "axes": [], "coverage": [], "max_parallel": null, "fail_fast": false,
        "cells": [{
            "id": "cell", "name": "x", "matrix": {}, "runs_on": [], "experimental": false,
            "resources": { "millicpus": 1, "memory_bytes": 1, "subnets": 1 },
            "timeout_ms": 1, "attempts": 1, "retries": 0
        }]
    })
}

fn event(position: u64, kind: Value) -> Recorded {
    Recorded {
        position,
        event: Event {
            run: head().id,
            attempt: None,
            seq: 0,
            at: Timestamp(1),
            mono_us: 0,
            kind: serde_json::from_value::<EventKind>(kind).unwrap(),
        },
    }
}

fn submitted() -> Recorded {
    event(
        1,
        json!({ "kind": "run_submitted", "plan": plan(), "origin": {} }),
    )
}

/// An event of the attempt that the records are of.
fn started() -> Recorded {
    let mut started = event(2, json!({ "kind": "note", "message": "m" }));
    started.event.attempt = Some(AttemptRef {
        cell: CellId::from("cell"),
        attempt: 1,
    });
    started
}

fn record(offset: u64, body: LogBody) -> LogRecord {
    LogRecord {
        cell: CellId::from("cell"),
        attempt: 1,
        service: "db".to_owned(),
        stream: LogStream::Stdout,
        offset,
        at_us: 5,
        body,
    }
}

fn entries() -> Vec<Entry> {
    let mut later = started();
    later.event.kind = event(2, json!({ "kind": "teleported", "to": "mars" }))
        .event
        .kind;
    vec![
        Entry::Event(submitted()),
        Entry::Event(later),
        Entry::Log(record(0, LogBody::Bytes("one\n".into()))),
        Entry::Log(record(4, LogBody::Bytes(vec![0xff, 0x00]))),
        Entry::Log(record(
            6,
            LogBody::Gap {
                to: 9,
                reason: "full".to_owned(),
            },
        )),
    ]
}

fn written(entries: Vec<Entry>, log_limit: u64) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), head()).unwrap();
    encoder = encoder.with_log_limit(log_limit);
    for entry in entries {
        match entry {
            Entry::Event(event) => encoder.event(event).unwrap(),
            Entry::Log(record) => encoder.log(record).unwrap(),
            Entry::Artifact(piece) => encoder.artifact(piece).unwrap(),
        }
    }
    encoder.finish().unwrap()
}

fn read(bytes: &[u8]) -> Result<(Head, Vec<Entry>), Error> {
    let (head, mut decoder) = Decoder::open(bytes)?;
    let mut entries = Vec::new();
    while let Some(entry) = decoder.next()? {
        entries.push(entry);
    }
    Ok((head, entries))
}

/// An archive with these lines, well formed or not.
fn of_lines(lines: &[Value]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for line in lines {
        writeln!(out, "{line}").unwrap();
    }
    out.finish().unwrap()
}

#[test]
fn what_is_read_is_what_was_written_and_the_bytes_are_the_same_each_time() {
    let bytes = written(entries(), u64::MAX);
    let (found, read_back) = read(&bytes).unwrap();
    assert_eq!(found, head());
    assert_eq!(read_back, entries());
    assert_eq!(bytes, written(entries(), u64::MAX));
}

#[test]
fn an_archive_that_is_cut_anywhere_is_refused() {
    let bytes = written(entries(), u64::MAX);
    for end in 0..bytes.len() {
        let error = read(&bytes[..end]).unwrap_err();
        assert!(
            matches!(error, Error::Truncated | Error::NotAnArchive),
            "{end}: {error}"
        );
    }
    let lines = [json!({ "phalanx_run": 1 }), json!({ "run": head() })];
    let error = read(&of_lines(&lines)).unwrap_err();
    assert!(matches!(error, Error::Truncated), "{error}");
}

#[test]
fn a_changed_byte_is_noticed() {
    let bytes = written(entries(), u64::MAX);
    let whole = read(&bytes).unwrap();
    // The byte before checksum and length may end with bits that mean nothing.
    let padded = bytes.len() - 9;
    for at in 10..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        match read(&changed) {
            Err(_) => {}
            Ok(found) if at == padded => assert_eq!(found, whole),
            Ok(_) => panic!("byte {at} of {}", bytes.len()),
        }
    }
}

#[test]
fn other_files_and_later_versions_are_told_apart() {
    for other in [
        &b""[..],
        b"PK\x03\x04",
        b"{}\n",
        &of_lines(&[json!({})]),
        &of_lines(&[json!("x")]),
    ] {
        let error = read(other).unwrap_err();
        assert!(
            matches!(error, Error::NotAnArchive | Error::Truncated),
            "{other:?}: {error}"
        );
    }
    let later = of_lines(&[json!({ "phalanx_run": 2, "by": "9.0.0", "new": true })]);
    let text = read(&later).unwrap_err().to_string();
    assert!(text.contains("newer") && text.contains("9.0.0"), "{text}");
}

#[test]
fn lines_and_fields_of_a_later_version_are_ignored() {
    let lines = [
        json!({ "phalanx_run": 1, "colour": "red" }),
        json!({ "run": head() }),
        json!({ "hologram": { "name": "x" } }),
        json!({ "event": submitted(), "extra": [] }),
        json!({ "end": { "events": 1, "logs": 0, "holograms": 1 } }),
    ];
    let (_, entries) = read(&of_lines(&lines)).unwrap();
    assert_eq!(entries, [Entry::Event(submitted())]);
}

#[test]
fn a_bomb_is_refused_before_it_is_held() {
    let begun = || {
        let mut out = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let lines = [json!({ "phalanx_run": 1 }), json!({ "run": head() })];
        for line in lines.into_iter().chain([json!({ "event": submitted() })]) {
            writeln!(out, "{line}").unwrap();
        }
        out
    };
    // 32 MiB of one line in a few kilobytes.
    let mut out = begun();
    out.write_all(b"{\"event\":\"").unwrap();
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..32 {
        out.write_all(&piece).unwrap();
    }
    let error = read(&out.finish().unwrap()).unwrap_err();
    assert!(matches!(error, Error::TooLarge(_)), "{error}");
    // Values that would take thirty times their text.
    let mut out = begun();
    writeln!(out, "{{\"event\":[{}0]}}", "0,".repeat(9_000_000)).unwrap();
    let error = read(&out.finish().unwrap()).unwrap_err();
    assert!(error.to_string().contains("values"), "{error}");
    // A log record as long as an event may be.
    let mut out = begun();
    writeln!(out, "{}", json!({ "event": started() })).unwrap();
    let text = "x".repeat(2 << 20);
    let log = json!({ "cell": "cell", "attempt": 1, "service": "s", "stream": "stdout", "offset": 0, "text": text });
    writeln!(out, "{}", json!({ "log": log })).unwrap();
    let error = read(&out.finish().unwrap()).unwrap_err();
    assert!(matches!(error, Error::TooLarge(_)), "{error}");
}

#[test]
fn ids_that_lead_elsewhere_and_entries_that_contradict_each_other_are_refused() {
    let begin = json!({ "phalanx_run": 1 });
    let run = |id: &str| {
        let mut head = json!(head());
        head["id"] = json!(id);
        json!({ "run": head })
    };
    let log = |cell: &str| json!({ "log": { "cell": cell, "attempt": 1, "service": "s", "stream": "stdout", "offset": 0, "text": "x" } });
    let first = json!({ "event": submitted() });
    let mut foreign = json!({ "event": submitted() });
    foreign["event"]["event"]["run"] = json!("other");
    let mut outside = json!({ "event": submitted() });
    outside["event"]["event"]["kind"]["plan"]["cells"][0]["id"] = json!("../..");
    let end = |events: u64, logs: u64| json!({ "end": { "events": events, "logs": logs } });
    let cases: Vec<Vec<Value>> = vec![
        vec![run("../../etc")],
        vec![run("")],
        vec![run("0193-aaaa"), foreign],
        vec![run("0193-aaaa"), outside],
        vec![run("0193-aaaa"), log("cell")],
        vec![run("0193-aaaa"), first.clone(), log("..")],
        // The journal has no such attempt.
        vec![run("0193-aaaa"), first.clone(), log("cell")],
        vec![run("0193-aaaa"), first.clone(), first.clone()],
        vec![run("0193-aaaa"), first.clone(), end(2, 0)],
        vec![run("0193-aaaa"), first.clone(), end(1, 0), json!({})],
        vec![run("0193-aaaa"), end(0, 0)],
        vec![
            run("0193-aaaa"),
            json!({ "event": event(1, json!({ "kind": "note", "message": "m" })) }),
        ],
    ];
    for case in cases {
        let lines: Vec<Value> = [begin.clone()].into_iter().chain(case).collect();
        let error = read(&of_lines(&lines)).unwrap_err();
        assert!(matches!(error, Error::Damaged(_)), "{lines:?}: {error}");
    }
}

#[test]
fn logs_beyond_the_limit_become_a_gap_that_says_so() {
    let chunk = |offset| Entry::Log(record(offset, LogBody::Bytes(vec![b'x'; 100])));
    let written = written(
        vec![
            Entry::Event(submitted()),
            Entry::Event(started()),
            chunk(0),
            chunk(100),
            chunk(200),
        ],
        150,
    );
    let (_, entries) = read(&written).unwrap();
    let Some(Entry::Log(last)) = entries.last() else {
        panic!("{entries:?}")
    };
    assert_eq!(entries.len(), 4);
    assert_eq!(last.offset, 100);
    assert!(
        matches!(&last.body, LogBody::Gap { to: 300, reason } if reason.contains("not exported")),
        "{last:?}"
    );
}

/// The fact of an artifact of the attempt.
fn collected(position: u64, digest: &str) -> Recorded {
    let kind = json!({ "kind": "artifact_collected", "id": 1, "name": "x", "from": "x", "size": 3, "digest": digest });
    let mut collected = event(position, kind);
    collected.event.attempt = started().event.attempt;
    collected
}

fn piece(digest: &str, offset: u64, bytes: &[u8]) -> Entry {
    Entry::Artifact(ArtifactPiece {
        digest: digest.to_owned(),
        size: 3,
        offset,
        bytes: bytes.to_vec(),
    })
}

#[test]
fn artifacts_come_back_in_pieces_and_only_those_that_the_journal_names() {
    let (known, other) = ("a1".repeat(32), "b2".repeat(32));
    let begin = || {
        vec![
            Entry::Event(submitted()),
            Entry::Event(collected(2, &known)),
        ]
    };
    let mut whole = begin();
    whole.push(piece(&known, 0, &[0xff, 0]));
    whole.push(piece(&known, 2, b"x"));
    let bytes = written(whole.clone(), u64::MAX);
    assert_eq!(read(&bytes).unwrap().1, whole);
    // The end is counted.
    let truncated = of_lines(&[
        json!({ "phalanx_run": 1 }),
        json!({ "run": head() }),
        json!({ "event": submitted() }),
        json!({ "end": { "events": 1, "logs": 0, "artifacts": 1 } }),
    ]);
    assert!(matches!(read(&truncated), Err(Error::Damaged(_))));
    for (bad, reason) in [
        (piece(&other, 0, b"x"), "the journal doesn't have"),
        (piece("../../x", 0, b"x"), "digest"),
        (piece(&known, 3, b"x"), "beyond its end"),
        (piece(&known, u64::MAX, b"x"), "beyond its end"),
    ] {
        let mut entries = begin();
        entries.push(bad);
        let error = read(&written(entries, u64::MAX)).unwrap_err();
        assert!(error.to_string().contains(reason), "{reason}: {error}");
    }
    let mut late = begin();
    late.insert(1, piece(&known, 0, b"x"));
    let error = read(&written(late, u64::MAX)).unwrap_err();
    assert!(matches!(error, Error::Damaged(_)), "{error}");
}
