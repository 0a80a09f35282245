//! Turns the directory in which fuse-overlayfs keeps what a container changed into a layer of an image. Pure.
//!
//! The directory holds changed files whole. A removed file is a character device 0:0 of its name or, where none can be
//! made, an empty file with the prefix `.wh.`; a directory that replaces one of the image holds `.wh..wh..opq`. A layer has
//! the latter two forms only.
//!
//! Everything else is copied byte by byte, with the extensions that come before a file's header: they may hold what the
//! crate tar can't read, such as capabilities with a byte that is a line feed.

use std::ffi::OsStr;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use tar::{EntryType, Header};

/// Prefix of the names by which a layer says what it removes.
const REMOVED: &[u8] = b".wh.";
/// Size of a header, of which the sizes of contents are made multiples.
const BLOCK: usize = 512;
/// Maximum size of an extension. It holds names and attributes.
const EXTENSION: u64 = 1 << 20;

/// Writes the layer of an archive of the directory. Returns whether anything is in it.
pub fn write(mut archive: impl Read, mut layer: impl Write) -> Result<bool> {
    let mut any = false;
    let mut extended = Extended::default();
    loop {
        let mut block = [0; BLOCK];
        archive.read_exact(&mut block)?;
        if block.iter().all(|byte| *byte == 0) {
            break;
        }
        let header = Header::from_byte_slice(&block);
        let kind = header.entry_type();
        if extends(kind) {
            let size = header.entry_size()?;
            if size > EXTENSION {
                return Err(unreadable("an extension is too long"));
            }
            let mut content = Vec::new();
            copy(&mut archive, &mut content, size)?;
            extended.add(kind, &block, &content, size)?;
            continue;
        }
        let own = std::mem::take(&mut extended);
        let path = own.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let size = match (is_bare(kind), own.size) {
            (true, _) => 0,
            (false, Some(size)) => size,
            (false, None) => header.entry_size()?,
        };
        match what(header, &path) {
            What::Itself => {
                copy(&mut archive, &mut std::io::sink(), size)?;
            }
            What::Mark => {}
            What::Removed(marker) => {
                removed(&mut layer, &marker)?;
                any = true;
            }
            What::Changed => {
                layer.write_all(&own.raw)?;
                layer.write_all(&block)?;
                copy(&mut archive, &mut layer, size)?;
                any = true;
            }
        }
    }
    layer.write_all(&[0; 2 * BLOCK])?;
    layer.flush()?;
    Ok(any)
}

/// What an entry of the archive says.
enum What {
    /// The directory itself.
    Itself,
    /// A directory was replaced. fuse-overlayfs says so twice, and a layer has the other form.
    Mark,
    /// A file was removed. Holds the path by which a layer says it.
    Removed(Vec<u8>),
    /// A file was changed or added.
    Changed,
}

fn what(header: &Header, path: &[u8]) -> What {
    let Some(name) = Path::new(OsStr::from_bytes(path)).file_name() else {
        return What::Itself;
    };
    let name = name.as_bytes();
    let number = |number: Result<Option<u32>>| number.ok().flatten();
    let gone = header.entry_type() == EntryType::Char
        && number(header.device_major()) == Some(0)
        && number(header.device_minor()) == Some(0);
    match gone {
        false => What::Changed,
        true if name.starts_with(REMOVED) => What::Mark,
        true => {
            let above = path.len().saturating_sub(name.len());
            let above = path.get(..above).unwrap_or_default();
            What::Removed([above, REMOVED, name].concat())
        }
    }
}

fn removed(layer: &mut impl Write, marker: &[u8]) -> Result<()> {
    // Of any length, and not necessarily text.
    let path = record("path", marker);
    let size = path.len() as u64;
    layer.write_all(made(EntryType::XHeader, size).as_bytes())?;
    layer.write_all(&path)?;
    layer.write_all(&vec![0; padding(size)])?;
    layer.write_all(made(EntryType::Regular, 0).as_bytes())
}

fn made(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    header
}

/// Extensions of the next header.
#[derive(Default)]
struct Extended {
    /// As they are in the archive.
    raw: Vec<u8>,
    path: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Extended {
    fn add(&mut self, kind: EntryType, header: &[u8], padded: &[u8], size: u64) -> Result<()> {
        let size = usize::try_from(size).map_err(Error::other)?;
        let content = padded.get(..size).unwrap_or_default();
        match kind {
            EntryType::GNULongName => {
                let end = content.iter().position(|byte| *byte == 0);
                let name = content.get(..end.unwrap_or(size)).unwrap_or_default();
                self.path = Some(name.to_vec());
            }
            EntryType::XHeader => {
                for (key, value) in records(content)? {
                    match key {
                        b"path" => self.path = Some(value.to_vec()),
                        b"size" => {
                            let text = std::str::from_utf8(value).map_err(Error::other)?;
                            self.size = Some(text.parse().map_err(Error::other)?);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        self.raw.extend(header);
        self.raw.extend(padded);
        Ok(())
    }
}

/// Returns whether an entry says something of the next one.
fn extends(kind: EntryType) -> bool {
    matches!(
        kind,
        EntryType::XHeader
            | EntryType::XGlobalHeader
            | EntryType::GNULongName
            | EntryType::GNULongLink
    )
}

/// Returns whether an entry is a header only, whatever size it says.
fn is_bare(kind: EntryType) -> bool {
    matches!(
        kind,
        EntryType::Link
            | EntryType::Symlink
            | EntryType::Char
            | EntryType::Block
            | EntryType::Directory
            | EntryType::Fifo
    )
}

/// Returns the records `LENGTH KEY=VALUE` and a line feed. A value may contain line feeds.
fn records(mut content: &[u8]) -> Result<Vec<(&[u8], &[u8])>> {
    let mut all = Vec::new();
    let wrong = || unreadable("an extension isn't made of records");
    while !content.is_empty() {
        let space = content.iter().position(|byte| *byte == b' ');
        let space = space.ok_or_else(wrong)?;
        let length = content.get(..space).map(std::str::from_utf8);
        let length = length.and_then(|text| text.ok()?.parse::<usize>().ok());
        let length = length.ok_or_else(wrong)?;
        let record = length
            .checked_sub(1)
            .and_then(|last| content.get(space + 1..last));
        let record = record.ok_or_else(wrong)?;
        let equals = record.iter().position(|byte| *byte == b'=');
        let (key, value) = record.split_at(equals.ok_or_else(wrong)?);
        all.push((key, value.get(1..).unwrap_or_default()));
        content = content.get(length..).unwrap_or_default();
    }
    Ok(all)
}

/// Returns a record, whose length counts its own digits.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length += 1;
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

/// Copies a content and what makes its size a multiple of blocks.
fn copy(from: &mut impl Read, to: &mut impl Write, size: u64) -> Result<()> {
    let whole = size + padding(size) as u64;
    match std::io::copy(&mut from.take(whole), to)? {
        copied if copied == whole => Ok(()),
        _ => Err(ErrorKind::UnexpectedEof.into()),
    }
}

fn padding(size: u64) -> usize {
    // Less than a block.
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

fn unreadable(why: &str) -> Error {
    Error::new(ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeMap;
    use tar::{Archive, Builder};

    fn header(kind: EntryType, size: u64) -> Header {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o2750);
        header.set_uid(70);
        header.set_gid(71);
        header.set_mtime(1_600_000_000);
        header.set_size(size);
        if kind == EntryType::Char {
            header.set_device_major(0).unwrap();
            header.set_device_minor(0).unwrap();
        }
        header
    }

    fn add(archive: &mut Builder<Vec<u8>>, path: &str, kind: EntryType, content: &str) {
        let mut header = header(kind, content.len() as u64);
        let added = archive.append_data(&mut header, path, content.as_bytes());
        added.unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    fn layer(archive: Builder<Vec<u8>>) -> (bool, Vec<u8>) {
        let mut layer = Vec::new();
        let any = write(&*archive.into_inner().unwrap(), &mut layer).unwrap();
        (any, layer)
    }

    /// What a layer says of each path: type, mode, owner, time, content.
    fn said(layer: &[u8]) -> BTreeMap<String, (EntryType, u32, u64, u64, String)> {
        let mut all = BTreeMap::new();
        for entry in Archive::new(layer).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            let header = entry.header();
            let said = (
                header.entry_type(),
                header.mode().unwrap(),
                header.uid().unwrap(),
                header.mtime().unwrap(),
                content,
            );
            let path = path.trim_start_matches("./").to_owned();
            assert_eq!(all.insert(path, said), None);
        }
        all
    }

    #[test]
    fn what_was_removed_is_said_as_layers_say_it_and_the_rest_stays() {
        let (long, gone) = ("d".repeat(140), "g".repeat(150));
        let mut archive = Builder::new(Vec::new());
        add(&mut archive, "./", EntryType::Directory, "");
        for (path, kind, content) in [
            ("etc/", EntryType::Directory, ""),
            ("etc/own", EntryType::Regular, "three"),
            ("etc/gone", EntryType::Char, ""),
            (&*format!("etc/{gone}"), EntryType::Char, ""),
            ("new/.wh..opq", EntryType::Char, ""),
            ("new/.wh..wh..opq", EntryType::Regular, ""),
            (".wh.removed", EntryType::Regular, ""),
            (&*format!("{long}/file"), EntryType::Regular, "long"),
            ("pipe", EntryType::Fifo, ""),
        ] {
            add(&mut archive, path, kind, content);
        }
        let mut null = header(EntryType::Char, 0);
        null.set_device_major(1).unwrap();
        null.set_device_minor(3).unwrap();
        let added = archive.append_data(&mut null, "null", std::io::empty());
        added.unwrap();
        let (any, layer) = layer(archive);
        assert!(any);
        let own = |kind, content: &str| (kind, 0o2750, 70, 1_600_000_000, content.to_owned());
        let marker = (EntryType::Regular, 0o600, 0, 0, String::new());
        let expected = BTreeMap::from([
            ("etc/".to_owned(), own(EntryType::Directory, "")),
            ("etc/own".to_owned(), own(EntryType::Regular, "three")),
            ("etc/.wh.gone".to_owned(), marker.clone()),
            (format!("etc/.wh.{gone}"), marker),
            ("new/.wh..wh..opq".to_owned(), own(EntryType::Regular, "")),
            (".wh.removed".to_owned(), own(EntryType::Regular, "")),
            (format!("{long}/file"), own(EntryType::Regular, "long")),
            ("pipe".to_owned(), own(EntryType::Fifo, "")),
            ("null".to_owned(), own(EntryType::Char, "")),
        ]);
        assert_eq!(said(&layer), expected);
    }

    #[test]
    fn extensions_are_kept_whatever_bytes_they_hold_and_so_are_hard_links() {
        // Two capabilities whose bits make a line feed.
        let capability = [
            1, 0, 0, 2, b'\n', 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        let mut extensions = record("SCHILY.xattr.security.capability", &capability);
        extensions.extend(record("path", "ü/ping".as_bytes()));
        extensions.extend(record("size", b"7"));
        let mut archive = Builder::new(Vec::new());
        let mut before = header(EntryType::XHeader, extensions.len() as u64);
        before.set_cksum();
        archive.append(&before, &*extensions).unwrap();
        // As for a file whose size is too large for its field.
        let mut other = header(EntryType::Regular, 0);
        other.set_path("other").unwrap();
        other.set_cksum();
        archive.append(&other, &b"program"[..]).unwrap();
        let mut link = header(EntryType::Link, 0);
        let to = "t".repeat(150);
        archive.append_link(&mut link, "hard", &to).unwrap();
        let whole = archive.into_inner().unwrap();
        let mut layer = Vec::new();
        assert!(write(&*whole, &mut layer).unwrap());
        assert_eq!(layer, whole);
        let found = records(&extensions).unwrap();
        assert_eq!(found[0].1, capability);
        assert_eq!(found[1], (&b"path"[..], "ü/ping".as_bytes()));
    }

    #[test]
    fn a_container_that_changed_nothing_has_no_layer() {
        let mut archive = Builder::new(Vec::new());
        add(&mut archive, "./", EntryType::Directory, "");
        let (any, layer) = layer(archive);
        assert!(!any && layer.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn an_archive_that_is_cut_off_or_damaged_is_an_error() {
        let mut archive = Builder::new(Vec::new());
        add(&mut archive, "file", EntryType::Regular, "content");
        let whole = archive.into_inner().unwrap();
        for length in [0, 100, BLOCK, BLOCK + 7, BLOCK * 2] {
            let cut = write(&whole[..length], std::io::sink());
            assert_eq!(
                cut.unwrap_err().kind(),
                ErrorKind::UnexpectedEof,
                "{length}"
            );
        }
        for wrong in [
            "",
            "x",
            "9 path=",
            "0 path=a\n",
            "99 path=a\n",
            "9 pathab\n",
        ] {
            let records = records(wrong.as_bytes());
            assert_eq!(records.is_err(), !wrong.is_empty(), "{wrong}");
        }
    }
}
