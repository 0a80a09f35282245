//! Checks that what the services need of the workspace travels to the agent.

use super::Packed;
use phalanx_shared::diagnostic::Diagnostic;
use phalanx_shared::language::model::Spec;
use phalanx_shared::language::service::{Need, Needed, needed};
use std::path::Path;

/// Maximum number of findings.
const MOST: usize = 100;

/// Returns what is wrong with the paths that services need. `packed` is the workspace, if the spec has one, and `root`
/// the directory that it is in.
///
/// A service that a step starts is left out: earlier steps may make its files.
pub fn findings(spec: &Spec, packed: Option<&Packed>, root: &Path) -> Vec<Diagnostic> {
    let started = spec.services.iter().filter(|service| !service.manual);
    let needed = started.flat_map(|service| needed(&service.definition));
    let found = needed.filter_map(|needed| finding(&needed, packed, root));
    found.take(MOST).collect()
}

fn finding(needed: &Needed, packed: Option<&Packed>, root: &Path) -> Option<Diagnostic> {
    let Needed { path, need } = needed;
    // A path out of the workspace is reported by the check of the spec.
    let name = tidy(&path.text)?;
    if packed.is_some_and(|packed| packed.holds(&name)) {
        return None;
    }
    let shown = if name.is_empty() { "." } else { &name };
    let real = root.join(&name);
    let Ok(meta) = std::fs::metadata(&real) else {
        return Some(match need {
            Need::Mount if packed.is_some() => Diagnostic::warning(
                path.span,
                format!("there is no `{shown}`: an empty directory is mounted"),
            )
            .with_help("each cell makes its own; a volume (`name:/target`) says so"),
            _ => Diagnostic::error(
                path.span,
                format!("there is no `{shown}` in {}", root.display()),
            )
            .with_help("paths are relative to the spec, or to the Compose file that has them"),
        });
    };
    let pattern = match (meta.is_dir(), name.is_empty()) {
        (true, true) => "**".to_owned(),
        (true, false) => format!("{name}/**"),
        (false, _) => name.clone(),
    };
    let empty = meta.is_dir() && std::fs::read_dir(&real).is_ok_and(|mut all| all.next().is_none());
    if empty && *need == Need::Mount && packed.is_some() {
        return None;
    }
    let message = format!("`{shown}` doesn't travel to the agent");
    let help = match packed {
        None => format!("add it: `workspace: {{ include: [\"{pattern}\"] }}`"),
        Some(_) => {
            format!("add \"{pattern}\" to `workspace.include`, unless a `.gitignore` leaves it out")
        }
    };
    Some(Diagnostic::error(path.span, message).with_help(help))
}

/// Returns a relative path without `.` and `..`; none if it leaves the workspace.
fn tidy(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}
