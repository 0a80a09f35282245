//! GitHub Actions: `::error` annotations, which a pull request shows at the failing line of the spec.
//!
//! GitHub keeps ten errors per step, so equal failures of many cells become one annotation that names the cells.

use super::finding::findings;
use super::text::step_title;
use super::view::{RunView, StepView};

/// Returns one line for each distinct failure.
pub fn annotations(view: &RunView) -> String {
    findings(view)
        .iter()
        .map(|finding| {
            let cells: Vec<&str> = finding
                .cells
                .iter()
                .map(|cell| cell.name.as_str())
                .collect();
            match (finding.step, finding.cells.first()) {
                (Some(step), _) => annotation(place(step).as_ref(), &message_of(step), &cells),
                (None, cell) => {
                    let reason = cell.and_then(|cell| cell.reason.as_deref());
                    annotation(None, reason.unwrap_or("no reason given"), &cells)
                }
            }
        })
        .collect()
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
