//! The key of a snapshot: a digest of everything that the files after the group depend on. Pure.

use phalanx_shared::expr::canonical_json;
use phalanx_shared::language::model::{DefineBody, Spec, Step};
use phalanx_shared::language::reads::Reads;
use phalanx_shared::language::service::{MountKind, ServiceConfig};
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// Version of what a snapshot holds and of what its key is made. Another one gives other keys.
pub const FORMAT: u32 = 1;

/// Everything of which a key is made.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Ingredients {
    /// Services whose files are saved.
    pub named: Vec<String>,
    /// Services whose behaviour decides what the files hold: the named ones, those that the steps use, and what either
    /// depends on.
    pub services: BTreeMap<String, OfService>,
    /// The group's steps, and the defines and sessions that they use, without places.
    pub steps: Value,
    /// Values that the steps read, by context.
    pub values: BTreeMap<String, Value>,
    /// Digests of the secrets that the steps read, by name.
    pub secrets: BTreeMap<String, String>,
    /// Digests of the files of the workspace that the steps read, by path.
    pub files: BTreeMap<String, String>,
    /// Values of the spec's own `key` expressions.
    pub own: Vec<Value>,
}

/// What a key says of a service.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OfService {
    /// Its evaluated definition, without what the image's id says better.
    pub definition: Value,
    /// Id of its image.
    pub image: Option<String>,
    /// Digests of the files that it mounts or reads, by path.
    pub files: BTreeMap<String, String>,
}

impl Ingredients {
    /// Returns the key: 64 hexadecimal digits.
    pub fn key(&self) -> String {
        let all = json!({ "format": FORMAT, "of": self });
        hex::encode(Sha256::digest(canonical_json(&all)))
    }
}

/// Returns a service's definition for the key. `digest` is given each text in it, and returns another text for secrets.
pub fn definition(config: &ServiceConfig, digest: &dyn Fn(&str) -> Option<String>) -> Value {
    let mut value = without_places(json!(config));
    if let Value::Object(fields) = &mut value {
        // A tag may name another image tomorrow, and another tag the same one: the id decides.
        for field in ["image", "build", "pull_policy"] {
            fields.remove(field);
        }
    }
    replaced(value, digest)
}

fn replaced(value: Value, digest: &dyn Fn(&str) -> Option<String>) -> Value {
    match value {
        Value::String(text) => match digest(&text) {
            Some(digest) => json!({ "secret": digest }),
            None => Value::String(text),
        },
        Value::Array(items) => items
            .into_iter()
            .map(|item| replaced(item, digest))
            .collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (name, replaced(value, digest)))
            .collect(),
        other => other,
    }
}

/// Returns the steps of a group, with the defines and sessions that they use, without places in the spec's files.
pub fn steps(spec: &Spec, group: &Step, reads: &Reads) -> Value {
    let mut own = group.clone();
    // They say when a snapshot is used, and not what it holds.
    own.snapshot = None;
    own.verifies = None;
    let defines = spec.define.iter().filter(|define| match &define.body {
        DefineBody::Steps { .. } => reads.defines.contains(&define.name.text),
        DefineBody::Value(_) => reads.functions.contains(&define.name.text),
    });
    let sessions = spec.sessions.iter();
    let sessions = sessions.filter(|session| reads.sessions.contains_key(&session.name.text));
    let all = json!({
        "group": own,
        "defines": defines.collect::<Vec<_>>(),
        "sessions": sessions.collect::<Vec<_>>(),
        "default_session": spec.default_session,
    });
    without_places(all)
}

/// Returns the values that are read of a context: those of the names, or all if a name is computed.
pub fn read_of(reads: &Reads, context: &str, values: &Map<String, Value>) -> Option<Value> {
    let any = reads.references.iter().any(|read| read.root == context);
    any.then(|| match reads.names(context) {
        Some(names) => names
            .into_iter()
            .map(|name| {
                (
                    name.to_owned(),
                    values.get(name).cloned().unwrap_or_default(),
                )
            })
            .collect(),
        None => Value::Object(values.clone()),
    })
}

/// Removes the places from a part of a spec. Only its own types have a field `span`: names that a user chooses are values.
pub fn without_places(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(without_places).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(name, value)| !(name == "span" && is_place(value)))
            .map(|(name, value)| (name, without_places(value)))
            .collect(),
        other => other,
    }
}

/// A place is serialised as its five numbers.
fn is_place(value: &Value) -> bool {
    let numbers = value.as_array().filter(|numbers| numbers.len() == 5);
    numbers.is_some_and(|numbers| numbers.iter().all(Value::is_u64))
}

/// The services of a spec as the key sees them: name, dependencies, and whether only a step starts it.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Names of the services on which it depends.
    pub needs: BTreeSet<String>,
    /// Whether it is `start: manual`.
    pub manual: bool,
}

/// Returns the services that decide what the files of the named ones hold: they, those that the steps use, those that
/// start by themselves and depend on a named one, and all that any of them needs.
pub fn related(
    services: &BTreeMap<String, Node>,
    named: &BTreeSet<String>,
    used: &BTreeSet<String>,
) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = named.union(used).cloned().collect();
    loop {
        let before = found.len();
        for (name, node) in services {
            let writes = !node.manual && node.needs.iter().any(|on| named.contains(on));
            let through = !node.manual
                && node
                    .needs
                    .iter()
                    .any(|on| found.contains(on) && depends_on_named(services, on, named));
            if writes || through {
                found.insert(name.clone());
            }
        }
        let needed: Vec<String> = found
            .iter()
            .filter_map(|name| services.get(name))
            .flat_map(|node| node.needs.iter().cloned())
            .collect();
        found.extend(needed);
        if found.len() == before {
            break;
        }
    }
    found.retain(|name| services.contains_key(name));
    found
}

fn depends_on_named(
    services: &BTreeMap<String, Node>,
    name: &str,
    named: &BTreeSet<String>,
) -> bool {
    let mut next = vec![name];
    let mut seen = BTreeSet::new();
    while let Some(name) = next.pop() {
        if named.contains(name) {
            return true;
        }
        if seen.insert(name)
            && let Some(node) = services.get(name)
        {
            next.extend(node.needs.iter().map(String::as_str));
        }
    }
    false
}

/// Returns why a service's files can't be saved, of what is known only after its definition was evaluated.
pub fn unfit(config: &ServiceConfig) -> Option<String> {
    let name = &config.name;
    if config.process.is_some() {
        return Some(format!("service {name} is a process"));
    }
    if config.replicas.is_some_and(|count| count > 1) {
        return Some(format!("service {name} has several replicas"));
    }
    if config.volumes.iter().any(|mount| mount.subpath.is_some()) {
        return Some(format!("service {name} mounts a part of a volume"));
    }
    let memory = config
        .tmpfs
        .iter()
        .map(|line| line.split(':').next().unwrap_or_default())
        .chain(
            config
                .volumes
                .iter()
                .filter(|mount| mount.kind == MountKind::Tmpfs)
                .map(|mount| mount.target.as_str()),
        )
        .find(|target| !is_fleeting(target));
    if let Some(target) = memory {
        return Some(format!("service {name} keeps {target} in memory"));
    }
    let written = config
        .volumes
        .iter()
        .find(|mount| matches!(mount.kind, MountKind::Bind(_)) && !mount.read_only);
    written.map(|mount| {
        format!(
            "service {name} may write to {}, which is a directory of the machine: mount it read-only, or use a volume",
            mount.target
        )
    })
}

fn is_fleeting(target: &str) -> bool {
    ["/tmp", "/run", "/var/run", "/dev/shm"]
        .iter()
        .any(|place| {
            target
                .strip_prefix(place)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
}
