//! Plans a spec in the client before it is submitted. This finds the files that travel with the submission (the
//! workspace, and files that expressions read), and reports errors before anything is sent or started.
//!
//! stage: prepared: the client plans and finds what travels; the workspace goes ahead, by digest, if the coordinator lacks it

use crate::workspace::{self, Packed};
use phalanx_coordinator::journal::Submission;
use phalanx_coordinator::submission::planner::{self, Loaded, load};
use phalanx_proto::convert::Refusal;
use phalanx_proto::limit::{READ_BYTES, READ_FILES};
use phalanx_shared::diagnostic::{Diagnostic, Severity};
use phalanx_shared::error_code::ErrorCode;
use phalanx_shared::expr::ReadFile;
use phalanx_shared::plan::Plan;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Maximum size of a file that an expression reads, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// A prepared submission, and what planning found.
pub struct Prepared {
    /// The submission, with the workspace's digest and the files that expressions read.
    pub submission: Submission,
    /// The files of `workspace.include`, if there are any.
    pub workspace: Option<Packed>,
    /// The plan that the coordinator will make.
    pub plan: Plan,
    /// Warnings about the spec.
    pub warnings: Vec<Diagnostic>,
}

/// Prepares a submission whose relative paths are below `root`.
pub fn prepare(
    mut submission: Submission,
    root: &Path,
    max_cells: Option<usize>,
) -> Result<Prepared, Refusal> {
    let loaded = load(&submission)?;
    let (workspace, warnings) = found(&loaded, root)?;
    submission.workspace_digest = workspace.as_ref().map(|packed| packed.digest.clone());
    let plan = loaded.expand(&submission, reader(root.to_owned()), max_cells)?;
    let bytes: usize = plan.files.values().map(String::len).sum();
    if plan.files.len() > READ_FILES || bytes > READ_BYTES {
        let message = format!(
            "expressions read {} files with {} MiB, at most {READ_FILES} with {} MiB can be sent",
            plan.files.len(),
            bytes >> 20,
            READ_BYTES >> 20
        );
        let problem = planner::without_place(&message)
            .with_help("put large files into the workspace and read them in steps");
        return Err(loaded.refuse(vec![problem]));
    }
    submission.read = plan.files.clone();
    Ok(Prepared {
        submission,
        workspace,
        plan,
        warnings,
    })
}

/// Looks at the workspace of a spec that can't be planned. Returns warnings.
pub fn workspace_of(submission: &Submission, root: &Path) -> Result<Vec<Diagnostic>, Refusal> {
    Ok(found(&load(submission)?, root)?.1)
}

/// Packs the workspace, if the spec has one, and checks that it holds what the services need. Returns warnings, too.
fn found(loaded: &Loaded, root: &Path) -> Result<(Option<Packed>, Vec<Diagnostic>), Refusal> {
    let mut warnings = loaded.warnings.clone();
    let refuse = |mut found: Vec<Diagnostic>| {
        Diagnostic::mark(&mut found, ErrorCode::Workspace);
        loaded.refuse(found)
    };
    let workspace = match loaded.spec.workspace.is_empty() {
        true => None,
        false => {
            let (packed, unmatched) = pack(loaded, root).map_err(|why| refuse(vec![why]))?;
            warnings.extend(unmatched);
            Some(packed)
        }
    };
    let travel = workspace::findings(&loaded.spec, workspace.as_ref(), root);
    if travel.iter().any(|found| found.severity == Severity::Error) {
        return Err(refuse(travel));
    }
    warnings.extend(travel);
    Ok((workspace, warnings))
}

/// Packs the workspace. Returns a warning for each pattern that matched nothing.
fn pack(loaded: &Loaded, root: &Path) -> Result<(Packed, Vec<Diagnostic>), Diagnostic> {
    let place = loaded.workspace_span();
    let patterns = &loaded.spec.workspace;
    let include: Vec<String> = patterns.iter().map(|p| p.text.clone()).collect();
    let packed = workspace::pack(root, &include)
        .map_err(|error| Diagnostic::error(place, format!("the workspace: {error}")))?;
    let unmatched = packed.unmatched.iter().map(|pattern| {
        let written = patterns.iter().find(|p| p.text == *pattern);
        let span = written.map_or(place, |pattern| pattern.span);
        let warning = Diagnostic::warning(span, format!("`{pattern}` matches no file"));
        let whole = pattern.trim_end_matches('/');
        match root.join(whole).is_dir() {
            true => warning.with_help(format!("it is a directory: write `{whole}/**`")),
            false => warning,
        }
    });
    let unmatched = unmatched.collect();
    Ok((packed, unmatched))
}

/// Returns a function that answers `file(path)` from a directory.
fn reader(root: PathBuf) -> ReadFile {
    Arc::new(move |path: &str| read_within(&root, path))
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
