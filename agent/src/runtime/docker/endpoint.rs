//! Chooses the engine as the docker command does: the setting, `DOCKER_HOST`, Docker's context, then the usual sockets.
//!
//! Pure except that it reads Docker's own files; it opens no connection.

use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Environment variables and directories that decide which engine is used.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    /// `DOCKER_HOST`.
    pub docker_host: Option<String>,
    /// `DOCKER_CONTEXT`.
    pub docker_context: Option<String>,
    /// `DOCKER_TLS_VERIFY`.
    pub tls_verify: Option<String>,
    /// `DOCKER_CONFIG` or `~/.docker`.
    pub config_dir: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
}

impl Surroundings {
    /// Reads the environment of this process.
    pub fn of_process() -> Self {
        let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        Surroundings {
            docker_host: var("DOCKER_HOST"),
            docker_context: var("DOCKER_CONTEXT"),
            tls_verify: var("DOCKER_TLS_VERIFY"),
            config_dir: config_dir(),
            runtime_dir: var("XDG_RUNTIME_DIR").map(PathBuf::from),
        }
    }
}

/// Returns Docker's configuration directory.
pub(super) fn config_dir() -> Option<PathBuf> {
    std::env::var_os("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker")))
}

/// Why the requested engine can't be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidEndpoint {
    /// No engine is requested, and none of these sockets exists.
    #[error(
        "no container engine: DOCKER_HOST isn't set and none of these sockets exists: {}",
        listed(.0)
    )]
    None(Vec<PathBuf>),
    /// The engine wants TLS.
    #[error(
        "engine {0} wants TLS, which this build can't speak: forward its socket instead (ssh -L /tmp/docker.sock:/var/run/docker.sock HOST) and set DOCKER_HOST=unix:///tmp/docker.sock"
    )]
    Tls(String),
    /// The engine is reached by ssh.
    #[error(
        "engine {0} is behind ssh: forward its socket (ssh -L /tmp/docker.sock:/var/run/docker.sock HOST) and set DOCKER_HOST=unix:///tmp/docker.sock"
    )]
    Ssh(String),
    /// The address has another form.
    #[error("engine address {0:?} isn't one of unix:///PATH, tcp://HOST:PORT")]
    Scheme(String),
    /// Docker's current context has no endpoint.
    #[error("Docker's context {name:?} has no endpoint in {}; see `docker context ls`", meta.display())]
    Context {
        /// Name of the context.
        name: String,
        /// The file that should contain it.
        meta: PathBuf,
    },
}

fn listed(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(", ")
}

/// Returns the address of the engine, or an error that says what is wrong with the requested one.
pub(super) fn resolve(
    setting: Option<&str>,
    around: &Surroundings,
) -> Result<String, InvalidEndpoint> {
    if let Some(host) = setting.or(around.docker_host.as_deref()) {
        return supported(host, around);
    }
    if let Some(host) = context_host(around)? {
        return supported(&host, around);
    }
    let mut sockets = vec![PathBuf::from("/var/run/docker.sock")];
    if let Some(dir) = &around.runtime_dir {
        sockets.push(dir.join("docker.sock"));
        sockets.push(dir.join("podman/podman.sock"));
    }
    sockets.push(PathBuf::from("/run/podman/podman.sock"));
    match sockets.iter().find(|path| path.exists()) {
        Some(path) => Ok(format!("unix://{}", path.display())),
        None => Err(InvalidEndpoint::None(sockets)),
    }
}

fn supported(host: &str, around: &Surroundings) -> Result<String, InvalidEndpoint> {
    let plain_tcp = host.starts_with("tcp://") || host.starts_with("http://");
    if plain_tcp && around.tls_verify.is_some() || host.starts_with("https://") {
        return Err(InvalidEndpoint::Tls(host.to_owned()));
    }
    if host.starts_with("ssh://") {
        return Err(InvalidEndpoint::Ssh(host.to_owned()));
    }
    if plain_tcp || host.starts_with("unix://") || host.starts_with("npipe://") {
        return Ok(host.to_owned());
    }
    Err(InvalidEndpoint::Scheme(host.to_owned()))
}

/// Returns the endpoint of Docker's current context; `None` for the default context.
fn context_host(around: &Surroundings) -> Result<Option<String>, InvalidEndpoint> {
    let Some(dir) = &around.config_dir else {
        return Ok(None);
    };
    let name = match &around.docker_context {
        Some(name) => Some(name.clone()),
        None => json(&dir.join("config.json"))
            .and_then(|file| Some(file.get("currentContext")?.as_str()?.to_owned())),
    };
    let Some(name) = name.filter(|name| !name.is_empty() && name != "default") else {
        return Ok(None);
    };
    let digest = hex::encode(Sha256::digest(name.as_bytes()));
    let meta = dir.join("contexts/meta").join(digest).join("meta.json");
    json(&meta)
        .and_then(|file| Some(file.pointer("/Endpoints/docker/Host")?.as_str()?.to_owned()))
        .map(Some)
        .ok_or(InvalidEndpoint::Context { name, meta })
}

fn json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_setting_outranks_docker_host() {
        let around = Surroundings {
            docker_host: Some("unix:///b.sock".into()),
            ..Surroundings::default()
        };
        assert_eq!(
            resolve(Some("unix:///a.sock"), &around).unwrap(),
            "unix:///a.sock"
        );
        assert_eq!(resolve(None, &around).unwrap(), "unix:///b.sock");
    }

    #[test]
    fn the_current_context_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("config.json"),
            r#"{"currentContext":"lab"}"#,
        )
        .unwrap();
        let around = Surroundings {
            config_dir: Some(dir.path().to_owned()),
            ..Surroundings::default()
        };
        let missing = resolve(None, &around).unwrap_err().to_string();
        assert!(missing.contains("\"lab\""), "{missing}");
        let digest = hex::encode(Sha256::digest(b"lab"));
        let meta = dir.path().join("contexts/meta").join(digest);
        std::fs::create_dir_all(&meta).unwrap();
        std::fs::write(
            meta.join("meta.json"),
            r#"{"Endpoints":{"docker":{"Host":"tcp://10.0.0.9:2375"}}}"#,
        )
        .unwrap();
        assert_eq!(resolve(None, &around).unwrap(), "tcp://10.0.0.9:2375");
    }

    #[test]
    fn what_cannot_be_spoken_is_refused_with_a_way_out() {
        let around = Surroundings {
            tls_verify: Some("1".into()),
            ..Surroundings::default()
        };
        for host in ["tcp://h:2376", "https://h", "ssh://me@h"] {
            let error = resolve(Some(host), &around).unwrap_err().to_string();
            assert!(error.contains("ssh -L"), "{error}");
        }
        assert!(
            resolve(Some("docker.local"), &around)
                .unwrap_err()
                .to_string()
                .contains("unix:///PATH")
        );
    }
}
