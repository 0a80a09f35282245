//! What steps did to services. If another step failed meanwhile, its reason names it: a service that is paused or being
//! restarted explains a timeout or a refused connection, and nothing in the failed step's own evidence says so.

use phalanx_shared::language::model::ContainerVerb;
use std::collections::{BTreeMap, BTreeSet};

/// Number of actions of a service that are named.
const NAMED: usize = 3;

/// The actions of steps so far, by service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acts(BTreeMap<String, Done>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Done {
    /// Number of actions.
    count: usize,
    /// The last actions, at most [`NAMED`], the newest last.
    last: Vec<ContainerVerb>,
    /// `Pause` or `Disconnect` if the last action of this kind left the service so.
    held: Option<ContainerVerb>,
}

impl Acts {
    /// Adds an action that begins.
    pub fn note(&mut self, service: &str, verb: ContainerVerb) {
        let done = self.0.entry(service.to_owned()).or_default();
        done.count += 1;
        if done.last.len() == NAMED {
            done.last.remove(0);
        }
        done.last.push(verb);
        done.held = Some(verb)
            .filter(|verb| matches!(verb, ContainerVerb::Pause | ContainerVerb::Disconnect));
    }

    /// Returns what may explain why a step failed that uses these services, in one line: what steps did to them since
    /// `before`, and which of them are paused or disconnected.
    pub fn meanwhile(&self, before: &Acts, services: &BTreeSet<String>) -> Option<String> {
        let told: Vec<String> = services
            .iter()
            .filter_map(|service| {
                let now = self.0.get(service)?;
                let known = before.0.get(service).map_or(0, |done| done.count);
                match (now.count - known, now.held) {
                    (0, None) => None,
                    (0, Some(held)) => Some(format!("{service} is {} by a step", past(held))),
                    (new, _) => {
                        let named = now.last.iter().rev().take(new).rev();
                        let verbs: Vec<&str> = named.map(|verb| past(*verb)).collect();
                        Some(format!(
                            "meanwhile {service} was {} by a step",
                            verbs.join(", ")
                        ))
                    }
                }
            })
            .collect();
        (!told.is_empty()).then(|| told.join(", "))
    }
}

fn past(verb: ContainerVerb) -> &'static str {
    match verb {
        ContainerVerb::Start => "started",
        ContainerVerb::Stop => "stopped",
        ContainerVerb::Restart => "restarted",
        ContainerVerb::Kill => "killed",
        ContainerVerb::Pause => "paused",
        ContainerVerb::Unpause => "unpaused",
        ContainerVerb::Disconnect => "disconnected",
        ContainerVerb::Connect => "connected",
        ContainerVerb::Run => "run",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ContainerVerb::{Disconnect, Kill, Pause, Restart, Start, Unpause};

    fn acts(done: &[(&str, ContainerVerb)]) -> Acts {
        let mut acts = Acts::default();
        done.iter()
            .for_each(|(service, verb)| acts.note(service, *verb));
        acts
    }

    fn told(before: &[(&str, ContainerVerb)], since: &[(&str, ContainerVerb)]) -> String {
        let services = ["api", "db"].map(str::to_owned).into();
        let now = acts(&[before, since].concat());
        now.meanwhile(&acts(before), &services).unwrap_or_default()
    }

    #[test]
    fn what_steps_did_meanwhile_to_the_services_of_a_step_is_told() {
        assert_eq!(told(&[], &[]), "");
        assert_eq!(told(&[("api", Kill), ("api", Start)], &[]), "");
        assert_eq!(told(&[], &[("other", Kill)]), "");
        assert_eq!(
            told(&[("db", Restart)], &[("db", Kill), ("db", Start)]),
            "meanwhile db was killed, started by a step"
        );
        assert_eq!(
            told(&[], &[("api", Restart), ("db", Pause)]),
            "meanwhile api was restarted by a step, meanwhile db was paused by a step"
        );
        let many = [
            ("api", Kill),
            ("api", Start),
            ("api", Pause),
            ("api", Unpause),
        ];
        assert_eq!(
            told(&[], &many),
            "meanwhile api was started, paused, unpaused by a step"
        );
    }

    #[test]
    fn a_service_that_is_still_paused_or_disconnected_is_told() {
        assert_eq!(told(&[("api", Pause)], &[]), "api is paused by a step");
        assert_eq!(
            told(&[("db", Disconnect)], &[]),
            "db is disconnected by a step"
        );
        assert_eq!(told(&[("api", Pause), ("api", Unpause)], &[]), "");
        assert_eq!(told(&[("api", Pause), ("api", Restart)], &[]), "");
    }
}
