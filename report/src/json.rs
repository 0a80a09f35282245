//! `--report json=FILE`: the view as it is. Its fields are told in `docs/reports.md`.

use super::view::RunView;

/// The report with a line break at its end.
pub fn render(view: &RunView) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(view).map(|text| text + "\n")
}
