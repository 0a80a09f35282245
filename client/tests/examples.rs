//! Every example in the repository is a valid spec. The Compose file's warnings are allowed, since the example shows
//! them.
#![allow(clippy::unwrap_used)]

use phalanx_client::cli::diagnostics::{Style, render};
use phalanx_client::spec_file;
use std::path::{Path, PathBuf};

fn yaml_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            yaml_files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "yaml") {
            found.push(path);
        }
    }
}

#[test]
fn every_example_is_valid() {
    let mut files = Vec::new();
    yaml_files(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples"),
        &mut files,
    );
    let mut specs = 0;
    let mut findings = String::new();
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        if !text.lines().any(|line| line.starts_with("phases:")) {
            continue;
        }
        specs += 1;
        let loaded = spec_file::load(path.to_str().unwrap());
        if loaded.spec.is_none() {
            findings += &render(&loaded.diagnostics, &loaded.sources, Style::plain());
        }
    }
    assert!(specs > 0);
    assert_eq!(findings, "", "\n{findings}");
}
