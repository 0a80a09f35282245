//! Decides which services start now: those whose dependencies meet Compose's conditions.
//!
//! The decision is a pure function of the board's state.
//!
//! stage: standing up: services start as their conditions come true, by a runtime behind `runtime/contract.rs`

use super::board::{Stage, Status};
use phalanx_shared::language::service::{Condition, Dependency};
use phalanx_shared::outcome::Outcome;
use std::collections::BTreeMap;

/// The next action on a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Start this service.
    Start(String),
    /// The service can never start. The outcome is that of its dependency.
    GiveUp {
        service: String,
        outcome: Outcome,
        reason: String,
        /// The dependency that can't be met.
        cause: String,
    },
}

/// The dependencies of each service that is to run.
pub type Wanted = BTreeMap<String, Vec<(String, Dependency)>>;

/// Decides about every wanted service whose start has not begun.
pub fn decide(wanted: &Wanted, board: &BTreeMap<String, Status>) -> Vec<Decision> {
    let idle = wanted.iter().filter(|(name, _)| {
        board
            .get(*name)
            .is_some_and(|status| status.stage == Stage::Idle)
    });
    idle.filter_map(|(service, dependencies)| {
        let mut all_met = true;
        for (name, dependency) in dependencies {
            match met(name, dependency, board.get(name)) {
                Met::Yes => {}
                Met::NotYet => all_met = false,
                Met::Never(outcome, why) => {
                    return Some(Decision::GiveUp {
                        service: service.clone(),
                        outcome,
                        reason: format!("service {service} can't start: {why}"),
                        cause: name.clone(),
                    });
                }
            }
        }
        all_met.then(|| Decision::Start(service.clone()))
    })
    .collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::contract::Exit;

    fn board(stages: &[(&str, Stage)]) -> BTreeMap<String, Status> {
        let status = |stage| Status {
            stage,
            starts: u32::from(stage != Stage::Idle),
            ..Status::idle(true, false)
        };
        stages
            .iter()
            .map(|(name, stage)| ((*name).to_owned(), status(*stage)))
            .collect()
    }

    fn wanted(service: &str, on: &str, condition: Condition) -> Wanted {
        let dependency = Dependency {
            condition,
            required: true,
        };
        Wanted::from([(service.to_owned(), vec![(on.to_owned(), dependency)])])
    }

    fn start(name: &str) -> Vec<Decision> {
        vec![Decision::Start(name.to_owned())]
    }

    #[test]
    fn services_without_dependencies_start_at_once() {
        let wanted = Wanted::from([("a".to_owned(), vec![]), ("b".to_owned(), vec![])]);
        let decisions = decide(&wanted, &board(&[("a", Stage::Idle), ("b", Stage::Idle)]));
        assert_eq!(decisions, [start("a"), start("b")].concat());
    }

    #[test]
    fn a_service_waits_until_the_condition_comes_true() {
        for (condition, not_yet, met) in [
            (Condition::ServiceStarted, Stage::Starting, Stage::Started),
            (Condition::ServiceHealthy, Stage::Started, Stage::Ready),
        ] {
            let wanted = wanted("shop", "db", condition);
            let idle = ("shop", Stage::Idle);
            assert_eq!(decide(&wanted, &board(&[idle, ("db", not_yet)])), []);
            assert_eq!(decide(&wanted, &board(&[idle, ("db", met)])), start("shop"));
        }
    }

    #[test]
    fn completed_successfully_wants_exit_code_zero() {
        let wanted = wanted("shop", "job", Condition::ServiceCompletedSuccessfully);
        let mut board = board(&[("shop", Stage::Idle), ("job", Stage::Ready)]);
        assert_eq!(decide(&wanted, &board), []);
        for (code, starts) in [(0, true), (3, false)] {
            if let Some(job) = board.get_mut("job") {
                job.stage = Stage::Exited;
                job.exit = Some(Exit {
                    code,
                    oom: false,
                    start: 1,
                });
            }
            assert_eq!(decide(&wanted, &board) == start("shop"), starts, "{code}");
        }
    }

    #[test]
    fn a_service_whose_dependency_is_down_is_given_up_unless_it_isnt_required() {
        let mut wanted = wanted("shop", "db", Condition::ServiceHealthy);
        let board = board(&[("shop", Stage::Idle), ("db", Stage::Down)]);
        assert!(matches!(
            decide(&wanted, &board).as_slice(),
            [Decision::GiveUp { .. }]
        ));
        for dependencies in wanted.values_mut() {
            for (_, dependency) in dependencies {
                dependency.required = false;
            }
        }
        assert_eq!(decide(&wanted, &board), start("shop"));
    }

    #[test]
    fn a_service_that_can_do_without_a_manual_one_does_not_wait_for_it() {
        let mut wanted = wanted("shop", "seed", Condition::ServiceStarted);
        let mut board = board(&[("shop", Stage::Idle), ("seed", Stage::Idle)]);
        for status in board.values_mut() {
            status.manual = true;
        }
        assert_eq!(decide(&wanted, &board), []);
        for (_, dependency) in wanted.values_mut().flatten() {
            dependency.required = false;
        }
        assert_eq!(decide(&wanted, &board), start("shop"));
    }
}
