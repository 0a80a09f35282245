//! The planner of the coordinator: parses, checks and expands the text of a spec.
//!
//! All input comes from the submission, or from the workspace store by the digest that the submission names. The
//! planner never opens a client's path.

use super::jobs::SpecJobs;
use super::{Jobs, Planned, Planner};
use crate::journal::Submission;
use crate::workspace::Workspaces;
use phalanx_proto::convert::Refusal;
use phalanx_shared::diagnostic::{Diagnostic, Severity, Sources, Span};
use phalanx_shared::error_code::ErrorCode;
use phalanx_shared::expr::ReadFile;
use phalanx_shared::input::Given;
use phalanx_shared::language;
use phalanx_shared::language::model::Spec;
use phalanx_shared::plan::{self, Plan, Request, Selection, expand};
use phalanx_shared::trace::estimated_spans;
use serde_json::Value;
use std::sync::Arc;

/// Plans specs.
#[derive(Clone, Debug)]
pub struct SpecPlanner {
    /// The workspaces that submissions may name.
    pub workspaces: Workspaces,
    /// Maximum number of cells of a run; `None` for no limit.
    pub max_cells: Option<usize>,
}

/// The spec of a submission, parsed and checked.
pub struct Loaded {
    pub spec: Arc<Spec>,
    pub sources: Sources,
    pub warnings: Vec<Diagnostic>,
}

impl Loaded {
    /// Returns a refusal with these findings.
    pub fn refuse(&self, diagnostics: Vec<Diagnostic>) -> Refusal {
        Refusal {
            diagnostics,
            sources: self.sources.clone(),
        }
    }

    /// Returns where the spec asks for a workspace.
    pub fn workspace_span(&self) -> Span {
        let first = self.spec.workspace.first();
        first.map(|pattern| pattern.span).unwrap_or_default()
    }

    /// Expands the plan. `files` provides the files that expressions read.
    pub fn expand(
        &self,
        submission: &Submission,
        files: ReadFile,
        max_cells: Option<usize>,
    ) -> Result<Plan, Refusal> {
        let plan = expand(&Request {
            spec: Arc::clone(&self.spec),
            sources: &self.sources,
            given: &given(submission),
            files,
            workspace: submission.workspace_digest.clone(),
            selection: &Selection {
                only: submission.only.clone(),
                cells: submission.cells.clone(),
            },
            max_cells,
        });
        plan.map_err(|mut diagnostics| {
            Diagnostic::mark(&mut diagnostics, ErrorCode::Plan);
            self.refuse(diagnostics)
        })
    }
}

impl Planner for SpecPlanner {
    fn plan(&self, submission: &Submission) -> Result<Planned, Refusal> {
        let loaded = load(submission)?;
        let missing = self.missing_workspace(&loaded, submission);
        if let Some(problem) = missing {
            return Err(loaded.refuse(vec![problem]));
        }
        let plan = loaded.expand(submission, brought(submission), self.max_cells)?;
        let warnings = loaded.warnings.clone();
        let spans = estimated_spans(&loaded.spec, plan.cells.len());
        let jobs = jobs(loaded, &plan, submission)?;
        Ok(Planned {
            plan,
            jobs,
            warnings,
            spans,
        })
    }

    fn jobs(&self, submission: &Submission, plan: &Plan) -> Result<Arc<dyn Jobs>, Refusal> {
        jobs(load(submission)?, plan, submission)
    }
}

impl SpecPlanner {
    /// Returns an error if the submission's workspace is missing. Otherwise keeps the workspace until the run is in the
    /// journal.
    fn missing_workspace(&self, loaded: &Loaded, submission: &Submission) -> Option<Diagnostic> {
        let error = |message: String, help: &str| {
            Some(Diagnostic::error(loaded.workspace_span(), message).with_help(help))
        };
        let Some(digest) = &submission.workspace_digest else {
            if loaded.spec.workspace.is_empty() {
                return None;
            }
            return error(
                "the spec has a workspace, but the submission brought no files".to_owned(),
                "a `phalanx run` of this version sends them: is the client of an earlier one?",
            );
        };
        match self.workspaces.hold(digest) {
            Ok(true) => None,
            Ok(false) => error(
                format!("the coordinator doesn't hold the workspace {digest}"),
                "`phalanx run` sends it again from the machine that has the files",
            ),
            Err(why) => error(
                format!("the coordinator can't read the workspace {digest}: {why}"),
                "look at its directory `workspaces` and the disk",
            ),
        }
    }
}

/// Parses and checks the spec of a submission.
pub fn load(submission: &Submission) -> Result<Loaded, Refusal> {
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
    let language::Loaded {
        spec,
        sources,
        diagnostics,
    } = language::load(main, &mut read);
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
        Ok(jobs) => Ok(Arc::new(SpecJobs::new(
            jobs,
            submission.keep,
            submission.images.clone(),
            submission.snapshots,
        ))),
        Err(diagnostics) => Err(Refusal {
            diagnostics,
            sources,
        }),
    }
}

/// Converts the submission's inputs. Strings count as text to be parsed as the declared type, whether they came from
/// the command line or a file; other values are typed already.
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

/// Returns a reader that answers `file(path)` with the files of the submission.
fn brought(submission: &Submission) -> ReadFile {
    let read = submission.read.clone();
    Arc::new(move |path: &str| {
        let missing = || "the submission didn't bring this file".to_owned();
        read.get(path).cloned().ok_or_else(missing)
    })
}

/// Returns an error about the submission as a whole.
pub fn without_place(message: &str) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        span: None,
        ..Diagnostic::error(Span::default(), message)
    }
}
