//! Checks ARCHITECTURE.md against the code: the table "Follow a cell" against the files that it names, and every path.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the paths of all files and folders that belong to the project, relative to its root. Folders end with `/`.
fn paths() -> BTreeSet<String> {
    fn walk(folder: &Path, name: &str, into: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let own = entry.file_name().into_string().unwrap();
            if ["target", ".git"].contains(&own.as_str()) {
                continue;
            }
            let path = format!("{name}{own}");
            if entry.file_type().unwrap().is_dir() {
                into.insert(format!("{path}/"));
                walk(&entry.path(), &format!("{path}/"), into);
            } else {
                into.insert(path);
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(&workspace(), "", &mut found);
    found
}

/// Returns the words in backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// A row of the table: where the cell is, the file whose code says so, and what happens there.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Stage {
    place: String,
    file: String,
    happens: String,
}

fn stages_of(page: &str) -> Vec<Stage> {
    let header = "| where the cell is | file | what happens |";
    let rows = page.lines().skip_while(|line| *line != header).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        Stage {
            place: cells[0].to_owned(),
            file: quoted(cells[1])[0].to_owned(),
            happens: cells[2].to_owned(),
        }
    })
    .collect()
}

/// Returns the stages that the code claims, by lines `//! stage: PLACE: WHAT HAPPENS`.
fn stages_in(file: &str, code: &str) -> Vec<Stage> {
    let lines = code
        .lines()
        .filter_map(|line| line.strip_prefix("//! stage: "));
    lines
        .filter_map(|line| line.split_once(": "))
        .map(|(place, happens)| Stage {
            place: place.to_owned(),
            file: file.to_owned(),
            happens: happens.to_owned(),
        })
        .collect()
}

#[test]
fn each_stage_of_a_cell_is_claimed_by_the_file_that_the_table_names() {
    let page = fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap();
    let mut table = stages_of(&page);
    assert!(table.len() > 15, "{table:?}");
    // A spec can't claim anything: it is a user's file.
    table.retain(|stage| stage.file.ends_with(".rs"));
    let mut claimed = Vec::new();
    for path in paths().iter().filter(|path| path.ends_with(".rs")) {
        let code = fs::read_to_string(workspace().join(path)).unwrap();
        claimed.extend(stages_in(path, &code));
    }
    table.sort();
    claimed.sort();
    assert_eq!(
        table, claimed,
        "the table \"Follow a cell\" (left) and the files' `//! stage:` lines (right) differ"
    );
}

#[test]
fn a_stage_that_moves_or_changes_is_noticed() {
    let page = "x\n| where the cell is | file | what happens |\n|---|---|---|\n\
                | at the gate | `a/gate.rs` → `b.rs` | stale: ends here |\n\nrest";
    let here = stages_in(
        "a/gate.rs",
        "//! The gate.\n//!\n//! stage: at the gate: stale: ends here\n",
    );
    assert_eq!(stages_of(page), here);
    for (file, line) in [
        ("b/gate.rs", "//! stage: at the gate: stale: ends here"),
        ("a/gate.rs", "//! stage: at the gate: ends elsewhere"),
        ("a/gate.rs", "//! The gate."),
    ] {
        assert_ne!(stages_of(page), stages_in(file, line));
    }
}

#[test]
fn every_path_that_the_pages_name_exists() {
    let paths = paths();
    for page in ["ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = fs::read_to_string(workspace().join(page)).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with("```"));
        for name in lines.flat_map(quoted) {
            let named = name.split_whitespace().next().unwrap_or_default();
            let file = [".rs", ".md", ".toml", ".proto", ".json", ".yaml"]
                .iter()
                .any(|end| named.ends_with(end));
            let folder = named.ends_with('/') && named.len() > 1;
            if !(file || folder) || named.starts_with(['/', '.']) || named.contains(['*', '$', '<'])
            {
                continue;
            }
            // Short names are relative to what the sentence is about; the end of a path is enough.
            let end = format!("/{named}");
            let known = paths
                .iter()
                .any(|path| path == named || path.ends_with(&end));
            // Words for any file of that name, and files that exist at run time only.
            let of_any = ["core.rs", "actor.rs", "spec.yaml", "x.rs"].contains(&named);
            assert!(
                known || of_any,
                "{page} names `{named}`, which doesn't exist"
            );
        }
    }
}
