//! Reads an agent's policy: the machine's file, then the file that the agent is given, then its flags. Each overrides what
//! the earlier ones say of the rules that it names.

use phalanx_shared::policy::file::{self, Flaw, MAX_BYTES};
use phalanx_shared::policy::{Allow, Rule, Rules};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// The machine's policy file.
pub const MACHINE_FILE: &str = "/etc/phalanx/policy.toml";
/// The flag that allows more.
const ALLOW: &str = "--allow";
/// The flag that refuses host commands.
const NO_HOST_COMMANDS: &str = "--no-host-commands";

/// Where a policy is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The file that the agent is given; it must exist.
    pub file: Option<PathBuf>,
    /// Values of `--allow`.
    pub allow: Vec<String>,
    /// Whether commands on the host are refused whatever files say.
    pub no_host_commands: bool,
}

/// Why a policy can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A file can't be read.
    #[error("the policy file {}: {error}; correct the path, or let the agent read it", path.display())]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// The system's error.
        error: std::io::Error,
    },
    /// Files or flags have errors.
    #[error("{}", lines(.0))]
    Wrong(Vec<Flaw>),
}

fn lines(flaws: &[Flaw]) -> String {
    let lines: Vec<String> = flaws.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// Returns the rules in force over those that hold by default.
pub fn rules(default: Rules, said: &Said) -> Result<Rules, PolicyError> {
    rules_of(default, Path::new(MACHINE_FILE), said)
}

/// Returns the rules by which a coordinator narrows what its agents allow: what the file doesn't name stays as it is.
pub fn narrowing(path: &Path) -> Result<Rules, PolicyError> {
    let text = read(path).map_err(|error| {
        let path = path.to_owned();
        PolicyError::Unreadable { path, error }
    })?;
    let name = format!("the coordinator's {}", path.display());
    let mut rules = Rules::open(&name);
    file::parse(&name, &text)
        .map_err(PolicyError::Wrong)?
        .apply(&mut rules);
    Ok(rules)
}

fn rules_of(default: Rules, machine: &Path, said: &Said) -> Result<Rules, PolicyError> {
    let mut rules = default;
    let given = said.file.iter().map(|path| (path.as_path(), true));
    for (path, required) in std::iter::once((machine, false)).chain(given) {
        let text = match read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound && !required => continue,
            Err(error) => {
                let path = path.to_owned();
                return Err(PolicyError::Unreadable { path, error });
            }
        };
        let layer = file::parse(&path.display().to_string(), &text);
        layer.map_err(PolicyError::Wrong)?.apply(&mut rules);
    }
    for text in &said.allow {
        file::add(&mut rules, ALLOW, text).map_err(|flaw| PolicyError::Wrong(vec![flaw]))?;
    }
    if said.no_host_commands {
        rules.set(Rule::Run, Allow::NOTHING, NO_HOST_COMMANDS);
    }
    Ok(rules)
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    // One byte more than is allowed, so that the parser reports a longer file.
    let most = MAX_BYTES as u64 + 1;
    File::open(path)?.take(most).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use phalanx_shared::policy::Need;
    use phalanx_shared::policy::rules::CLOSED;

    #[test]
    fn later_layers_override_the_rules_that_they_name() {
        let dir = tempfile::tempdir().unwrap();
        let (machine, own) = (dir.path().join("machine.toml"), dir.path().join("own.toml"));
        std::fs::write(&machine, "run = true\nprivileged = true\n").unwrap();
        std::fs::write(&own, "privileged = false\n").unwrap();
        let mut said = Said {
            file: Some(own.clone()),
            ..Said::default()
        };
        let load = |said: &Said| rules_of(Rules::closed(CLOSED), &machine, said);
        let rules = load(&said).unwrap();
        assert_eq!(rules.refuses(&Need::run()), None);
        let refusal = rules.refuses(&Need::new(Rule::Privileged, "")).unwrap();
        assert_eq!(refusal.origin, format!("{}:1", own.display()));
        said.allow.push("privileged".to_owned());
        said.no_host_commands = true;
        let rules = load(&said).unwrap();
        assert_eq!(rules.refuses(&Need::new(Rule::Privileged, "")), None);
        assert_eq!(
            rules.refuses(&Need::run()).unwrap().origin,
            NO_HOST_COMMANDS
        );
        std::fs::write(&own, "runn = true\n").unwrap();
        let error = load(&said).unwrap_err().to_string();
        assert!(
            error.contains("own.toml:1: there is no rule `runn`"),
            "{error}"
        );
        std::fs::remove_file(&own).unwrap();
        assert!(matches!(load(&said), Err(PolicyError::Unreadable { .. })));
        std::fs::remove_file(&machine).unwrap();
        assert!(load(&Said::default()).is_ok());
    }
}
