//! Activities as segments with a text.

use super::cell::{Subject, What};
use super::rows::DEPTH;
use super::{Segment, SegmentKind};
use phalanx_shared::id::CellId;
use phalanx_shared::run_state::{AttemptState, CellState};
use phalanx_shared::wait::WaitCause;

/// Returns an activity of a cell as a segment.
pub(super) fn segment(
    id: &CellId,
    cell: &CellState,
    what: &What,
    (begin, end): (u64, u64),
) -> Segment {
    let attempt = what.attempt.and_then(|index| cell.attempts.get(index));
    let step = match what.subject {
        Subject::Step(step) => attempt.and_then(|attempt| attempt.steps.get_index(step)),
        _ => None,
    };
    let service = match what.subject {
        Subject::Service(service) => {
            attempt.and_then(|attempt| attempt.services.get_index(service))
        }
        _ => None,
    };
    let phase = attempt
        .zip(step)
        .map(|(attempt, (path, _))| phase(attempt, path));
    let name = step.map(|(_, step)| match &step.result {
        Some(result) => result.name.as_str(),
        None => step.name.as_str(),
    });
    Segment {
        what: text(what, name, service.map(|(name, _)| name.as_str())),
        kind: what.kind,
        wait: what.wait,
        cell: Some(id.clone()),
        phase,
        step: step.map(|(path, _)| path.clone()),
        service: service.map(|(name, _)| name.clone()),
        began_us: begin,
        elapsed_us: end.saturating_sub(begin),
        potential_us: 0,
    }
}

/// Returns the name of the phase around a path.
fn phase(attempt: &AttemptState, path: &str) -> String {
    // Bounded, because each prefix is looked up as a whole.
    let prefixes = path.match_indices(['/', '[']).take(DEPTH);
    let prefixes = prefixes.map(|(at, _)| at);
    let mut known = prefixes.filter_map(|at| attempt.steps.get(path.get(..at)?));
    let phase = known.next().or_else(|| attempt.steps.get(path));
    phase.map(|phase| phase.name.clone()).unwrap_or_default()
}

fn text(what: &What, step: Option<&str>, service: Option<&str>) -> String {
    let name = step.or(service).unwrap_or("services");
    match (what.kind, what.subject) {
        (SegmentKind::Queue, _) => format!("waiting for {}", wanted(what.wait)),
        (SegmentKind::Image, _) if what.wait == Some(WaitCause::ImageBuild) => {
            format!("building the image of {name}")
        }
        (SegmentKind::Image, _) => format!("pulling the image of {name}"),
        (SegmentKind::Create, _) => format!("creating {name}"),
        (SegmentKind::Start, _) => format!("starting {name}"),
        (SegmentKind::Readiness, Subject::Step(_)) => format!("{name}: waiting for services"),
        (SegmentKind::Readiness, _) => format!("waiting for service {name}"),
        (SegmentKind::Job, _) => format!("waiting for the end of {name}"),
        (SegmentKind::Pause, _) if what.wait == Some(WaitCause::RetryPause) => {
            format!("{name}: pause before a retry")
        }
        (SegmentKind::Pause, _) => format!("{name}: last poll interval"),
        (SegmentKind::EngineQueue, Subject::Text(text)) => format!("engine busy, {text}"),
        (SegmentKind::EngineQueue, _) => format!("engine busy, {name}"),
        (SegmentKind::Overhead, Subject::Service(_)) => format!("before {name}"),
        (_, Subject::Text(text)) => text.to_owned(),
        _ => name.to_owned(),
    }
}

/// Returns what a cell in the queue waits for.
fn wanted(cause: Option<WaitCause>) -> &'static str {
    match cause {
        Some(WaitCause::Slot) => "a slot",
        Some(WaitCause::MaxParallel) => "max-parallel",
        Some(WaitCause::LabelLimit) => "the limit of a label",
        Some(WaitCause::Cpu) => "CPUs",
        Some(WaitCause::Memory) => "memory",
        Some(WaitCause::Subnet) => "a subnet",
        _ => "an agent",
    }
}
