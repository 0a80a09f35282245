//! Checks what must be absent: runtimes and clocks in the cores, and dependencies between crates against the one
//! direction.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns all Rust files below a folder of the workspace with their code, without comments and unit tests.
fn code(folder: &str) -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            // Unit tests in files of their own are not checked.
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

/// The crates that each crate may name, as ARCHITECTURE.md says.
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
            // The simulator combines both sides in one test.
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
            .contains("agent/src/runtime/docker");
        assert!(
            home || !code.contains("bollard"),
            "{} names bollard",
            path.display()
        );
    }
}

/// Dependencies that only generated code names.
const NOT_NAMED: [(&str, &str); 1] = [("proto", "tonic-prost")];
const CRATES: [&str; 6] = [
    "proto",
    "shared",
    "report",
    "agent",
    "coordinator",
    "client",
];

/// Returns the dependencies that a manifest declares in any section `[…dependencies]`.
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

/// Returns all Rust files of a package: sources, tests, benches, the build script.
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

/// Whether code names a crate: as a path (`serde::`), in an `extern` or in the attribute of a derive.
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

/// The modules of a crate: the path of each (`["run", "actor"]`) and its code.
type Modules = BTreeMap<Vec<String>, String>;

fn modules(krate: &str) -> Modules {
    let root = workspace().join(krate).join("src");
    let named = |(path, code): (PathBuf, String)| {
        let inside = path.strip_prefix(&root).unwrap().with_extension("");
        let mut parts: Vec<String> = inside.iter().map(|p| p.to_str().unwrap().into()).collect();
        if ["lib", "main"].contains(&parts.last().unwrap().as_str()) {
            parts.pop();
        }
        (parts, code)
    };
    code(&format!("{krate}/src"))
        .into_iter()
        .map(named)
        .collect()
}

/// Returns the paths that code names by `crate::`, `self::` or `super::`, with groups in braces expanded.
fn named_paths(module: &[String], code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for head in ["crate::", "self::", "super::"] {
        for (at, _) in code.match_indices(head) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let mut base = match head {
                "crate::" => Vec::new(),
                _ => module.to_vec(),
            };
            let mut rest = &code[at..];
            while let Some(after) = rest.strip_prefix("super::") {
                base.pop();
                rest = after;
            }
            let rest = rest
                .trim_start_matches("crate::")
                .trim_start_matches("self::");
            spread(&base, rest, &mut found);
        }
    }
    found
}

/// Follows a path as it is written: `a::b`, `a::{b, c::d}`.
fn spread(base: &[String], text: &str, found: &mut Vec<Vec<String>>) {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_'));
    let (word, rest) = text.split_at(end.unwrap_or(text.len()));
    if let Some(group) = text.strip_prefix('{') {
        let mut depth = 0;
        let mut start = 0;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => {
                    spread(base, group[start..at].trim_start(), found);
                    return;
                }
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    spread(base, group[start..at].trim_start(), found);
                    start = at + 1;
                }
                _ => {}
            }
        }
        return;
    }
    let mut path = base.to_vec();
    path.push(word.to_owned());
    match rest.strip_prefix("::") {
        Some(rest) => spread(&path, rest, found),
        None => found.push(path),
    }
}

/// Returns for each room (top-level module) of a crate the rooms that it uses.
fn arrows(modules: &Modules) -> BTreeMap<String, BTreeSet<String>> {
    let rooms: BTreeSet<&String> = modules.keys().filter_map(|path| path.first()).collect();
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, code) in modules {
        let Some(from) = module.first() else { continue };
        for path in named_paths(module, code) {
            if let Some(to) = path.first()
                && to != from
                && rooms.contains(to)
            {
                arrows.entry(from.clone()).or_default().insert(to.clone());
            }
        }
    }
    arrows
}

/// Returns the rooms that are part of a cycle.
fn in_circles(arrows: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let reaches = |from: &String| {
        let mut seen = BTreeSet::new();
        let mut next: Vec<&String> = arrows.get(from).into_iter().flatten().collect();
        while let Some(room) = next.pop() {
            if seen.insert(room.clone()) {
                next.extend(arrows.get(room).into_iter().flatten());
            }
        }
        seen
    };
    let rooms = arrows.keys().filter(|room| reaches(room).contains(*room));
    rooms.cloned().collect()
}

#[test]
fn the_rooms_of_a_crate_form_no_circle() {
    for krate in CRATES {
        let modules = modules(krate);
        assert!(modules.len() > 5, "{krate}: {:?}", modules.keys());
        let arrows = arrows(&modules);
        let found = in_circles(&arrows);
        assert!(
            found.is_empty(),
            "{krate} has these rooms in circles: {found:?} of {arrows:#?}"
        );
    }
}

#[test]
fn a_circle_is_found_however_it_is_written() {
    let module = |path: &str, code: &str| {
        let parts = path.split('/').map(str::to_owned).collect::<Vec<_>>();
        (parts, code.to_owned())
    };
    let mut crate_of_three: Modules = [
        module("journal/store", "use crate::clock::Clock;"),
        module("run/actor", "use crate::{clock, journal::{Store, Write}};"),
        module("clock", "use std::time::Duration;"),
    ]
    .into();
    assert!(in_circles(&arrows(&crate_of_three)).is_empty());
    for code in [
        "use crate::run::actor::Run;",
        "use crate::{clock, run};",
        "fn f() -> super::super::run::Run {}",
    ] {
        let (path, code) = module("journal/writer", code);
        crate_of_three.insert(path, code);
        let circle = in_circles(&arrows(&crate_of_three));
        assert_eq!(
            circle,
            BTreeSet::from(["journal".to_owned(), "run".to_owned()])
        );
    }
}
