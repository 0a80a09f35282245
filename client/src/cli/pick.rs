//! Finds the run or cell that the user means: an id, a part of one, a name, or the newest.

use super::error::CliError;
use phalanx_proto::v1::RunSummary;
use phalanx_report::view::{CellView, RunView};
use phalanx_shared::error_code::ErrorCode;
use phalanx_shared::id::RunId;

/// Picks a run from the known runs, newest first. No text, `last` and `latest` mean the newest.
pub fn pick(text: Option<&str>, runs: &[RunSummary]) -> Result<RunId, CliError> {
    let newest = || runs.first().map(|run| RunId::from(run.run_id.as_str()));
    let text = match text {
        None | Some("last" | "latest") => return newest().ok_or_else(none_yet),
        Some(text) => text,
    };
    let matching = runs.iter().filter(|run| {
        run.run_id.starts_with(text) || (text.len() >= 4 && run.run_id.ends_with(text))
    });
    let matching: Vec<&str> = matching.map(|run| run.run_id.as_str()).collect();
    match matching.as_slice() {
        [one] => Ok(RunId::from(*one)),
        [] if runs.is_empty() => Err(none_yet()),
        [] => Err(CliError::usage(format!("there is no run `{text}`"))
            .with_help("phalanx runs lists them")
            .explained_by(ErrorCode::Unknown)),
        many => {
            let shown: Vec<&str> = many.iter().take(5).copied().collect();
            let help = format!("write more of it: {}", shown.join(", "));
            Err(
                CliError::usage(format!("`{text}` means {} runs", many.len()))
                    .with_help(help)
                    .explained_by(ErrorCode::Unknown),
            )
        }
    }
}

/// Finds the cell that the user means: an id, the beginning of one, or a name.
pub fn pick_cell<'a>(view: &'a RunView, text: &str) -> Result<&'a CellView, CliError> {
    let by_name = view
        .cells
        .iter()
        .find(|cell| cell.name == text || cell.id.as_str() == text);
    if let Some(cell) = by_name {
        return Ok(cell);
    }
    let matching: Vec<&CellView> = view
        .cells
        .iter()
        .filter(|cell| cell.id.as_str().starts_with(text))
        .collect();
    match matching.as_slice() {
        [one] => Ok(one),
        [] => {
            let near = view
                .cells
                .iter()
                .map(|cell| (strsim::damerau_levenshtein(&cell.name, text), &cell.name));
            let error = CliError::usage(format!("the run has no cell `{text}`"))
                .explained_by(ErrorCode::Unknown);
            Err(match near.min() {
                Some((_, name)) => error.with_help(format!("did you mean `{name}`?")),
                None => error,
            })
        }
        many => Err(CliError::usage(format!(
            "`{text}` means {} cells: write more of the id",
            many.len()
        ))),
    }
}

fn none_yet() -> CliError {
    CliError::usage("there are no runs yet").with_help("phalanx run SPEC makes one")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_run_is_named_by_beginning_end_or_as_the_newest() {
        let run = |id: &str| RunSummary {
            run_id: id.to_owned(),
            ..RunSummary::default()
        };
        let runs = [run("0193-bbbb"), run("0193-aaaa"), run("0192-cccc")];
        assert_eq!(pick(None, &runs).unwrap().as_str(), "0193-bbbb");
        assert_eq!(pick(Some("last"), &runs).unwrap().as_str(), "0193-bbbb");
        assert_eq!(pick(Some("0192"), &runs).unwrap().as_str(), "0192-cccc");
        assert_eq!(pick(Some("aaaa"), &runs).unwrap().as_str(), "0193-aaaa");
        assert!(
            pick(Some("0193"), &runs)
                .unwrap_err()
                .message
                .contains("2 runs")
        );
        assert!(pick(Some("x"), &runs).is_err());
        assert!(pick(None, &[]).unwrap_err().message.contains("no runs yet"));
    }
}
