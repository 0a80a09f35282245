//! Limits the size of statuses. A status larger than the trailers that a peer accepts makes the whole call look cut
//! off, and its reason is lost.

use crate::limit::{STATUS_DETAILS_BYTES, STATUS_MESSAGE_BYTES};
use tonic::Status;

/// Returns the status with a shortened message and without details if they are too long.
pub fn fitting(status: Status) -> Status {
    let (message, details) = (status.message(), status.details());
    if message.len() <= STATUS_MESSAGE_BYTES && details.len() <= STATUS_DETAILS_BYTES {
        return status;
    }
    let details = match details.len() {
        0..=STATUS_DETAILS_BYTES => details.to_vec(),
        _ => Vec::new(),
    };
    let message = cut(message);
    Status::with_details_and_metadata(
        status.code(),
        message,
        details.into(),
        status.metadata().clone(),
    )
}

/// Returns as much of a message as fits.
pub(crate) fn cut(message: &str) -> String {
    if message.len() <= STATUS_MESSAGE_BYTES {
        return message.to_owned();
    }
    let end = message.floor_char_boundary(STATUS_MESSAGE_BYTES);
    format!("{} …", message.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_between_characters_and_a_short_one_stays() {
        let short = fitting(Status::not_found("there is no run x"));
        assert_eq!(short.message(), "there is no run x");
        let long = fitting(Status::not_found("ä".repeat(100_000)));
        assert!(long.message().len() <= STATUS_MESSAGE_BYTES + 4);
        assert!(long.message().ends_with("ä …"), "{long}");
        assert_eq!(long.code(), tonic::Code::NotFound);
        let details = vec![0; STATUS_DETAILS_BYTES + 1];
        let heavy = Status::with_details(tonic::Code::Aborted, "why", details.into());
        assert!(fitting(heavy).details().is_empty());
    }
}
