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

/// Returns the text of ARCHITECTURE.md.
fn architecture() -> String {
    fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap()
}

/// Returns the rows of the table in ARCHITECTURE.md whose header begins with the given cells.
fn table(page: &str, header: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| {
        let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
        inner
            .split(" | ")
            .map(|cell| cell.trim().to_owned())
            .collect()
    };
    let mut lines = page.lines().skip_while(|line| !line.starts_with(header));
    assert!(lines.next().is_some(), "no table {header}");
    lines
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(cells)
        .collect()
}

/// Returns the words in backticks.
fn quoted(text: &str) -> Vec<String> {
    let parts = text.split('`').skip(1).step_by(2);
    parts.map(str::to_owned).collect()
}

/// The crates that each crate may name: the table of ARCHITECTURE.md is the rule.
fn allowed() -> BTreeMap<String, Vec<String>> {
    let rows = table(&architecture(), "| package | what it is | may use |");
    let arrow = |row: &Vec<String>| {
        let (krate, may) = (quoted(&row[0]).remove(0), &row[2]);
        // What follows a semicolon holds for tests only.
        let may = match may.as_str() {
            "all of them" => CRATES.iter().map(|&name| name.to_owned()).collect(),
            may => quoted(may.split(';').next().unwrap_or_default()),
        };
        (krate, may)
    };
    let allowed: BTreeMap<_, _> = rows.iter().map(arrow).collect();
    let named: BTreeSet<&str> = allowed.keys().map(String::as_str).collect();
    assert_eq!(named, BTreeSet::from(CRATES), "one row for each crate");
    allowed
}

#[test]
fn crates_name_each_other_in_one_direction() {
    for (krate, may) in allowed() {
        let others = CRATES
            .iter()
            .filter(|other| **other != krate && !may.iter().any(|may| may == *other));
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
const CRATES: [&str; 7] = [
    "proto",
    "shared",
    "report",
    "otlp",
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
                known || sources.iter().any(|text| names_crate(text, &word)),
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

#[test]
fn no_release_has_the_fake_runtime() {
    for krate in CRATES {
        let text = fs::read_to_string(workspace().join(krate).join("Cargo.toml")).unwrap();
        let (released, _) = text.split_once("[dev-dependencies]").unwrap_or((&text, ""));
        assert!(!released.contains("\"fake\""), "{krate} turns it on");
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

/// Whether code names a crate by a path (`serde::`), a macro or an import. The bare word may be anything: `config`.
fn names_crate(text: &str, name: &str) -> bool {
    ["::", "!", ";", " as "].iter().any(|end| {
        let part = |c: char| c.is_alphanumeric() || c == '_';
        text.match_indices(&format!("{name}{end}"))
            .any(|(at, _)| !text[..at].chars().next_back().is_some_and(part))
    })
}

/// Whether code names a word, outside of comments.
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

/// What a module exports under a name of its own: (module, name) and the path behind it, from `pub use a::B`.
type Exports = BTreeMap<(Vec<String>, String), Vec<String>>;

/// Returns the names that modules re-export, so that a path through the parent counts as a path to the sibling behind
/// it.
fn exports(modules: &Modules) -> Exports {
    let mut exports = Exports::new();
    for (module, code) in modules {
        for (at, _) in code.match_indices("pub") {
            let rest = code[at..].trim_start_matches("pub");
            let rest = match rest.strip_prefix('(') {
                Some(scope) => scope.split_once(')').map_or("", |(_, rest)| rest),
                None => rest,
            };
            let Some(path) = rest.strip_prefix(" use ") else {
                continue;
            };
            let end = path.find(';').unwrap_or(path.len());
            let path = &path[..end];
            let mut targets = named_paths(module, path);
            let relative = path.split("::").next().unwrap_or_default();
            let mut child = module.clone();
            child.push(relative.to_owned());
            if modules.contains_key(&child) {
                spread(module, path, &mut targets);
            }
            for target in targets {
                let name = target.last().cloned().unwrap_or_default();
                exports.insert((module.clone(), name), target);
            }
        }
    }
    exports
}

/// Returns the path behind a path, past re-exports.
fn behind(exports: &Exports, mut path: Vec<String>) -> Vec<String> {
    // Far more steps than any chain of re-exports has.
    for _ in 0..8 {
        let step = (1..=path.len()).find_map(|n| {
            let key = (path[..n - 1].to_vec(), path[n - 1].clone());
            let target = exports.get(&key)?;
            let ahead = [target.as_slice(), &path[n..]].concat();
            (ahead != path).then_some(ahead)
        });
        match step {
            Some(ahead) => path = ahead,
            None => break,
        }
    }
    path
}

/// Returns for each room directly inside a folder the rooms there that it uses. The folder `[]` is the whole crate.
fn arrows(
    modules: &Modules,
    exports: &Exports,
    folder: &[String],
) -> BTreeMap<String, BTreeSet<String>> {
    let room = |path: &[String]| match path.strip_prefix(folder)? {
        [room, ..] => Some(room.clone()),
        [] => None,
    };
    let rooms: BTreeSet<String> = modules.keys().filter_map(|path| room(path)).collect();
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, code) in modules {
        let Some(from) = room(module) else { continue };
        for path in named_paths(module, code) {
            if let Some(to) = room(&behind(exports, path))
                && to != from
                && rooms.contains(&to)
            {
                arrows.entry(from.clone()).or_default().insert(to);
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

/// Returns the folders of a crate: every module that has modules inside.
fn folders(modules: &Modules) -> BTreeSet<Vec<String>> {
    let parents = modules.keys().filter_map(|path| path.split_last());
    parents.map(|(_, parent)| parent.to_vec()).collect()
}

/// The cycles that remain: crate, folder, rooms. The list may only become shorter.
const KNOTS: &[(&str, &str, &[&str])] = &[(
    "coordinator",
    "sim",
    &[
        "cell",
        "center",
        "checks",
        "disasters",
        "engine",
        "machine",
        "seats",
        "world",
    ],
)];

#[test]
fn the_rooms_of_a_folder_form_no_circle() {
    let mut wrong = Vec::new();
    let mut left: Vec<_> = KNOTS.to_vec();
    for krate in CRATES {
        let modules = modules(krate);
        assert!(modules.len() > 5, "{krate}: {:?}", modules.keys());
        let exports = exports(&modules);
        for folder in folders(&modules) {
            let arrows = arrows(&modules, &exports, &folder);
            let circle = in_circles(&arrows);
            let folder = folder.join("/");
            let known = left
                .iter()
                .position(|knot| (knot.0, knot.1) == (krate, &folder));
            let known = known.map_or(&[][..], |at| left.swap_remove(at).2);
            if !circle.iter().eq(known) {
                let of_circle = arrows.iter().filter(|(from, _)| circle.contains(*from));
                let of_circle: Vec<String> = of_circle
                    .map(|(from, to)| format!("{from} -> {:?}", to & &circle))
                    .collect();
                wrong.push(format!(
                    "({krate:?}, {folder:?}, &{circle:?}): {of_circle:#?}"
                ));
            }
        }
    }
    assert!(
        wrong.is_empty() && left.is_empty(),
        "rooms in circles that KNOTS doesn't list, or lists too many of: {}\nfolders that are gone: {left:?}",
        wrong.join("\n")
    );
}

#[test]
fn a_circle_is_found_however_it_is_written() {
    let module = |path: &str, code: &str| {
        let parts = path.split('/').map(str::to_owned).collect::<Vec<_>>();
        (parts, code.to_owned())
    };
    let circle = |modules: &Modules, folder: &[&str]| {
        let folder: Vec<String> = folder.iter().map(|&room| room.to_owned()).collect();
        let found = in_circles(&arrows(modules, &exports(modules), &folder));
        found.into_iter().collect::<Vec<_>>()
    };
    let mut house: Modules = [
        module("journal", "mod store; mod writer; pub use store::Store;"),
        module("journal/store", "use crate::clock::Clock;"),
        module("run", "pub mod actor; mod core;"),
        module("run/actor", "use crate::{clock, journal::{Store, Write}};"),
        module("clock", "use std::time::Duration;"),
    ]
    .into();
    assert!(folders(&house).contains(&vec!["journal".to_owned()]));
    assert!(circle(&house, &[]).is_empty());
    for code in [
        "use crate::run::actor::Run;",
        "use crate::{clock, run};",
        "fn f() -> super::super::run::Run {}",
    ] {
        let (path, code) = module("journal/writer", code);
        house.insert(path, code);
        assert_eq!(circle(&house, &[]), ["journal", "run"], "{house:?}");
        assert!(circle(&house, &["journal"]).is_empty());
    }
    // Within a folder, also by way of the folder's own re-exports.
    for code in ["use super::store::Store;", "use super::{Store, Other};"] {
        let (path, code) = module("journal/writer", code);
        house.insert(path, code);
        assert!(circle(&house, &["journal"]).is_empty());
        let (path, code) = module("journal/store", "use crate::journal::writer;");
        let before = house.insert(path.clone(), code).unwrap();
        assert_eq!(circle(&house, &["journal"]), ["store", "writer"]);
        assert!(circle(&house, &[]).is_empty());
        house.insert(path, before);
    }
}
