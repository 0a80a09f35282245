//! Finds objects of Phalanx in the engine by label and removes them: for clean-up, for the reaper, for `phalanx gc`.
//!
//! The reaper only takes objects of its own agent identity that no live attempt claims and no keep marker protects.

use super::error::{said, status};
use super::labels::{self, KEEP_UNTIL, Labels, POOL};
use super::network::Network;
use super::{Shared, client::Engine};
use crate::identity::Home;
use crate::runtime::contract::{AttemptScope, Closed};
use bollard::errors::Error;
use bollard::models::VolumeCreateRequest;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveVolumeOptionsBuilder,
};
use phalanx_shared::id::{AgentId, Token};
use std::collections::{HashMap, HashSet};
use std::fmt;

/// Label of a keep marker: the ready network that the kept stack uses.
const NETWORK: &str = "phalanx.network";

/// Kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A container.
    Container,
    /// A network.
    Network,
    /// A volume.
    Volume,
}

/// An object with Phalanx labels in the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Kind of the object.
    pub kind: Kind,
    /// Id of a container; name of a network or volume.
    pub id: String,
    /// Name for display.
    pub name: String,
    /// Labels of the object.
    pub labels: HashMap<String, String>,
}

impl Found {
    pub(super) fn network(name: &str) -> Found {
        Found {
            kind: Kind::Network,
            id: name.to_owned(),
            name: name.to_owned(),
            labels: Labels::new(),
        }
    }

    /// Returns the attempt that it belongs to; `None` for a ready network.
    pub fn token(&self) -> Option<Token> {
        labels::token_of(&self.labels)
    }

    /// Returns the location of the agent's lock, if the labels contain it.
    pub fn home(&self) -> Option<Home> {
        Home::from_label(self.labels.get(labels::HOME)?)
    }

    /// Returns the agent that created it.
    pub fn agent(&self) -> Option<&str> {
        self.labels.get(labels::AGENT).map(String::as_str)
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Container => "container",
            Kind::Network => "network",
            Kind::Volume => "volume",
        };
        write!(f, "{kind} {}", self.name)
    }
}

/// Lists everything that matches the filter, containers first.
pub(super) async fn list(
    engine: &Engine,
    filter: &HashMap<String, Vec<String>>,
) -> Result<Vec<Found>, Error> {
    let docker = &engine.docker;
    let (containers, networks, volumes) = tokio::join!(
        engine.ask(|| {
            let options = ListContainersOptionsBuilder::default()
                .all(true)
                .filters(filter);
            docker.list_containers(Some(options.build()))
        }),
        engine.ask(|| {
            let options = ListNetworksOptionsBuilder::default().filters(filter);
            docker.list_networks(Some(options.build()))
        }),
        engine.ask(|| {
            let options = ListVolumesOptionsBuilder::default().filters(filter);
            docker.list_volumes(Some(options.build()))
        }),
    );
    let containers = containers?.into_iter().filter_map(|c| {
        let id = c.id?;
        let name = c.names.unwrap_or_default().into_iter().next();
        Some(Found {
            kind: Kind::Container,
            name: name.map_or_else(|| id.clone(), |n| n.trim_start_matches('/').to_owned()),
            id,
            labels: c.labels.unwrap_or_default(),
        })
    });
    let networks = networks?.into_iter().filter_map(|n| {
        let name = n.name?;
        Some(Found {
            kind: Kind::Network,
            id: name.clone(),
            name,
            labels: n.labels.unwrap_or_default(),
        })
    });
    let volumes = volumes?
        .volumes
        .unwrap_or_default()
        .into_iter()
        .map(|v| Found {
            kind: Kind::Volume,
            id: v.name.clone(),
            name: v.name,
            labels: v.labels,
        });
    Ok(containers.chain(networks).chain(volumes).collect())
}

/// Removes containers first, then networks and volumes; objects of one stage concurrently.
pub(super) async fn remove_all(shared: &Shared, found: &[Found]) -> Closed {
    let mut closed = Closed::default();
    for stage in [&[Kind::Container][..], &[Kind::Network, Kind::Volume]] {
        let of_stage = found.iter().filter(|object| stage.contains(&object.kind));
        let removing = of_stage.map(|object| async move { (object, remove(shared, object).await) });
        for (object, removed) in futures::future::join_all(removing).await {
            match removed {
                Ok(()) => closed.removed += 1,
                Err(error) => closed.left.push(format!("{object}: {}", said(&error))),
            }
        }
    }
    closed
}

async fn remove(shared: &Shared, object: &Found) -> Result<(), Error> {
    let engine = &shared.engine;
    let docker = &engine.docker;
    let id = object.id.as_str();
    let removed = match object.kind {
        Kind::Container => remove_container(shared, id).await,
        Kind::Network => engine.ask(|| docker.remove_network(id)).await,
        Kind::Volume => {
            let force = RemoveVolumeOptionsBuilder::default().force(true).build();
            engine
                .ask(|| docker.remove_volume(id, Some(force.clone())))
                .await
        }
    };
    match removed {
        Err(error) if status(&error) == Some(404) => Ok(()),
        other => other,
    }
}

/// Removes a container with its anonymous volumes. Kills it if it runs.
pub(super) async fn remove_container(shared: &Shared, id: &str) -> Result<(), Error> {
    let options = RemoveContainerOptionsBuilder::default()
        .force(true)
        .v(true)
        .build();
    let docker = &shared.engine.docker;
    let removed = shared
        .engine
        .ask(|| docker.remove_container(id, Some(options.clone())))
        .await;
    match removed {
        // Already gone, or being removed.
        Err(error) if matches!(status(&error), Some(404 | 409)) => Ok(()),
        other => other,
    }
}

/// Records in the engine until when (Unix time in seconds) an attempt's objects are kept: creates an empty volume whose
/// labels say so.
pub(super) async fn mark_kept(
    shared: &Shared,
    scope: &AttemptScope,
    network: &Network,
    until: u64,
) -> Result<(), Error> {
    let mut marks = labels::of_attempt(&scope.agent, &scope.token);
    marks.extend(shared.settings.home_label());
    marks.insert(KEEP_UNTIL.to_owned(), until.to_string());
    marks.insert(NETWORK.to_owned(), network.name.clone());
    let docker = &shared.engine.docker;
    let made = shared
        .engine
        .ask(|| {
            docker.create_volume(VolumeCreateRequest {
                name: Some(labels::object(&scope.token, "kept")),
                labels: Some(marks.clone()),
                ..VolumeCreateRequest::default()
            })
        })
        .await;
    if made.is_ok() {
        // The marker protects the network now; the claim of this process would outlast the keep time.
        shared.networks.forget(network);
    }
    made.map(drop)
}

/// Removes what earlier attempts of the agent left.
pub(super) async fn reap(shared: &Shared, live: &HashSet<Token>) -> Result<Closed, Error> {
    let filter = labels::filter_agent(&shared.settings.agent);
    let found = list(&shared.engine, &filter).await?;
    let open = |token: &Token| live.contains(token) || shared.is_open(token);
    let network_known = |name: &str| shared.networks.knows(name);
    let doomed = doomed(found, shared.now_s(), &open, &network_known);
    Ok(remove_all(shared, &doomed).await)
}

/// Returns the objects that these agents keep with a marker, including the markers, expired or not. Pure.
pub(super) fn kept(found: Vec<Found>, agents: &HashSet<AgentId>) -> Vec<Found> {
    let theirs = |object: &Found| agents.iter().any(|agent| object.agent() == Some(&agent.0));
    let marked = |object: &Found| {
        object.labels.get(KEEP_UNTIL)?;
        let network = object.labels.get(NETWORK).cloned().unwrap_or_default();
        Some((object.token()?, network))
    };
    let found: Vec<Found> = found.into_iter().filter(theirs).collect();
    let (tokens, networks): (HashSet<Token>, HashSet<String>) =
        found.iter().filter_map(marked).unzip();
    let is_kept = |object: &Found| match object.token() {
        Some(token) => tokens.contains(&token),
        None => object.labels.contains_key(POOL) && networks.contains(&object.name),
    };
    found.into_iter().filter(is_kept).collect()
}

/// Returns the objects that nothing claims: the reaper's whole decision. Pure.
pub fn doomed(
    found: Vec<Found>,
    now_s: u64,
    open: &dyn Fn(&Token) -> bool,
    network_known: &dyn Fn(&str) -> bool,
) -> Vec<Found> {
    let kept = |object: &Found| -> Option<(Token, String)> {
        let until: u64 = object.labels.get(KEEP_UNTIL)?.parse().ok()?;
        let network = object.labels.get(NETWORK).cloned().unwrap_or_default();
        (until > now_s).then_some(())?;
        Some((object.token()?, network))
    };
    let (tokens, networks): (HashSet<Token>, HashSet<String>) =
        found.iter().filter_map(kept).unzip();
    found
        .into_iter()
        .filter(|object| match object.token() {
            Some(token) => !open(&token) && !tokens.contains(&token),
            None => {
                object.labels.contains_key(POOL)
                    && !network_known(&object.name)
                    && !networks.contains(&object.name)
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn token(cell: &str) -> Token {
        Token {
            run: "r".into(),
            cell: cell.into(),
            attempt: 1,
            epoch: 1,
        }
    }

    fn object(kind: Kind, name: &str, labels: Labels) -> Found {
        Found {
            kind,
            id: name.into(),
            name: name.into(),
            labels,
        }
    }

    fn names(found: Vec<Found>, now_s: u64) -> Vec<String> {
        let open = |t: &Token| t.cell.0 == "live";
        let known = |name: &str| name == "ready";
        doomed(found, now_s, &open, &known)
            .into_iter()
            .map(|f| f.name)
            .collect()
    }

    #[test]
    fn only_what_nobody_claims_is_doomed() {
        let agent = "a".into();
        let found = vec![
            object(
                Kind::Container,
                "of-live",
                labels::of_attempt(&agent, &token("live")),
            ),
            object(
                Kind::Container,
                "of-dead",
                labels::of_attempt(&agent, &token("dead")),
            ),
            object(Kind::Network, "ready", labels::of_pool(&agent)),
            object(Kind::Network, "stale", labels::of_pool(&agent)),
            object(
                Kind::Container,
                "inherited",
                Labels::from([(labels::AGENT.into(), "a".into())]),
            ),
        ];
        assert_eq!(names(found, 100), ["of-dead", "stale"]);
    }

    #[test]
    fn a_kept_stack_lives_until_its_time() {
        let agent = "a".into();
        let of = labels::of_attempt(&agent, &token("kept"));
        let mut marker = of.clone();
        marker.insert(KEEP_UNTIL.into(), "200".into());
        marker.insert(NETWORK.into(), "pooled".into());
        let found = vec![
            object(Kind::Container, "c", of),
            object(Kind::Network, "pooled", labels::of_pool(&agent)),
            object(Kind::Volume, "marker", marker),
        ];
        assert!(names(found.clone(), 199).is_empty());
        assert_eq!(names(found.clone(), 200), ["c", "pooled", "marker"]);
        let of_dead = labels::of_attempt(&agent, &token("dead"));
        let more = object(Kind::Container, "unmarked", of_dead);
        let all: Vec<Found> = found.into_iter().chain([more]).collect();
        assert_eq!(kept(all.clone(), &HashSet::from([agent])).len(), 3);
        assert!(kept(all, &HashSet::from(["b".into()])).is_empty());
    }
}
