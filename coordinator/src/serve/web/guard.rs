//! Who may see pages and use their buttons.
//!
//! Without access control, pages are for the users of this machine: there are no passwords. Other web sites that such a
//! user visits must not reach them either. They can send requests, or point a name of their own at 127.0.0.1 to read the
//! answers. So the `Host` must be a name of this machine, an `Origin` must be the page's own, and an action needs the
//! token that only the pages contain. What a browser says that another site asks for is refused, unless the user follows
//! a link. With access control only the `Host` may be any: a name that another site pointed here has no cookie.

use super::problem::Problem;
use crate::access::Caller;
use crate::access::core::Role;
use crate::access::secret::same;
use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;

/// What browsers may do with a page: load this server's own files, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; media-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const HEADERS: [(&str, &str); 5] = [
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
];

/// What a browser says of a request: which site asks, and what for.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// The actions that pages offer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Actions {
    /// Cancel a run.
    pub cancel: bool,
    /// Run cells of a run again, as a new run.
    pub rerun: bool,
    /// Drain an agent.
    pub drain: bool,
}

impl Actions {
    /// Every action: for a coordinator that outlives its runs.
    pub const ALL: Actions = Actions {
        cancel: true,
        rerun: true,
        drain: true,
    };
    /// For a coordinator that ends with its run.
    pub const OF_ONE_RUN: Actions = Actions {
        cancel: true,
        rerun: false,
        drain: false,
    };
    /// None: the pages only show.
    pub const NONE: Actions = Actions {
        cancel: false,
        rerun: false,
        drain: false,
    };
}

impl Actions {
    /// Returns those of the actions that a caller may do.
    pub fn of(self, caller: &Caller) -> Actions {
        Actions {
            cancel: self.cancel && caller.has(Role::CancelOwn),
            rerun: self.rerun && caller.has(Role::Run),
            drain: self.drain && caller.has_everywhere(Role::Admin),
        }
    }

    /// Returns whether there is any.
    pub fn any(self) -> bool {
        self.cancel || self.rerun || self.drain
    }
}

/// The secret that actions need. Each process has its own.
#[derive(Clone)]
pub struct ActionToken(String);

impl ActionToken {
    /// Creates a token that can't be guessed.
    pub fn random() -> ActionToken {
        ActionToken(uuid::Uuid::new_v4().simple().to_string())
    }

    /// Returns the token, for a page's own forms.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Checks the token of a request.
    pub fn check(&self, given: &str) -> Result<(), Problem> {
        same(given.as_bytes(), self.0.as_bytes()).then_some(()).ok_or_else(|| {
            Problem::new(
                StatusCode::FORBIDDEN,
                "this page is from before a restart of the coordinator: reload it and press the button again",
            )
        })
    }
}

/// Refuses requests of other sites, and adds the headers that every page has.
pub async fn guard(State(passwords): State<bool>, request: Request, next: Next) -> Response {
    let (method, headers, uri) = (request.method(), request.headers(), request.uri());
    let checked = check(passwords, method, headers, uri);
    let mut response = match checked {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        let name = HeaderName::from_static(name);
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    response
}

fn check(passwords: bool, method: &Method, headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
    let text = |name: &HeaderName| {
        headers
            .get(name)
            .map(|value| value.to_str().unwrap_or("?").to_owned())
    };
    let host = text(&HOST).or_else(|| uri.authority().map(ToString::to_string));
    let host = host.unwrap_or_default();
    if !passwords && !is_this_machine(&host) {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            format!(
                "{host:?} isn't a name of this machine: use 127.0.0.1, [::1] or localhost (through an SSH tunnel, too)"
            ),
        ));
    }
    // Only the browser knows the scheme: this port may have TLS, or a proxy in front of it.
    let own = |origin: &str| {
        let (scheme, rest) = origin.split_once("://").unwrap_or_default();
        rest == host && matches!(scheme, "http" | "https")
    };
    let other_origin = text(&ORIGIN).is_some_and(|origin| !own(&origin));
    let site = text(&FETCH_SITE);
    let other_site = matches!(site.as_deref(), Some("cross-site" | "same-site"));
    let follows_link = method == Method::GET && text(&FETCH_MODE).as_deref() == Some("navigate");
    if other_origin || (other_site && !follows_link) {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "requests of other sites are refused",
        ));
    }
    Ok(())
}

/// Returns whether a `Host` header names this machine, at any port: a tunnel may have another one.
fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => {
            if port.parse::<u16>().is_err() {
                return false;
            }
            name
        }
        _ => host,
    };
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let inside = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    let address: Option<IpAddr> = inside.unwrap_or(name).parse().ok();
    address.is_some_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(pairs: &[(&str, &str)]) -> bool {
        checked_with(&Method::GET, pairs)
    }

    fn checked_with(method: &Method, pairs: &[(&str, &str)]) -> bool {
        let pairs = pairs.iter().filter_map(|(name, value)| {
            let name: HeaderName = name.parse().ok()?;
            Some((name, value.parse().ok()?))
        });
        check(false, method, &pairs.collect(), &Uri::from_static("/runs")).is_ok()
    }

    #[test]
    fn only_names_of_this_machine_are_hosts() {
        for host in [
            "127.0.0.1:7181",
            "localhost:9",
            "LOCALHOST",
            "[::1]:7181",
            "[::1]",
            "[::ffff:127.0.0.1]:7181",
            "127.1.2.3",
        ] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:7181",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1:7181",
            "localhost:x",
        ] {
            assert!(!is_this_machine(host), "{host}");
        }
    }

    #[test]
    fn a_foreign_origin_is_refused_and_none_is_not() {
        assert!(checked(&[("host", "localhost:1")]));
        assert!(checked(&[
            ("host", "localhost:1"),
            ("origin", "http://localhost:1")
        ]));
        assert!(checked(&[
            ("host", "localhost:1"),
            ("origin", "https://localhost:1")
        ]));
        for origin in [
            "http://evil.example",
            "null",
            "http://localhost:2",
            "https://localhost:2",
        ] {
            assert!(
                !checked(&[("host", "localhost:1"), ("origin", origin)]),
                "{origin}"
            );
        }
    }

    #[test]
    fn another_site_can_only_link_to_pages() {
        let from = |site, mode| {
            [
                ("host", "localhost:1"),
                ("sec-fetch-site", site),
                ("sec-fetch-mode", mode),
            ]
        };
        for site in ["cross-site", "same-site"] {
            assert!(checked(&from(site, "navigate")), "{site}");
            assert!(!checked(&from(site, "no-cors")), "{site}");
            assert!(!checked(&from(site, "cors")), "{site}");
            assert!(!checked_with(&Method::POST, &from(site, "navigate")));
        }
        assert!(checked(&from("none", "navigate")));
        assert!(checked(&from("same-origin", "cors")));
        assert!(checked_with(
            &Method::POST,
            &from("same-origin", "navigate")
        ));
    }

    #[test]
    fn a_token_is_of_its_process() {
        let token = ActionToken::random();
        assert!(token.check(token.as_str()).is_ok());
        assert!(token.check(ActionToken::random().as_str()).is_err());
        assert!(token.check("").is_err());
    }
}
