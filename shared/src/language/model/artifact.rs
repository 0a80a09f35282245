//! Artifacts: files that are kept when a step or a cell is over.

use crate::node::{Node, Template};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use strum::{IntoStaticStr, VariantArray, VariantNames};

/// An entry of `artifacts`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Artifact {
    /// Path or glob: `SERVICE:/path`, a path in the workspace, or, in a service, a path in it.
    pub from: Template,
    /// Name of the file, or of the directory that holds all files of a glob.
    pub name: Option<Template>,
    /// Outcomes after which the files are kept.
    pub when: ArtifactWhen,
    /// Maximum size of one file.
    pub max: Option<Node>,
    /// Whether secrets in text files stay as they are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unmasked: bool,
    /// What it means if no file matches.
    pub if_missing: IfMissing,
}

impl Artifact {
    /// Splits `SERVICE:/path` into service and path; the service is `None` for a path in the workspace. A text before a
    /// colon is a service if it is known as one, or if the path after it is absolute.
    pub fn split(text: &str, is_known: impl Fn(&str) -> bool) -> (Option<&str>, &str) {
        match text.split_once(':') {
            Some((service, path)) if is_known(service) || path.starts_with('/') => {
                (Some(service), path)
            }
            _ => (None, text),
        }
    }
}

impl Artifact {
    /// Returns why a text can't be the name of a kept file: names become paths below a directory that a user chooses.
    pub fn problem_of_name(name: &str) -> Option<&'static str> {
        let mut parts = name.split('/');
        if name.starts_with('/') {
            return Some("it begins with `/`");
        }
        if name.contains(['\\', ':']) || name.chars().any(char::is_control) {
            return Some("it holds a character that is no part of a file name everywhere");
        }
        if parts.any(|part| matches!(part, "" | "." | "..")) {
            return Some("it holds an empty part, `.` or `..`");
        }
        (name.len() > Self::NAME_BYTES).then_some("it is longer than 512 bytes")
    }

    /// Maximum bytes of a name.
    pub const NAME_BYTES: usize = 512;
}

/// Names of files below one directory: no two are alike, and none is a directory of another.
#[derive(Debug, Default)]
pub struct FileNames {
    files: HashSet<String>,
    directories: HashSet<String>,
}

impl FileNames {
    /// Returns this name, with a number where it can't be as it is: `shot-2.png`, `logs-2/x.log`.
    pub fn free(&mut self, name: &str) -> String {
        let mut free = String::new();
        let mut parts = name.split('/').peekable();
        while let Some(part) = parts.next() {
            let is_file = parts.peek().is_none();
            let above = free.clone();
            let mut number = 1;
            free = below(&above, part);
            while self.files.contains(&free) || is_file && self.directories.contains(&free) {
                number += 1;
                free = below(&above, &numbered(part, number));
            }
            match is_file {
                true => self.files.insert(free.clone()),
                false => self.directories.insert(free.clone()),
            };
        }
        free
    }
}

fn below(above: &str, part: &str) -> String {
    match above {
        "" => part.to_owned(),
        above => format!("{above}/{part}"),
    }
}

/// Puts a number before the extension of a file: `shot.png` becomes `shot-2.png`.
fn numbered(file: &str, number: u32) -> String {
    match file.rfind('.').filter(|dot| *dot > 0) {
        Some(dot) => {
            let (stem, extension) = file.split_at(dot);
            format!("{stem}-{number}{extension}")
        }
        None => format!("{file}-{number}"),
    }
}

/// Outcomes after which the files of an artifact are kept.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    IntoStaticStr,
    VariantArray,
    VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ArtifactWhen {
    /// Any outcome.
    #[default]
    Always,
    /// Any outcome but passed and skipped.
    Failed,
}

impl ArtifactWhen {
    /// Returns the value as a spec spells it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What it means if no file matches; names and default are those of GitHub's `upload-artifact`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    IntoStaticStr,
    VariantArray,
    VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum IfMissing {
    /// Reports say so.
    #[default]
    Warn,
    /// What would have passed is errored.
    Error,
    /// Nothing.
    Ignore,
}

impl IfMissing {
    /// Returns the value as a spec spells it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_files_are_alike_and_none_is_a_directory_of_another() {
        let mut names = FileNames::default();
        for (name, expected) in [
            ("shot.png", "shot.png"),
            ("shot.png", "shot-2.png"),
            ("shot.png", "shot-3.png"),
            (".env", ".env"),
            (".env", ".env-2"),
            ("a.d/shot", "a.d/shot"),
            ("a.d/shot", "a.d/shot-2"),
            ("a.d/out.tar.gz", "a.d/out.tar.gz"),
            ("a.d/out.tar.gz", "a.d/out.tar-2.gz"),
            ("a.d", "a-2.d"),
            ("logs", "logs"),
            ("logs/x.log", "logs-2/x.log"),
            ("logs/y.log", "logs-2/y.log"),
            ("logs/y.log/z", "logs-2/y-2.log/z"),
            ("logs-2", "logs-2-2"),
        ] {
            assert_eq!(names.free(name), expected, "{name}");
        }
    }

    #[test]
    fn a_text_before_a_colon_is_a_service_if_it_can_be_one() {
        let split = |text| Artifact::split(text, |name| name == "web");
        assert_eq!(split("web:/var/log/**"), (Some("web"), "/var/log/**"));
        assert_eq!(split("web:log.txt"), (Some("web"), "log.txt"));
        assert_eq!(split("wob:/var/log"), (Some("wob"), "/var/log"));
        assert_eq!(split("out/a:b.txt"), (None, "out/a:b.txt"));
        assert_eq!(split("out/*.png"), (None, "out/*.png"));
    }
}
