//! Says what a repro has in common with the original, and what can't be the same.

use super::Original;
use super::files::Workspace;
use super::images::Here;
use phalanx_report::text::{clean, plural};
use std::fmt::Write;

/// Maximum images that are listed.
const IMAGES: usize = 20;
/// Characters of a digest that are shown.
const DIGEST: usize = 12;

/// What is known before the cell runs again.
pub(super) struct Account<'a> {
    /// The cell as it ran.
    pub original: &'a Original,
    /// Where the workspace comes from.
    pub workspace: &'a Workspace,
    /// What this machine's engine says about the images.
    pub here: &'a Here,
    /// Names of secrets without a value.
    pub missing_secrets: Vec<String>,
}

impl Account<'_> {
    /// Returns the account as lines of text.
    pub(super) fn text(&self) -> String {
        let Original { run, cell, .. } = self.original;
        let mut text = format!("cell {} ({}) of run {run}\n", clean(&cell.name), cell.id);
        let mut line = |mark: &str, label: &str, value: &str| {
            let _ = writeln!(text, "  {mark} {label:<10}{}", clean(value));
        };
        for (same, label, value) in self.lines() {
            line(if same { "=" } else { "≠" }, label, &value);
        }
        line(" ", "command", &self.command());
        text
    }

    /// Returns each line: whether it is the same as it was, what it is about, and the details.
    fn lines(&self) -> Vec<(bool, &'static str, String)> {
        let original = self.original;
        let files = plural(original.submission.files.len(), "file");
        let read = match original.read.len() {
            0 => String::new(),
            read => format!(", and {} that expressions read", plural(read, "file")),
        };
        let mut lines = vec![(true, "spec", format!("{} as submitted{read}", files))];
        lines.push((true, "inputs", "as submitted".to_owned()));
        lines.extend(self.workspace());
        lines.extend(self.images());
        lines.extend(self.secrets());
        lines.extend(self.machine());
        lines
    }

    fn workspace(&self) -> Option<(bool, &'static str, String)> {
        let (same, text) = match self.workspace {
            Workspace::None => return None,
            Workspace::Kept { digest, .. } => (true, format!("{}, the run's copy", short(digest))),
            Workspace::Packed {
                wanted,
                root,
                packed,
            } if *wanted == packed.digest => {
                (true, format!("{}, from {}", short(wanted), root.display()))
            }
            Workspace::Packed {
                wanted,
                root,
                packed,
            } => (
                false,
                format!(
                    "{} in {}, it was {}: check out the files as they were, or name them with --workspace DIR",
                    short(&packed.digest),
                    root.display(),
                    short(wanted)
                ),
            ),
            Workspace::Missing { wanted, why } => {
                (false, format!("{} is not here: {why}", short(wanted)))
            }
        };
        Some((same, "workspace", text))
    }

    fn images(&self) -> Vec<(bool, &'static str, String)> {
        let images = &self.original.images;
        let shown = images.iter().take(IMAGES).map(|(service, image)| {
            let (same, text) = self.here.told(image);
            (same, "image", format!("{service}: {text}"))
        });
        let mut lines: Vec<_> = shown.collect();
        if images.len() > IMAGES {
            let more = plural(images.len() - IMAGES, "image");
            lines.push((false, "image", format!("{more} more")));
        }
        lines
    }

    fn secrets(&self) -> Option<(bool, &'static str, String)> {
        let names = self.original.secrets();
        if names.is_empty() {
            return None;
        }
        let text = match self.missing_secrets.as_slice() {
            [] => format!("{}: values are given by this call", names.join(", ")),
            missing => format!("no value for {}", missing.join(", ")),
        };
        Some((false, "secrets", text))
    }

    fn machine(&self) -> Vec<(bool, &'static str, String)> {
        let mut lines = Vec::new();
        let labels = &self.original.cell.runs_on;
        if !labels.is_empty() {
            let text = format!(
                "{}: this machine offers them for this cell, whether it has what they mean or not",
                labels.join(", ")
            );
            lines.push((false, "labels", text));
        }
        let was = match &self.original.attempt {
            Some((attempt, agent)) => {
                format!("this one; it ran on {agent} (attempt {attempt})")
            }
            None => "this one; the cell was never started".to_owned(),
        };
        lines.push((false, "machine", was));
        lines
    }

    /// Returns the command that runs the cell with the spec as it is now.
    fn command(&self) -> String {
        let path = self.original.path();
        let mut command = match path {
            Some(path) => format!("phalanx run {}", super::quoted(&path)),
            None => "phalanx run SPEC".to_owned(),
        };
        let _ = write!(command, " --cell {}", self.original.cell.id);
        let inputs: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&self.original.submission.inputs_json).unwrap_or_default();
        for (name, value) in inputs {
            let value = match value {
                serde_json::Value::String(text) => text,
                other => other.to_string(),
            };
            let _ = write!(
                command,
                " --input {}",
                super::quoted(&format!("{name}={value}"))
            );
        }
        for name in self.original.secrets() {
            let _ = write!(command, " --secret-env {name}");
        }
        command + "   (with the files as they are now)"
    }
}

fn short(digest: &str) -> &str {
    digest.get(..DIGEST).unwrap_or(digest)
}
