//! Decides which services start, and when: those that aren't `start: manual`, each as soon as its dependencies allow it.
//!
//! stage: standing up: services start as their conditions come true, by a runtime behind `runtime/contract.rs`

use super::board::{Stage, Status};
use super::dependencies::{Dependencies, GivenUp, Verdict, may_start};
use crate::runtime::contract::RuntimeError;
use std::collections::{BTreeMap, BTreeSet};

/// The services that start without a step.
#[derive(Debug, Default)]
pub struct Starter {
    /// The dependencies of each service whose definition could be evaluated.
    wanted: BTreeMap<String, Dependencies>,
    /// Services that have been started or given up.
    decided: BTreeSet<String>,
    /// Services that wait until it is decided whether they start with saved files.
    held: BTreeSet<String>,
}

/// Inputs of the starter.
#[derive(Clone)]
pub enum Input {
    /// The definition of a service was evaluated.
    Defined {
        service: String,
        result: Result<Dependencies, RuntimeError>,
    },
    /// These services don't start until they are released.
    Hold(BTreeSet<String>),
    /// The held services may start.
    Release,
    /// These services were started in vain, and start once more.
    Renew(Vec<String>),
    /// The state of the services, after all are defined and after each change.
    Board(BTreeMap<String, Status>),
}

/// Effects that the starter wants performed, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Show the required dependencies of a service on the board.
    ShowNeeds { service: String, needs: Vec<String> },
    /// Start this service.
    Start(String),
    /// The service can never start.
    GiveUp { service: String, why: GivenUp },
}

impl Starter {
    /// Handles one input and returns the effects to perform.
    pub fn handle(&mut self, input: Input) -> Vec<Effect> {
        match input {
            Input::Defined {
                service,
                result: Ok(on),
            } => {
                let required = on.iter().filter(|(_, on)| on.required);
                let needs = required.map(|(name, _)| name.clone()).collect();
                self.wanted.insert(service.clone(), on);
                vec![Effect::ShowNeeds { service, needs }]
            }
            // A service with an invalid definition is down at once.
            Input::Defined {
                service,
                result: Err(error),
            } => {
                let (outcome, reason) = (error.outcome(), error.reason);
                let cause = None;
                let why = GivenUp {
                    outcome,
                    reason,
                    cause,
                };
                vec![Effect::GiveUp { service, why }]
            }
            Input::Hold(services) => {
                self.held = services;
                Vec::new()
            }
            Input::Release => {
                self.held.clear();
                Vec::new()
            }
            Input::Renew(services) => {
                for service in services {
                    self.decided.remove(&service);
                }
                Vec::new()
            }
            Input::Board(board) => self.decide(&board),
        }
    }

    /// Decides about every wanted service whose start has not begun.
    fn decide(&mut self, board: &BTreeMap<String, Status>) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (service, on) in &self.wanted {
            let status = board.get(service);
            let idle = status.is_some_and(|status| status.stage == Stage::Idle);
            if !idle || self.decided.contains(service) || self.held.contains(service) {
                continue;
            }
            let service = service.clone();
            effects.push(match may_start(&service, on, board) {
                Verdict::NotYet => continue,
                Verdict::Yes => Effect::Start(service),
                Verdict::Never(why) => Effect::GiveUp { service, why },
            });
        }
        for effect in &effects {
            if let Effect::Start(service) | Effect::GiveUp { service, .. } = effect {
                self.decided.insert(service.clone());
            }
        }
        effects
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::contract::{Exit, Fault};
    use phalanx_shared::language::service::{Condition, Dependency};
    use phalanx_shared::outcome::Outcome;

    fn board(stages: &[(&str, Stage)]) -> BTreeMap<String, Status> {
        let status = |stage| Status {
            stage,
            starts: u32::from(!matches!(stage, Stage::Idle | Stage::Starting)),
            ..Status::idle(true, false)
        };
        stages
            .iter()
            .map(|(name, stage)| ((*name).to_owned(), status(*stage)))
            .collect()
    }

    type Wanted = BTreeMap<String, Dependencies>;

    /// Returns the effects of a state of the board on a starter that knows these definitions.
    fn decide(wanted: &Wanted, board: &BTreeMap<String, Status>) -> Vec<Effect> {
        let mut starter = Starter::default();
        for (service, on) in wanted.clone() {
            let result = Ok(on);
            starter.handle(Input::Defined { service, result });
        }
        starter.handle(Input::Board(board.clone()))
    }

    fn wanted(service: &str, on: &str, condition: Condition) -> Wanted {
        let dependency = Dependency {
            condition,
            required: true,
            restart: false,
        };
        Wanted::from([(service.to_owned(), vec![(on.to_owned(), dependency)])])
    }

    fn start(name: &str) -> Vec<Effect> {
        vec![Effect::Start(name.to_owned())]
    }

    #[test]
    fn a_service_is_started_once_and_an_invalid_definition_is_given_up() {
        let mut starter = Starter::default();
        let defined = |service: &str, result| Input::Defined {
            service: service.to_owned(),
            result,
        };
        starter.handle(defined("web", Ok(vec![])));
        let error = RuntimeError::of("bad", Fault::Definition, "no image");
        let effects = starter.handle(defined("bad", Err(error)));
        let why = GivenUp {
            outcome: Outcome::Errored,
            reason: "service bad: no image".to_owned(),
            cause: None,
        };
        let service = "bad".to_owned();
        assert_eq!(effects, [Effect::GiveUp { service, why }]);
        let idle = board(&[("web", Stage::Idle), ("bad", Stage::Idle)]);
        assert_eq!(starter.handle(Input::Board(idle.clone())), start("web"));
        assert_eq!(starter.handle(Input::Board(idle)), []);
    }

    #[test]
    fn a_held_service_starts_when_it_is_released_and_once_more_when_it_is_renewed() {
        let mut starter = Starter::default();
        for service in ["db", "web"] {
            let (service, result) = (service.to_owned(), Ok(vec![]));
            starter.handle(Input::Defined { service, result });
        }
        starter.handle(Input::Hold(BTreeSet::from(["db".to_owned()])));
        let idle = board(&[("web", Stage::Idle), ("db", Stage::Idle)]);
        assert_eq!(starter.handle(Input::Board(idle.clone())), start("web"));
        assert_eq!(starter.handle(Input::Release), []);
        assert_eq!(starter.handle(Input::Board(idle.clone())), start("db"));
        assert_eq!(starter.handle(Input::Board(idle.clone())), []);
        starter.handle(Input::Renew(vec!["db".to_owned()]));
        assert_eq!(starter.handle(Input::Board(idle)), start("db"));
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
            [Effect::GiveUp { .. }]
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
