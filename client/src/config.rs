//! Settings: how `phalanx` behaves on this machine, in this project and for this call. A spec defines what a *run*
//! does.
//!
//! Each layer overrides the one before: defaults, `/etc/phalanx/config.toml`, the user's
//! `~/.config/phalanx/config.toml`, the project's `phalanx.toml` (the nearest one upwards from the current directory;
//! some settings only), `PHALANX_*` variables (`keep.ttl_s` is `PHALANX_KEEP__TTL_S`), flags. Each value knows its
//! origin. An unknown key is an error with a suggestion. All errors are reported at once.
//!
//! Each setting is defined in the file of its subject, with its doc, unit and default: [`docker`], [`fleet`],
//! [`output`], [`place`], [`server`], [`stack`]. Read a value with `settings.get(&fleet::SLOTS)`.

pub mod docker;
mod error;
pub mod fleet;
mod layers;
mod limits;
pub mod output;
pub mod place;
pub mod server;
mod setting;
pub mod stack;

pub use error::{SettingError, SettingErrors};
pub use layers::{Flag, Layers};
pub use limits::LabelLimits;
pub use setting::{AnySetting, Choice, Machine, Setting, SettingType};

use std::collections::BTreeMap;

/// All settings, in the order in which `phalanx config` shows them.
pub const ALL: &[&dyn AnySetting] = &[
    &place::STATE_DIR,
    &server::COORDINATOR,
    &server::NAMESPACE,
    &server::CA,
    &server::LISTEN,
    &server::HTTP,
    &server::PAGES,
    &server::DATABASE,
    &server::TAKEOVER_S,
    &server::ACCESS,
    &server::TLS_LOOPBACK,
    &server::TLS_CLUSTER,
    &server::TLS_NAMES,
    &server::TLS_CERT,
    &server::TLS_KEY,
    &server::TLS_CLIENT_CA,
    &server::TLS_AGENT_S,
    &server::SECRETS_DIR,
    &server::RECONNECT_WITHIN_S,
    &server::CANCEL_GRACE_S,
    &server::LEASE_S,
    &server::HEARTBEAT_MS,
    &server::LEASE_MARGIN_S,
    &server::RESET_GRACE_S,
    &server::ACCEPT_WITHIN_S,
    &server::ATTEMPT_MARGIN_S,
    &server::AGENT_EVENTS_MIB,
    &server::SUBMISSIONS_MIB,
    &server::LABEL_LIMITS,
    &server::POOLS,
    &server::AGENT_POLICY,
    &server::LOG_ATTEMPT_MIB,
    &server::ARTIFACT_FILE_MIB,
    &server::ARTIFACT_ATTEMPT_MIB,
    &server::ARTIFACT_RUN_MIB,
    &server::LOG_AGENT_MIB,
    &server::LOG_RESERVE_MIB,
    &fleet::AGENTS,
    &fleet::AGENTS_AS_PROCESSES,
    &fleet::SLOTS,
    &fleet::CPU_OVERCOMMIT,
    &fleet::MEMORY_OVERCOMMIT,
    &fleet::SNAPSHOTS_MIB,
    &fleet::SNAPSHOTS_DAYS,
    &fleet::POLICY,
    &server::MAX_CELLS,
    &stack::KEEP_TTL_S,
    &server::KEEP_RUNS_DAYS,
    &docker::HOST,
    &docker::CONFIG_DIR,
    &docker::REACH,
    &docker::SUBNETS,
    &docker::SUBNET_PREFIX,
    &docker::SUBNETS_V6,
    &docker::READY_NETWORKS,
    &docker::CONCURRENT_STARTS,
    &docker::RECONNECT_S,
    &docker::PULL_TIMEOUT_S,
    &docker::PULL_TRIES,
    &docker::BUILDER,
    &docker::BUILD_TIMEOUT_S,
    &docker::PREFETCH,
    &docker::CLOSE_TIMEOUT_S,
    &docker::ENGINE_LOG_MIB,
    &output::COLOR,
    &output::COVERAGE_AXIS,
    &output::LOG_FILTER,
    &output::LOG_FORMAT,
];

/// Checked values of all settings.
#[derive(Clone, Debug)]
pub struct Settings {
    machine: Machine,
    values: BTreeMap<&'static str, Given>,
}

/// A value that a layer gave.
#[derive(Clone, Debug)]
struct Given {
    value: config::Value,
    origin: String,
}

/// One line of `phalanx config`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Shown {
    /// The setting's key.
    pub key: &'static str,
    /// Its value as text.
    pub value: String,
    /// Unit of the value; empty if it has none.
    pub unit: &'static str,
    /// Where the value came from.
    pub origin: String,
    /// What the setting does.
    pub doc: &'static str,
}

impl Settings {
    /// Merges and checks the layers.
    pub fn load(layers: &Layers, machine: Machine) -> Result<Settings, SettingErrors> {
        let mut errors = Vec::new();
        let mut values = BTreeMap::new();
        for (key, value, origin) in layers::merged(layers, &mut errors) {
            let Some(setting) = ALL.iter().find(|setting| setting.key() == key) else {
                errors.push(SettingError::unknown(&key, &origin));
                continue;
            };
            match setting.check(&value) {
                Ok(()) => {
                    values.insert(setting.key(), Given { value, origin });
                }
                Err(expected) => errors.push(SettingError::Invalid {
                    key,
                    origin,
                    found: value.to_string(),
                    expected,
                }),
            }
        }
        if errors.is_empty() {
            Ok(Settings { machine, values })
        } else {
            Err(SettingErrors(errors))
        }
    }

    /// Returns the value of a setting.
    pub fn get<T: SettingType>(&self, setting: &Setting<T>) -> T {
        let given = self.values.get(setting.key);
        given
            .and_then(|given| T::parse(&given.value).ok())
            .unwrap_or_else(|| (setting.default)(&self.machine))
    }

    /// Whether some layer gave the setting.
    pub fn is_given<T: SettingType>(&self, setting: &Setting<T>) -> bool {
        self.values.contains_key(setting.key)
    }

    /// Returns every setting with its value and origin.
    pub fn shown(&self) -> Vec<Shown> {
        let shown = ALL.iter().map(|setting| {
            let given = self.values.get(setting.key());
            Shown {
                key: setting.key(),
                value: setting.show(given.map(|given| &given.value), &self.machine),
                unit: setting.unit(),
                origin: given.map_or_else(|| "default".to_owned(), |given| given.origin.clone()),
                doc: setting.doc(),
            }
        });
        shown.collect()
    }
}

#[cfg(test)]
mod tests;
