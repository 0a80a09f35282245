//! Names and labels of objects, which identify the owner of every object (I3). Pure.
//!
//! An object of an attempt carries agent, run, cell, attempt and epoch; a ready network carries agent and pool. Nothing
//! else is ever removed. Images carry no such label: containers inherit the labels of their image, and a container that
//! a user starts from an image built by Phalanx doesn't belong to Phalanx.

use phalanx_shared::id::{AgentId, Token};
use std::collections::HashMap;

pub(super) const AGENT: &str = "phalanx.agent";
pub(super) const HOME: &str = "phalanx.home";
pub(super) const RUN: &str = "phalanx.run";
pub(super) const CELL: &str = "phalanx.cell";
pub(super) const ATTEMPT: &str = "phalanx.attempt";
pub(super) const EPOCH: &str = "phalanx.epoch";
pub(super) const SERVICE: &str = "phalanx.service";
pub(super) const CELL_NAME: &str = "phalanx.cell-name";
pub(super) const POOL: &str = "phalanx.pool";
/// Labels of images: key of the snapshot, id of the store that keeps it, name of the service.
pub(super) const SNAPSHOT: &str = "phalanx.snapshot";
pub(super) const SNAPSHOT_STORE: &str = "phalanx.snapshot.store";
pub(super) const SNAPSHOT_SERVICE: &str = "phalanx.snapshot.service";
/// Label of an image that is removed as soon as one without an environment is made of it: id of the store.
pub(super) const SNAPSHOT_HALF: &str = "phalanx.snapshot.half";
pub(super) const KEEP_UNTIL: &str = "phalanx.keep-until";

/// Labels of an object.
pub(super) type Labels = HashMap<String, String>;

/// Returns the labels for objects of an attempt.
pub fn of_attempt(agent: &AgentId, token: &Token) -> Labels {
    [
        (AGENT, agent.0.clone()),
        (RUN, token.run.0.clone()),
        (CELL, token.cell.0.clone()),
        (ATTEMPT, token.attempt.to_string()),
        (EPOCH, token.epoch.to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// Returns the labels for a ready network.
pub(super) fn of_pool(agent: &AgentId) -> Labels {
    [(AGENT, agent.0.clone()), (POOL, "ready".to_owned())]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Returns the attempt that an object belongs to, according to its labels.
pub(super) fn token_of(labels: &Labels) -> Option<Token> {
    Some(Token {
        run: labels.get(RUN)?.as_str().into(),
        cell: labels.get(CELL)?.as_str().into(),
        attempt: labels.get(ATTEMPT)?.parse().ok()?,
        epoch: labels.get(EPOCH)?.parse().ok()?,
    })
}

/// Returns the engine's filter for objects of an attempt.
pub(super) fn filter_attempt(agent: &AgentId, token: &Token) -> HashMap<String, Vec<String>> {
    let labels = of_attempt(agent, token)
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    HashMap::from([("label".to_owned(), labels)])
}

/// Returns the engine's filter for all objects of an agent.
pub(super) fn filter_agent(agent: &AgentId) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{AGENT}={agent}")])])
}

/// Returns `phalanx-RUN-CELL-ATTEMPT`. Uses the end of the run id, since run ids begin with a time.
pub(super) fn stem(token: &Token) -> String {
    let alphanumeric = |text: &str| -> String {
        text.chars()
            .filter(char::is_ascii_alphanumeric)
            .collect::<String>()
    };
    let run = alphanumeric(&token.run.0);
    let run = run.get(run.len().saturating_sub(6)..).unwrap_or(&run);
    let cell = alphanumeric(&token.cell.0);
    let cell = cell.get(..8.min(cell.len())).unwrap_or(&cell);
    format!("phalanx-{run}-{cell}-{}", token.attempt)
}

/// Returns the name of a member's container or of a named volume.
pub(super) fn object(token: &Token, name: &str) -> String {
    let safe: String = name
        .chars()
        .map(|c| match c {
            c if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-') => c,
            _ => '_',
        })
        .collect();
    format!("{}-{safe}", stem(token))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn token() -> Token {
        Token {
            run: "0193a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b".into(),
            cell: "fedcba9876543210".into(),
            attempt: 2,
            epoch: 7,
        }
    }

    #[test]
    fn labels_give_the_token_back() {
        let labels = of_attempt(&"agent-1".into(), &token());
        assert_eq!(token_of(&labels).unwrap(), token());
        assert_eq!(token_of(&of_pool(&"agent-1".into())), None);
    }

    #[test]
    fn names_are_readable_and_differ_by_run_cell_and_attempt() {
        assert_eq!(object(&token(), "shop"), "phalanx-3f4a5b-fedcba98-2-shop");
        assert_eq!(object(&token(), "a/b c"), "phalanx-3f4a5b-fedcba98-2-a_b_c");
    }
}
