//! Values of secrets for a run. They go into the submission and nowhere else.

use super::error::CliError;
use std::collections::BTreeMap;
use std::path::Path;

/// Variables that give secrets without a flag: `PHALANX_SECRET_license_key` is the spec's `license_key`.
pub(super) const PREFIX: &str = "PHALANX_SECRET_";
/// No secret is longer; a mistyped path shouldn't be read for long.
const MAX_BYTES: u64 = 1 << 20;

/// Where secrets come from.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct SecretArgs {
    /// Give a secret from an environment variable (of its own name unless written)
    #[arg(long, value_name = "NAME[=VARIABLE]", help_heading = "Secrets")]
    secret_env: Vec<String>,
    /// Give a secret from a file; a line break at its end doesn't count
    #[arg(long, value_name = "NAME=FILE", value_hint = clap::ValueHint::FilePath, help_heading = "Secrets")]
    secret_file: Vec<String>,
}

impl SecretArgs {
    /// The values by name. Messages name secrets, never values.
    pub fn read(&self) -> Result<BTreeMap<String, String>, CliError> {
        let mut secrets: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| {
                let name = name.to_str()?.strip_prefix(PREFIX)?.to_owned();
                Some((name, value.into_string().ok()?))
            })
            .collect();
        for text in &self.secret_env {
            let (name, variable) = text.split_once('=').unwrap_or((text, text));
            let value = std::env::var(variable).map_err(|_| {
                CliError::usage(format!(
                    "secret `{name}`: the variable {variable} isn't set, or isn't UTF-8"
                ))
            })?;
            secrets.insert(name.to_owned(), value);
        }
        for text in &self.secret_file {
            let Some((name, file)) = text.split_once('=') else {
                return Err(CliError::usage(format!(
                    "--secret-file {text}: write NAME=FILE"
                )));
            };
            secrets.insert(name.to_owned(), read_file(name, Path::new(file))?);
        }
        Ok(secrets)
    }
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
    // A pipe (`<(pass show …)`) is fine: it is read to its end.
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
        std::fs::write(&file, "abc\ndef\r\n").unwrap();
        let args = SecretArgs {
            secret_file: vec![format!("license_key={}", file.display())],
            ..SecretArgs::default()
        };
        assert_eq!(args.read().unwrap()["license_key"], "abc\ndef");
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
}
