//! Reads the standard environment variables that decide whether and where to send traces.
//!
//! The OpenTelemetry crates themselves read headers, timeouts, compression and resource attributes.

use tonic::transport::Uri;

/// Where traces are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The endpoint, as configured.
    pub endpoint: String,
}

impl Target {
    /// Reads the environment through `variable`. Returns `Ok(None)` if tracing is off. An error says what isn't
    /// possible and how to fix it; the program should still run.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Target>, String> {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let of_traces = |name: &str| {
            let own = format!("OTEL_EXPORTER_OTLP_TRACES_{name}");
            set(&own).or_else(|| set(&format!("OTEL_EXPORTER_OTLP_{name}")))
        };
        let Some(endpoint) = of_traces("ENDPOINT") else {
            return Ok(None);
        };
        if set("OTEL_SDK_DISABLED").is_some_and(|word| word.trim().eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        match set("OTEL_TRACES_EXPORTER").as_deref().map(str::trim) {
            None | Some("otlp") => {}
            Some("none") => return Ok(None),
            Some(other) => {
                return Err(format!(
                    "OTEL_TRACES_EXPORTER={other}: only otlp and none are known"
                ));
            }
        }
        match of_traces("PROTOCOL").as_deref().map(str::trim) {
            None | Some("grpc") => {}
            Some(other) => {
                return Err(format!(
                    "OTEL_EXPORTER_OTLP_PROTOCOL={other}: traces are sent as grpc only; set OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=grpc \
                     and the backend's gRPC endpoint (usually port 4317)"
                ));
            }
        }
        let endpoint = endpoint.trim().to_owned();
        let scheme = endpoint.parse::<Uri>().ok().and_then(|uri| {
            uri.authority()?;
            uri.scheme_str().map(str::to_owned)
        });
        match scheme.as_deref() {
            Some("http") => Ok(Some(Target { endpoint })),
            Some("https") => Err(format!(
                "{endpoint}: traces are sent without TLS; point OTEL_EXPORTER_OTLP_TRACES_ENDPOINT at a collector nearby (http://…:4317) that forwards them"
            )),
            _ => Err(format!(
                "OTEL_EXPORTER_OTLP_ENDPOINT={endpoint}: not an address; write http://HOST:4317"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<Option<String>, String> {
        let variable = |name: &str| {
            let found = set.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Target::read(variable).map(|target| target.map(|target| target.endpoint))
    }

    const GENERAL: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4317");

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
    fn what_can_not_be_done_is_said_with_the_way_out() {
        for (set, words) in [
            (("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"), "4317"),
            (("OTEL_TRACES_EXPORTER", "zipkin"), "otlp and none"),
            (
                ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "localhost:4317"),
                "http://HOST:4317",
            ),
            (
                ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://a.example"),
                "collector",
            ),
        ] {
            let error = read(&[GENERAL, set]).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
