//! Tokens for coordinators: kept by the coordinator's URL, and sent to that coordinator only.
//!
//! They are in a file of their own in the user's configuration directory, which only the user can read. `PHALANX_TOKEN`
//! comes before it, for CI. A project's settings can name neither a token nor a coordinator, so nobody's token goes to
//! where a repository's author likes.

use phalanx_coordinator::access::layer::NAMESPACE;
use phalanx_proto::limit::{CLIENT_ANSWER_BYTES, CLIENT_REQUEST_BYTES};
use phalanx_proto::v1::access_client::AccessClient;
use phalanx_proto::v1::control_client::ControlClient;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Variable with a token.
pub const VARIABLE: &str = "PHALANX_TOKEN";
/// Name of the file, in the user's configuration directory.
const FILE: &str = "phalanx/tokens.json";
/// Longest file that is read.
const FILE_BYTES: u64 = 1 << 20;

/// A connection whose calls carry a credential.
pub type Authorized = InterceptedService<Channel, Credential>;
/// A client of a coordinator.
pub type Client = ControlClient<Authorized>;

/// What is added to every call: a token and a namespace, or neither.
#[derive(Clone, Default)]
pub struct Credential {
    bearer: Option<AsciiMetadataValue>,
    namespace: Option<AsciiMetadataValue>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("token", &self.bearer.is_some())
            .field("namespace", &self.namespace)
            .finish()
    }
}

impl Credential {
    /// Creates a credential. Returns `None` if the token or the namespace can't be sent.
    pub fn new(token: Option<&str>, namespace: &str) -> Option<Credential> {
        let bearer = match token {
            None => None,
            Some(token) => {
                let mut value: AsciiMetadataValue = format!("Bearer {token}").parse().ok()?;
                // Keeps it out of logs, and of HTTP/2's table of repeated headers.
                value.set_sensitive(true);
                Some(value)
            }
        };
        let namespace = match namespace {
            "" => None,
            name => Some(name.parse().ok()?),
        };
        Some(Credential { bearer, namespace })
    }

    /// Returns a client that sends this credential, with the protocol's limits of message sizes.
    pub fn client(self, channel: Channel) -> Client {
        ControlClient::with_interceptor(channel, self)
            .max_decoding_message_size(CLIENT_ANSWER_BYTES)
            .max_encoding_message_size(CLIENT_REQUEST_BYTES)
    }

    /// Returns a client of the service for tokens.
    pub fn access_client(self, channel: Channel) -> AccessClient<Authorized> {
        AccessClient::with_interceptor(channel, self).max_decoding_message_size(CLIENT_ANSWER_BYTES)
    }
}

impl Interceptor for Credential {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        if let Some(bearer) = &self.bearer {
            metadata.insert("authorization", bearer.clone());
        }
        if let Some(namespace) = &self.namespace {
            metadata.insert(NAMESPACE, namespace.clone());
        }
        Ok(request)
    }
}

/// Why the file with tokens can't be used. Never contains a token.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is no directory for it.
    #[error(
        "there is no directory for tokens: neither XDG_CONFIG_HOME nor HOME is an absolute path"
    )]
    NoHome,
    /// Others could have read it.
    #[error("other users can read {}: its tokens aren't used. Revoke them, remove the file and log in again", .0.display())]
    Open(PathBuf),
    /// It can't be read or written.
    #[error("{}: {}", .0.display(), .1)]
    Io(PathBuf, io::Error),
    /// It is damaged.
    #[error("{} isn't what `phalanx login` writes: remove it and log in again", .0.display())]
    Damaged(PathBuf),
}

/// The stored tokens.
#[derive(Debug)]
pub struct TokenFile(PathBuf);

/// The content of the file: tokens by the URLs of their coordinators.
#[derive(Default, Serialize, Deserialize)]
struct Stored {
    coordinators: BTreeMap<String, String>,
}

impl TokenFile {
    /// Returns the user's file.
    pub fn of_user() -> Result<TokenFile, FileError> {
        let absolute = |name: &str| {
            let path = PathBuf::from(std::env::var_os(name)?);
            path.is_absolute().then_some(path)
        };
        let home = absolute("XDG_CONFIG_HOME");
        let home = home.or_else(|| Some(absolute("HOME")?.join(".config")));
        Ok(TokenFile(home.ok_or(FileError::NoHome)?.join(FILE)))
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the token for a coordinator.
    pub fn token(&self, url: &str) -> Result<Option<String>, FileError> {
        Ok(self.read()?.coordinators.remove(&key(url)))
    }

    /// Returns the URLs of all coordinators with a token.
    pub fn urls(&self) -> Result<Vec<String>, FileError> {
        Ok(self.read()?.coordinators.into_keys().collect())
    }

    /// Keeps a token.
    pub fn add(&self, url: &str, token: &str) -> Result<(), FileError> {
        let mut stored = self.read()?;
        stored.coordinators.insert(key(url), token.to_owned());
        self.write(&stored)
    }

    /// Forgets a token. Returns whether there was one.
    pub fn remove(&self, url: &str) -> Result<bool, FileError> {
        let mut stored = self.read()?;
        let known = stored.coordinators.remove(&key(url)).is_some();
        if known {
            self.write(&stored)?;
        }
        Ok(known)
    }

    fn read(&self) -> Result<Stored, FileError> {
        let failed = |error| FileError::Io(self.0.clone(), error);
        let file = match File::open(&self.0) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Stored::default()),
            Err(error) => return Err(failed(error)),
        };
        let mode = file.metadata().map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(FileError::Open(self.0.clone()));
        }
        let mut text = String::new();
        file.take(FILE_BYTES)
            .read_to_string(&mut text)
            .map_err(failed)?;
        // An error of the parser would quote the file.
        serde_json::from_str(&text).map_err(|_| FileError::Damaged(self.0.clone()))
    }

    /// Replaces the file as a whole, so that a reader finds the old one or the new one.
    fn write(&self, stored: &Stored) -> Result<(), FileError> {
        let failed = |error| FileError::Io(self.0.clone(), error);
        if let Some(directory) = self.0.parent() {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(directory).map_err(failed)?;
        }
        let beside = self.0.with_extension(format!("{}.new", std::process::id()));
        let written = (|| {
            let mut options = File::options();
            options.write(true).create_new(true).mode(0o600);
            let mut file = options.open(&beside)?;
            file.write_all(format!("{:#}\n", serde_json::to_value(stored)?).as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, &self.0)
        })();
        written.map_err(|error| {
            let _ = fs::remove_file(&beside);
            failed(error)
        })
    }
}

/// Returns what identifies a coordinator in the file: scheme, host and port of its URL.
pub fn key(url: &str) -> String {
    if url.starts_with("unix:") {
        return url.to_owned();
    }
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    format!("{scheme}://{host}").to_lowercase()
}

/// Returns whether what is sent to a coordinator stays on this machine or is encrypted.
pub fn is_private(url: &str) -> bool {
    let key = key(url);
    let Some(host) = key.strip_prefix("http://") else {
        return key.starts_with("https://") || key.starts_with("unix:");
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    };
    let inside = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    let address: Option<std::net::IpAddr> = inside.unwrap_or(name).parse().ok();
    name == "localhost" || address.is_some_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_is_for_its_coordinator_only() {
        let place = tempfile::tempdir().unwrap();
        let file = TokenFile(place.path().join("new/tokens.json"));
        assert_eq!(file.token("http://a:7180").unwrap(), None);
        file.add("HTTP://A:7180/", "phx_a").unwrap();
        file.add("https://a:7180", "phx_b").unwrap();
        assert_eq!(file.token("a:7180").unwrap().as_deref(), Some("phx_a"));
        assert_eq!(
            file.token("https://a:7180").unwrap().as_deref(),
            Some("phx_b")
        );
        for other in ["http://a", "http://a:7181", "http://b:7180", "unix:/a"] {
            assert_eq!(file.token(other).unwrap(), None, "{other}");
        }
        assert!(file.remove("http://a:7180").unwrap());
        assert!(!file.remove("http://a:7180").unwrap());
        assert_eq!(file.urls().unwrap(), ["https://a:7180"]);
    }

    #[test]
    fn only_the_user_reads_the_file_and_errors_quote_nothing_of_it() {
        let place = tempfile::tempdir().unwrap();
        let file = TokenFile(place.path().join("tokens.json"));
        file.add("http://a", "phx_secret").unwrap();
        let mode = file.path().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(file.token("http://a"), Err(FileError::Open(_))));
        fs::remove_file(file.path()).unwrap();
        fs::write(file.path(), "phx_secret").unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).unwrap();
        let error = file.token("http://a").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("phx_secret"));
        let credential = Credential::new(Some("phx_secret"), "team").unwrap();
        assert!(!format!("{credential:?}").contains("phx_secret"));
    }

    #[test]
    fn a_network_without_encryption_is_told_from_this_machine() {
        for url in [
            "http://127.0.0.1:7180",
            "[::1]:7180",
            "localhost:1",
            "https://ci.example",
            "unix:/run/x",
        ] {
            assert!(is_private(url), "{url}");
        }
        for url in [
            "http://10.0.0.5:7180",
            "ci.example:7180",
            "http://127.0.0.1.example",
        ] {
            assert!(!is_private(url), "{url}");
        }
    }
}
