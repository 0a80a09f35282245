//! Whether a service may start: its dependencies meet Compose's conditions, don't meet them yet, or never will.
//!
//! The decision is a pure function of the board's state.

use super::board::{Stage, Status};
use phalanx_shared::language::service::{Condition, Dependency};
use phalanx_shared::outcome::Outcome;
use std::collections::BTreeMap;

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
        (Condition::ServiceStarted, Stage::Exited | Stage::Stopped | Stage::Down)
            if status.starts > 0 =>
        {
            Met::Yes
        }
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
