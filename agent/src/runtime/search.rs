//! Finds files by a path or a glob: in a directory of the agent's machine, or in a tree that came as an archive.
//!
//! What is found is bounded in number and bytes, and so is what is looked at. Links found on the way are not followed; a
//! path without wildcards follows links that stay in the directory.

use crate::beneath::{self, MAX_DEPTH, Root};
use globset::{GlobBuilder, GlobMatcher};
use rustix::fs::FileType;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Maximum number of files that are found.
pub const FILES: usize = 200;
/// Maximum bytes of all of them.
pub const BYTES: u64 = 32 << 20;
/// Maximum number of files and directories that are looked at.
const LOOKED_AT: usize = 50_000;
/// Maximum bytes of an archive that is looked through.
pub const ARCHIVE: u64 = 256 << 20;

/// Characters of a glob.
const WILDCARDS: [char; 4] = ['*', '?', '[', '{'];

/// A path, or a glob in which `*` and `?` don't match a slash and `**` matches directories.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    /// The part before the first wildcard, without the name in which it stands.
    base: String,
    glob: Option<GlobMatcher>,
}

/// A file that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFile {
    /// Its path, as the pattern spells it.
    pub path: String,
    /// Differs once the file is written again.
    pub stamp: String,
    /// Its bytes; empty if they weren't asked for.
    pub bytes: Vec<u8>,
}

/// What to find.
#[derive(Clone, Debug)]
pub struct Search {
    /// Which files.
    pub pattern: Pattern,
    /// Whether their bytes are wanted as well.
    pub content: bool,
}

impl Pattern {
    /// Parses a path or a glob. The error says what is wrong with it.
    pub fn new(text: &str) -> Result<Pattern, String> {
        let mut trimmed = text;
        while let Some(rest) = trimmed.strip_prefix("./") {
            trimmed = rest;
        }
        if trimmed.is_empty() || trimmed.ends_with('/') {
            return Err("it names no file".to_owned());
        }
        if trimmed.split('/').any(|part| part == "..") {
            return Err("it holds `..`".to_owned());
        }
        let (base, glob) = match trimmed.find(WILDCARDS) {
            None => (trimmed, None),
            Some(at) => {
                let before = trimmed.get(..at).unwrap_or_default();
                let base = before.rsplit_once('/').map_or("", |(base, _)| base);
                let glob = GlobBuilder::new(trimmed).literal_separator(true).build();
                let glob = glob.map_err(|error| error.kind().to_string())?;
                (base, Some(glob.compile_matcher()))
            }
        };
        Ok(Pattern {
            text: trimmed.to_owned(),
            base: base.to_owned(),
            glob,
        })
    }

    /// Returns the pattern of exactly this path, whatever characters it has.
    pub fn exactly(path: &str) -> Pattern {
        Pattern {
            text: path.to_owned(),
            base: path.to_owned(),
            glob: None,
        }
    }

    /// Returns the pattern as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns whether it has no wildcards.
    pub fn is_path(&self) -> bool {
        self.glob.is_none()
    }

    /// Returns the directory that holds all files that can match; for a path, the path itself.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Returns whether a path matches.
    pub fn is_match(&self, path: &str) -> bool {
        match &self.glob {
            Some(glob) => glob.is_match(path),
            None => path == self.text,
        }
    }

    /// Returns how many directories below the base can hold a match.
    fn depth(&self) -> usize {
        match self.text.contains("**") {
            true => MAX_DEPTH,
            false => {
                let rest = self.text.get(self.base.len()..).unwrap_or_default();
                rest.trim_start_matches('/').matches('/').count()
            }
        }
    }
}

/// Takes the files that match a pattern.
pub trait Visitor {
    /// Takes a file of a directory.
    fn in_directory(&mut self, path: String, file: File) -> io::Result<()>;
    /// Takes a file of an archive.
    fn in_archive(&mut self, path: String, size: u64, from: &mut dyn Read) -> io::Result<()>;
    /// Returns an error if an entry of this size may not even be passed over: an archive is read from its beginning on.
    fn pass(&self, _size: u64) -> io::Result<()> {
        Ok(())
    }
    /// Notes when the next file of an archive was changed.
    fn changed(&mut self, _mtime: u64) {}
}

/// Visits matching files below a directory. This blocks.
pub fn visit_below(root: &Root, pattern: &Pattern, visitor: &mut dyn Visitor) -> io::Result<()> {
    if pattern.is_path() {
        return match root.file(Path::new(&pattern.text)) {
            Ok(file) => visitor.in_directory(pattern.text.clone(), file),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == ErrorKind::IsADirectory => Err(io::Error::other(
                "it is a directory: write a glob, such as `DIR/*.xml`",
            )),
            Err(error) => Err(error),
        };
    }
    let mut walk = Walk {
        pattern,
        visitor,
        looked: Looked::default(),
    };
    match root.below(Path::new(&pattern.base)) {
        Ok(base) => walk.directory(base.directory(), &pattern.base, pattern.depth()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Visits matching files in an archive of the pattern's base, whose entries begin with the base's own name. This blocks.
pub fn visit_archive(
    archive: impl Read,
    pattern: &Pattern,
    visitor: &mut dyn Visitor,
) -> io::Result<()> {
    let above = pattern.base.rsplit_once('/');
    let above = above.map(|(above, _)| format!("{above}/"));
    let above = above.unwrap_or_default();
    let mut looked = Looked::default();
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        looked.one_more()?;
        visitor.pass(entry.size())?;
        let path = format!("{above}{}", String::from_utf8_lossy(&entry.path_bytes()));
        if entry.header().entry_type().is_file() && pattern.is_match(&path) {
            visitor.changed(entry.header().mtime().unwrap_or(0));
            let size = entry.size();
            visitor.in_archive(path, size, &mut entry)?;
        }
    }
    Ok(())
}

/// Counts the files and directories that are looked at.
#[derive(Default)]
struct Looked(usize);

impl Looked {
    fn one_more(&mut self) -> io::Result<()> {
        self.0 += 1;
        match self.0 > LOOKED_AT {
            true => Err(too_much(format!(
                "more than {LOOKED_AT} files and directories"
            ))),
            false => Ok(()),
        }
    }
}

struct Walk<'a> {
    pattern: &'a Pattern,
    visitor: &'a mut dyn Visitor,
    looked: Looked,
}

impl Walk<'_> {
    fn directory(&mut self, directory: BorrowedFd<'_>, path: &str, depth: usize) -> io::Result<()> {
        for name in beneath::names(directory)? {
            self.looked.one_more()?;
            let text = name.to_string_lossy();
            let inside = match path.is_empty() {
                true => text.into_owned(),
                false => format!("{path}/{text}"),
            };
            let kind = match beneath::stat(directory, &name) {
                Ok(stat) => beneath::kind(&stat),
                // It was removed in the meantime.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            match kind {
                FileType::RegularFile if self.pattern.is_match(&inside) => {
                    let file = beneath::open_file(directory, &name)?;
                    self.visitor.in_directory(inside, file)?;
                }
                FileType::Directory if depth > 0 => {
                    let below = beneath::open_directory(directory, &name)?;
                    self.directory(below.as_fd(), &inside, depth - 1)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Finds files below a directory. This blocks.
pub fn below(root: &Root, search: &Search) -> io::Result<Vec<FoundFile>> {
    let mut found = Found::new(search);
    visit_below(root, &search.pattern, &mut found)?;
    Ok(found.files)
}

/// Finds files in an archive of the pattern's base, whose entries begin with the base's own name. This blocks.
pub fn in_archive(archive: impl Read, search: &Search) -> io::Result<Vec<FoundFile>> {
    let mut found = Found::new(search);
    visit_archive(archive, &search.pattern, &mut found)?;
    Ok(found.files)
}

struct Found<'a> {
    search: &'a Search,
    files: Vec<FoundFile>,
    bytes: u64,
    mtime: u64,
}

impl<'a> Found<'a> {
    fn new(search: &'a Search) -> Self {
        Found {
            search,
            files: Vec::new(),
            bytes: 0,
            mtime: 0,
        }
    }

    fn add(&mut self, path: String, stamp: String, size: u64, from: impl Read) -> io::Result<()> {
        if self.files.len() >= FILES {
            return Err(too_much(format!("more than {FILES} matching files")));
        }
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > BYTES {
            return Err(too_much(format!(
                "more than {} MiB of matching files",
                BYTES >> 20
            )));
        }
        let mut bytes = Vec::new();
        if self.search.content {
            // At most as many bytes as were counted, even if the file grows meanwhile.
            from.take(size).read_to_end(&mut bytes)?;
        }
        self.files.push(FoundFile { path, stamp, bytes });
        Ok(())
    }
}

impl Visitor for Found<'_> {
    fn in_directory(&mut self, path: String, file: File) -> io::Result<()> {
        let metadata = file.metadata()?;
        let (size, inode) = (metadata.len(), metadata.ino());
        let stamp = format!(
            "{}.{:09} {size} {inode}",
            metadata.mtime(),
            metadata.mtime_nsec()
        );
        self.add(path, stamp, size, file)
    }

    fn in_archive(&mut self, path: String, size: u64, from: &mut dyn Read) -> io::Result<()> {
        let stamp = format!("{} {size}", self.mtime);
        self.add(path, stamp, size, from)
    }

    fn changed(&mut self, mtime: u64) {
        self.mtime = mtime;
    }
}

fn too_much(what: String) -> io::Error {
    io::Error::other(format!("there are {what}: write a narrower path"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::symlink;

    fn search(pattern: &str, content: bool) -> Search {
        let pattern = Pattern::new(pattern).unwrap();
        Search { pattern, content }
    }

    fn paths(found: &[FoundFile]) -> Vec<&str> {
        found.iter().map(|file| file.path.as_str()).collect()
    }

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("out/deep")).unwrap();
        for path in [
            "out/a.xml",
            "out/b.xml",
            "out/c.txt",
            "out/deep/d.xml",
            "top.xml",
        ] {
            std::fs::write(root.join(path), path).unwrap();
        }
        std::fs::write(dir.path().join("secret.xml"), "outside").unwrap();
        symlink("../../secret.xml", root.join("out/leads-out.xml")).unwrap();
        symlink("a.xml", root.join("out/inside.xml")).unwrap();
        symlink("/", root.join("out/all")).unwrap();
        dir
    }

    #[test]
    fn a_pattern_finds_files_and_no_link_that_leads_out() {
        let dir = tree();
        let root = Root::open(&dir.path().join("root")).unwrap();
        for (pattern, expected) in [
            ("out/*.xml", &["out/a.xml", "out/b.xml"][..]),
            (
                "out/**/*.xml",
                &["out/a.xml", "out/b.xml", "out/deep/d.xml"],
            ),
            ("**/d.xml", &["out/deep/d.xml"]),
            ("*.xml", &["top.xml"]),
            ("./out/{a,c}.*", &["out/a.xml", "out/c.txt"]),
            ("out/inside.xml", &["out/inside.xml"]),
            ("out/none.xml", &[]),
            ("none/*.xml", &[]),
            ("top.xml/*.xml", &[]),
        ] {
            let found = below(&root, &search(pattern, true)).unwrap();
            assert_eq!(paths(&found), expected, "{pattern}");
        }
        let inside = below(&root, &search("out/inside.xml", true)).unwrap();
        assert_eq!(inside.first().unwrap().bytes, b"out/a.xml");
        let error = below(&root, &search("out/leads-out.xml", true)).unwrap_err();
        assert!(error.to_string().contains("leads out"), "{error}");
        let error = below(&root, &search("out", true)).unwrap_err();
        assert!(error.to_string().contains("directory"), "{error}");
    }

    #[test]
    fn a_file_that_is_written_again_has_another_stamp() {
        let dir = tree();
        let root = Root::open(&dir.path().join("root")).unwrap();
        let stamp = || {
            below(&root, &search("top.xml", false))
                .unwrap()
                .remove(0)
                .stamp
        };
        let first = stamp();
        assert_eq!(stamp(), first);
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::write(dir.path().join("root/top.xml"), "top.xml").unwrap();
        assert_ne!(stamp(), first);
    }

    #[test]
    fn an_archive_is_searched_by_the_paths_of_its_container() {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, kind) in [
            ("out/", tar::EntryType::Directory),
            ("out/a.xml", tar::EntryType::Regular),
            ("out/deep/b.xml", tar::EntryType::Regular),
            ("out/link.xml", tar::EntryType::Symlink),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(if kind.is_file() { 1 } else { 0 });
            header.set_mode(0o644);
            header.set_path(path).unwrap();
            header.set_cksum();
            let content: &[u8] = if kind.is_file() { b"x" } else { b"" };
            archive.append(&header, content).unwrap();
        }
        let bytes = archive.into_inner().unwrap();
        let find = |pattern| in_archive(bytes.as_slice(), &search(pattern, true)).unwrap();
        assert_eq!(paths(&find("/var/out/*.xml")), ["/var/out/a.xml"]);
        assert_eq!(
            paths(&find("/var/out/**/*.xml")),
            ["/var/out/a.xml", "/var/out/deep/b.xml"]
        );
        assert_eq!(find("/out/*.xml").first().unwrap().bytes, b"x");
    }

    #[test]
    fn too_much_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..=FILES {
            std::fs::write(dir.path().join(format!("{number}.xml")), "").unwrap();
        }
        let large = File::create(dir.path().join("large.bin")).unwrap();
        large.set_len(BYTES + 1).unwrap();
        let root = Root::open(dir.path()).unwrap();
        for (pattern, reason) in [("*.xml", "matching files"), ("large.bin", "32 MiB")] {
            let error = below(&root, &search(pattern, false)).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }

    #[test]
    fn a_pattern_that_can_not_name_a_file_is_refused() {
        for (pattern, reason) in [
            ("", "no file"),
            ("out/", "no file"),
            ("../x.xml", ".."),
            ("a/[.xml", ""),
        ] {
            let error = Pattern::new(pattern).unwrap_err();
            assert!(error.contains(reason), "{pattern}: {error}");
        }
        assert_eq!(Pattern::new("/a/b/*.xml").unwrap().base(), "/a/b");
        assert_eq!(Pattern::new("/a/b.xml").unwrap().base(), "/a/b.xml");
        assert_eq!(Pattern::new("/*.xml").unwrap().base(), "");
    }
}
