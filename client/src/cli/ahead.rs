//! Words for the images that agents prepare for cells that have no slot yet.

use phalanx_proto::v1;
use v1::AheadState as State;

/// Returns what is done and how far it is: `pull postgres:17 on runner-1: 2 of 5 layers done`.
pub fn text(preparing: &v1::Preparing) -> String {
    let v1::Preparing {
        what, agent, doing, ..
    } = preparing;
    let state = match preparing.state() {
        State::Unspecified => "waits for its turn",
        State::InProgress if doing.is_empty() => "in progress",
        State::InProgress => doing,
        State::Ready => "ready",
        State::Failed => "failed; the cell tries again",
    };
    format!("{what} on {agent}: {state}")
}

/// Returns the same without numbers that change, or `None` before it has begun, for lines that are printed once.
pub fn stage(preparing: &v1::Preparing) -> Option<String> {
    let begun = preparing.state() != State::Unspecified;
    let without = v1::Preparing {
        doing: String::new(),
        ..preparing.clone()
    };
    begun.then(|| text(&without))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_image_agent_and_progress_and_is_printed_once_per_stage() {
        let pull = |state: State, doing: &str| v1::Preparing {
            what: "pull db:1".to_owned(),
            agent: "runner".to_owned(),
            state: state.into(),
            doing: doing.to_owned(),
        };
        let doing = pull(State::InProgress, "1 of 2 layers done");
        assert_eq!(text(&doing), "pull db:1 on runner: 1 of 2 layers done");
        let other = pull(State::InProgress, "2 of 2 layers done");
        assert_eq!(stage(&doing), stage(&other));
        assert_ne!(stage(&doing), stage(&pull(State::Ready, "")));
        assert_eq!(stage(&pull(State::Unspecified, "")), None);
        assert_eq!(
            text(&pull(State::Failed, "")),
            "pull db:1 on runner: failed; the cell tries again"
        );
    }
}
