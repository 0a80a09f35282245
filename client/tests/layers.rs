//! What must be absent: runtimes and clocks in the cores, arrows against the one direction.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All Rust files below a folder of the workspace, with their code: comments and unit tests left out.
fn code(folder: &str) -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            // Unit tests in files of their own may do what they like.
            let tests = path
                .file_stem()
                .is_some_and(|stem| stem == "tests" || stem == "fuzz");
            if tests {
                continue;
            }
            if path.is_dir() {
                walk(&path, into);
            } else if path.extension().is_some_and(|e| e == "rs") {
                into.push(path);
            }
        }
    }
    let mut files = Vec::new();
    walk(&workspace().join(folder), &mut files);
    assert!(!files.is_empty(), "{folder} has no Rust files");
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let lines = code.lines().filter(|l| !l.trim_start().starts_with("//"));
        let code = lines.collect::<Vec<_>>().join("\n");
        (path, code)
    };
    files.into_iter().map(read).collect()
}

#[test]
fn no_core_names_a_runtime_or_a_clock() {
    let cores: Vec<_> = ["agent/src", "coordinator/src"]
        .iter()
        .flat_map(|folder| code(folder))
        .filter(|(path, _)| path.file_name().is_some_and(|name| name == "core.rs"))
        .collect();
    assert!(cores.len() >= 6, "where have the cores gone?");
    for (path, code) in cores {
        for word in [
            "tokio",
            "kameo",
            "bollard",
            "tonic",
            "SystemTime",
            "Instant::now",
        ] {
            assert!(!code.contains(word), "{} names {word}", path.display());
        }
    }
}

#[test]
fn the_domain_knows_no_runtime_and_nobody_downstream() {
    for (path, code) in code("shared/src") {
        for word in [
            "tokio",
            "tonic",
            "phalanx_proto",
            "phalanx_agent",
            "std::net",
            "std::env",
        ] {
            assert!(!names_word(&code, word), "{} names {word}", path.display());
        }
    }
}

/// Which of our crates a crate may name, as ARCHITECTURE.md has it.
const ARROWS: [(&str, &[&str]); 6] = [
    ("shared", &[]),
    ("proto", &["shared"]),
    ("report", &["shared"]),
    ("agent", &["shared", "proto"]),
    ("coordinator", &["shared", "proto", "report"]),
    (
        "client",
        &["shared", "proto", "report", "agent", "coordinator"],
    ),
];

#[test]
fn crates_name_each_other_in_one_direction() {
    for (krate, may) in ARROWS {
        let others = CRATES
            .iter()
            .filter(|other| **other != krate && !may.contains(other));
        let forbidden: Vec<String> = others.map(|other| format!("phalanx_{other}")).collect();
        for (path, code) in code(&format!("{krate}/src")) {
            // The simulator puts both sides into one test.
            if path.components().any(|part| part.as_os_str() == "sim") {
                continue;
            }
            for name in &forbidden {
                // Metrics have names like phalanx_agents.
                assert!(
                    !code.contains(&format!("{name}::")),
                    "{} names {name}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn what_is_told_is_made_without_a_runtime_or_io() {
    for (path, code) in code("report/src") {
        for word in [
            "tokio",
            "std::fs",
            "std::env",
            "std::net",
            "std::process",
            "Instant",
            "SystemTime",
        ] {
            assert!(!names_word(&code, word), "{} names {word}", path.display());
        }
    }
}

#[test]
fn the_engines_types_stay_in_their_folder() {
    for (path, code) in code("agent/src") {
        let home = path
            .display()
            .to_string()
            .contains("agent/src/runtime/docker/");
        assert!(
            home || !code.contains("bollard"),
            "{} names bollard",
            path.display()
        );
    }
}

/// Named by generated code only.
const NOT_NAMED: [(&str, &str); 1] = [("proto", "tonic-prost")];
const CRATES: [&str; 6] = [
    "proto",
    "shared",
    "report",
    "agent",
    "coordinator",
    "client",
];

/// The dependencies that a manifest declares below `[…dependencies]`, whatever kind they are of.
fn declared(manifest: &Path) -> Vec<String> {
    let text = fs::read_to_string(manifest).unwrap();
    let mut found = Vec::new();
    let mut dependencies = false;
    for line in text.lines() {
        if line.starts_with('[') {
            dependencies = line.ends_with("dependencies]");
        } else if dependencies && let Some((name, _)) = line.split_once(['.', ' ', '=']) {
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if !name.is_empty() && name.chars().all(is_name) {
                found.push(name.to_owned());
            }
        }
    }
    found
}

#[test]
fn what_a_crate_declares_it_names() {
    let mut wanted = BTreeSet::new();
    for krate in CRATES {
        let names = declared(&workspace().join(krate).join("Cargo.toml"));
        assert!(names.len() > 5, "{krate} declares only {names:?}");
        let sources: Vec<String> = everything_in(krate);
        for name in &names {
            let known = NOT_NAMED.contains(&(krate, name.as_str()));
            let word = name.replace('-', "_");
            assert!(
                known || sources.iter().any(|text| names_word(text, &word)),
                "{krate} declares {name} and doesn't use it: remove it from {krate}/Cargo.toml"
            );
        }
        wanted.extend(names);
    }
    for name in declared(&workspace().join("Cargo.toml")) {
        assert!(
            wanted.contains(&name),
            "no package uses {name}: remove it from Cargo.toml"
        );
    }
}

/// All Rust files of a package: sources, tests, benches, the build script.
fn everything_in(krate: &str) -> Vec<String> {
    let mut folders = vec![workspace().join(krate)];
    let mut texts = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                texts.push(fs::read_to_string(path).unwrap());
            }
        }
    }
    texts
}

/// Whether code names a crate: as a path (`serde::`), in an `extern` or in a derive's attribute.
fn names_word(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .any(|line| {
            line.match_indices(word).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                let after = line[at + word.len()..].chars().next();
                !before.is_some_and(part) && !after.is_some_and(part)
            })
        })
}

#[test]
fn one_file_reads_the_clock_and_the_domain_does_not_use_it() {
    for (path, code) in code("shared/src") {
        if path.file_name().is_some_and(|name| name == "clock.rs") {
            continue;
        }
        for word in ["clock::", "Instant", "SystemTime"] {
            assert!(!code.contains(word), "{} names {word}", path.display());
        }
    }
}
