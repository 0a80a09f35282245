//! Connections to the coordinator: one for control messages and one for bytes, so that bytes never block control
//! messages.

use crate::access::Access;
use phalanx_proto::limit::{
    FROM_AGENT_BYTES, LOG_MESSAGE_BYTES, STREAM_WINDOW_BYTES, TO_AGENT_BYTES,
};
use phalanx_proto::v1::agent_link_client::AgentLinkClient;
use phalanx_proto::{channel, tls, v1};
use rustls::ClientConfig;
use std::fmt;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::sync::Arc;
use std::time::Duration;
use tonic::Status;
use tonic::transport::{self, Channel, Endpoint};

const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Address and connection settings of a coordinator.
#[derive(Clone, Debug)]
pub struct Coordinator {
    endpoint: Endpoint,
    security: Security,
}

/// TLS of connections.
#[derive(Clone)]
enum Security {
    /// None.
    Plain,
    /// With the agent's certificate.
    Known(Access),
    /// Without one: to get the first.
    Anonymous(Arc<ClientConfig>),
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Security::Plain => "Plain",
            Security::Known(_) => "Known",
            Security::Anonymous(_) => "Anonymous",
        })
    }
}

/// An invalid coordinator address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} isn't a coordinator's address ({reason}): give `https://HOST:PORT`, `http://HOST:PORT`, or `unix:PATH`"
)]
pub struct InvalidAddress {
    text: String,
    reason: String,
}

impl Coordinator {
    /// Parses the address of a coordinator: `https://HOST:PORT`, `http://HOST:PORT` or `unix:PATH`. The first needs a
    /// certificate to show.
    pub fn at(text: &str, access: Option<Access>) -> Result<Coordinator, InvalidAddress> {
        let security = match (text.starts_with("https://"), access) {
            (true, Some(access)) => Security::Known(access),
            (true, None) => {
                return Err(InvalidAddress {
                    text: text.to_owned(),
                    reason: "TLS needs the agent's certificate".to_owned(),
                });
            }
            (false, _) => Security::Plain,
        };
        Coordinator::with(text, security)
    }

    /// Parses the address `https://HOST:PORT` of a coordinator, to which no certificate is shown.
    pub fn anonymous(text: &str, config: Arc<ClientConfig>) -> Result<Coordinator, InvalidAddress> {
        Coordinator::with(text, Security::Anonymous(config))
    }

    fn with(text: &str, security: Security) -> Result<Coordinator, InvalidAddress> {
        let invalid = |reason: &str| InvalidAddress {
            text: text.to_owned(),
            reason: reason.to_owned(),
        };
        let (is_unix, is_plain) = (text.starts_with("unix:"), text.starts_with("http://"));
        let is_secured = text.starts_with("https://");
        if text == "unix:" {
            return Err(invalid("the path is empty"));
        } else if !is_unix && !is_plain && !is_secured {
            return Err(invalid("it has no scheme"));
        }
        // TLS is made by the connector: for the endpoint itself, all addresses are plain.
        let plain = match text.strip_prefix("https://") {
            Some(rest) => format!("http://{rest}"),
            None => text.to_owned(),
        };
        let endpoint = Endpoint::from_shared(plain).map_err(|e| invalid(&e.to_string()))?;
        if endpoint.uri().host().is_none() && !is_unix {
            return Err(invalid("it has no host"));
        }
        Ok(Coordinator {
            endpoint: endpoint
                .connect_timeout(CONNECT_WITHIN)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(Duration::from_secs(5))
                .keep_alive_timeout(Duration::from_secs(5))
                .keep_alive_while_idle(true),
            security,
        })
    }

    /// Opens a connection.
    pub async fn channel(&self) -> Result<Channel, Unreachable> {
        self.connect(&self.endpoint).await
    }

    #[tracing::instrument(name = "connect", skip_all)]
    async fn connect(&self, endpoint: &Endpoint) -> Result<Channel, Unreachable> {
        let endpoint = endpoint.clone();
        Ok(match &self.security {
            Security::Plain => channel::connect(endpoint).await?,
            Security::Known(access) => {
                let access = access.clone();
                let config = move || access.config().map_err(io::Error::other);
                tls::connect(endpoint, config).await?
            }
            Security::Anonymous(config) => {
                let config = config.clone();
                tls::connect(endpoint, move || Ok(config.clone())).await?
            }
        })
    }

    /// Opens a connection for control messages.
    pub async fn control(&self) -> Result<AgentLinkClient<Channel>, Unreachable> {
        let channel = self.channel().await?;
        Ok(AgentLinkClient::new(channel)
            .max_decoding_message_size(TO_AGENT_BYTES)
            .max_encoding_message_size(FROM_AGENT_BYTES))
    }

    /// Opens a connection for bytes.
    pub async fn bytes(&self) -> Result<AgentLinkClient<Channel>, Unreachable> {
        let endpoint = self
            .endpoint
            .clone()
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(STREAM_WINDOW_BYTES * 2);
        Ok(AgentLinkClient::new(self.connect(&endpoint).await?)
            .max_decoding_message_size(LOG_MESSAGE_BYTES))
    }

    /// Downloads a workspace's archive into an unnamed file.
    #[tracing::instrument(name = "fetch a workspace", skip_all, fields(digest))]
    pub async fn workspace(&self, digest: &str) -> Result<File, FetchError> {
        let fetched = self.fetch(digest).await;
        fetched.map_err(|reason| FetchError {
            digest: digest.to_owned(),
            reason,
        })
    }

    async fn fetch(&self, digest: &str) -> Result<File, FetchFault> {
        let mut client = self.bytes().await?;
        let request = v1::WorkspaceRequest {
            digest: digest.to_owned(),
        };
        let mut chunks = client.workspace(request).await?.into_inner();
        let mut file = unnamed_file()?;
        while let Some(v1::Chunk { data }) = chunks.message().await? {
            file.write_all(&data)?;
        }
        file.rewind()?;
        Ok(file)
    }
}

/// The coordinator can't be reached.
#[derive(Debug, thiserror::Error)]
#[error("{}", cause(.0))]
pub struct Unreachable(#[from] transport::Error);

/// A workspace could not be downloaded.
#[derive(Debug, thiserror::Error)]
#[error("fetching workspace {digest}: {reason}")]
pub struct FetchError {
    digest: String,
    reason: FetchFault,
}

#[derive(Debug, thiserror::Error)]
enum FetchFault {
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    #[error("{}", .0.message())]
    Refused(#[from] Status),
    #[error(transparent)]
    File(#[from] std::io::Error),
}

fn cause(error: &transport::Error) -> String {
    if let Some(explained) = tls::explain(error) {
        return explained;
    }
    // The cause is more specific than "transport error".
    let source = std::error::Error::source(error).map(ToString::to_string);
    source.unwrap_or_else(|| error.to_string())
}

/// Opens a file that disappears when it is closed, even if the process is killed.
fn unnamed_file() -> std::io::Result<File> {
    let path = std::env::temp_dir().join(format!("phalanx-{}", uuid::Uuid::new_v4()));
    let file = File::options()
        .create_new(true)
        .read(true)
        .write(true)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_none_is_refused_with_advice() {
        for bad in [
            "",
            "localhost:1",
            "ftp://x",
            "unix:",
            "https://x",
            "http://",
            "http:",
        ] {
            let error = Coordinator::at(bad, None)
                .map(|_| ())
                .map_err(|e| e.to_string());
            assert!(error.is_err_and(|text| text.contains("unix:PATH")), "{bad}");
        }
        for good in [
            "http://localhost:7100",
            "http://[::1]:7100",
            "unix:/run/phalanx.sock",
        ] {
            assert!(Coordinator::at(good, None).is_ok(), "{good}");
        }
        let access = Access::Enrolled {
            file: "credentials.json".into(),
            ca: String::new(),
        };
        assert!(Coordinator::at("https://localhost:7100", Some(access)).is_ok());
    }
}
