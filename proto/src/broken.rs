//! Describes a broken call. Transports report "h2 protocol error"; users need to know that the connection was cut off.

use crate::tls;
use tonic::Status;

/// Describes the failure of a call, without the transport's own message if that says nothing useful.
pub fn broken(status: &Status) -> String {
    if let Some(explained) = tls::explain(status) {
        return explained;
    }
    let said = status.message();
    let of_transport = said.starts_with("h2 protocol error") || said == "transport error";
    if !of_transport {
        return said.to_owned();
    }
    let mut deepest = None;
    let mut next = std::error::Error::source(status);
    while let Some(cause) = next {
        deepest = Some(cause.to_string());
        next = cause.source();
    }
    match deepest {
        // TLS says so at length; without TLS nothing does.
        Some(cause) if cause.contains("close_notify") => "it was cut off".to_owned(),
        Some(cause) if cause != said => format!("it was cut off ({cause})"),
        _ => "it was cut off".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_stays_and_a_transport_error_becomes_plain() {
        assert_eq!(broken(&Status::aborted("a newer one")), "a newer one");
        let status = Status::unknown("h2 protocol error: error reading a body from connection");
        assert_eq!(broken(&status), "it was cut off");
        let cause = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "connection reset");
        let mut status = Status::unavailable("transport error");
        status.set_source(std::sync::Arc::new(cause));
        assert_eq!(broken(&status), "it was cut off (connection reset)");
    }
}
