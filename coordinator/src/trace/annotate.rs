//! Adds to the spans of cells and of the run what only the whole run can tell: findings, critical path, slack.
//!
//! A span can't be changed once it is sent. So these spans are held back until the run is over; everything below a cell is
//! sent as it ends. A failed step knows its finding by itself, but neither slack nor critical path.

use phalanx_report::finding::{Findings, id_of_step};
use phalanx_report::slack::slacks;
use phalanx_report::view::RunView;
use phalanx_shared::event::{Event, EventKind};
use phalanx_shared::trace::{Span, Value};
use std::collections::{HashMap, HashSet};

/// Maximum number of findings that one span names.
const NAMED: usize = 20;

/// What a finished run tells about its spans.
pub struct Annotations {
    /// Ids of the findings of each cell, roots first.
    findings: HashMap<String, Vec<String>>,
    /// Ids of the run's findings, roots first.
    of_run: Vec<String>,
    /// Cells on the run's critical path.
    critical: HashSet<String>,
    slack_us: HashMap<String, u64>,
}

impl Annotations {
    /// Derives them from a finished run.
    pub fn of(view: &RunView, found: &Findings) -> Annotations {
        let mut findings: HashMap<String, Vec<String>> = HashMap::new();
        for finding in &found.findings {
            for cell in finding.cells(view) {
                let named = findings.entry(cell.id.to_string()).or_default();
                named.push(finding.id.clone());
            }
        }
        let cells = view.cells.iter().zip(slacks(view));
        Annotations {
            findings,
            of_run: found.roots().map(|finding| finding.id.clone()).collect(),
            critical: critical(view),
            slack_us: cells
                .filter_map(|(cell, slack)| Some((cell.id.to_string(), slack?)))
                .collect(),
        }
    }

    /// Adds them to the span of a run or a cell.
    pub fn add(&self, span: &mut Span) {
        let cell = match span.attribute("phalanx.cell.id") {
            Some(Value::Text(cell)) => Some(cell.clone()),
            _ => None,
        };
        let named = match &cell {
            Some(cell) => self.findings.get(cell),
            None => Some(&self.of_run),
        };
        let named: Vec<String> = named.into_iter().flatten().take(NAMED).cloned().collect();
        let mut attributes: Vec<(&str, Value)> = Vec::new();
        if !named.is_empty() {
            attributes.push(("phalanx.finding", named.into()));
        }
        if let Some(cell) = &cell {
            attributes.push(("phalanx.critical_path", self.critical.contains(cell).into()));
            if let Some(slack) = self.slack_us.get(cell) {
                attributes.push((
                    "phalanx.slack_us",
                    Value::Int(i64::try_from(*slack).unwrap_or(i64::MAX)),
                ));
            }
        }
        let named = attributes
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value));
        span.attributes.extend(named);
    }
}

/// Adds to the span of a failed step the finding that it leads to. A group fails because of a step in it, so it gets none.
pub fn name_finding(span: &mut Span, event: &Event) {
    let EventKind::StepFinished(result) = &event.kind else {
        return;
    };
    let is = |key: &str, value: &str| span.attribute(key) == Some(&Value::from(value));
    if !is("phalanx.kind", "step") || !is("phalanx.step.path", &result.path) {
        return;
    }
    // A path begins with the name of its phase.
    let phase = result.path.split(['/', '[']).next().unwrap_or_default();
    if let Some(id) = id_of_step(phase, result) {
        let finding = ("phalanx.finding".to_owned(), vec![id].into());
        span.attributes.push(finding);
    }
}

/// Returns the cells on the critical path of a run.
fn critical(view: &RunView) -> HashSet<String> {
    let segments = view.timing.critical_path.iter();
    let cells = segments.filter_map(|segment| segment.cell.as_ref());
    cells.map(ToString::to_string).collect()
}
