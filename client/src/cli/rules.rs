//! The rules that the settings name: what holds for runs of this machine, for its agents, and for a coordinator's agents.

use super::error::CliError;
use crate::config::Settings;
use crate::config::fleet::POLICY;
use crate::config::server::AGENT_POLICY;
use phalanx_agent::policy::load::{self, Said};
use phalanx_shared::policy::Rules;
use phalanx_shared::policy::rules::OPEN;
use std::path::{Path, PathBuf};

/// Returns the file of the setting `policy`.
pub fn file(settings: &Settings) -> Option<PathBuf> {
    let file = settings.get(&POLICY);
    (!file.is_empty()).then(|| PathBuf::from(file))
}

/// Returns the rules by which a coordinator narrows what its agents allow.
pub fn of_agents(settings: &Settings) -> Result<Option<Rules>, CliError> {
    let file = settings.get(&AGENT_POLICY);
    if file.is_empty() {
        return Ok(None);
    }
    let rules = load::narrowing(Path::new(&file));
    rules
        .map(Some)
        .map_err(|error| CliError::usage(error.to_string()))
}

/// Returns what specs may do in runs of this machine: everything that its policy files don't refuse.
pub fn of_this_machine(settings: &Settings) -> Result<Rules, CliError> {
    let said = Said {
        file: file(settings),
        ..Said::default()
    };
    load::rules(Rules::open(OPEN), &said).map_err(|error| CliError::usage(error.to_string()))
}
