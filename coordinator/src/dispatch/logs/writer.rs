//! Appends the records of one attempt to its files. Records that are already stored are dropped; missing bytes become a
//! gap.
//!
//! Bytes are written before their index line, so the index never names bytes that don't exist. After a crash, bytes
//! beyond the index are cut off. Bytes that the index names but the file lacks (after a power loss) become a gap.

use super::index::{Held, INDEX, Line, file_name};
use phalanx_proto::log::{Body, Record, Source};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The files of one attempt.
#[derive(Debug)]
pub struct Writer {
    directory: PathBuf,
    index: File,
    sources: BTreeMap<Source, Output>,
    /// The agent's number of the last record stored.
    number: u64,
    /// Number of lines in the index.
    records: u64,
    /// Bytes in all files.
    bytes: u64,
    /// Bytes refused since the last stored record of their source: the offset where they end, and the reason. The next
    /// record turns them into a gap.
    refused: BTreeMap<Source, (u64, String)>,
    ended: bool,
}

/// Maximum number of outputs of one attempt; each takes a file. A well-behaved agent has two for each service.
pub const MAX_SOURCES: usize = 512;

#[derive(Debug)]
struct Output {
    file: File,
    /// Offset of the next byte expected in the stream.
    offset: u64,
    /// Length of the file.
    position: u64,
}

impl Writer {
    /// Opens an attempt's files and continues after their content.
    pub fn open(directory: PathBuf) -> io::Result<Writer> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)?;
        let index = File::options()
            .create(true)
            .append(true)
            .read(true)
            .mode(0o600)
            .open(directory.join(INDEX))?;
        let mut writer = Writer {
            directory,
            index,
            sources: BTreeMap::new(),
            number: 0,
            records: 0,
            bytes: 0,
            refused: BTreeMap::new(),
            ended: false,
        };
        writer.recover()?;
        Ok(writer)
    }

    /// Returns the number of lines in the index.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Returns the number of bytes in all files.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns whether the logs are complete.
    pub fn ended(&self) -> bool {
        self.ended
    }

    fn recover(&mut self) -> io::Result<()> {
        let (lines, valid) = read_index(&self.directory)?;
        self.index.set_len(valid)?;
        for line in lines {
            self.records += 1;
            self.number = self.number.max(line.n);
            self.ended |= line.held == Held::End {};
            let Some(source) = line.held.source() else {
                continue;
            };
            let output = self.output(&source)?;
            match line.held {
                Held::Chunk {
                    offset,
                    len,
                    position,
                    ..
                } => {
                    output.offset = offset + len;
                    output.position = position + len;
                    self.bytes += len;
                }
                Held::Gap { to, .. } => output.offset = to,
                Held::End {} => {}
            }
        }
        for source in self.sources.keys().cloned().collect::<Vec<_>>() {
            self.reconcile(&source)?;
        }
        Ok(())
    }

    /// Makes a source's file match the index.
    fn reconcile(&mut self, source: &Source) -> io::Result<()> {
        let output = self.output(source)?;
        let length = output.file.metadata()?.len();
        if length >= output.position {
            return output.file.set_len(output.position);
        }
        // A power loss took bytes that the index names. Zeros keep the positions; the gap marks them as lost.
        let (lost, to) = (output.position - length, output.offset);
        output.file.set_len(output.position)?;
        self.gap(
            0,
            source,
            to.saturating_sub(lost),
            to,
            "lost in a crash of the coordinator",
        )
    }

    /// Checks whether a source is known or may be added. Returns an error if there are too many.
    fn admit(&self, source: &Source) -> io::Result<()> {
        let known = |source: &Source| self.sources.contains_key(source);
        if known(source) || self.refused.contains_key(source) {
            return Ok(());
        }
        let only_refused = self.refused.keys().filter(|source| !known(source)).count();
        if self.sources.len() + only_refused < MAX_SOURCES {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::QuotaExceeded,
            format!("an attempt has at most {MAX_SOURCES} outputs"),
        ))
    }

    fn output(&mut self, source: &Source) -> io::Result<&mut Output> {
        if !self.sources.contains_key(source) {
            self.admit(source)?;
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(self.directory.join(file_name(source)))?;
            let output = Output {
                file,
                offset: 0,
                position: 0,
            };
            self.sources.insert(source.clone(), output);
        }
        self.sources
            .get_mut(source)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// Stores a record, unless it is stored already. If `refuse` holds a reason, the bytes become a gap with that
    /// reason.
    pub fn append(&mut self, record: Record, refuse: Option<&str>) -> io::Result<()> {
        let Record { number, body } = record;
        if number <= self.number || self.ended {
            return Ok(());
        }
        match body {
            Body::Chunk {
                source,
                offset,
                bytes,
                ..
            } if refuse.is_some() => {
                self.admit(&source)?;
                // All bytes refused in a row become one line, written once their end is known.
                let to = offset + bytes.len() as u64;
                self.refused
                    .insert(source, (to, refuse.unwrap_or_default().to_owned()));
            }
            Body::Chunk {
                source,
                offset,
                at,
                bytes,
            } => self.chunk(number, &source, offset, at.0, &bytes)?,
            Body::Gap {
                source,
                from,
                to,
                reason,
            } => {
                self.expect(&source, from)?;
                self.gap(number, &source, from, to, &reason)?;
            }
            // They are stored elsewhere.
            Body::Artifact { .. } | Body::ArtifactEnd { .. } => {}
            Body::End => {
                for source in self.refused.keys().cloned().collect::<Vec<_>>() {
                    self.tell_refused(&source)?;
                }
                for output in self.sources.values() {
                    output.file.sync_data()?;
                }
                self.line(&Line {
                    n: number,
                    held: Held::End {},
                })?;
                self.index.sync_data()?;
                self.ended = true;
            }
        }
        self.number = number;
        Ok(())
    }

    /// Writes the gap for the refused bytes of a source.
    fn tell_refused(&mut self, source: &Source) -> io::Result<()> {
        let Some((to, reason)) = self.refused.get(source).cloned() else {
            return Ok(());
        };
        let from = self.output(source)?.offset;
        if from < to {
            self.gap(0, source, from, to, &reason)?;
        }
        self.refused.remove(source);
        Ok(())
    }

    /// Writes gaps up to `offset` for bytes of a source that were refused or didn't arrive.
    fn expect(&mut self, source: &Source, offset: u64) -> io::Result<()> {
        self.tell_refused(source)?;
        let expected = self.output(source)?.offset;
        if expected < offset {
            self.gap(
                0,
                source,
                expected,
                offset,
                "lost before the coordinator stored it",
            )?;
        }
        Ok(())
    }

    fn chunk(
        &mut self,
        number: u64,
        source: &Source,
        offset: u64,
        at: i64,
        bytes: &[u8],
    ) -> io::Result<()> {
        self.expect(source, offset)?;
        let output = self.output(source)?;
        let known = usize::try_from(output.offset - offset).unwrap_or(usize::MAX);
        let new = bytes.get(known..).unwrap_or_default();
        if new.is_empty() {
            return Ok(());
        }
        let (offset, position) = (output.offset, output.position);
        output.file.write_all_at(new, position)?;
        let len = new.len() as u64;
        output.offset += len;
        output.position += len;
        let written = self.line(&Line {
            n: number,
            held: Held::Chunk {
                service: source.service.clone(),
                stream: source.stream,
                offset,
                len,
                position,
                at,
            },
        });
        if written.is_err() {
            let output = self.output(source)?;
            output.offset = offset;
            output.position = position;
        } else {
            self.bytes += len;
        }
        written
    }

    fn gap(
        &mut self,
        number: u64,
        source: &Source,
        from: u64,
        to: u64,
        reason: &str,
    ) -> io::Result<()> {
        self.line(&Line {
            n: number,
            held: Held::Gap {
                service: source.service.clone(),
                stream: source.stream,
                from,
                to,
                reason: reason.to_owned(),
            },
        })?;
        let output = self.output(source)?;
        output.offset = output.offset.max(to);
        Ok(())
    }

    /// Appends one line to the index, completely or not at all.
    fn line(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        let before = self.index.metadata()?.len();
        if let Err(error) = self.index.write_all(&text) {
            let _ = self.index.set_len(before);
            return Err(error);
        }
        self.records += 1;
        Ok(())
    }
}

/// Reads the complete lines of an index and returns them with their length in bytes. Half a line after them is left
/// from a crash.
pub fn read_index(directory: &Path) -> io::Result<(Vec<Line>, u64)> {
    let mut reader = BufReader::new(File::open(directory.join(INDEX))?);
    let (mut lines, mut valid) = (Vec::new(), 0);
    let mut text = Vec::new();
    loop {
        text.clear();
        let read = reader.read_until(b'\n', &mut text)?;
        match serde_json::from_slice(&text) {
            Ok(line) if text.ends_with(b"\n") => lines.push(line),
            _ => return Ok((lines, valid)),
        }
        valid += read as u64;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use phalanx_shared::event::LogStream;
    use phalanx_shared::time::Timestamp;

    fn source() -> Source {
        Source {
            service: "db".to_owned(),
            stream: LogStream::Stdout,
        }
    }

    fn chunk(number: u64, offset: u64, text: &str) -> Record {
        let body = Body::Chunk {
            source: source(),
            offset,
            at: Timestamp(1),
            bytes: text.as_bytes().to_vec(),
        };
        Record { number, body }
    }

    fn stored(directory: &Path) -> String {
        std::fs::read_to_string(directory.join(file_name(&source()))).unwrap()
    }

    fn gaps(directory: &Path) -> Vec<(u64, u64)> {
        let lines = read_index(directory).unwrap().0.into_iter();
        lines
            .filter_map(|line| match line.held {
                Held::Gap { from, to, .. } => Some((from, to)),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn what_comes_twice_is_stored_once_also_after_a_restart() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("a");
        let mut writer = Writer::open(directory.clone()).unwrap();
        for record in [chunk(1, 0, "one"), chunk(1, 0, "one"), chunk(2, 3, "two")] {
            writer.append(record, None).unwrap();
        }
        let mut writer = Writer::open(directory.clone()).unwrap();
        for record in [chunk(2, 3, "two"), chunk(3, 6, "three")] {
            writer.append(record, None).unwrap();
        }
        let end = Record {
            number: 4,
            body: Body::End,
        };
        writer.append(end, None).unwrap();
        writer.append(chunk(5, 11, "late"), None).unwrap();
        assert_eq!(stored(&directory), "onetwothree");
        assert!(writer.ended() && Writer::open(directory.clone()).unwrap().ended());
        assert_eq!((gaps(&directory), writer.records()), (vec![], 4));
    }

    #[test]
    fn half_a_line_and_bytes_beyond_the_index_are_cut_off_at_a_restart() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("a");
        let mut writer = Writer::open(directory.clone()).unwrap();
        writer.append(chunk(1, 0, "one"), None).unwrap();
        drop(writer);
        let append = |name: &str, bytes: &[u8]| {
            let file = File::options().append(true).open(directory.join(name));
            file.unwrap().write_all(bytes).unwrap();
        };
        append(&file_name(&source()), b"tw");
        append(INDEX, b"{\"n\":2,\"chu");
        let mut writer = Writer::open(directory.clone()).unwrap();
        writer.append(chunk(2, 3, "two"), None).unwrap();
        assert_eq!(stored(&directory), "onetwo");
        assert_eq!(gaps(&directory), []);
    }

    #[test]
    fn bytes_that_a_power_loss_took_become_a_gap() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("a");
        let mut writer = Writer::open(directory.clone()).unwrap();
        writer.append(chunk(1, 0, "onetwo"), None).unwrap();
        drop(writer);
        let file = File::options()
            .write(true)
            .open(directory.join(file_name(&source())));
        file.unwrap().set_len(4).unwrap();
        let mut writer = Writer::open(directory.clone()).unwrap();
        assert_eq!(gaps(&directory), [(4, 6)]);
        writer.append(chunk(2, 6, "three"), None).unwrap();
        assert_eq!(stored(&directory), "onet\0\0three");
    }

    #[test]
    fn records_that_never_came_become_a_gap_of_their_bytes() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("a");
        let mut writer = Writer::open(directory.clone()).unwrap();
        writer.append(chunk(1, 0, "one"), None).unwrap();
        writer.append(chunk(9, 10, "later"), None).unwrap();
        assert_eq!(gaps(&directory), [(3, 10)]);
        assert_eq!(stored(&directory), "onelater");
    }

    #[test]
    fn what_is_refused_is_one_gap_that_says_why_and_what_comes_later_is_kept() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("a");
        let mut writer = Writer::open(directory.clone()).unwrap();
        writer.append(chunk(1, 0, "one"), None).unwrap();
        writer.append(chunk(2, 3, "two"), Some("full")).unwrap();
        writer.append(chunk(3, 6, "three"), Some("full")).unwrap();
        assert_eq!(writer.bytes(), 3);
        writer.append(chunk(4, 11, "four"), None).unwrap();
        writer
            .append(chunk(5, 15, "five"), Some("still full"))
            .unwrap();
        let end = Record {
            number: 6,
            body: Body::End,
        };
        writer.append(end, None).unwrap();
        assert_eq!(stored(&directory), "onefour");
        assert_eq!(gaps(&directory), [(3, 11), (15, 19)]);
        let lines = read_index(&directory).unwrap().0;
        let why = |line: &Line| match &line.held {
            Held::Gap { reason, .. } => Some(reason.clone()),
            _ => None,
        };
        let reasons: Vec<String> = lines.iter().filter_map(why).collect();
        assert_eq!(reasons, ["full", "still full"]);
        assert!(Writer::open(directory).unwrap().ended());
    }

    #[test]
    fn an_attempt_has_a_bounded_number_of_files() {
        let place = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(place.path().join("a")).unwrap();
        let of = |n: usize| {
            let number = n as u64 + 1;
            let Body::Chunk { at, bytes, .. } = chunk(1, 0, "x").body else {
                unreachable!()
            };
            let source = Source {
                service: format!("s{n}"),
                stream: LogStream::Stdout,
            };
            let body = Body::Chunk {
                source,
                offset: 0,
                at,
                bytes,
            };
            Record { number, body }
        };
        for n in 0..MAX_SOURCES {
            writer
                .append(of(n), (n % 2 == 0).then_some("full"))
                .unwrap();
        }
        assert!(writer.append(of(MAX_SOURCES), Some("full")).is_err());
    }
}
