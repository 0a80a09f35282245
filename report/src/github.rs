//! GitHub Actions: `::error` annotations, which a pull request shows at the failing line of the spec.
//!
//! GitHub keeps ten errors per step, so equal failures of many cells become one annotation that names the cells and the
//! rule that tells them from the others. What follows from another failure comes last.

use super::finding::{Finding, findings, sentence};
use super::text::step_title;
use super::view::{RunView, StepView};

/// Returns one line for each distinct failure.
pub fn annotations(view: &RunView) -> String {
    let found = findings(view, None);
    let more = match found.left_out {
        0 => String::new(),
        more => format!(
            "::warning::{} not listed: the JSON report has all cells\n",
            super::text::plural(more, "other failure")
        ),
    };
    let listed: String = found
        .findings
        .iter()
        .map(|finding| {
            let cells: Vec<&str> = finding.cells(view).map(|cell| cell.name.as_str()).collect();
            match (finding.step(view), finding.cell(view)) {
                (Some(step), _) => {
                    let text = message_of(step) + &where_of(finding, view);
                    annotation(place(step).as_ref(), &text, &cells)
                }
                (None, cell) => {
                    let reason = cell.and_then(|cell| cell.reason.as_deref());
                    let reason = reason.unwrap_or("no reason given");
                    annotation(
                        None,
                        &(reason.to_owned() + &where_of(finding, view)),
                        &cells,
                    )
                }
            }
        })
        .collect();
    listed + &more
}

/// Returns which cells have a failure, as a line of its own; nothing in a run of one cell.
fn where_of(finding: &Finding, view: &RunView) -> String {
    match view.cells.len() {
        1 => String::new(),
        _ => format!("\n{}", sentence::explained(finding)),
    }
}

fn place(step: &StepView) -> Option<Place> {
    Place::parse(step.failure.as_ref()?.place.as_deref()?)
}

fn message_of(step: &StepView) -> String {
    let checks = step.checks.iter().filter(|check| !check.passed);
    let checks: String = checks
        .map(|check| format!("\ncheck failed: {}", check.expression))
        .collect();
    let reason = step.reason.as_deref().unwrap_or_default();
    format!("{}: {reason}{checks}", step_title(&step.phase, &step.name))
}

fn annotation(place: Option<&Place>, text: &str, cells: &[&str]) -> String {
    let title = match cells {
        [cell] => (*cell).to_owned(),
        [first, rest @ ..] => format!(
            "{first} and {}",
            super::text::plural(rest.len(), "other cell")
        ),
        [] => String::new(),
    };
    let place = place.map_or_else(String::new, |place| {
        format!(
            "file={},line={},col={},",
            property(&place.file),
            place.line,
            place.column
        )
    });
    format!(
        "::error {place}title={}::{}\n",
        property(&title),
        message(text)
    )
}

/// A position `file:line:column`.
struct Place {
    file: String,
    line: u32,
    column: u32,
}

impl Place {
    fn parse(text: &str) -> Option<Place> {
        let (rest, column) = text.rsplit_once(':')?;
        let (file, line) = rest.rsplit_once(':')?;
        Some(Place {
            file: file.to_owned(),
            line: line.parse().ok()?,
            column: column.parse().ok()?,
        })
    }
}

fn message(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

fn property(text: &str) -> String {
    message(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_from_outside_cannot_end_an_annotation() {
        let line = annotation(None, "a%b\n::set-env::x", &["x, y: z"]);
        assert_eq!(line, "::error title=x%2C y%3A z::a%25b%0A::set-env::x\n");
    }
}
