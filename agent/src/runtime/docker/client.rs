//! The connection to the engine: connects, negotiates the version, and retries when the connection breaks.
//!
//! It knows nothing about cells; the other files know what to ask.

use super::away::Away;
use super::endpoint::{self, Surroundings};
use super::error::{Unusable, is_cut, is_refused, said};
use super::settings::DockerSettings;
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::ContainerInspectResponse;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::OnceCell;

/// A connected engine. Cheap to clone.
#[derive(Clone)]
pub(super) struct Engine {
    /// Client of the bollard crate.
    pub docker: Docker,
    /// Address of the engine.
    pub host: String,
    /// When the engine could not be reached.
    pub away: Arc<Away>,
    /// Number of calls whose connection broke.
    cuts: Arc<AtomicU64>,
    /// How long calls are retried when the connection is broken.
    reconnect: Duration,
    /// Whether it has BuildKit, once it was asked.
    buildkit: Arc<OnceCell<bool>>,
}

impl Engine {
    /// Connects to the engine and negotiates the API version.
    pub async fn connect(settings: &DockerSettings) -> Result<Engine, Unusable> {
        let host = endpoint::resolve(settings.host.as_deref(), &Surroundings::of_process())?;
        let fail = |error: &Error| Unusable::Failed {
            host: host.clone(),
            said: said(error),
        };
        let docker = Docker::connect_with_host(&host)
            .map_err(|error| fail(&error))?
            .with_request_modifier(url_safe_auth);
        let asked = tokio::time::timeout(Duration::from_secs(20), docker.negotiate_version()).await;
        let docker = match asked {
            Ok(answer) => answer.map_err(|error| fail(&error))?,
            Err(_) => return Err(Unusable::Silent(host)),
        };
        Ok(Engine {
            docker,
            host: host.clone(),
            away: Arc::new(Away::default()),
            cuts: Arc::default(),
            reconnect: settings.reconnect(),
            buildkit: Arc::default(),
        })
    }

    /// Calls the engine and retries while the connection is broken, up to the reconnect time. Only for calls that may
    /// be repeated.
    pub async fn ask<T, Fut>(&self, mut call: impl FnMut() -> Fut) -> Result<T, Error>
    where
        Fut: Future<Output = Result<T, Error>>,
    {
        let mut pause = Duration::from_millis(20);
        let mut waited = Duration::ZERO;
        loop {
            let answer = call().await;
            if let Err(error) = &answer
                && is_cut(error)
            {
                self.cuts.fetch_add(1, Ordering::AcqRel);
            }
            match &answer {
                Err(error) if is_refused(error) => self.away.begin(),
                Err(error) if is_cut(error) => {}
                _ => self.away.end(),
            }
            match answer {
                Err(error) if is_cut(&error) && waited < self.reconnect => {
                    tracing::debug!(error = %said(&error), "engine: asking again");
                    tokio::time::sleep(pause).await;
                    waited += pause;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
                answer => return answer,
            }
        }
    }

    /// Returns the minor version of the engine's API, whose major version is 1.
    pub fn api_minor(&self) -> usize {
        self.docker.client_version().minor_version
    }

    /// Returns the number of calls so far whose connection broke.
    pub fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Acquire)
    }

    /// Inspects a container.
    pub async fn inspect(&self, container: &str) -> Result<ContainerInspectResponse, Error> {
        let mut tries = 0;
        loop {
            let seen = self
                .ask(|| self.docker.inspect_container(container, None))
                .await;
            match seen {
                // Podman's state between a container's exit and the end of its bookkeeping, which bollard doesn't know.
                Err(Error::JsonDataError { message, .. })
                    if message.contains("`stopped`") && tries < 250 =>
                {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                seen => return seen,
            }
        }
    }

    /// Returns whether the engine has BuildKit. Docker for Linux has had it since API 1.39; Podman builds with Buildah, which
    /// has no sessions.
    pub async fn has_buildkit(&self) -> bool {
        let asked = self.buildkit.get_or_try_init(|| async {
            let version = self.ask(|| self.docker.version()).await?;
            let components = version.components.unwrap_or_default();
            let podman = components.iter().any(|one| one.name == "Podman Engine");
            Ok::<_, Error>(!podman && version.os.as_deref() == Some("linux"))
        });
        // The build itself reports an engine that doesn't answer.
        asked.await.copied().unwrap_or(false)
    }

    /// Returns a client whose requests name additional hosts of a build (`NAME:ADDRESS`). bollard has room for only one.
    pub fn with_hosts(&self, hosts: &[String]) -> Docker {
        if hosts.is_empty() {
            return self.docker.clone();
        }
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        hosts.iter().for_each(|host| {
            query.append_pair("extrahosts", host);
        });
        let query = query.finish();
        self.docker.clone().with_request_modifier(move |request| {
            let mut request = url_safe_auth(request);
            let longer = format!("{}&{query}", request.uri());
            if let Ok(uri) = longer.parse() {
                *request.uri_mut() = uri;
            }
            request
        })
    }

    /// Returns a client whose requests may take `longer` than usual.
    pub fn patient(&self, longer: Duration) -> Docker {
        self.docker
            .clone()
            .with_timeout(longer + Duration::from_secs(120))
    }
}

/// Rewrites registry credentials as URL-safe base64, which the engine expects; bollard uses the standard alphabet.
/// Without this the engine silently ignores a password whose encoding contains `+` or `/`.
fn url_safe_auth(mut request: bollard::BollardRequest) -> bollard::BollardRequest {
    for name in ["X-Registry-Auth", "X-Registry-Config"] {
        let fixed = request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(|value| value.replace('+', "-").replace('/', "_"));
        if let (Some(text), Some(slot)) = (fixed, request.headers_mut().get_mut(name))
            && let Ok(value) = text.parse()
        {
            *slot = value;
        }
    }
    request
}
