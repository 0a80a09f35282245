//! Services with several replicas: each has a state of its own on the board, and the service has one that follows from
//! theirs. Pure.

use super::status::{Stage, Status};
use crate::runtime::contract::Exit;
use phalanx_shared::language::service::replica_name;

/// Returns the names of a service's containers: its replicas, or itself.
pub fn names(service: &str, count: u32) -> Vec<String> {
    match count {
        0 | 1 => vec![service.to_owned()],
        several => (1..=several).map(|n| replica_name(service, n)).collect(),
    }
}

/// Updates the state of a service with those of its replicas, in their order.
///
/// It is ready when all of them are. Replicas that a step stopped, and those that ended as the spec expects, don't count
/// as long as others run: what remains is the service.
pub fn sum_up(service: &mut Status, replicas: &[&Status]) {
    let Some(first) = replicas.first() else {
        return;
    };
    service.stage = stage(replicas);
    service.starts = replicas.iter().map(|one| one.starts).min().unwrap_or(0);
    service.needs.clone_from(&first.needs);
    service.restarts_with.clone_from(&first.restarts_with);
    service.ports.clone_from(&first.ports);
    service.member.clone_from(&first.member);
    service.addresses.clone_from(&first.addresses);
    service.down = replicas.iter().find_map(|one| one.down.clone());
    service.exit = worst(replicas);
}

fn stage(replicas: &[&Status]) -> Stage {
    let any = |stage| replicas.iter().any(|one| one.stage == stage);
    let order = [
        Stage::Down,
        Stage::Idle,
        Stage::Starting,
        Stage::Started,
        Stage::Ready,
        Stage::Stopped,
    ];
    let found = order.into_iter().find(|stage| any(*stage));
    match found {
        // A step started some of them: that is no start of the service.
        Some(Stage::Idle)
            if replicas
                .iter()
                .any(|one| one.stage != Stage::Idle && !one.manual) =>
        {
            Stage::Starting
        }
        Some(stage) => stage,
        None => Stage::Exited,
    }
}

/// Returns the first exit that isn't a success, or else any; `None` while one of them runs.
fn worst(replicas: &[&Status]) -> Option<Exit> {
    let exits: Option<Vec<&Exit>> = replicas.iter().map(|one| one.exit.as_ref()).collect();
    let exits = exits?;
    let failed = exits.iter().find(|exit| exit.code != 0);
    failed.or(exits.first()).map(|exit| (*exit).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summed(stages: &[Stage]) -> Stage {
        let replicas: Vec<Status> = stages
            .iter()
            .map(|stage| Status {
                stage: *stage,
                ..Status::idle(false, false)
            })
            .collect();
        let mut service = Status::idle(false, false);
        sum_up(&mut service, &replicas.iter().collect::<Vec<_>>());
        service.stage
    }

    #[test]
    fn a_service_is_ready_when_all_of_its_replicas_are() {
        use Stage::*;
        assert_eq!(summed(&[Ready, Ready]), Ready);
        assert_eq!(summed(&[Ready, Started]), Started);
        assert_eq!(summed(&[Ready, Starting]), Starting);
        assert_eq!(summed(&[Ready, Idle]), Starting);
        assert_eq!(summed(&[Idle, Idle]), Idle);
        assert_eq!(summed(&[Ready, Down]), Down);
    }

    #[test]
    fn replicas_that_ended_as_they_should_do_not_count_while_others_run() {
        use Stage::*;
        assert_eq!(summed(&[Stopped, Ready]), Ready);
        assert_eq!(summed(&[Exited, Started]), Started);
        assert_eq!(summed(&[Stopped, Exited]), Stopped);
        assert_eq!(summed(&[Exited, Exited]), Exited);
    }

    #[test]
    fn a_service_has_exited_with_the_worst_code_when_all_have() {
        let exited = |code: Option<i64>| Status {
            exit: code.map(|code| Exit {
                code,
                oom: false,
                start: 1,
            }),
            ..Status::idle(false, false)
        };
        let code = |codes: &[Option<i64>]| {
            let replicas: Vec<Status> = codes.iter().map(|code| exited(*code)).collect();
            let mut service = Status::idle(false, false);
            sum_up(&mut service, &replicas.iter().collect::<Vec<_>>());
            service.exit.map(|exit| exit.code)
        };
        assert_eq!(code(&[Some(0), Some(3), Some(0)]), Some(3));
        assert_eq!(code(&[Some(0), Some(0)]), Some(0));
        assert_eq!(code(&[Some(0), None]), None);
    }

    #[test]
    fn one_container_has_its_service_s_name() {
        assert_eq!(names("web", 1), ["web"]);
        assert_eq!(names("web", 0), ["web"]);
        assert_eq!(names("web", 3), ["web-1", "web-2", "web-3"]);
    }
}
