//! The logs of all attempts of an agent until the coordinator has stored them. It is pure: records are returned while
//! there is credit, alternating between attempts.

use super::attempt::Attempt;
use super::room::Room;
use crate::link::overflow::Overflow;
use phalanx_proto::log::{Record, Source};
use phalanx_shared::event::EventKind;
use phalanx_shared::id::Token;
use phalanx_shared::time::Timestamp;
use std::collections::BTreeMap;

/// Limits for logs.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum number of bytes kept per service: half from the start, the rest from the end, with an explicit gap in
    /// between.
    pub cap_bytes: u64,
    /// Maximum number of bytes in memory for all attempts together; the rest waits on disk.
    pub memory_bytes: usize,
    /// Maximum number of bytes of artifacts of all attempts together that wait on disk.
    pub artifact_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            cap_bytes: 64 << 20,
            memory_bytes: 16 << 20,
            artifact_bytes: 8 << 30,
        }
    }
}

/// The end of an attempt's logs: they are stored, except for these gaps.
#[derive(Clone, Debug, PartialEq)]
pub struct Over {
    /// Token of the attempt.
    pub token: Token,
    /// `LogGap` events; none if everything is stored.
    pub gaps: Vec<EventKind>,
}

/// The log spool; see the module.
#[derive(Debug)]
pub struct LogSpool<O> {
    room: Room<O>,
    attempts: BTreeMap<Token, Attempt>,
    /// Credit per attempt in bytes; `None` while there is no connection.
    window_bytes: Option<u64>,
    /// The attempt whose record was sent last.
    last: Option<Token>,
}

impl<O: Overflow> LogSpool<O> {
    /// Creates an empty spool.
    pub fn new(overflow: O, limits: Limits) -> Self {
        LogSpool {
            room: Room {
                overflow,
                memory_bytes: 0,
                memory_limit: limits.memory_bytes,
                cap_bytes: limits.cap_bytes,
                artifact_bytes: 0,
                artifact_limit: limits.artifact_bytes,
            },
            attempts: BTreeMap::new(),
            window_bytes: None,
            last: None,
        }
    }

    /// Starts to keep an attempt's logs.
    pub fn open(&mut self, token: Token) {
        let name = format!(
            "{}_{}_{}_{}",
            token.run, token.cell, token.attempt, token.epoch
        );
        self.attempts
            .entry(token)
            .or_insert_with(|| Attempt::new(name));
    }

    /// Takes bytes. Drops them if the attempt isn't open.
    pub fn write(&mut self, token: &Token, source: Source, at: Timestamp, bytes: &[u8]) {
        if let Some(attempt) = self.attempts.get_mut(token) {
            attempt.write(&mut self.room, source, at, bytes);
        }
    }

    /// Takes bytes of an artifact. Drops them if the attempt isn't open.
    pub fn artifact(&mut self, token: &Token, id: u32, bytes: &[u8]) {
        if let Some(attempt) = self.attempts.get_mut(token) {
            attempt.artifact(&mut self.room, id, bytes);
        }
    }

    /// Handles the end of an artifact.
    pub fn artifact_end(&mut self, token: &Token, id: u32, digest: Option<String>, size: u64) {
        if let Some(attempt) = self.attempts.get_mut(token) {
            attempt.artifact_end(id, digest, size);
        }
    }

    /// Handles the coordinator's refusal of an artifact.
    pub fn refuse_artifact(&mut self, token: &Token, id: u32, reason: &str) {
        if let Some(attempt) = self.attempts.get_mut(token) {
            attempt.artifact_refused(&mut self.room, id, reason);
        }
    }

    /// Sends no more artifacts of an attempt.
    pub fn give_up_artifacts(&mut self, token: &Token, reason: &str) {
        if let Some(attempt) = self.attempts.get_mut(token) {
            attempt.give_up_artifacts(&mut self.room, reason);
        }
    }

    /// Handles the end of an attempt's output.
    pub fn end(&mut self, token: &Token) -> Option<Over> {
        let attempt = self.attempts.get_mut(token)?;
        attempt.end(self.room.cap_bytes);
        let over = attempt.is_over();
        over.then(|| self.finish(token)).flatten()
    }

    /// Handles the coordinator's refusal of an attempt's logs, including those still to come.
    pub fn refuse(&mut self, token: &Token, reason: &str) -> Option<Over> {
        let attempt = self.attempts.get_mut(token)?;
        attempt.refuse(&mut self.room, reason);
        let over = attempt.is_over();
        over.then(|| self.finish(token)).flatten()
    }

    /// Handles a new connection with this much credit per attempt: all unacknowledged records are sent again.
    pub fn connected(&mut self, window_bytes: u64) {
        self.window_bytes = Some(window_bytes);
        self.attempts.values_mut().for_each(Attempt::rewind);
    }

    /// Handles the loss of the connection: nothing is sent.
    pub fn disconnected(&mut self) {
        self.window_bytes = None;
    }

    /// Returns the next record to send, if one may be sent.
    pub fn next_record(&mut self) -> Option<(Token, Record)> {
        let window_bytes = self.window_bytes?;
        let after = self.last.clone();
        let turn = |token: &&Token| after.as_ref().is_some_and(|last| *token > last);
        let tokens: Vec<Token> = {
            let (later, earlier): (Vec<&Token>, Vec<&Token>) = self.attempts.keys().partition(turn);
            later.into_iter().chain(earlier).cloned().collect()
        };
        for token in tokens {
            let attempt = self.attempts.get_mut(&token)?;
            if let Some(record) = attempt.next_record(&mut self.room, window_bytes) {
                self.last = Some(token.clone());
                return Some((token, record));
            }
        }
        None
    }

    /// Handles an acknowledgement: the coordinator has stored all records of an attempt up to this number.
    pub fn acknowledge(&mut self, token: &Token, number: u64) -> Option<Over> {
        let attempt = self.attempts.get_mut(token)?;
        let over = attempt.acknowledge(&mut self.room, number);
        over.then(|| self.finish(token)).flatten()
    }

    /// Declares the rest of an attempt's logs lost.
    pub fn give_up(&mut self, token: &Token, reason: &str) -> Option<Over> {
        let attempt = self.attempts.get_mut(token)?;
        attempt.give_up(&mut self.room, reason);
        self.finish(token)
    }

    fn finish(&mut self, token: &Token) -> Option<Over> {
        let gaps = self.attempts.remove(token)?.finish(&mut self.room);
        let token = token.clone();
        Some(Over { token, gaps })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::link::overflow::{Directory, Place};
    use phalanx_proto::log::Body;
    use phalanx_shared::event::LogStream;
    use proptest::prelude::*;
    use std::io;

    fn token(cell: &str) -> Token {
        Token {
            run: "run".into(),
            cell: cell.into(),
            attempt: 1,
            epoch: 1,
        }
    }

    fn source(service: &str, stream: LogStream) -> Source {
        let service = service.to_owned();
        Source { service, stream }
    }

    fn stdout() -> Source {
        source("db", LogStream::Stdout)
    }

    const AT: Timestamp = Timestamp(7);

    fn spool(limits: Limits) -> (tempfile::TempDir, LogSpool<Directory>) {
        let place = tempfile::tempdir().unwrap();
        let files = Directory::create(place.path().join("logs")).unwrap();
        let mut spool = LogSpool::new(files, limits);
        spool.open(token("a"));
        spool.open(token("b"));
        (place, spool)
    }

    /// Sends and acknowledges everything. Returns each source's bytes, the gaps as (from, to), and the attempts that
    /// are over.
    #[allow(clippy::type_complexity)]
    fn drain(
        spool: &mut LogSpool<Directory>,
    ) -> (BTreeMap<Source, Vec<u8>>, Vec<(u64, u64)>, Vec<Over>) {
        let (mut bytes, mut gaps, mut overs) = (BTreeMap::<Source, Vec<u8>>::new(), vec![], vec![]);
        while let Some((token, record)) = spool.next_record() {
            match record.body {
                Body::Chunk {
                    source,
                    offset,
                    bytes: piece,
                    ..
                } => {
                    let kept = bytes.entry(source).or_default();
                    assert_eq!(kept.len() as u64, offset, "a hole without a gap");
                    kept.extend(piece);
                }
                Body::Gap {
                    source, from, to, ..
                } => {
                    gaps.push((from, to));
                    bytes
                        .entry(source)
                        .or_default()
                        .resize(usize::try_from(to).unwrap(), b'?');
                }
                Body::Artifact { .. } | Body::ArtifactEnd { .. } | Body::End => {}
            }
            overs.extend(spool.acknowledge(&token, record.number));
        }
        (bytes, gaps, overs)
    }

    #[test]
    fn a_log_under_its_cap_arrives_whole_and_its_end_is_told_once() {
        let (_place, mut spool) = spool(Limits::default());
        spool.connected(1000);
        for n in 0..500 {
            spool.write(&token("a"), stdout(), AT, format!("line {n}\n").as_bytes());
        }
        spool.end(&token("a"));
        let (bytes, gaps, overs) = drain(&mut spool);
        let expected: String = (0..500).map(|n| format!("line {n}\n")).collect();
        assert_eq!(bytes[&stdout()], expected.as_bytes());
        assert!(gaps.is_empty());
        assert_eq!(
            overs,
            [Over {
                token: token("a"),
                gaps: vec![]
            }]
        );
        assert_eq!(spool.room.memory_bytes, 0);
    }

    #[test]
    fn over_the_cap_head_and_tail_are_kept_with_an_explicit_gap() {
        let limits = Limits {
            cap_bytes: 8000,
            memory_bytes: 1000,
            ..Limits::default()
        };
        let (place, mut spool) = spool(limits);
        spool.connected(10_000);
        let whole: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
        for piece in whole.chunks(100) {
            spool.write(&token("a"), stdout(), AT, piece);
        }
        spool.end(&token("a"));
        let (bytes, gaps, overs) = drain(&mut spool);
        let kept = &bytes[&stdout()];
        let [(from, to)] = gaps[..] else {
            panic!("{gaps:?}")
        };
        assert_eq!(from, 4000);
        assert!((1000..=2000).contains(&(100_000 - to)), "{to}");
        assert_eq!(kept.len(), 100_000);
        assert_eq!(kept[..4000], whole[..4000]);
        assert_eq!(
            kept[usize::try_from(to).unwrap()..],
            whole[usize::try_from(to).unwrap()..]
        );
        assert!(matches!(
            overs[0].gaps[..],
            [EventKind::LogGap { from: 4000, .. }]
        ));
        assert_eq!(
            std::fs::read_dir(place.path().join("logs"))
                .unwrap()
                .count(),
            0
        );
    }

    #[test]
    fn a_noisy_attempt_runs_out_of_credit_and_the_other_goes_on() {
        let (_place, mut spool) = spool(Limits::default());
        spool.connected(100_000);
        spool.write(&token("a"), stdout(), AT, &vec![b'x'; 1_000_000]);
        while spool.next_record().is_some() {}
        spool.write(&token("b"), stdout(), AT, b"quiet");
        let (turn, _) = spool.next_record().unwrap();
        assert_eq!(turn, token("b"));
        assert!(spool.next_record().is_none());
        spool.acknowledge(&token("a"), 1);
        assert_eq!(spool.next_record().unwrap().0, token("a"));
    }

    #[test]
    fn after_a_cut_everything_unacknowledged_is_sent_again_with_the_same_numbers() {
        let (_place, mut spool) = spool(Limits::default());
        spool.connected(1 << 20);
        for stream in [LogStream::Stdout, LogStream::Stderr, LogStream::Stdout] {
            spool.write(&token("a"), source("db", stream), AT, b"x");
        }
        let sent: Vec<_> = std::iter::from_fn(|| spool.next_record()).collect();
        spool.acknowledge(&token("a"), 1);
        spool.disconnected();
        assert!(spool.next_record().is_none());
        spool.connected(1 << 20);
        let again: Vec<_> = std::iter::from_fn(|| spool.next_record()).collect();
        assert_eq!(again, sent[1..]);
    }

    #[test]
    fn what_is_refused_and_all_that_follows_is_one_gap_of_each_output() {
        let limits = Limits {
            cap_bytes: 100,
            memory_bytes: 1_000,
            ..Limits::default()
        };
        let (place, mut spool) = spool(limits);
        spool.connected(1_000);
        spool.write(&token("a"), stdout(), AT, &[b'x'; 40]);
        let (_, record) = spool.next_record().unwrap();
        spool.acknowledge(&token("a"), record.number);
        // The rest of the head, then the tail.
        for _ in 0..10 {
            spool.write(&token("a"), stdout(), AT, &[b'x'; 10]);
        }
        let stderr = source("db", LogStream::Stderr);
        assert_eq!(spool.refuse(&token("a"), "no directory"), None);
        spool.write(&token("a"), stdout(), AT, b"later");
        spool.write(&token("a"), stderr.clone(), AT, b"late");
        assert!(spool.next_record().is_none());
        let over = spool.end(&token("a")).unwrap();
        let gap = |of: Source, from, to| EventKind::LogGap {
            service: of.service,
            stream: of.stream,
            from,
            to,
            reason: "no directory".to_owned(),
        };
        assert_eq!(over.gaps, [gap(stdout(), 40, 145), gap(stderr, 0, 4)]);
        assert_eq!(spool.room.memory_bytes, 0);
        let left = std::fs::read_dir(place.path().join("logs"))
            .unwrap()
            .count();
        assert_eq!(left, 0, "no file stays");
    }

    #[test]
    fn what_nobody_takes_is_declared_lost() {
        let (_place, mut spool) = spool(Limits::default());
        spool.write(&token("a"), stdout(), AT, b"12345");
        let over = spool.give_up(&token("a"), "no connection").unwrap();
        let expected = EventKind::LogGap {
            service: "db".to_owned(),
            stream: LogStream::Stdout,
            from: 0,
            to: 5,
            reason: "no connection".to_owned(),
        };
        assert_eq!(over.gaps, [expected]);
        assert_eq!(spool.room.memory_bytes, 0);
    }

    /// A full disk.
    struct Full;
    impl Overflow for Full {
        fn append(&mut self, _: &str, _: &[u8]) -> io::Result<Place> {
            Err(io::Error::from(io::ErrorKind::StorageFull))
        }
        fn read(&mut self, _: &str, _: Place) -> io::Result<Vec<u8>> {
            Err(io::Error::from(io::ErrorKind::NotFound))
        }
        fn remove(&mut self, _: &str) {}
    }

    fn end_artifact(spool: &mut LogSpool<Directory>, id: u32, size: u64) {
        spool.artifact_end(&token("a"), id, Some("digest".to_owned()), size);
    }

    fn lost(over: &Over) -> Vec<(u32, &str)> {
        let lost = over.gaps.iter().map(|gap| match gap {
            EventKind::ArtifactLost { id, reason } => (*id, reason.as_str()),
            other => panic!("{other:?}"),
        });
        lost.collect()
    }

    #[test]
    fn artifacts_that_travel_too_long_are_given_up_and_logs_are_not() {
        let (_place, mut spool) = spool(Limits::default());
        spool.connected(10);
        for id in [1, 2] {
            spool.artifact(&token("a"), id, b"artifact");
            end_artifact(&mut spool, id, 8);
        }
        spool.artifact(&token("a"), 3, b"half");
        spool.write(&token("a"), stdout(), AT, b"a line");
        // The first one and its end have been sent.
        assert!(spool.next_record().is_some() && spool.next_record().is_some());
        spool.give_up_artifacts(&token("a"), "no time");
        end_artifact(&mut spool, 3, 4);
        spool.artifact(&token("a"), 4, b"later");
        end_artifact(&mut spool, 4, 5);
        assert_eq!(spool.end(&token("a")), None);
        spool.acknowledge(&token("a"), 2);
        let (bytes, gaps, overs) = drain(&mut spool);
        assert_eq!(bytes[&stdout()], b"a line");
        assert!(gaps.is_empty());
        let expected = [(2, "no time"), (3, "no time"), (4, "no time")];
        assert_eq!(lost(&overs[0]), expected);
        assert_eq!(spool.room.artifact_bytes, 0);
    }

    #[test]
    fn all_artifacts_of_an_agent_share_a_limit_and_what_is_acknowledged_frees_it() {
        let (place, mut spool) = spool(Limits {
            artifact_bytes: 150 << 20,
            ..Limits::default()
        });
        spool.connected(1 << 30);
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..140 {
            spool.artifact(&token("a"), 1, &piece);
        }
        end_artifact(&mut spool, 1, 140 << 20);
        let big = vec![b'y'; 11 << 20];
        spool.artifact(&token("b"), 1, &big);
        spool.artifact_end(&token("b"), 1, Some("digest".to_owned()), 11 << 20);
        let mut last = 0;
        while let Some((of, record)) = spool.next_record() {
            if of == token("a") {
                last = record.number;
            }
        }
        let over = spool.end(&token("b"));
        assert_eq!(over, None);
        spool.acknowledge(&token("a"), last);
        let files = || {
            std::fs::read_dir(place.path().join("logs"))
                .unwrap()
                .count()
        };
        // The file that grows stays.
        assert_eq!(spool.room.artifact_bytes, (12 << 20) + (10 << 20));
        assert_eq!(files(), 2);
        let over = spool.give_up(&token("b"), "over").unwrap();
        assert_eq!(
            lost(&over),
            [(
                1,
                "more than 150 MiB of artifacts wait on the agent for the coordinator"
            )]
        );
        spool.end(&token("a"));
        drain(&mut spool);
        assert_eq!(spool.room.artifact_bytes, 0);
        assert_eq!(files(), 0);
    }

    #[test]
    fn an_artifact_that_was_refused_is_lost_once() {
        let (_place, mut spool) = spool(Limits::default());
        spool.connected(1 << 20);
        spool.artifact(&token("a"), 1, b"half");
        spool.refuse_artifact(&token("a"), 1, "too large");
        spool.artifact(&token("a"), 1, b"rest");
        end_artifact(&mut spool, 1, 8);
        spool.refuse_artifact(&token("a"), 1, "too large");
        spool.end(&token("a"));
        let (_, _, overs) = drain(&mut spool);
        assert_eq!(lost(&overs[0]), [(1, "too large")]);
    }

    #[test]
    fn a_full_disk_leaves_one_gap_and_never_stops_the_writer() {
        let mut spool = LogSpool::new(
            Full,
            Limits {
                cap_bytes: 1 << 20,
                memory_bytes: 10,
                ..Limits::default()
            },
        );
        spool.open(token("a"));
        for piece in ["12345", "67890", "lost", "lost too"] {
            spool.write(&token("a"), stdout(), AT, piece.as_bytes());
        }
        spool.connected(1000);
        let records: Vec<_> = std::iter::from_fn(|| spool.next_record()).collect();
        assert_eq!(records.len(), 2);
        assert!(
            matches!(&records[1].1.body, Body::Gap { from: 10, to: 22, reason, .. } if reason.contains("disk"))
        );
    }

    fn digest(byte: u8) -> String {
        hex::encode([byte; 32])
    }

    /// Sends everything. Returns the bytes of each artifact that ended with a digest, and acknowledges or not.
    fn artifacts(
        spool: &mut LogSpool<Directory>,
        acknowledge: bool,
    ) -> (BTreeMap<u32, Vec<u8>>, Vec<Over>) {
        let (mut bytes, mut ended) = (BTreeMap::<u32, Vec<u8>>::new(), BTreeMap::new());
        let mut overs = Vec::new();
        while let Some((token, record)) = spool.next_record() {
            match record.body {
                Body::Artifact {
                    id,
                    offset,
                    bytes: piece,
                } => {
                    let kept = bytes.entry(id).or_default();
                    assert_eq!(kept.len() as u64, offset);
                    kept.extend(piece);
                }
                Body::ArtifactEnd { id, digest, .. } => {
                    let content = bytes.remove(&id).unwrap_or_default();
                    if digest.is_some() {
                        ended.insert(id, content);
                    }
                }
                _ => {}
            }
            if acknowledge {
                overs.extend(spool.acknowledge(&token, record.number));
            }
        }
        (ended, overs)
    }

    #[test]
    fn artifacts_come_whole_between_the_logs_and_again_after_a_cut() {
        let (place, mut spool) = spool(Limits::default());
        let large = vec![b'x'; 3 * phalanx_proto::limit::LOG_CHUNK_BYTES + 1];
        spool.artifact(&token("a"), 1, &large);
        spool.artifact(&token("a"), 2, b"other");
        spool.write(&token("a"), stdout(), AT, b"a line");
        spool.artifact_end(&token("a"), 1, Some(digest(1)), large.len() as u64);
        // Given up, and never ended: neither is kept.
        spool.artifact_end(&token("a"), 2, None, 0);
        spool.artifact(&token("a"), 3, b"half");
        spool.end(&token("a"));
        spool.connected(1 << 30);
        let (sent, overs) = artifacts(&mut spool, false);
        assert_eq!(sent, BTreeMap::from([(1, large.clone())]));
        assert!(overs.is_empty());
        spool.disconnected();
        spool.connected(1 << 30);
        let (sent, overs) = artifacts(&mut spool, true);
        assert_eq!(sent, BTreeMap::from([(1, large)]));
        assert_eq!(overs.first().unwrap().gaps, []);
        let left = std::fs::read_dir(place.path().join("logs")).unwrap();
        assert_eq!(left.count(), 0, "what was kept for it is gone");
    }

    #[test]
    fn an_artifact_that_is_refused_or_given_up_is_told_as_lost() {
        let lost = |over: &Over| -> Vec<(u32, String)> {
            let gaps = over.gaps.iter();
            gaps.filter_map(|gap| match gap {
                EventKind::ArtifactLost { id, reason } => Some((*id, reason.clone())),
                _ => None,
            })
            .collect()
        };
        let (_place, mut spool) = spool(Limits::default());
        for cell in ["a", "b"] {
            for id in [1, 2] {
                spool.artifact(&token(cell), id, b"content");
                spool.artifact_end(&token(cell), id, Some(digest(1)), 7);
            }
            spool.end(&token(cell));
        }
        spool.connected(1 << 30);
        // Twice, as after a cut.
        spool.refuse_artifact(&token("a"), 1, "too large");
        spool.refuse_artifact(&token("a"), 1, "too large");
        let over = spool.give_up(&token("b"), "no answer").unwrap();
        let no_answer = |id| (id, "no answer".to_owned());
        assert_eq!(lost(&over), [no_answer(1), no_answer(2)]);
        let (sent, overs) = artifacts(&mut spool, true);
        assert_eq!(sent.get(&2).map(Vec::as_slice), Some(&b"content"[..]));
        assert_eq!(lost(overs.first().unwrap()), [(1, "too large".to_owned())]);
    }

    proptest! {
        /// However bytes are written, cut and acknowledged, every byte arrives once or lies in a gap.
        #[test]
        fn every_byte_arrives_or_lies_in_a_gap(actions in prop::collection::vec((0..5u8, 0..2000usize), 1..60)) {
            let (_place, mut spool) = spool(Limits { cap_bytes: 6000, memory_bytes: 800, ..Limits::default() });
            let mut written = 0u64;
            let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
            let mut numbers = 0;
            spool.connected(1500);
            let mut take = |spool: &mut LogSpool<Directory>, acknowledge: bool| {
                let Some((token, record)) = spool.next_record() else { return false };
                match record.body {
                    Body::Chunk { offset, bytes, .. } => { seen.insert(offset, offset + bytes.len() as u64); }
                    Body::Gap { from, to, .. } => { seen.insert(from, to); }
                    Body::Artifact { .. } | Body::ArtifactEnd { .. } | Body::End => {}
                }
                numbers = record.number;
                if acknowledge { spool.acknowledge(&token, numbers); }
                true
            };
            for (action, amount) in actions {
                match action {
                    0 | 1 => {
                        spool.write(&token("a"), stdout(), AT, &vec![b'x'; amount]);
                        written += amount as u64;
                    }
                    2 => { take(&mut spool, true); }
                    3 => { take(&mut spool, false); }
                    _ => spool.connected(1500),
                }
            }
            spool.end(&token("a"));
            spool.connected(1500);
            while take(&mut spool, true) {}
            let mut reached = 0;
            for (from, to) in seen {
                prop_assert!(from <= reached, "bytes {reached}..{from} are missing");
                reached = reached.max(to);
            }
            prop_assert_eq!(reached, written);
        }
    }
}
