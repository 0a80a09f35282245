//! Sends each spec only once per session (protocol 2). Tracks the specs that the coordinator has sent and those that
//! the agent holds.
//!
//! Both sides keep the same few specs, ordered by the last offer that named them, so the coordinator knows without
//! asking which specs the agent has. There is one of each type per connection. An agent that uses protocol 1 gets whole
//! jobs.

use crate::SPECS_BY_DIGEST;
use crate::convert::InvalidToAgent;
use crate::convert::to_agent::{offer_from_wire, offer_to_wire};
use crate::link::{Offer, ToAgent};
use crate::v1;
use phalanx_shared::plan::{CellJob, Keep, PlannedCell, SnapshotUse, SpecSource};
use phalanx_shared::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use v1::to_agent::Message as Down;

/// Number of specs that both sides keep.
const KEPT: usize = 16;

/// The most recently named specs by digest, newest first.
#[derive(Debug)]
struct Recent<T>(VecDeque<(String, T)>);

impl<T> Recent<T> {
    fn new() -> Recent<T> {
        Recent(VecDeque::with_capacity(KEPT))
    }

    /// Finds a spec and makes it the newest.
    fn named(&mut self, digest: &str) -> Option<&T> {
        let at = self.0.iter().position(|(known, _)| known == digest)?;
        let found = self.0.remove(at)?;
        self.0.push_front(found);
        self.0.front().map(|(_, value)| value)
    }

    /// Adds a spec and drops the least recently named one.
    fn add(&mut self, digest: String, value: T) {
        self.0.truncate(KEPT - 1);
        self.0.push_front((digest, value));
    }
}

/// The coordinator's side of a connection: makes messages to an agent.
#[derive(Debug)]
pub struct SpecsSent {
    by_digest: bool,
    recent: Recent<()>,
}

impl SpecsSent {
    /// Starts for a connection that uses this protocol version.
    pub fn new(protocol: u32) -> SpecsSent {
        SpecsSent {
            by_digest: protocol >= SPECS_BY_DIGEST,
            recent: Recent::new(),
        }
    }

    /// Returns the messages to send: an offer whose spec the agent doesn't have becomes two.
    pub fn wire(&mut self, message: ToAgent) -> Vec<v1::ToAgent> {
        match message {
            ToAgent::Offer(offer) if self.by_digest => self.offer(offer),
            message => vec![message.into()],
        }
    }

    fn offer(&mut self, offer: Offer) -> Vec<v1::ToAgent> {
        let packed = offer.job.source.packed();
        let digest = packed.digest.clone();
        let mut messages = Vec::new();
        if self.recent.named(&digest).is_none() {
            self.recent.add(digest.clone(), ());
            messages.push(Down::Spec(v1::Spec {
                digest: digest.clone(),
                source_json: packed.json.clone(),
            }));
        }
        // Serializing to memory fails only for maps with keys that aren't text, and a job has none.
        let job_json = serde_json::to_vec(&Part::of(&offer.job)).unwrap_or_default();
        messages.push(Down::Offer(offer_to_wire(offer, job_json, digest)));
        let wire = |message| v1::ToAgent {
            message: Some(message),
        };
        messages.into_iter().map(wire).collect()
    }
}

/// The agent's side of a connection: reads messages from the coordinator.
#[derive(Debug)]
pub struct SpecsHeld(Recent<Arc<SpecSource>>);

impl Default for SpecsHeld {
    /// Starts for a new connection.
    fn default() -> SpecsHeld {
        SpecsHeld(Recent::new())
    }
}

impl SpecsHeld {
    /// Converts a message; returns `None` if it only carries a spec.
    pub fn domain(&mut self, wire: v1::ToAgent) -> Result<Option<ToAgent>, InvalidToAgent> {
        match wire.message {
            Some(Down::Spec(v1::Spec {
                digest,
                source_json,
            })) => {
                // A spec that can't be read is reported by the offers that name it, because those can be declined.
                if let Ok(source) = serde_json::from_slice(&source_json) {
                    self.0.add(digest, Arc::new(source));
                }
                Ok(None)
            }
            Some(Down::Offer(offer)) if !offer.spec_digest.is_empty() => {
                let source = self.0.named(&offer.spec_digest).cloned();
                let offer = offer_from_wire(offer, |json| Part::whole(json, source))?;
                Ok(Some(ToAgent::Offer(offer)))
            }
            message => v1::ToAgent { message }.try_into().map(Some),
        }
    }
}

/// A job without the parts that it shares with others.
#[derive(Serialize, Deserialize)]
struct Part<'a> {
    cell: Cow<'a, PlannedCell>,
    inputs: Cow<'a, Map<String, Value>>,
    matrix: Cow<'a, Map<String, Value>>,
    vars: Cow<'a, Map<String, Value>>,
    workspace: Cow<'a, Map<String, Value>>,
    keep: Keep,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    submitted: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "no_images")]
    images: Cow<'a, BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "SnapshotUse::is_usual")]
    snapshots: SnapshotUse,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    snapshot_family: Option<Cow<'a, str>>,
}

impl Part<'_> {
    fn of(job: &CellJob) -> Part<'_> {
        let CellJob {
            source: _,
            cell,
            inputs,
            matrix,
            vars,
            workspace,
            keep,
            submitted,
            images,
            snapshots,
            snapshot_family,
        } = job;
        Part {
            cell: Cow::Borrowed(cell),
            inputs: Cow::Borrowed(inputs),
            matrix: Cow::Borrowed(matrix),
            vars: Cow::Borrowed(vars),
            workspace: Cow::Borrowed(workspace),
            keep: *keep,
            submitted: *submitted,
            images: Cow::Borrowed(images),
            snapshots: *snapshots,
            snapshot_family: snapshot_family.as_deref().map(Cow::Borrowed),
        }
    }

    fn whole(json: &[u8], source: Option<Arc<SpecSource>>) -> Result<CellJob, String> {
        let source = source.ok_or("its spec did not come, or this agent can't read it")?;
        let Part {
            cell,
            inputs,
            matrix,
            vars,
            workspace,
            keep,
            submitted,
            images,
            snapshots,
            snapshot_family,
        } = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        Ok(CellJob {
            source,
            cell: cell.into_owned(),
            inputs: inputs.into_owned(),
            matrix: matrix.into_owned(),
            vars: vars.into_owned(),
            workspace: workspace.into_owned(),
            keep,
            submitted,
            images: images.into_owned(),
            snapshots,
            snapshot_family: snapshot_family.map(Cow::into_owned),
        })
    }
}

fn no_images(images: &BTreeMap<String, String>) -> bool {
    images.is_empty()
}
