//! The layers above the defaults, merged by the `config` crate. This module reads the files; the environment comes in
//! as values.

use super::ALL;
use super::error::{SettingError, nearest};
use config::{Config, ConfigError, Environment, File, FileFormat, Map, Source, Value, ValueKind};
use std::path::{Path, PathBuf};

/// The machine's settings file.
const SYSTEM_FILE: &str = "/etc/phalanx/config.toml";
/// Name of the project's settings file.
const PROJECT_FILE: &str = "phalanx.toml";

/// The user's settings file, in `$XDG_CONFIG_HOME` or `~/.config`.
const USER_FILE: &str = "phalanx/config.toml";

/// Settings that a project's file may give. The list excludes everything that says where work, secrets and state go,
/// what is executed, which networks are used and which runs are removed. Otherwise the author of a repository could
/// redirect everyone who runs its tests.
pub(super) const OF_A_PROJECT: [&str; 26] = [
    "agents",
    "agents_as_processes",
    "slots",
    "cpu_overcommit",
    "memory_overcommit",
    "max_cells",
    "keep.ttl_s",
    "cancel_grace_s",
    "lease.time_s",
    "lease.heartbeat_ms",
    "lease.margin_s",
    "lease.reset_grace_s",
    "lease.accept_within_s",
    "docker.ready_networks",
    "docker.concurrent_starts",
    "docker.reconnect_s",
    "docker.pull_timeout_s",
    "docker.pull_tries",
    "docker.builder",
    "docker.build_timeout_s",
    "docker.prefetch",
    "docker.close_timeout_s",
    "color",
    "coverage_axis",
    "log.filter",
    "log.format",
];

/// The sources of settings.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// Files of the machine and the user; later ones override earlier ones, and missing files are skipped.
    pub files: Vec<PathBuf>,
    /// The project's file. It comes with a checkout, so it may give only the settings in [`OF_A_PROJECT`].
    pub project: Option<PathBuf>,
    /// The environment variables.
    pub variables: Vec<(String, String)>,
    /// Flags of this call.
    pub flags: Vec<Flag>,
}

/// A setting given by a flag.
#[derive(Clone, Debug, PartialEq)]
pub struct Flag {
    /// The setting's key.
    pub key: &'static str,
    /// The flag as written: `--slots`.
    pub name: &'static str,
    /// The value as text.
    pub value: String,
}

impl Layers {
    /// Returns the layers of a call in a directory.
    pub fn of_call(directory: &Path, flags: Vec<Flag>) -> Layers {
        let project = directory
            .ancestors()
            .map(|up| up.join(PROJECT_FILE))
            .find(|file| file.is_file());
        let variables = std::env::vars_os();
        Layers {
            files: [PathBuf::from(SYSTEM_FILE)]
                .into_iter()
                .chain(user_file())
                .collect(),
            project,
            variables: variables
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
            flags,
        }
    }
}

/// Returns every given value: key, value and origin. Adds what can't be read to `errors`.
pub(super) fn merged(
    layers: &Layers,
    errors: &mut Vec<SettingError>,
) -> Vec<(String, Value, String)> {
    let mut builder = Config::builder();
    let files = layers.files.iter().map(|file| (file, false));
    let project = layers.project.iter().map(|file| (file, true));
    for (file, of_project) in files.chain(project).filter(|(file, _)| file.exists()) {
        // Read each file alone first, so that a broken one doesn't hide errors in the others.
        let source = File::from(file.as_path()).format(FileFormat::Toml);
        match source.collect() {
            Ok(table) => {
                if of_project {
                    errors.extend(refused(table));
                }
                builder = builder.add_source(source);
            }
            Err(error) => errors.push(SettingError::Unreadable(error_text(&error))),
        }
    }
    let environment = Environment::with_prefix("PHALANX")
        .prefix_separator("_")
        .separator("__")
        .source(Some(known_variables(&layers.variables, errors)));
    let built = builder
        .add_source(environment)
        .add_source(Flags(layers.flags.clone()))
        .build();
    match built {
        Ok(config) => {
            let mut values = Vec::new();
            flatten(String::new(), config.cache, &mut values);
            values
        }
        Err(error) => {
            errors.push(SettingError::Unreadable(error_text(&error)));
            Vec::new()
        }
    }
}

/// Returns the path of the user's settings file.
fn user_file() -> Option<PathBuf> {
    let absolute = |name: &str| {
        let path = PathBuf::from(std::env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    let directory = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
    Some(directory?.join(USER_FILE))
}

/// Returns an error for each setting that a project's file may not give.
fn refused(table: Map<String, Value>) -> impl Iterator<Item = SettingError> {
    let mut values = Vec::new();
    flatten(
        String::new(),
        Value::new(None, ValueKind::Table(table)),
        &mut values,
    );
    values.into_iter().filter_map(|(key, _, origin)| {
        let setting = ALL.iter().find(|setting| setting.key() == key)?;
        (!OF_A_PROJECT.contains(&setting.key())).then(|| SettingError::NotOfAProject {
            variable: setting.variable(),
            key,
            origin,
        })
    })
}

/// Returns the variables that give a setting. Other `PHALANX_*` variables are ignored, because agents and tests have
/// their own. But a name that is similar to a setting's variable is reported as a typo.
fn known_variables(
    variables: &[(String, String)],
    errors: &mut Vec<SettingError>,
) -> Map<String, String> {
    let mut known = Map::new();
    for (name, value) in variables {
        let Some(rest) = name.strip_prefix("PHALANX_") else {
            continue;
        };
        let key = rest.replace("__", ".").to_lowercase();
        if ALL.iter().any(|setting| setting.key() == key) {
            known.insert(name.clone(), value.clone());
        } else if let Some(suggestion) = nearest(&key) {
            let variable = ALL.iter().find(|setting| setting.key() == suggestion);
            errors.push(SettingError::Unknown {
                key,
                origin: name.clone(),
                suggestion: variable.map(|setting| setting.variable()),
            });
        }
    }
    known
}

fn flatten(prefix: String, value: Value, into: &mut Vec<(String, Value, String)>) {
    let origin = value.origin().unwrap_or_default().to_owned();
    match value.kind {
        ValueKind::Table(table) => {
            let mut entries: Vec<_> = table.into_iter().collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            for (key, value) in entries {
                let key = if prefix.is_empty() {
                    key
                } else {
                    format!("{prefix}.{key}")
                };
                flatten(key, value, into);
            }
        }
        ValueKind::Nil => {}
        _ => {
            let setting = ALL.iter().find(|setting| setting.key() == prefix);
            let origin = match setting {
                Some(setting) if origin == "the environment" => setting.variable(),
                _ => origin,
            };
            into.push((prefix, value, origin));
        }
    }
}

fn error_text(error: &ConfigError) -> String {
    error.to_string().replace('\n', " ").trim().to_owned()
}

/// Flags as a source of the `config` crate, so that each value knows its flag.
#[derive(Clone, Debug)]
struct Flags(Vec<Flag>);

impl Source for Flags {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        let values = self.0.iter().map(|flag| {
            let origin = flag.name.to_owned();
            (
                flag.key.to_owned(),
                Value::new(Some(&origin), flag.value.clone()),
            )
        });
        Ok(values.collect())
    }
}
