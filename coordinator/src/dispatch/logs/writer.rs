//! Appends the records of one attempt to its files. What was stored before is dropped, what is missing becomes a gap.
//!
//! Bytes are written before their line in the index, so the index never names bytes that don't exist; after a crash what lies beyond
//! the index is cut off, and what the index names beyond the file (a power loss) becomes a gap.

use super::index::{Held, INDEX, Line, file_name};
use phalanx_proto::log::{Body, Record, Source};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The files of one attempt.
#[derive(Debug)]
pub struct Writer {
    directory: PathBuf,
    index: File,
    sources: BTreeMap<Source, Output>,
    /// The agent's number of the last record stored.
    number: u64,
    /// Lines in the index.
    records: u64,
    ended: bool,
}

#[derive(Debug)]
struct Output {
    file: File,
    /// The next byte expected of the stream.
    offset: u64,
    /// The file's length.
    position: u64,
}

impl Writer {
    /// Opens an attempt's files, and goes on after what they hold.
    pub fn open(directory: PathBuf) -> io::Result<Writer> {
        std::fs::create_dir_all(&directory)?;
        let index = File::options()
            .create(true)
            .append(true)
            .read(true)
            .open(directory.join(INDEX))?;
        let mut writer = Writer {
            directory,
            index,
            sources: BTreeMap::new(),
            number: 0,
            records: 0,
            ended: false,
        };
        writer.recover()?;
        Ok(writer)
    }

    /// Lines in the index.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Whether the logs are complete.
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

    /// The file against what the index says of it.
    fn reconcile(&mut self, source: &Source) -> io::Result<()> {
        let output = self.output(source)?;
        let length = output.file.metadata()?.len();
        if length >= output.position {
            return output.file.set_len(output.position);
        }
        // A power loss took bytes that the index names. Zeros keep the positions; the gap says not to believe them.
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

    fn output(&mut self, source: &Source) -> io::Result<&mut Output> {
        if !self.sources.contains_key(source) {
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
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

    /// Stores a record; one that is stored already changes nothing.
    pub fn append(&mut self, record: Record) -> io::Result<()> {
        let Record { number, body } = record;
        if number <= self.number || self.ended {
            return Ok(());
        }
        match body {
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
            Body::End => {
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

    /// What lies between the bytes that came and these didn't survive.
    fn expect(&mut self, source: &Source, offset: u64) -> io::Result<()> {
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

    /// One line, whole or not at all.
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

/// The whole lines of an index, and the bytes that they take; what follows is half a line of a crash.
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
            writer.append(record).unwrap();
        }
        let mut writer = Writer::open(directory.clone()).unwrap();
        for record in [chunk(2, 3, "two"), chunk(3, 6, "three")] {
            writer.append(record).unwrap();
        }
        let end = Record {
            number: 4,
            body: Body::End,
        };
        writer.append(end).unwrap();
        writer.append(chunk(5, 11, "late")).unwrap();
        assert_eq!(stored(&directory), "onetwothree");
        assert!(writer.ended() && Writer::open(directory.clone()).unwrap().ended());
        assert_eq!((gaps(&directory), writer.records()), (vec![], 4));
    }

    #[test]
    fn half_a_line_and_bytes_beyond_the_index_are_cut_off_at_a_restart() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("a");
        let mut writer = Writer::open(directory.clone()).unwrap();
        writer.append(chunk(1, 0, "one")).unwrap();
        drop(writer);
        let append = |name: &str, bytes: &[u8]| {
            let file = File::options().append(true).open(directory.join(name));
            file.unwrap().write_all(bytes).unwrap();
        };
        append(&file_name(&source()), b"tw");
        append(INDEX, b"{\"n\":2,\"chu");
        let mut writer = Writer::open(directory.clone()).unwrap();
        writer.append(chunk(2, 3, "two")).unwrap();
        assert_eq!(stored(&directory), "onetwo");
        assert_eq!(gaps(&directory), []);
    }

    #[test]
    fn bytes_that_a_power_loss_took_become_a_gap() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("a");
        let mut writer = Writer::open(directory.clone()).unwrap();
        writer.append(chunk(1, 0, "onetwo")).unwrap();
        drop(writer);
        let file = File::options()
            .write(true)
            .open(directory.join(file_name(&source())));
        file.unwrap().set_len(4).unwrap();
        let mut writer = Writer::open(directory.clone()).unwrap();
        assert_eq!(gaps(&directory), [(4, 6)]);
        writer.append(chunk(2, 6, "three")).unwrap();
        assert_eq!(stored(&directory), "onet\0\0three");
    }

    #[test]
    fn records_that_never_came_become_a_gap_of_their_bytes() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("a");
        let mut writer = Writer::open(directory.clone()).unwrap();
        writer.append(chunk(1, 0, "one")).unwrap();
        writer.append(chunk(9, 10, "later")).unwrap();
        assert_eq!(gaps(&directory), [(3, 10)]);
        assert_eq!(stored(&directory), "onelater");
    }
}
