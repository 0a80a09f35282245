//! `--report json=FILE`: the view as it is. `docs/reports.md` describes its fields.

use super::view::RunView;

/// Returns the report, with a line break at its end.
pub fn render(view: &RunView) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(view).map(|text| text + "\n")
}
