//! Whether a service may start: its dependencies meet Compose's conditions, don't meet them yet, or never will.
//!
//! The decision is a pure function of the board's state.

use super::board::{Stage, Status};
use phalanx_shared::language::service::{Condition, Dependency};
use phalanx_shared::outcome::Outcome;
use std::collections::{BTreeMap, BTreeSet};

/// The dependencies of a service, in order.
pub type Dependencies = Vec<(String, Dependency)>;

/// Whether a service may start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its dependencies are met.
    Yes,
    /// A dependency isn't met yet.
    NotYet,
    /// A dependency can't be met.
    Never(GivenUp),
}

/// Why a service can never start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// Outcome to report: failed or errored; that of its dependency if that is the reason.
    pub outcome: Outcome,
    /// Reason, as shown in reports.
    pub reason: String,
    /// The dependency that can't be met, if that is the reason.
    pub cause: Option<String>,
}

/// Decides whether a service may start now.
pub fn may_start(service: &str, on: &Dependencies, board: &BTreeMap<String, Status>) -> Verdict {
    let mut verdict = Verdict::Yes;
    for (name, dependency) in on {
        match met(name, dependency, board.get(name)) {
            Met::Yes => {}
            Met::NotYet => verdict = Verdict::NotYet,
            Met::Never(outcome, why) => {
                return Verdict::Never(GivenUp {
                    outcome,
                    reason: format!("service {service} can't start: {why}"),
                    cause: Some(name.clone()),
                });
            }
        }
    }
    verdict
}

/// Returns the running services that are restarted after a step restarted `service`: those that depend on it with
/// `restart: true`, and those that depend on these in the same way. Dependencies come first.
pub fn restarted_with(service: &str, board: &BTreeMap<String, Status>) -> Vec<String> {
    let runs = |status: &Status| {
        matches!(
            status.stage,
            Stage::Starting | Stage::Started | Stage::Ready
        ) && status.starts > 0
    };
    let mut all = BTreeSet::from([service]);
    loop {
        let more: Vec<&str> = board
            .iter()
            .filter(|(name, status)| !all.contains(name.as_str()) && runs(status))
            // Its service stands for a replica.
            .filter(|(_, status)| status.of.is_none())
            .filter(|(_, status)| {
                status
                    .restarts_with
                    .iter()
                    .any(|on| all.contains(on.as_str()))
            })
            .map(|(name, _)| name.as_str())
            .collect();
        if more.is_empty() {
            break;
        }
        all.extend(more);
    }
    let mut done = vec![service];
    while let Some(next) = all.iter().find(|name| {
        let status = board.get(**name);
        let on = status.map_or(&[][..], |status| status.restarts_with.as_slice());
        let waits = |on: &String| all.contains(on.as_str()) && !done.contains(&on.as_str());
        !done.contains(name) && !on.iter().any(waits)
    }) {
        done.push(next);
    }
    done.drain(1..).map(str::to_owned).collect()
}

enum Met {
    Yes,
    NotYet,
    Never(Outcome, String),
}

fn met(name: &str, dependency: &Dependency, status: Option<&Status>) -> Met {
    let Some(status) = status else {
        return if dependency.required {
            Met::Never(
                Outcome::Errored,
                format!("it depends on {name}, which doesn't exist"),
            )
        } else {
            Met::Yes
        };
    };
    let verdict = match (dependency.condition, status.stage) {
        (Condition::ServiceStarted, Stage::Started | Stage::Ready) => Met::Yes,
        // It has started; `Starting` means that it exited and its `restart` policy starts it again.
        (
            Condition::ServiceStarted,
            Stage::Starting | Stage::Exited | Stage::Stopped | Stage::Down,
        ) if status.starts > 0 => Met::Yes,
        (Condition::ServiceHealthy, Stage::Ready) => Met::Yes,
        (Condition::ServiceCompletedSuccessfully, Stage::Exited | Stage::Down | Stage::Stopped) => {
            match &status.exit {
                Some(exit) if exit.code == 0 => Met::Yes,
                Some(exit) => Met::Never(
                    Outcome::Failed,
                    format!("{name} should complete, and exited with code {}", exit.code),
                ),
                None => down(name, status),
            }
        }
        (_, Stage::Down) => down(name, status),
        (_, Stage::Exited | Stage::Stopped) => {
            Met::Never(Outcome::Failed, format!("{name} isn't running any more"))
        }
        (_, Stage::Idle | Stage::Starting | Stage::Started | Stage::Ready) => Met::NotYet,
    };
    match verdict {
        Met::Never(..) if !dependency.required => Met::Yes,
        // A step may or may not start it, so a service that doesn't require it doesn't wait for it.
        Met::NotYet if !dependency.required && status.manual && status.stage == Stage::Idle => {
            Met::Yes
        }
        verdict => verdict,
    }
}

fn down(name: &str, status: &Status) -> Met {
    match &status.down {
        Some(down) => Met::Never(down.outcome, down.reason.clone()),
        None => Met::Never(Outcome::Failed, format!("{name} is down")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependents_that_ask_for_it_are_restarted_too_in_order() {
        let status = |stage, with: &[&str]| Status {
            stage,
            starts: 1,
            restarts_with: with.iter().map(|name| (*name).to_owned()).collect(),
            ..Status::idle(false, false)
        };
        let board = BTreeMap::from([
            ("a-web".to_owned(), status(Stage::Ready, &["db", "b-api"])),
            ("b-api".to_owned(), status(Stage::Started, &["db"])),
            ("db".to_owned(), status(Stage::Ready, &[])),
            ("job".to_owned(), status(Stage::Exited, &["db"])),
            ("other".to_owned(), status(Stage::Ready, &[])),
        ]);
        assert_eq!(restarted_with("db", &board), ["b-api", "a-web"]);
        assert_eq!(restarted_with("other", &board), Vec::<String>::new());
    }
}
