//! Artifacts in reports: what of them is shown inside a page, and how much.
//!
//! Only images and videos that a browser shows without running anything are shown: no HTML, no SVG. The media type comes
//! from an agent, or from a file of somebody else, so it only chooses among a few known ones.

use crate::text::plural;
use crate::view::{CellView, RunView, StepView};
use phalanx_shared::event::Artifact;
use phalanx_shared::id::CellId;
use phalanx_shared::outcome::Outcome;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Maximum bytes of one file that a report holds.
const EACH: u64 = 4 << 20;
/// Maximum bytes of all files that a report holds.
const ALL: u64 = 16 << 20;

/// How a file is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// As a picture, with this media type.
    Image(&'static str),
    /// As a video, with this media type.
    Video(&'static str),
}

/// Returns how an artifact can be shown inside a page; `None` if only its name can.
pub fn shown(artifact: &Artifact) -> Option<Shown> {
    const IMAGES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];
    const VIDEOS: [&str; 2] = ["video/webm", "video/mp4"];
    if !artifact.is_kept() {
        return None;
    }
    let among = |known: &[&'static str]| {
        let mut known = known.iter().copied();
        known.find(|known| *known == artifact.media_type)
    };
    among(&IMAGES)
        .map(Shown::Image)
        .or_else(|| among(&VIDEOS).map(Shown::Video))
}

/// Returns the media type with which a page may show the artifact in a window of its own: pictures, videos, and any text
/// as plain text. `None` if it may only be saved.
pub fn inline_type(artifact: &Artifact) -> Option<&'static str> {
    match shown(artifact) {
        Some(Shown::Image(kind) | Shown::Video(kind)) => Some(kind),
        None => {
            let kind = artifact.media_type.as_str();
            let is_text = kind.starts_with("text/")
                || matches!(
                    kind,
                    "application/json" | "application/xml" | "image/svg+xml"
                );
            is_text.then_some("text/plain; charset=utf-8")
        }
    }
}

/// Says in one line how many artifacts the newest attempts have, and how to get them; `None` if there are none.
pub fn summary(view: &RunView) -> Option<String> {
    let newest = view.cells.iter().filter_map(|cell| cell.attempts.last());
    let all = newest.flat_map(|attempt| &attempt.artifacts);
    let (kept, lacking): (Vec<&Artifact>, Vec<&Artifact>) =
        all.partition(|artifact| artifact.is_kept());
    let lacking = match lacking.len() {
        0 => String::new(),
        count => format!(" ({count} not kept)"),
    };
    match (kept.len(), lacking.is_empty()) {
        (0, true) => None,
        (count, _) => Some(format!(
            "{}{lacking}: phalanx artifacts {}",
            plural(count, "artifact"),
            view.run
        )),
    }
}

/// Contents of artifacts, by digest.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    by_digest: BTreeMap<String, Vec<u8>>,
}

impl Contents {
    /// Adds the content of an artifact.
    pub fn insert(&mut self, digest: String, bytes: Vec<u8>) {
        self.by_digest.insert(digest, bytes);
    }

    /// Returns the content of an artifact, if it is there.
    pub fn of(&self, artifact: &Artifact) -> Option<&[u8]> {
        let bytes = self.by_digest.get(&artifact.digest)?;
        artifact.is_kept().then_some(bytes.as_slice())
    }

    /// Returns all contents with their digests.
    pub fn all(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let all = self.by_digest.iter();
        all.map(|(digest, bytes)| (digest.as_str(), bytes.as_slice()))
    }
}

/// Paths of artifacts that were fetched, for reports that name files.
#[derive(Clone, Debug, Default)]
pub struct Attachments {
    paths: HashMap<(CellId, u32, u32), String>,
}

/// A file that belongs to a test.
#[derive(Clone, Copy, Debug)]
pub struct Attachment<'a> {
    /// What it is.
    pub artifact: &'a Artifact,
    /// Where it is.
    pub path: &'a str,
}

impl Attachments {
    /// Adds the path of an artifact of an attempt at a cell.
    pub fn insert(&mut self, cell: CellId, attempt: u32, id: u32, path: String) {
        self.paths.insert((cell, attempt, id), path);
    }

    /// Returns the files of a cell's newest attempt by the path of the step to which a report attaches them: the step
    /// that kept them. If the report has test cases in its place, the one that the file is called by. Else, and for
    /// files of services and of the cell, the first step that isn't ok, or the last one.
    pub fn by_step<'a>(&'a self, cell: &'a CellView) -> HashMap<&'a str, Vec<Attachment<'a>>> {
        let mut by_step: HashMap<&str, Vec<Attachment<'_>>> = HashMap::new();
        let Some(newest) = cell.newest() else {
            return by_step;
        };
        let steps: Vec<&StepView> = cell.steps().collect();
        let is_bad = |step: &&&StepView| step.outcome.is_some_and(|outcome| !outcome.is_ok());
        for artifact in newest
            .artifacts
            .iter()
            .filter(|artifact| artifact.is_kept())
        {
            let key = (cell.id.clone(), newest.attempt, artifact.id);
            let Some(path) = self.paths.get(&key) else {
                continue;
            };
            let own = artifact.step.as_deref().unwrap_or_default();
            let inside = |step: &&&StepView| {
                let rest = step.path.strip_prefix(own);
                rest.is_some_and(|rest| rest.starts_with('/'))
            };
            let step = steps
                .iter()
                .find(|step| step.path == own)
                .or_else(|| {
                    steps
                        .iter()
                        .filter(inside)
                        .find(|step| names(artifact, step))
                })
                .or_else(|| steps.iter().filter(inside).find(is_bad))
                .or_else(|| steps.iter().find(is_bad))
                .or(steps.last());
            if let Some(step) = step {
                let attachment = Attachment { artifact, path };
                by_step.entry(&step.path).or_default().push(attachment);
            }
        }
        by_step
    }
}

/// Returns whether the name of a file holds that of a test case, without its class or file: suites call what they keep
/// by the case.
fn names(artifact: &Artifact, case: &StepView) -> bool {
    let name = case.name.rsplit("::").next().unwrap_or_default();
    !name.is_empty() && artifact.name.contains(name)
}

/// Returns the artifacts that a report shows, as far as they fit: those of cells that aren't ok first, newest attempts
/// first.
pub fn wanted(view: &RunView) -> Vec<&Artifact> {
    let is_bad = |outcome: Option<Outcome>| !outcome.is_some_and(Outcome::is_ok);
    let bad = view.cells.iter().filter(|cell| is_bad(cell.outcome));
    let good = view.cells.iter().filter(|cell| !is_bad(cell.outcome));
    let mut left = ALL;
    let mut seen = HashSet::new();
    let mut wanted = Vec::new();
    for cell in bad.chain(good) {
        for artifact in cell
            .attempts
            .iter()
            .rev()
            .flat_map(|attempt| &attempt.artifacts)
        {
            let fits = artifact.size <= EACH.min(left);
            if shown(artifact).is_some() && fits && seen.insert(&artifact.digest) {
                left -= artifact.size;
                wanted.push(artifact);
            }
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use phalanx_shared::event::{ArtifactLack, ArtifactProblem};

    fn artifact(media_type: &str) -> Artifact {
        Artifact {
            digest: "d".to_owned(),
            media_type: media_type.to_owned(),
            ..Artifact::default()
        }
    }

    #[test]
    fn nothing_that_a_browser_runs_is_shown_as_what_it_is() {
        for (kind, inline) in [
            ("image/png", Some("image/png")),
            ("video/webm", Some("video/webm")),
            ("text/html", Some("text/plain; charset=utf-8")),
            ("image/svg+xml", Some("text/plain; charset=utf-8")),
            ("text/javascript", Some("text/plain; charset=utf-8")),
            ("application/pdf", None),
            ("application/octet-stream", None),
            ("image/png; charset=x", None),
            ("", None),
        ] {
            assert_eq!(inline_type(&artifact(kind)), inline, "{kind}");
        }
        assert_eq!(shown(&artifact("image/svg+xml")), None);
        let lost = Artifact {
            lack: Some(ArtifactLack {
                problem: ArtifactProblem::Cut,
                reason: "gone".to_owned(),
            }),
            ..artifact("image/png")
        };
        assert_eq!(shown(&lost), None);
    }
}
