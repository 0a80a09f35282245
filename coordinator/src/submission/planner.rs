//! The real planner: the spec's text through parser, checks and expansion; the workspace packed on the way.

use super::jobs::SpecJobs;
use super::{Jobs, Planned, Planner};
use crate::journal::Submission;
use crate::workspace;
use phalanx_proto::convert::Refusal;
use phalanx_shared::diagnostic::{Diagnostic, Severity, Sources, Span};
use phalanx_shared::expr::ReadFile;
use phalanx_shared::input::Given;
use phalanx_shared::plan::{self, Plan, Request, Selection, expand};
use phalanx_shared::spec;
use phalanx_shared::spec::model::Spec;
use serde_json::Value;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// A file that an expression reads is no larger.
const MAX_FILE: u64 = 16 << 20;

/// Plans specs.
#[derive(Clone, Debug)]
pub struct SpecPlanner {
    /// Packed workspaces are kept here.
    pub workspaces: PathBuf,
    /// The most cells of a run, if that is limited.
    pub max_cells: Option<usize>,
}

struct Loaded {
    spec: Arc<Spec>,
    sources: Sources,
    warnings: Vec<Diagnostic>,
}

impl Planner for SpecPlanner {
    fn plan(&self, mut submission: Submission) -> Result<(Submission, Planned), Refusal> {
        let loaded = load(&submission)?;
        let refuse = |diagnostics| Refusal {
            diagnostics,
            sources: loaded.sources.clone(),
        };
        let mut warnings = loaded.warnings.clone();
        if !loaded.spec.workspace.is_empty() && submission.workspace_digest.is_none() {
            let packed = self.pack(&loaded.spec, &submission);
            let (digest, unmatched) = packed.map_err(|problem| refuse(vec![problem]))?;
            submission.workspace_digest = Some(digest);
            warnings.extend(unmatched);
        }
        let plan = expand(&Request {
            spec: Arc::clone(&loaded.spec),
            sources: &loaded.sources,
            given: &given(&submission),
            files: reader(submission.workspace_root.clone()),
            workspace: submission.workspace_digest.clone(),
            selection: &Selection {
                only: submission.only.clone(),
                cells: submission.cells.clone(),
            },
            max_cells: self.max_cells,
        });
        let plan = plan.map_err(refuse)?;
        let jobs = jobs(loaded, &plan, &submission)?;
        let planned = Planned {
            plan,
            jobs,
            warnings,
        };
        Ok((submission, planned))
    }

    fn jobs(&self, submission: &Submission, plan: &Plan) -> Result<Arc<dyn Jobs>, Refusal> {
        jobs(load(submission)?, plan, submission)
    }
}

impl SpecPlanner {
    /// Packs the workspace; its digest, and a warning for each pattern that matched nothing.
    fn pack(
        &self,
        spec: &Spec,
        submission: &Submission,
    ) -> Result<(String, Vec<Diagnostic>), Diagnostic> {
        let span = spec.workspace.first().map(|pattern| pattern.span);
        let place = span.unwrap_or_default();
        let Some(root) = &submission.workspace_root else {
            let message = "the spec has a workspace, but the submission brought no files";
            let help = "submit it with `phalanx run` from the machine that has them";
            return Err(Diagnostic::error(place, message).with_help(help));
        };
        let include: Vec<String> = spec.workspace.iter().map(|p| p.text.clone()).collect();
        let packed = workspace::pack(root, &include, &self.workspaces)
            .map_err(|error| Diagnostic::error(place, format!("the workspace: {error}")))?;
        let unmatched = packed.unmatched.iter().map(|pattern| {
            let written = spec.workspace.iter().find(|p| p.text == *pattern);
            let span = written.map_or(place, |pattern| pattern.span);
            Diagnostic::warning(span, format!("`{pattern}` matches no file"))
        });
        Ok((packed.digest, unmatched.collect()))
    }
}

fn load(submission: &Submission) -> Result<Loaded, Refusal> {
    let Some(main) = submission.files.first().cloned() else {
        return Err(Refusal {
            diagnostics: vec![without_place("the submission has no spec file")],
            sources: Sources::default(),
        });
    };
    let mut read = |path: &str| {
        let file = submission.files.iter().find(|file| file.name == path);
        let missing = || "it isn't part of the submission".to_owned();
        file.cloned().ok_or_else(missing)
    };
    let spec::Loaded {
        spec,
        sources,
        diagnostics,
    } = spec::load(main, &mut read);
    match spec {
        Some(spec) => Ok(Loaded {
            spec: Arc::new(spec),
            sources,
            warnings: diagnostics,
        }),
        None => Err(Refusal {
            diagnostics,
            sources,
        }),
    }
}

fn jobs(loaded: Loaded, plan: &Plan, submission: &Submission) -> Result<Arc<dyn Jobs>, Refusal> {
    let Loaded { spec, sources, .. } = loaded;
    match plan::Jobs::new(spec, sources.clone(), plan.clone()) {
        Ok(jobs) => Ok(Arc::new(SpecJobs::new(jobs, submission.keep))),
        Err(diagnostics) => Err(Refusal {
            diagnostics,
            sources,
        }),
    }
}

/// Text is converted to the declared type, whether it came from the command line or a file; the rest is typed already.
fn given(submission: &Submission) -> Given {
    let mut given = Given::default();
    for (name, value) in &submission.inputs {
        match value {
            Value::String(text) => given.texts.push((name.clone(), text.clone())),
            other => {
                given.values.insert(name.clone(), other.clone());
            }
        }
    }
    given
}

/// Reads the workspace's files for `file(path)`.
fn reader(root: Option<PathBuf>) -> ReadFile {
    Arc::new(move |path: &str| {
        let Some(root) = &root else {
            return Err("the submission brought no files".to_owned());
        };
        read_within(root, path)
    })
}

fn read_within(root: &Path, path: &str) -> Result<String, String> {
    let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if !Path::new(path).components().all(inside) {
        return Err("the path leads out of the workspace".to_owned());
    }
    let say = |error: std::io::Error| error.to_string();
    let root = std::fs::canonicalize(root).map_err(say)?;
    let full = std::fs::canonicalize(root.join(path)).map_err(say)?;
    if !full.starts_with(&root) {
        return Err("a link leads out of the workspace".to_owned());
    }
    let meta = std::fs::metadata(&full).map_err(say)?;
    if !meta.is_file() {
        return Err("it isn't a file".to_owned());
    }
    if meta.len() > MAX_FILE {
        return Err(format!("it is larger than {} MiB", MAX_FILE >> 20));
    }
    std::fs::read_to_string(&full).map_err(say)
}

fn without_place(message: &str) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        span: None,
        ..Diagnostic::error(Span::default(), message)
    }
}
