//! Closes an attempt's stack and verifies it: nothing counts as removed until a listing by label confirms it.

use super::attempt::Attempt;
use super::error::said;
use super::govern::Work;
use super::hooks;
use super::labels;
use super::lock::lock;
use super::member::Container;
use super::reach::{self, Way};
use super::sweep::{self, Found};
use crate::clock::runtime_now;
use crate::runtime::contract::Closed;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long to wait for the last output of a killed container.
const LAST_OUTPUT: Duration = Duration::from_secs(10);

/// Closes the stack. Runs in its own task, so that dropping the call doesn't stop it half-way.
pub(super) async fn close(
    attempt: Arc<Attempt>,
    grace: Duration,
    keep: Option<Duration>,
) -> Closed {
    let limit = attempt.shared.settings.close_timeout() + grace;
    let service = attempt.scope.token.clone();
    let work = tokio::spawn(async move {
        match tokio::time::timeout(limit, closing(&attempt, grace, keep)).await {
            Ok(closed) => closed,
            Err(_) => late(&attempt, limit).await,
        }
    });
    work.await.unwrap_or_else(|panic| Closed {
        removed: 0,
        left: vec![format!(
            "clean-up of {service} ended by a bug in Phalanx: {panic}"
        )],
    })
}

async fn closing(attempt: &Attempt, grace: Duration, keep: Option<Duration>) -> Closed {
    let first = !attempt.closing.swap(true, Ordering::AcqRel);
    attempt.tasks.close();
    // Objects that a dropped call had begun to create must exist (or have failed) before the listing can be trusted.
    attempt.tasks.wait().await;
    if let Some(ttl) = keep {
        return mark_kept(attempt, ttl).await;
    }
    let members = lock(&attempt.members).clone();
    if first && !grace.is_zero() {
        stop_all(&members, grace).await;
    }
    let removed = remove(attempt, &members, first).await;
    // Their output ends with them.
    let settling = members.iter().map(|member| member.settle(LAST_OUTPUT));
    futures::future::join_all(settling).await;
    verify(attempt, removed).await
}

/// Removes the containers, then the networks, when it is this clean-up's turn. Starts go first, within bounds, since no
/// cell waits for a clean-up.
async fn remove(attempt: &Attempt, members: &[Arc<Container>], first: bool) -> u32 {
    let _turn = attempt.shared.governor.turn(Work::CleanUp).await;
    let mut removed = remove_members(attempt, members).await;
    for network in attempt.networks.all() {
        if first && let Some(Way::Join(own)) = attempt.shared.way() {
            reach::leave(&attempt.shared.engine, own, &network).await;
        }
        if !first && !attempt.shared.networks.knows(&network.name) {
            continue;
        }
        match attempt.shared.networks.remove(&network).await {
            Ok(()) => {
                removed += 1;
                attempt.shared.networks.forget(&network);
            }
            Err(error) => {
                tracing::debug!(why = said(&error), "network not removed at the first try")
            }
        }
    }
    removed
}

/// Asks all to stop at the same time, beginning with the last created. The removal kills those that don't stop within
/// `grace`.
async fn stop_all(members: &[Arc<Container>], grace: Duration) {
    let stopping = members.iter().rev().map(|member| async move {
        let own = member.config.stop_grace_ms.map(Duration::from_millis);
        let patience = own.map_or(grace, |own| own.min(grace));
        if patience.is_zero() || !member.runs() {
            // The removal kills as well, in the same call.
            return;
        }
        let began = runtime_now();
        if let Err(why) = hooks::pre_stop_within(member, patience).await {
            tracing::debug!(service = %member.config.name, %why, "pre_stop");
        }
        // The engine takes whole seconds; nothing is left if the hooks used them up.
        let left = patience.saturating_sub(runtime_now() - began);
        if let Err(error) = member.ask_to_stop(Some(left)).await {
            tracing::debug!(service = %member.config.name, error = %said(&error), "not stopped");
        }
    });
    futures::future::join_all(stopping).await;
}

async fn remove_members(attempt: &Attempt, members: &[Arc<Container>]) -> u32 {
    let removing = members.iter().rev();
    let removing = removing.map(|member| sweep::remove_container(&attempt.shared, &member.id));
    let done = futures::future::join_all(removing).await;
    u32::try_from(done.into_iter().filter(Result::is_ok).count()).unwrap_or(u32::MAX)
}

/// Lists the objects by label and removes them, until none is left.
async fn verify(attempt: &Attempt, mut removed: u32) -> Closed {
    let shared = &attempt.shared;
    let filter = labels::filter_attempt(&attempt.scope.agent, &attempt.scope.token);
    let mut pause = Duration::from_millis(20);
    let mut left = Vec::new();
    for _ in 0..8 {
        let mut found = match sweep::list(&shared.engine, &filter).await {
            Ok(found) => found,
            Err(error) => {
                left = vec![format!("what is left can't be listed: {}", said(&error))];
                continue;
            }
        };
        for network in attempt.networks.all() {
            let listed = found.iter().any(|object| object.id == network.name);
            if !listed && shared.networks.knows(&network.name) {
                found.push(Found::network(&network.name));
            }
        }
        if found.is_empty() {
            left.clear();
            break;
        }
        let swept = sweep::remove_all(shared, &found).await;
        removed += swept.removed;
        left = swept.left;
        if left.is_empty() {
            // The next listing confirms that they are gone.
            for network in attempt.networks.all() {
                shared.networks.forget(&network);
            }
            continue;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
    if left.is_empty() {
        shared.release(&attempt.scope.token);
    }
    Closed { removed, left }
}

/// Keeps everything and records the end time in the engine. Labels can't change after creation, so a marker object
/// holds it.
async fn mark_kept(attempt: &Attempt, ttl: Duration) -> Closed {
    let shared = &attempt.shared;
    let until = shared.now_s().saturating_add(ttl.as_secs());
    let marked = sweep::mark_kept(shared, &attempt.scope, &attempt.networks.first, until).await;
    let members = lock(&attempt.members).clone();
    for member in members {
        member.settle(Duration::ZERO).await;
    }
    shared.release(&attempt.scope.token);
    let mut left = Vec::new();
    if let Err(error) = marked {
        left.push(format!(
            "the kept stack could not be marked and will be removed by the next reaping: {}",
            said(&error)
        ));
    }
    Closed { removed: 0, left }
}

async fn late(attempt: &Attempt, limit: Duration) -> Closed {
    let filter = labels::filter_attempt(&attempt.scope.agent, &attempt.scope.token);
    let listing = sweep::list(&attempt.shared.engine, &filter);
    let still = tokio::time::timeout(Duration::from_secs(5), listing).await;
    let mut left: Vec<String> = match still {
        Ok(Ok(found)) => found.iter().map(ToString::to_string).collect(),
        _ => vec!["unknown, the engine doesn't answer".to_owned()],
    };
    left.push(format!("clean-up was given up after {} s", limit.as_secs()));
    // From now on the reaper is responsible.
    attempt.shared.release(&attempt.scope.token);
    Closed { removed: 0, left }
}
