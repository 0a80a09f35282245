//! Values of secrets for a run. Only those that its spec names go into the submission, and they go nowhere else.

use super::error::CliError;
use super::follow::{Input, watch};
use crate::credential::Client;
use phalanx_coordinator::serve::api::SECRETS as ORIGIN;
use phalanx_shared::error_code::ErrorCode;
use phalanx_shared::event::EventKind;
use phalanx_shared::expr::suggestion;
use phalanx_shared::id::RunId;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Prefix of variables that give secrets without a flag: `PHALANX_SECRET_license_key` is the spec's `license_key`.
pub(super) const PREFIX: &str = "PHALANX_SECRET_";
/// Maximum size of a secret. Limits how much is read from a mistyped path.
const MAX_BYTES: u64 = 1 << 20;

/// Sources of secrets.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct SecretArgs {
    /// Set a secret from an environment variable [default: the one with the secret's name]
    #[arg(long, value_name = "NAME[=VARIABLE]", help_heading = "Secrets")]
    secret_env: Vec<String>,
    /// Set a secret from a file, without a line break at its end
    #[arg(long, value_name = "NAME=FILE", value_hint = clap::ValueHint::FilePath, help_heading = "Secrets")]
    secret_file: Vec<String>,
}

impl SecretArgs {
    /// Reads the values that the flags give, by name. Messages contain names of secrets, never values.
    pub fn read(&self) -> Result<Given, CliError> {
        let mut given = BTreeMap::new();
        for text in &self.secret_env {
            let (name, variable) = text.split_once('=').unwrap_or((text, text));
            let value = std::env::var(variable).map_err(|_| {
                CliError::usage(format!(
                    "secret `{name}`: the variable {variable} isn't set, or isn't UTF-8"
                ))
            })?;
            given.insert(name.to_owned(), ("--secret-env", value));
        }
        for text in &self.secret_file {
            let Some((name, file)) = text.split_once('=') else {
                return Err(CliError::usage(format!(
                    "--secret-file {text}: write NAME=FILE"
                )));
            };
            let value = read_file(name, Path::new(file))?;
            given.insert(name.to_owned(), ("--secret-file", value));
        }
        Ok(Given(given))
    }
}

/// The values that flags give, each with its flag.
pub struct Given(BTreeMap<String, (&'static str, String)>);

impl std::fmt::Debug for Given {
    /// Prints only the names.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Given {
    /// Returns the values of a spec's secrets: from flags, else from `PHALANX_SECRET_*` variables. Nothing else goes
    /// into a submission. Returns an error for a flag that names no secret of the spec, and for a value that can't be
    /// masked.
    pub fn of_spec(self, declared: &[String]) -> Result<BTreeMap<String, String>, CliError> {
        let known = || declared.iter().map(String::as_str);
        let mut secrets = BTreeMap::new();
        for (name, (flag, value)) in self.0 {
            if !declared.contains(&name) {
                let help = suggestion(&name, known(), "its secrets")
                    .unwrap_or_else(|| format!("it declares none; write `secrets: [{name}]`"));
                let message = format!("{flag} {name}: the spec declares no secret `{name}`");
                return Err(CliError::usage(message)
                    .with_help(help)
                    .explained_by(ErrorCode::Secret));
            }
            secrets.insert(name, value);
        }
        for name in declared {
            if secrets.contains_key(name) {
                continue;
            }
            let variable = format!("{PREFIX}{name}");
            match std::env::var(&variable) {
                Ok(value) => {
                    secrets.insert(name.clone(), value);
                }
                Err(std::env::VarError::NotPresent) => {}
                Err(std::env::VarError::NotUnicode(_)) => {
                    let message = format!("secret `{name}`: the variable {variable} isn't UTF-8");
                    return Err(CliError::usage(message));
                }
            }
        }
        maskable(&secrets)?;
        Ok(secrets)
    }

    /// Returns what the flags give, for a run of an earlier version whose journal doesn't name the spec's secrets. The
    /// coordinator knows the spec and keeps only what it names.
    pub fn of_any_spec(self) -> Result<BTreeMap<String, String>, CliError> {
        let secrets = self.0.into_iter().map(|(name, (_, value))| (name, value));
        let secrets = secrets.collect();
        maskable(&secrets)?;
        Ok(secrets)
    }
}

fn maskable(secrets: &BTreeMap<String, String>) -> Result<(), CliError> {
    for (name, value) in secrets {
        phalanx_shared::mask::check(value).map_err(|why| {
            CliError::usage(format!("secret `{name}`: {why}")).explained_by(ErrorCode::Secret)
        })?;
    }
    Ok(())
}

/// Returns an error if one of a spec's secrets has no value: a local run has no other source.
pub fn demand(declared: &[String], given: &BTreeMap<String, String>) -> Result<(), CliError> {
    let missing = declared.iter().filter(|name| !given.contains_key(*name));
    match missing_text(missing.map(String::as_str)) {
        Some((message, help)) => Err(CliError::usage(message)
            .with_help(help)
            .explained_by(ErrorCode::Secret)),
        None => Ok(()),
    }
}

/// Describes secrets without a value, and how to give one.
pub fn missing_text<'n>(missing: impl Iterator<Item = &'n str>) -> Option<(String, String)> {
    let names: Vec<&str> = missing.collect();
    let first = *names.first()?;
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    let message = match quoted.as_slice() {
        [one] => format!("the secret {one} has no value"),
        all => format!("the secrets {} have no value", all.join(", ")),
    };
    let help = format!(
        "give it with --secret-env {first} or {first}=VARIABLE, --secret-file {first}=FILE, or the variable {PREFIX}{first}"
    );
    Some((message, help))
}

/// Returns the names of the secrets of a run's spec, or `None` if the journal has none because an earlier version wrote
/// it.
pub async fn of_run(client: Client, run: RunId) -> Result<Option<Vec<String>>, CliError> {
    let mut inputs = watch(client, run, 1, false);
    while let Some(input) = inputs.recv().await {
        match input {
            Input::Event(recorded) => {
                let EventKind::RunSubmitted { origin, .. } = recorded.event.kind else {
                    return Ok(None);
                };
                let names = origin.get(ORIGIN).and_then(Value::as_array);
                let names = names.map(|names| names.iter().filter_map(Value::as_str));
                return Ok(names.map(|names| names.map(str::to_owned).collect()));
            }
            Input::Ended(Some(error)) => return Err(error),
            Input::Ended(None) => break,
            Input::Broken(_) | Input::Interrupt(_) => {}
        }
    }
    Ok(None)
}

pub(super) fn read_file(name: &str, file: &Path) -> Result<String, CliError> {
    use std::io::Read;
    let fail = |why: String| {
        CliError::usage(format!(
            "secret `{name}`: can't read {}: {why}",
            file.display()
        ))
    };
    let metadata = std::fs::metadata(file).map_err(|error| fail(error.to_string()))?;
    if metadata.is_dir() {
        return Err(fail("it is a directory".to_owned()));
    }
    // A pipe (`<(pass show …)`) is allowed: it is read to its end.
    let opened = std::fs::File::open(file).map_err(|error| fail(error.to_string()))?;
    let mut text = String::new();
    let read = opened.take(MAX_BYTES + 1).read_to_string(&mut text);
    let read = read.map_err(|_| fail("it isn't UTF-8 text".to_owned()))?;
    if read as u64 > MAX_BYTES {
        return Err(fail("it is longer than 1 MiB".to_owned()));
    }
    let end = text.strip_suffix('\n').map_or(text.len(), |rest| {
        rest.strip_suffix('\r').unwrap_or(rest).len()
    });
    text.truncate(end);
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_gives_a_secret_without_its_last_line_break() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        std::fs::write(&file, "abc\ndef-more\r\n").unwrap();
        let args = SecretArgs {
            secret_file: vec![format!("license_key={}", file.display())],
            ..SecretArgs::default()
        };
        let secrets = args.read().unwrap().of_spec(&["license_key".to_owned()]);
        assert_eq!(secrets.unwrap()["license_key"], "abc\ndef-more");
    }

    #[test]
    fn a_missing_source_is_named_but_no_value() {
        let args = SecretArgs {
            secret_env: vec!["token=PHALANX_TEST_NO_SUCH_VARIABLE".to_owned()],
            ..SecretArgs::default()
        };
        let message = args.read().unwrap_err().message;
        assert!(
            message.contains("`token`") && message.contains("PHALANX_TEST_NO_SUCH_VARIABLE"),
            "{message}"
        );
    }

    fn given(name: &str, value: &str) -> Given {
        let flag = ("--secret-env", value.to_owned());
        Given([(name.to_owned(), flag)].into())
    }

    #[test]
    fn what_the_spec_does_not_name_or_masks_cannot_find_is_refused_without_its_value() {
        let declared = ["api_key".to_owned()];
        let error = given("api_kye", "long enough")
            .of_spec(&declared)
            .unwrap_err();
        assert!(error.message.contains("`api_kye`"), "{error}");
        assert_eq!(error.help.as_deref(), Some("did you mean `api_key`?"));
        let error = given("api_key", "sh0rt").of_spec(&declared).unwrap_err();
        assert!(
            error.message.contains("`api_key`") && !error.message.contains("sh0rt"),
            "{error}"
        );
        let error = given("x", "long enough").of_spec(&[]).unwrap_err();
        assert!(error.help.unwrap().contains("secrets: [x]"));
    }

    #[test]
    fn every_secret_without_a_value_is_named() {
        let declared = ["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let error = demand(&declared, &[("b".to_owned(), String::new())].into()).unwrap_err();
        assert_eq!(error.message, "the secrets `a`, `c` have no value");
        assert!(error.help.unwrap().contains("--secret-file a=FILE"));
        assert!(demand(&declared[1..2], &[("b".to_owned(), String::new())].into()).is_ok());
    }
}
