//! Builds the environment of a service: the variables of its `env_file` files, overridden by its own `environment`.
//!
//! [`phalanx_shared::language::env_file`] defines the syntax of the files. No message contains text from a file, since the
//! file may belong to the host.

use super::blocking::blocking;
use super::contract::{Fault, RuntimeError};
use crate::policy::Policy;
use indexmap::IndexMap;
use phalanx_shared::language::env_file;
use phalanx_shared::language::service::{EnvFile, ServiceConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Returns the service's environment: the variables of its files in order, overridden by its own. A value of `None`
/// removes the variable. Paths are relative to `base`.
pub async fn environment(
    config: &ServiceConfig,
    base: Option<&Path>,
    policy: &Arc<Policy>,
) -> Result<IndexMap<String, Option<String>>, RuntimeError> {
    let read = read(config, base, policy).await?;
    let mut merged: IndexMap<_, _> = read
        .set
        .into_iter()
        .map(|(name, value)| (name, Some(value)))
        .collect();
    merged.extend(config.environment.clone());
    Ok(merged)
}

/// Returns notes about the service's files: variables that have no value anywhere.
pub async fn notes(
    config: &ServiceConfig,
    base: Option<&Path>,
    policy: &Arc<Policy>,
) -> Vec<String> {
    // If a file can't be read, creating the service returns the error.
    let read = read(config, base, policy).await.unwrap_or_default();
    read.notes
}

/// The variables and notes from a service's files.
#[derive(Default)]
struct FromFiles {
    set: IndexMap<String, String>,
    notes: Vec<String>,
}

async fn read(
    config: &ServiceConfig,
    base: Option<&Path>,
    policy: &Arc<Policy>,
) -> Result<FromFiles, RuntimeError> {
    let mut found = FromFiles::default();
    for file in &config.env_file {
        let Some(text) = text_of(config, file, base, policy).await? else {
            continue;
        };
        let earlier = |name: &str| {
            let value = found.set.get(name)?;
            Some(phalanx_shared::language::interpolation::Value::text(value))
        };
        let parsed = match file.raw {
            true => env_file::parse_raw(&text, &earlier),
            false => env_file::parse(&text, &earlier),
        };
        let parsed = parsed.map_err(|flaw| failed(config, file, &flaw.to_string()))?;
        for (lines, what) in [
            (&parsed.bare, "a name without a value is left out"),
            (&parsed.unset, "a variable that isn't set is empty"),
        ] {
            if !lines.is_empty() {
                let lines: Vec<String> = lines.iter().take(10).map(usize::to_string).collect();
                found.notes.push(format!(
                    "service {}: env_file {}:{}: {what}; the machine's environment is not read",
                    config.name,
                    file.path,
                    lines.join(", ")
                ));
            }
        }
        found.set.extend(parsed.texts());
    }
    Ok(found)
}

/// Returns the content of the file, or `None` if the file doesn't exist and isn't required. A relative path is resolved
/// below `base` and can't lead out of it.
async fn text_of(
    config: &ServiceConfig,
    file: &EnvFile,
    base: Option<&Path>,
    policy: &Arc<Policy>,
) -> Result<Option<String>, RuntimeError> {
    let (base, path) = (base.map(Path::to_owned), PathBuf::from(&file.path));
    let (most, policy) = (env_file::MAX_BYTES as u64, Arc::clone(policy));
    let read = blocking(move || policy.read(base.as_deref(), &path, most));
    let bytes = match read.await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !file.required => {
            return Ok(None);
        }
        read => read.map_err(|error| failed(config, file, &format!("can't read it: {error}")))?,
    };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(failed(config, file, "it is not UTF-8")),
    }
}

fn failed(config: &ServiceConfig, file: &EnvFile, why: &str) -> RuntimeError {
    let why = format!("env_file {}: {why}", file.path);
    RuntimeError::of(&config.name, Fault::Path, why)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file(path: &str, required: bool) -> EnvFile {
        EnvFile {
            path: path.to_owned(),
            required,
            raw: false,
        }
    }

    #[tokio::test]
    async fn a_service_s_own_variables_win_over_its_files_and_later_files_see_earlier_ones() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a.env"), "A=file\nB=file\nBARE\n").unwrap();
        std::fs::write(directory.path().join("b.env"), "D=$A/$NONE\n").unwrap();
        let base = Some(directory.path());
        let mut config = ServiceConfig {
            env_file: vec![
                file("a.env", true),
                file("none.env", false),
                file("b.env", true),
            ],
            environment: IndexMap::from([
                ("B".to_owned(), None),
                ("C".to_owned(), Some("own".to_owned())),
            ]),
            ..ServiceConfig::default()
        };
        let merged = environment(&config, base, &Arc::new(Policy::open()))
            .await
            .unwrap();
        assert_eq!(merged.get("A"), Some(&Some("file".to_owned())));
        assert_eq!(merged.get("B"), Some(&None));
        assert_eq!(merged.get("C"), Some(&Some("own".to_owned())));
        assert_eq!(merged.get("D"), Some(&Some("file/".to_owned())));
        assert_eq!(merged.get("BARE"), None);
        let notes = notes(&config, base, &Arc::new(Policy::open())).await;
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes[0].contains("env_file a.env:3: "), "{notes:?}");
        config.env_file = vec![file("none.env", true)];
        assert!(
            environment(&config, base, &Arc::new(Policy::open()))
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn an_error_holds_nothing_of_the_file_s_text() {
        let directory = tempfile::tempdir().unwrap();
        let base = Some(directory.path());
        let config = ServiceConfig {
            env_file: vec![file("a.env", true)],
            ..ServiceConfig::default()
        };
        for text in [&b"A=1\nsecret line\n"[..], b"A=1\nsecret\xff=1\n"] {
            std::fs::write(directory.path().join("a.env"), text).unwrap();
            let error = environment(&config, base, &Arc::new(Policy::open()))
                .await
                .unwrap_err()
                .to_string();
            assert!(error.contains("env_file a.env: "), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
