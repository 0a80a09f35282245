//! Reads the standard environment variables that decide whether, where and how to send traces and metrics.
//!
//! The OpenTelemetry crates themselves read headers, compression and resource attributes.

use std::path::PathBuf;
use std::time::Duration;
use tonic::transport::Uri;

/// How long the backend may take for a request, unless `OTEL_EXPORTER_OTLP_TIMEOUT` says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Signal {
    Traces,
    Metrics,
}

/// A transport of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// Protobuf by HTTP `POST`.
    HttpProtobuf,
}

/// Where a signal is sent, and how.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// Address: for HTTP with the signal's path. It may have a password; [`Target::shown`] hasn't.
    pub endpoint: String,
    /// Transport.
    pub protocol: Protocol,
    /// Time within which the backend must accept a request.
    pub timeout: Duration,
    /// PEM file with the certificates that are trusted instead of the machine's.
    pub certificate: Option<PathBuf>,
    /// PEM files with this side's own certificate and its key, if the backend asks for one.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Whether a variable of this signal's own names it, so that a failure is worth a warning.
    pub explicit: bool,
}

impl Signal {
    /// The part of the variables' names for the signal.
    fn word(self) -> &'static str {
        match self {
            Signal::Traces => "TRACES",
            Signal::Metrics => "METRICS",
        }
    }

    /// The path of the signal in OTLP over HTTP.
    fn path(self) -> &'static str {
        match self {
            Signal::Traces => "v1/traces",
            Signal::Metrics => "v1/metrics",
        }
    }
}

/// The variables of one signal.
struct Variables<'a> {
    signal: Signal,
    variable: &'a dyn Fn(&str) -> Option<String>,
}

impl Variables<'_> {
    /// Returns a variable's value without white space around it, unless it is empty.
    fn get(&self, name: &str) -> Option<String> {
        let value = (self.variable)(name)?.trim().to_owned();
        Some(value).filter(|value| !value.is_empty())
    }

    /// Returns the value of the signal's own variable.
    fn own(&self, name: &str) -> Option<String> {
        self.get(&format!("OTEL_EXPORTER_OTLP_{}_{name}", self.signal.word()))
    }

    /// Returns the value of the signal's own variable, or of the general one.
    fn either(&self, name: &str) -> Option<String> {
        self.own(name)
            .or_else(|| self.get(&format!("OTEL_EXPORTER_OTLP_{name}")))
    }

    /// Returns whether the signal is exported at all.
    fn is_on(&self) -> Result<bool, String> {
        if self
            .get("OTEL_SDK_DISABLED")
            .is_some_and(|word| word.eq_ignore_ascii_case("true"))
        {
            return Ok(false);
        }
        let name = format!("OTEL_{}_EXPORTER", self.signal.word());
        match self.get(&name).as_deref() {
            None | Some("otlp") => Ok(true),
            Some("none") => Ok(false),
            Some(other) => Err(format!("{name}={other}: only otlp and none are known")),
        }
    }

    fn protocol(&self) -> Result<Protocol, String> {
        match self.either("PROTOCOL").as_deref() {
            None | Some("grpc") => Ok(Protocol::Grpc),
            Some("http/protobuf") => Ok(Protocol::HttpProtobuf),
            Some(other) => Err(format!(
                "OTEL_EXPORTER_OTLP_PROTOCOL={other}: only grpc and http/protobuf are known"
            )),
        }
    }

    fn timeout(&self) -> Result<Duration, String> {
        let Some(text) = self.either("TIMEOUT") else {
            return Ok(TIMEOUT);
        };
        match text.parse() {
            Ok(ms) if ms > 0 => Ok(Duration::from_millis(ms)),
            _ => Err(format!(
                "OTEL_EXPORTER_OTLP_TIMEOUT={text}: write a number of milliseconds, as in 10000"
            )),
        }
    }

    fn client(&self) -> Result<Option<(PathBuf, PathBuf)>, String> {
        let (certificate, key) = (self.either("CLIENT_CERTIFICATE"), self.either("CLIENT_KEY"));
        match (certificate, key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => Ok(Some((certificate.into(), key.into()))),
            _ => Err(
                "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY: set both or none"
                    .to_owned(),
            ),
        }
    }
}

impl Target {
    /// Reads the environment through `variable`. Returns `Ok(None)` if the signal isn't exported. An error says what isn't
    /// possible and how to fix it; the program should still run.
    pub fn read(
        signal: Signal,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Target>, String> {
        let variables = Variables {
            signal,
            variable: &variable,
        };
        let own = variables.own("ENDPOINT");
        let Some(endpoint) = own.clone().or_else(|| variables.either("ENDPOINT")) else {
            return Ok(None);
        };
        if !variables.is_on()? {
            return Ok(None);
        }
        let protocol = variables.protocol()?;
        let scheme = endpoint.parse::<Uri>().ok().and_then(|uri| {
            uri.authority()?;
            uri.scheme_str().map(str::to_owned)
        });
        if !matches!(scheme.as_deref(), Some("http" | "https")) {
            let port = match protocol {
                Protocol::Grpc => 4317,
                Protocol::HttpProtobuf => 4318,
            };
            return Err(format!(
                // Not its value, which may have a password.
                "OTEL_EXPORTER_OTLP_ENDPOINT is not an address; write http://HOST:{port}"
            ));
        }
        let word = format!("OTEL_{}_EXPORTER", signal.word());
        let explicit = own.is_some() || variables.get(&word).is_some();
        // The standard: the general address is a base for HTTP, the signal's own is taken as it is.
        let endpoint = match (protocol, &own) {
            (Protocol::HttpProtobuf, None) => {
                format!("{}/{}", endpoint.trim_end_matches('/'), signal.path())
            }
            _ => endpoint,
        };
        Ok(Some(Target {
            endpoint,
            protocol,
            timeout: variables.timeout()?,
            certificate: variables.either("CERTIFICATE").map(PathBuf::from),
            client: variables.client()?,
            explicit,
        }))
    }

    /// Returns the address without user, password and query, for messages.
    pub fn shown(&self) -> String {
        let address = self.endpoint.split(['?', '#']).next().unwrap_or_default();
        match self.userinfo() {
            Some(user) => address.replacen(&format!("{user}@"), "", 1),
            None => address.to_owned(),
        }
    }

    /// Returns what others say about a failure without user, password and query.
    pub(super) fn hushed(&self, why: &str) -> String {
        let mut why = why.replace(&self.endpoint, &self.shown());
        if let Some(user) = self.userinfo() {
            why = why.replace(&format!("{user}@"), "");
        }
        match self.endpoint.split_once('?') {
            Some((_, query)) if !query.is_empty() => why.replace(&format!("?{query}"), ""),
            _ => why,
        }
    }

    /// Returns user and password of the address, if it has some.
    fn userinfo(&self) -> Option<&str> {
        let (_, rest) = self.endpoint.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        let (user, _) = authority.rsplit_once('@')?;
        Some(user).filter(|user| !user.is_empty())
    }

    /// Returns whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        let scheme = self.endpoint.split(':').next();
        scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"))
    }
}

// Without what may be secret.
impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Target");
        shown.field("endpoint", &self.shown());
        shown.field("protocol", &self.protocol);
        shown.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn target(signal: Signal, set: &[(&str, &str)]) -> Result<Option<Target>, String> {
        Target::read(signal, |name| {
            let found = set.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn read(set: &[(&str, &str)]) -> Result<Option<String>, String> {
        target(Signal::Traces, set).map(|target| target.map(|target| target.endpoint))
    }

    const GENERAL: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4317");
    const HTTP: (&str, &str) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");

    #[test]
    fn traces_go_where_the_standard_says_and_nowhere_without_an_endpoint() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), Ok(None));
        assert_eq!(read(&[GENERAL]), Ok(Some("http://a:4317".to_owned())));
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://b:4317");
        assert_eq!(read(&[GENERAL, own]), Ok(Some("http://b:4317".to_owned())));
        assert_eq!(read(&[GENERAL, ("OTEL_SDK_DISABLED", "True")]), Ok(None));
        assert_eq!(read(&[GENERAL, ("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        let otlp = ("OTEL_TRACES_EXPORTER", "otlp");
        assert!(read(&[GENERAL, grpc, otlp]).unwrap().is_some());
    }

    #[test]
    fn over_http_the_general_address_gets_the_signals_path_and_its_own_does_not() {
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://a/otlp/");
        let metrics = target(Signal::Metrics, &[base, HTTP]).unwrap().unwrap();
        assert_eq!(metrics.endpoint, "https://a/otlp/v1/metrics");
        assert!(metrics.is_tls() && !metrics.explicit);
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://b/in");
        assert_eq!(read(&[base, own, HTTP]), Ok(Some("http://b/in".to_owned())));
    }

    #[test]
    fn messages_have_neither_password_nor_query() {
        let secret = "http://me:s3cret@a:4318/in?key=k3y";
        let set = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", secret), HTTP];
        let target = target(Signal::Traces, &set).unwrap().unwrap();
        assert_eq!(target.shown(), "http://a:4318/in");
        let why = target.hushed(&format!("can't reach {secret}, me:s3cret@a"));
        assert_eq!(why, "can't reach http://a:4318/in, a");
        assert!(!format!("{target:?}").contains("s3cret"));
        let unreadable = ("OTEL_EXPORTER_OTLP_ENDPOINT", "me:s3cret@a");
        assert!(!read(&[unreadable]).unwrap_err().contains("s3cret"));
    }

    #[test]
    fn each_signal_has_its_own_variables_before_the_general_ones() {
        let set = [
            GENERAL,
            ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "250"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "ca.pem"),
            ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "own.pem"),
            ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "own.key"),
            ("OTEL_METRICS_EXPORTER", "otlp"),
        ];
        let traces = target(Signal::Traces, &set).unwrap().unwrap();
        let metrics = target(Signal::Metrics, &set).unwrap().unwrap();
        assert_eq!(traces.protocol, Protocol::Grpc);
        assert_eq!(metrics.protocol, Protocol::HttpProtobuf);
        assert_eq!(metrics.timeout, Duration::from_millis(250));
        assert_eq!(metrics.certificate, Some("ca.pem".into()));
        assert_eq!(traces.client, Some(("own.pem".into(), "own.key".into())));
        assert_eq!(
            (metrics.client, metrics.explicit, traces.explicit),
            (None, true, false)
        );
    }

    #[test]
    fn what_can_not_be_done_is_said_with_the_way_out() {
        for (set, words) in [
            (
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
                "http/protobuf",
            ),
            (("OTEL_TRACES_EXPORTER", "zipkin"), "otlp and none"),
            (("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"), "milliseconds"),
            (("OTEL_EXPORTER_OTLP_CLIENT_KEY", "a.key"), "both"),
            (
                ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "localhost:4317"),
                "http://HOST:4317",
            ),
        ] {
            let error = read(&[GENERAL, set]).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
