//! The key of a snapshot: a digest of everything that the files after the group depend on. Pure.

use phalanx_shared::expr::canonical_json;
use phalanx_shared::language::service::{MountKind, ServiceConfig};
use phalanx_shared::language::snapshot::without_places;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

pub use phalanx_shared::language::snapshot::{Node, read_of, related, steps};

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
