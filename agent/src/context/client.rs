//! HTTP clients and cookie jars: one jar per session for the life of the cell, and one client per set of connection
//! settings.
//!
//! Connections aren't reused between requests: a service may be restarted between two steps, and a test must not fail
//! because of a stale connection.

use super::gate::{self, Gate};
use crate::limits;
use cookie_store::CookieStore as Jar;
use reqwest::header::HeaderValue;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

/// Maximum size in bytes of a file of certificates; the usual bundles have a quarter of a megabyte.
const MAX_BUNDLE: u64 = 4 * 1024 * 1024;

/// The connection settings of a request. Requests with equal settings share a client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Way {
    /// The session whose cookies the request uses.
    pub session: Option<String>,
    /// Whether certificates are verified.
    pub verify: bool,
    /// Path of a PEM bundle to trust, in the workspace.
    pub ca: Option<String>,
    /// Whether redirects are followed.
    pub follow: bool,
}

/// Returns whether an address belongs to a service of the stack.
pub type IsOurs = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// Reasons why a client can't be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoClient {
    /// A setting is wrong.
    Wrong(String),
    /// This machine can't build one, for example because it has no file descriptors left.
    Unable(String),
}

impl NoClient {
    fn new(what: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        let why = format!("{what}: {}", cause(error));
        match limits::is_exhausted(error) {
            true => NoClient::Unable(why),
            false => NoClient::Wrong(why),
        }
    }
}

/// The clients of a cell.
pub struct Clients {
    ours: IsOurs,
    gate: Arc<Gate>,
    workspace: Option<PathBuf>,
    jars: Mutex<HashMap<String, Arc<Cookies>>>,
    clients: Mutex<HashMap<Way, reqwest::Client>>,
}

/// The cookies of a session.
///
/// `Secure` cookies are sent to services of the stack over plain HTTP too, as browsers do for localhost. This holds for
/// every address of a container: whether it is reached at 127.0.0.1 or at its own address depends on the engine, not on
/// the test.
pub struct Cookies {
    jar: RwLock<Jar>,
    ours: IsOurs,
}

impl Clients {
    /// Creates an empty set of clients. Certificates are read from the workspace.
    pub fn new(workspace: Option<PathBuf>, ours: IsOurs, gate: Gate) -> Self {
        Clients {
            ours,
            gate: Arc::new(gate),
            workspace,
            jars: Mutex::default(),
            clients: Mutex::default(),
        }
    }

    /// Returns the cookies of a session; the same object each time.
    pub fn cookies(&self, session: &str) -> Arc<Cookies> {
        let mut jars = lock(&self.jars);
        let new = || {
            Arc::new(Cookies {
                jar: RwLock::default(),
                ours: Arc::clone(&self.ours),
            })
        };
        Arc::clone(jars.entry(session.to_owned()).or_insert_with(new))
    }

    /// Returns the client for these settings, or the reason why it can't be built.
    pub fn client(&self, way: &Way) -> Result<reqwest::Client, NoClient> {
        if let Some(client) = lock(&self.clients).get(way) {
            return Ok(client.clone());
        }
        let client = self.build(way)?;
        lock(&self.clients).insert(way.clone(), client.clone());
        Ok(client)
    }

    fn build(&self, way: &Way) -> Result<reqwest::Client, NoClient> {
        // An error means that a provider is already installed, which is just as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let redirects = match way.follow {
            true => gate::redirects(&self.gate),
            false => reqwest::redirect::Policy::none(),
        };
        let mut builder = reqwest::Client::builder()
            .redirect(redirects)
            .pool_max_idle_per_host(0)
            .no_proxy()
            .user_agent(concat!("phalanx/", env!("CARGO_PKG_VERSION")));
        if !self.gate.is_open() {
            builder = builder.dns_resolver(gate::Resolver::of(&self.gate));
        }
        if let Some(session) = &way.session {
            builder = builder.cookie_provider(self.cookies(session));
        }
        if !way.verify {
            builder = builder.danger_accept_invalid_certs(true);
        }
        if let Some(ca) = &way.ca {
            for certificate in self.certificates(ca)? {
                builder = builder.add_root_certificate(certificate);
            }
        }
        builder.build().map_err(|error| match &way.ca {
            Some(_) => NoClient::new("tls", &error),
            // No setting is to blame: rustls found no certificates on this machine or could not open them.
            None => NoClient::Unable(format!("tls: {}", cause(&error))),
        })
    }

    /// Returns what judges the addresses of requests.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    fn certificates(&self, ca: &str) -> Result<Vec<reqwest::Certificate>, NoClient> {
        let path = Path::new(ca);
        let policy = self.gate.guard.policy();
        let pem = policy.read(self.workspace.as_deref(), path, MAX_BUNDLE);
        let what = format!("tls.ca: {ca}");
        let pem = pem.map_err(|error| NoClient::new(&what, &error))?;
        let bundle = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|error| NoClient::new(&what, &error))?;
        if bundle.is_empty() {
            return Err(NoClient::Wrong(format!("{what} has no certificate")));
        }
        Ok(bundle)
    }
}

impl Cookies {
    fn jar(&self) -> RwLockReadGuard<'_, Jar> {
        self.jar.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the URL with which the cookies for a request are looked up.
    fn asked(&self, url: &reqwest::Url) -> reqwest::Url {
        let address = url
            .host_str()
            .map(|host| host.trim_matches(['[', ']']).parse());
        match address {
            Some(Ok(address)) if (self.ours)(address) => secure(url),
            _ => url.clone(),
        }
    }

    /// Returns the names of the `Secure` cookies that a request over plain HTTP doesn't send.
    pub fn held_back(&self, url: &reqwest::Url) -> Vec<String> {
        let jar = self.jar();
        let asked = self.asked(url);
        let sent: Vec<_> = jar
            .get_request_values(&asked)
            .map(|(name, _)| name)
            .collect();
        jar.get_request_values(&secure(url))
            .map(|(name, _)| name)
            .filter(|name| !sent.contains(name))
            .map(str::to_owned)
            .collect()
    }

    /// Returns all cookies by name; among equal names the newest wins.
    pub fn all(&self) -> Value {
        let jar = self.jar();
        let all: Map<String, Value> = jar
            .iter_unexpired()
            .map(|cookie| (cookie.name().to_owned(), Value::from(cookie.value())))
            .collect();
        Value::Object(all)
    }
}

impl reqwest::cookie::CookieStore for Cookies {
    fn set_cookies(&self, headers: &mut dyn Iterator<Item = &HeaderValue>, url: &reqwest::Url) {
        let cookies = headers.filter_map(|header| parse(header).ok());
        let mut jar = self.jar.write().unwrap_or_else(PoisonError::into_inner);
        jar.store_response_cookies(cookies, url);
    }

    fn cookies(&self, url: &reqwest::Url) -> Option<HeaderValue> {
        let jar = self.jar();
        let asked = self.asked(url);
        let pairs: Vec<String> = jar
            .get_request_values(&asked)
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if pairs.is_empty() {
            return None;
        }
        HeaderValue::from_str(&pairs.join("; ")).ok()
    }
}

fn secure(url: &reqwest::Url) -> reqwest::Url {
    let mut url = url.clone();
    // Changing between these two schemes never fails.
    let _ = url.set_scheme("https");
    url
}

/// Returns the cookies that a response sets, by name, for a request without a session.
pub fn set_by(headers: &reqwest::header::HeaderMap) -> Value {
    let all: Map<String, Value> = headers
        .get_all(reqwest::header::SET_COOKIE)
        .iter()
        .filter_map(|header| parse(header).ok())
        .map(|cookie| (cookie.name().to_owned(), Value::from(cookie.value())))
        .collect();
    Value::Object(all)
}

fn parse(header: &HeaderValue) -> Result<cookie_store::RawCookie<'static>, String> {
    let text = std::str::from_utf8(header.as_bytes()).map_err(|error| error.to_string())?;
    cookie_store::RawCookie::parse(text.to_owned()).map_err(|error| error.to_string())
}

/// Returns the two innermost causes of an error, which say what happened; the outer ones only say where.
pub fn cause(error: &dyn std::error::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        // Some errors repeat the text of their source.
        if let Some(last) = texts.last_mut()
            && last.contains(&text)
        {
            *last = last.replace(&format!(": {text}"), "");
        }
        texts.push(text);
        next = error.source();
    }
    let skip = texts.len().saturating_sub(2);
    let mut texts: Vec<String> = texts.into_iter().skip(skip).collect();
    texts.dedup();
    texts.join(": ")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::cookie::CookieStore as _;

    #[test]
    fn secure_cookies_go_to_services_of_the_stack_and_what_is_held_back_is_known() {
        let ours: IsOurs = Arc::new(|address| address == IpAddr::from([10, 0, 0, 2]));
        let gate = Gate::new(crate::policy::Guard::open(), Arc::new(|_| false));
        let cookies = Clients::new(None, ours, gate).cookies("s");
        for (url, sent) in [
            ("http://10.0.0.2:8080/", true),
            ("http://127.0.0.1:49153/", true),
            ("http://10.0.0.3/", false),
            ("https://10.0.0.3/", true),
        ] {
            let Ok(url) = reqwest::Url::parse(url) else {
                continue;
            };
            let set = HeaderValue::from_static("sid=abc; Path=/; Secure; HttpOnly");
            cookies.set_cookies(&mut [&set].into_iter(), &url);
            assert_eq!(cookies.cookies(&url).is_some(), sent, "{url}");
            assert_eq!(cookies.held_back(&url).is_empty(), sent, "{url}");
        }
    }
}
