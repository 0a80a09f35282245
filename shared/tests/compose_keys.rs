//! Every key of the Compose specification is used, noted or refused, as `compose_keys.txt` says; nothing is left out
//! silently. The table in docs/containers.md is made from the same file.
//!
//! `PHALANX_BLESS=1` writes what was found into both.
#![allow(clippy::unwrap_used)]

use phalanx_shared::diagnostic::{Diagnostic, Severity, Source};
use phalanx_shared::language::{Loaded, load};
use std::collections::BTreeMap;
use std::fmt::Write;

const KEYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/compose_keys.txt");
const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/containers.md");

/// A line of the file.
struct Key {
    path: String,
    status: String,
    sample: String,
}

fn keys(text: &str) -> Vec<Key> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (path, rest) = line.split_once(' ').unwrap();
            let (status, sample) = rest.trim_start().split_once(' ').unwrap();
            Key {
                path: path.to_owned(),
                status: status.to_owned(),
                sample: sample.trim().to_owned(),
            }
        })
        .collect()
}

/// Returns what a map at a path has besides the key that is tried.
fn beside(path: &str, tried: &str) -> Vec<&'static str> {
    let all: &[&str] = match path {
        "services.*" => &["image: x"],
        "services.*.volumes.[]" if tried == "tmpfs" => &["type: tmpfs", "target: /t"],
        "services.*.volumes.[]" if tried == "volume" => {
            &["type: volume", "source: k", "target: /t"]
        }
        "services.*.volumes.[]" => &["type: bind", "source: ./x", "target: /t"],
        "services.*.configs.[]" | "services.*.secrets.[]" | "services.*.build.secrets.[]" => {
            &["source: k"]
        }
        "services.*.post_start.[]" | "services.*.pre_stop.[]" => &["command: a"],
        "services.*.devices.[]" => &["source: /dev/null", "target: /dev/x"],
        "services.*.ports.[]" => &["target: 80"],
        "services.*.blkio_config.weight_device.[]" => &["path: /dev/x", "weight: 1"],
        path if path.starts_with("services.*.blkio_config.device_") => &["path: /dev/x", "rate: 1"],
        "services.*.env_file.[]" => &["path: .env"],
        "services.*.extends" => &["service: db"],
        "services.*.ulimits.*" | "services.*.build.ulimits.*" => &["soft: 1", "hard: 1"],
        "services.*.build" => &["context: ."],
        "networks.*.ipam.config.[]" => &["subnet: 10.1.0.0/24"],
        "include.[]" => &["path: lib.yml"],
        "secrets.*" | "configs.*"
            if !["file", "environment", "content", "external"].contains(&tried) =>
        {
            &["file: ./f"]
        }
        _ => &[],
    };
    let others = all.iter().copied();
    others
        .filter(|line| line.split(':').next() != Some(tried))
        .collect()
}

/// Returns a Compose file with the key, and the lines of the keys that lead to it.
fn file(key: &Key) -> (String, Vec<u32>) {
    let parts: Vec<&str> = key.path.split('.').collect();
    let mut text = String::new();
    let mut lines = Vec::new();
    for (depth, part) in parts.iter().enumerate() {
        let indent = "  ".repeat(depth);
        let path = parts[..depth].join(".");
        if *part != "[]" {
            for line in beside(&path, part) {
                writeln!(text, "{indent}{line}").unwrap();
            }
        }
        let name = match *part {
            "[]" => format!("{indent}-"),
            "*" if path.ends_with("depends_on") => format!("{indent}db:"),
            "*" => format!("{indent}k:"),
            name => format!("{indent}{name}:"),
        };
        let sample = match depth + 1 == parts.len() {
            true => format!(" {}", key.sample),
            false => String::new(),
        };
        writeln!(text, "{name}{sample}").unwrap();
        lines.push(u32::try_from(text.lines().count()).unwrap());
    }
    let first = parts[0];
    let uses = match first {
        "secrets" => "secrets: [k]",
        "configs" => "configs: [k]",
        // A network's subnet is used if a service has an address in it.
        "networks" if key.path.contains("ipam.config") => {
            "networks: { k: { ipv4_address: 10.1.0.5 } }"
        }
        "networks" => "networks: [k]",
        "volumes" => "volumes: ['k:/v']",
        _ => "init: true",
    };
    if first != "services" {
        writeln!(
            text,
            "services: {{ k: {{ image: x, {uses} }}, db: {{ image: x }} }}"
        )
        .unwrap();
    } else if parts.len() > 1 {
        writeln!(text, "  db: {{ image: x }}").unwrap();
    }
    for section in [
        "secrets: { k: { file: ./f } }",
        "configs: { k: { file: ./f } }",
        "volumes: { k: }",
        "networks: { k: { ipam: { config: [{ subnet: 10.1.0.0/24 }, { subnet: 'fd00::/64' }] } } }",
    ] {
        let used = key
            .path
            .split(['.', ' '])
            .any(|part| section.starts_with(part));
        if used && !section.starts_with(first) {
            writeln!(text, "{section}").unwrap();
        }
    }
    (text, lines)
}

fn loaded(compose: &str) -> Loaded {
    let main = Source {
        name: "spec.yaml".into(),
        text: "phases: { p: [{ expect: true }] }\nstack: { compose: c.yml, profiles: [p], variables: { E: value } }\n".into(),
    };
    load(main, &mut |path| {
        let text = match path {
            "c.yml" => compose,
            "lib.yml" => "services: { inc: { image: x }, db: { image: x } }\n",
            ".env" => "A=1\n",
            _ => return Err("there is no such file".into()),
        };
        Ok(Source {
            name: path.into(),
            text: text.into(),
        })
    })
}

/// Returns what happens with a key, or why its sample says nothing about it.
fn observed(key: &Key) -> Result<&'static str, String> {
    // The samples of `include` and `extends` name services of their own.
    let (mut text, lines) = file(key);
    if key.path.starts_with("include") {
        text = text.replace(", db: { image: x }", "");
    }
    let loaded = loaded(&text);
    let named = |d: &&Diagnostic| {
        let span = d.span.unwrap();
        let file = &loaded.sources.files[span.file as usize].name;
        file == "c.yml" && lines.contains(&span.line)
    };
    let (here, elsewhere): (Vec<_>, Vec<_>) = loaded.diagnostics.iter().partition(|d| named(d));
    let errors = |found: &[&Diagnostic]| -> Vec<Diagnostic> {
        let errors = found.iter().filter(|d| d.severity == Severity::Error);
        errors.map(|d| (*d).clone()).collect()
    };
    let all: Vec<&str> = loaded
        .diagnostics
        .iter()
        .map(|d| d.message.as_str())
        .collect();
    let why = format!("{}: {all:?} in\n{text}", key.path);
    let (errors, others) = (errors(&here), errors(&elsewhere));
    let unclear =
        |error: &Diagnostic| error.message.contains("unknown key") || error.help.is_none();
    if !others.is_empty()
        || errors.iter().any(unclear)
        || loaded.spec.is_none() == errors.is_empty()
    {
        return Err(why);
    }
    Ok(match here.as_slice() {
        _ if !errors.is_empty() => "refused",
        [] => "used",
        _ => "noted",
    })
}

/// Returns the table of the documentation: the keys of each status, those of a map that is noted or refused as a whole
/// only by the map's name.
fn table(keys: &[Key]) -> String {
    let mut text = String::from("| | |\n|---|---|\n");
    for (status, title) in [
        ("used", "used"),
        ("noted", "noted and not used"),
        ("refused", "errors"),
    ] {
        let mut groups: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for key in keys.iter().filter(|key| key.status == status) {
            let mut above = key.path.as_str();
            let mut covered = false;
            while let Some((parent, _)) = above.rsplit_once('.') {
                covered |=
                    status != "used" && keys.iter().any(|k| k.path == parent && k.status == status);
                above = parent;
            }
            if covered {
                continue;
            }
            let (group, name) = key.path.rsplit_once('.').unwrap_or(("", &key.path));
            let group = group.replace(".[]", "[]");
            groups.entry(group).or_default().push(name);
        }
        let groups = groups.into_iter().map(|(group, mut names)| {
            names.sort_unstable();
            match group.as_str() {
                "" => format!("`{}`", names.join(" ")),
                _ => format!("of `{group}` `{}`", names.join(" ")),
            }
        });
        let groups: Vec<String> = groups.collect();
        writeln!(text, "| {title} | {} |", groups.join("; ")).unwrap();
    }
    text
}

#[test]
fn every_key_of_the_specification_has_the_status_that_is_documented() {
    let text = std::fs::read_to_string(KEYS).unwrap();
    let mut keys = keys(&text);
    assert!(keys.len() > 300, "where have the keys gone?");
    let (mut differ, mut unclear) = (Vec::new(), Vec::new());
    for key in &mut keys {
        let found = match observed(key) {
            Ok(found) => found,
            Err(why) => {
                unclear.push(why);
                continue;
            }
        };
        if found != key.status {
            differ.push(format!("{} is {found}, not {}", key.path, key.status));
            key.status = found.to_owned();
        }
    }
    assert!(unclear.is_empty(), "{}", unclear.join("\n"));
    let docs = std::fs::read_to_string(DOCS).unwrap();
    let (before, rest) = docs.split_once("<!-- compose keys -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- /compose keys -->").unwrap();
    let made = format!(
        "{before}<!-- compose keys -->\n{}<!-- /compose keys -->{after}",
        table(&keys)
    );
    if std::env::var_os("PHALANX_BLESS").is_some() {
        let head: String = text
            .lines()
            .filter(|l| l.starts_with('#'))
            .fold(String::new(), |all, line| all + line + "\n");
        let width = keys.iter().map(|key| key.path.len()).max().unwrap();
        let lines = keys
            .iter()
            .map(|key| format!("{:<width$}  {:<7}  {}\n", key.path, key.status, key.sample));
        std::fs::write(KEYS, head + &lines.collect::<String>()).unwrap();
        std::fs::write(DOCS, made).unwrap();
        return;
    }
    assert!(differ.is_empty(), "{differ:#?}");
    assert!(docs == made, "docs/containers.md is old: PHALANX_BLESS=1");
}
