//! Reads registry credentials from the user's Docker configuration: `credHelpers`, `credsStore`, `auths`.
//!
//! The output of a helper is never quoted in an error (I4).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use serde::Deserialize;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Time limit for a credential helper.
const HELPER_LIMIT: Duration = Duration::from_secs(20);

/// The part of Docker's `config.json` that is read.
#[derive(Default, Deserialize)]
struct ConfigFile {
    #[serde(default)]
    auths: HashMap<String, AuthEntry>,
    #[serde(default, rename = "credsStore")]
    creds_store: Option<String>,
    #[serde(default, rename = "credHelpers")]
    cred_helpers: HashMap<String, String>,
}

#[derive(Clone, Default, Deserialize)]
struct AuthEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// The output of a credential helper.
#[derive(Deserialize)]
struct HelperAnswer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// Why the credentials for a registry are unknown. Contains nothing of what a file or a helper says (I4).
#[derive(Debug, thiserror::Error)]
pub(super) enum CredentialsError {
    #[error("{}: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    // Only the position, not the text, which may hold a password.
    #[error("{} is not Docker's configuration (line {line}, column {column})", path.display())]
    NotConfiguration {
        path: PathBuf,
        line: usize,
        column: usize,
    },
    #[error("credential helper {program}: {flaw}")]
    Helper { program: String, flaw: HelperFlaw },
}

/// What is wrong with a credential helper.
#[derive(Debug, thiserror::Error)]
pub(super) enum HelperFlaw {
    #[error("{0}; install it, or take it out of Docker's config.json")]
    NotStarted(io::Error),
    #[error("no answer within {} s", HELPER_LIMIT.as_secs())]
    Silent,
    #[error("{0}")]
    Broken(io::Error),
    /// Its exit status, and the registry.
    #[error("{0} for {1}")]
    Failed(ExitStatus, String),
    #[error("its answer is not the JSON that Docker's helpers give")]
    NoAnswer,
}

/// Returns the credentials for a registry; `None` if the user has none for it.
pub(super) async fn credentials(
    config_dir: Option<&Path>,
    registry: &str,
) -> Result<Option<DockerCredentials>, CredentialsError> {
    let Some(path) = config_dir.map(|dir| dir.join("config.json")) else {
        return Ok(None);
    };
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(CredentialsError::Unreadable { path, error }),
    };
    let config: ConfigFile =
        serde_json::from_slice(&bytes).map_err(|error| CredentialsError::NotConfiguration {
            path,
            line: error.line(),
            column: error.column(),
        })?;
    let helper = config
        .cred_helpers
        .iter()
        .find(|(host, _)| same(host, registry))
        .map(|(_, helper)| helper)
        .or(config.creds_store.as_ref())
        .filter(|helper| !helper.is_empty());
    if let Some(helper) = helper
        && let Some(found) = ask(helper, registry).await?
    {
        return Ok(Some(found));
    }
    let entry = config
        .auths
        .iter()
        .find(|(host, _)| same(host, registry))
        .map(|(_, entry)| entry.clone());
    Ok(entry.and_then(|entry| of_entry(entry, registry)))
}

/// Returns whether two spellings name the same registry.
fn same(written: &str, registry: &str) -> bool {
    fn bare(text: &str) -> &str {
        let text = text
            .trim_start_matches("https://")
            .trim_start_matches("http://");
        let host = text.split('/').next().unwrap_or(text);
        match host {
            "docker.io" | "registry-1.docker.io" => "index.docker.io",
            host => host,
        }
    }
    bare(written) == bare(registry)
}

fn of_entry(entry: AuthEntry, registry: &str) -> Option<DockerCredentials> {
    let pair = entry.auth.as_ref().and_then(|text| {
        let decoded = String::from_utf8(STANDARD.decode(text.trim()).ok()?).ok()?;
        let (user, password) = decoded.split_once(':')?;
        Some((user.to_owned(), password.trim_end_matches('\0').to_owned()))
    });
    let (username, password) = match pair {
        Some((user, password)) => (Some(user), Some(password)),
        None => (entry.username, entry.password),
    };
    let token = entry.identitytoken.filter(|token| !token.is_empty());
    // An empty entry means that a store holds the real one.
    if username.is_none() && token.is_none() {
        return None;
    }
    Some(DockerCredentials {
        username,
        password,
        identitytoken: token,
        serveraddress: Some(registry.to_owned()),
        ..DockerCredentials::default()
    })
}

async fn ask(helper: &str, registry: &str) -> Result<Option<DockerCredentials>, CredentialsError> {
    let program = format!("docker-credential-{helper}");
    let wrong = |flaw| CredentialsError::Helper {
        program: program.clone(),
        flaw,
    };
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| wrong(HelperFlaw::NotStarted(error)))?;
    if let Some(mut input) = child.stdin.take() {
        let _ = input.write_all(registry.as_bytes()).await;
    }
    let output = tokio::time::timeout(HELPER_LIMIT, child.wait_with_output())
        .await
        .map_err(|_| wrong(HelperFlaw::Silent))?
        .map_err(|error| wrong(HelperFlaw::Broken(error)))?;
    if !output.status.success() {
        // The protocol has no code for it; each helper prints these words.
        let said = String::from_utf8_lossy(&output.stdout);
        return match said.contains("credentials not found") {
            true => Ok(None),
            false => Err(wrong(HelperFlaw::Failed(
                output.status,
                registry.to_owned(),
            ))),
        };
    }
    let answer: HelperAnswer =
        serde_json::from_slice(&output.stdout).map_err(|_| wrong(HelperFlaw::NoAnswer))?;
    let mut found = DockerCredentials {
        serveraddress: Some(registry.to_owned()),
        ..DockerCredentials::default()
    };
    if answer.username == "<token>" {
        found.identitytoken = Some(answer.secret);
    } else {
        found.username = Some(answer.username);
        found.password = Some(answer.secret);
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::reference::HUB;
    use super::*;

    async fn with(
        json: &str,
        registry: &str,
    ) -> Result<Option<DockerCredentials>, CredentialsError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), json).unwrap();
        credentials(Some(dir.path()), registry).await
    }

    #[tokio::test]
    async fn a_login_is_found_however_its_registry_is_written() {
        let auth = STANDARD.encode("me:pass:word");
        for key in [HUB, "docker.io", "https://index.docker.io/v1"] {
            let json = format!(r#"{{"auths":{{"{key}":{{"auth":"{auth}"}}}}}}"#);
            let found = with(&json, HUB).await.unwrap().unwrap();
            assert_eq!(found.username.as_deref(), Some("me"));
            assert_eq!(found.password.as_deref(), Some("pass:word"));
        }
        let other = format!(r#"{{"auths":{{"ghcr.io":{{"auth":"{auth}"}}}}}}"#);
        assert_eq!(with(&other, "reg:5000").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_missing_helper_is_named_and_a_broken_file_not_quoted() {
        let error = with(
            r#"{"credHelpers":{"reg:5000":"no-such-phalanx"}}"#,
            "reg:5000",
        )
        .await
        .unwrap_err()
        .to_string();
        assert!(
            error.contains("docker-credential-no-such-phalanx"),
            "{error}"
        );
        let error = with(r#"{"auths": hunter22"#, "reg:5000").await.unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("line 1") && !error.contains("hunter22"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn without_a_file_there_are_no_credentials() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(credentials(Some(dir.path()), HUB).await.unwrap(), None);
    }
}
