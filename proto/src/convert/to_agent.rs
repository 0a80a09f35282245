//! Converts messages to an agent.

use super::millis;
use super::policy;
use super::token::{InvalidToken, required};
use crate::limit::{AHEAD, SNAPSHOTS};
use crate::link::{Offer, ToAgent, Welcome};
use crate::v1;
use phalanx_shared::cancel::CancelOrder;
use phalanx_shared::id::{RunId, Token};
use phalanx_shared::plan::{CellJob, Wanted, WantedImage};
use phalanx_shared::policy::Rules;
use std::sync::Arc;
use std::time::Duration;
use v1::to_agent::Message as Down;

/// Why a message from the coordinator is invalid.
#[derive(Debug, thiserror::Error)]
pub enum InvalidToAgent {
    /// The message is empty, or of a kind that this version doesn't know.
    #[error("an empty message, or one of a later version")]
    Unknown,
    /// A token is invalid.
    #[error(transparent)]
    Token(#[from] InvalidToken),
    /// This version can't read the job. The agent can still decline the offer.
    #[error("the job of {token}: {error}")]
    Job { token: Token, error: String },
}

impl TryFrom<v1::ToAgent> for ToAgent {
    type Error = InvalidToAgent;

    fn try_from(wire: v1::ToAgent) -> Result<Self, InvalidToAgent> {
        let v1::ToAgent { message } = wire;
        Ok(match message.ok_or(InvalidToAgent::Unknown)? {
            Down::Welcome(welcome) => ToAgent::Welcome(welcome.try_into()?),
            Down::Offer(offer) => ToAgent::Offer(offer.try_into()?),
            Down::Ack(v1::Ack { token, seq }) => ToAgent::Ack {
                token: required(token)?,
                seq,
            },
            Down::Resend(v1::Resend { token, from_seq }) => ToAgent::Resend {
                token: required(token)?,
                from_seq,
            },
            Down::Cancel(v1::Cancel {
                token,
                grace_ms,
                reason,
                force,
            }) => ToAgent::Cancel {
                token: required(token)?,
                order: CancelOrder {
                    reason,
                    grace: Duration::from_millis(grace_ms),
                    force,
                },
            },
            Down::Abandon(v1::Abandon { token, reason }) => ToAgent::Abandon {
                token: required(token)?,
                reason,
            },
            Down::Heartbeat(v1::Heartbeat { number }) => ToAgent::Heartbeat { number },
            Down::Drain(v1::Drain {}) => ToAgent::Drain,
            Down::Prefetch(prefetch) => ToAgent::Prefetch {
                images: wanted_images(prefetch),
            },
            Down::RemoveSnapshots(v1::RemoveSnapshots { keys }) => ToAgent::RemoveSnapshots {
                keys: keys.into_iter().take(SNAPSHOTS).collect(),
            },
            // A spec belongs to a session, so `specs` handles it.
            Down::Spec(_) => return Err(InvalidToAgent::Unknown),
        })
    }
}

/// Converts a list of images. Leaves out what this version can't read, since no cell depends on it.
fn wanted_images(wire: v1::Prefetch) -> Vec<WantedImage> {
    let v1::Prefetch { images, wanted } = wire;
    if wanted.is_empty() {
        // From a coordinator of an earlier version.
        let plain = images.iter().map(|image| WantedImage::plain(image));
        return plain.take(AHEAD).collect();
    }
    wanted
        .into_iter()
        .take(AHEAD)
        .filter_map(wanted_from_wire)
        .collect()
}

fn wanted_from_wire(wire: v1::WantedImage) -> Option<WantedImage> {
    let v1::WantedImage {
        id,
        what,
        definition_json,
        workspace,
        run_id,
    } = wire;
    Some(WantedImage::new(Wanted {
        id,
        what,
        definition: serde_json::from_slice(&definition_json).ok()?,
        workspace: Some(workspace).filter(|digest| !digest.is_empty()),
        run: Some(run_id).filter(|run| !run.is_empty()).map(RunId::from),
    }))
}

fn wanted_to_wire(image: &WantedImage) -> v1::WantedImage {
    let Wanted {
        id,
        what,
        definition,
        workspace,
        run,
    } = image.parts().clone();
    v1::WantedImage {
        id,
        what,
        definition_json: definition.to_string().into_bytes(),
        workspace: workspace.unwrap_or_default(),
        run_id: run.map(|run| run.to_string()).unwrap_or_default(),
    }
}

impl TryFrom<v1::Welcome> for Welcome {
    type Error = InvalidToken;

    fn try_from(wire: v1::Welcome) -> Result<Self, InvalidToken> {
        let v1::Welcome {
            protocol,
            epoch,
            lease_ms,
            heartbeat_ms,
            resume,
            coordinator_version,
            policy_json,
        } = wire;
        Ok(Welcome {
            protocol,
            epoch,
            lease: Duration::from_millis(lease_ms),
            heartbeat: Duration::from_millis(heartbeat_ms),
            resume: resume
                .into_iter()
                .map(|v1::Resume { token, durable_seq }| Ok((required(token)?, durable_seq)))
                .collect::<Result<_, InvalidToken>>()?,
            coordinator_version,
            policy: (!policy_json.is_empty()).then(|| {
                // What can't be read must not allow anything.
                policy::read(&policy_json).unwrap_or_else(|| Rules::closed(UNREADABLE))
            }),
        })
    }
}

impl From<Welcome> for v1::Welcome {
    fn from(welcome: Welcome) -> Self {
        let Welcome {
            protocol,
            epoch,
            lease,
            heartbeat,
            resume,
            coordinator_version,
            policy,
        } = welcome;
        v1::Welcome {
            protocol,
            epoch,
            lease_ms: millis(lease),
            heartbeat_ms: millis(heartbeat),
            resume: resume
                .into_iter()
                .map(|(token, durable_seq)| v1::Resume {
                    token: Some(token.into()),
                    durable_seq,
                })
                .collect(),
            coordinator_version,
            policy_json: policy.map_or_else(Vec::new, |rules| policy::written(&rules)),
        }
    }
}

/// Origin of rules that an agent can't read.
const UNREADABLE: &str = "the coordinator's policy, which this version of the agent can't read";

/// Converts an offer; `decode` reads its job.
pub(crate) fn offer_from_wire(
    wire: v1::Offer,
    decode: impl FnOnce(&[u8]) -> Result<CellJob, String>,
) -> Result<Offer, InvalidToAgent> {
    let v1::Offer {
        token,
        job_json,
        secrets,
        accept_within_ms,
        traceparent,
        spec_digest: _,
    } = wire;
    let token = required(token)?;
    let job = match decode(&job_json) {
        Ok(job) => Arc::new(job),
        Err(error) => return Err(InvalidToAgent::Job { token, error }),
    };
    Ok(Offer {
        token,
        job,
        secrets: Arc::new(secrets),
        accept_within: Duration::from_millis(accept_within_ms),
        traceparent: (!traceparent.is_empty()).then_some(traceparent),
    })
}

/// Converts an offer with its encoded job.
pub(crate) fn offer_to_wire(offer: Offer, job_json: Vec<u8>, spec_digest: String) -> v1::Offer {
    let Offer {
        token,
        job: _,
        secrets,
        accept_within,
        traceparent,
    } = offer;
    v1::Offer {
        token: Some(token.into()),
        job_json,
        secrets: Arc::unwrap_or_clone(secrets),
        accept_within_ms: millis(accept_within),
        traceparent: traceparent.unwrap_or_default(),
        spec_digest,
    }
}

impl TryFrom<v1::Offer> for Offer {
    type Error = InvalidToAgent;

    fn try_from(wire: v1::Offer) -> Result<Self, InvalidToAgent> {
        offer_from_wire(wire, |json| {
            serde_json::from_slice(json).map_err(|error| error.to_string())
        })
    }
}

impl From<Offer> for v1::Offer {
    fn from(offer: Offer) -> Self {
        // Serializing to memory fails only for maps with keys that aren't text, and a job has none.
        let job_json = serde_json::to_vec(&*offer.job).unwrap_or_default();
        offer_to_wire(offer, job_json, String::new())
    }
}

impl From<ToAgent> for v1::ToAgent {
    fn from(message: ToAgent) -> Self {
        let message = match message {
            ToAgent::Welcome(welcome) => Down::Welcome(welcome.into()),
            ToAgent::Offer(offer) => Down::Offer(offer.into()),
            ToAgent::Ack { token, seq } => Down::Ack(v1::Ack {
                token: Some(token.into()),
                seq,
            }),
            ToAgent::Resend { token, from_seq } => Down::Resend(v1::Resend {
                token: Some(token.into()),
                from_seq,
            }),
            ToAgent::Cancel {
                token,
                order:
                    CancelOrder {
                        reason,
                        grace,
                        force,
                    },
            } => Down::Cancel(v1::Cancel {
                token: Some(token.into()),
                grace_ms: millis(grace),
                reason,
                force,
            }),
            ToAgent::Abandon { token, reason } => Down::Abandon(v1::Abandon {
                token: Some(token.into()),
                reason,
            }),
            ToAgent::Heartbeat { number } => Down::Heartbeat(v1::Heartbeat { number }),
            ToAgent::Drain => Down::Drain(v1::Drain {}),
            ToAgent::Prefetch { images } => {
                let names = images.iter().filter_map(WantedImage::name);
                Down::Prefetch(v1::Prefetch {
                    images: names.map(str::to_owned).collect(),
                    wanted: images.iter().map(wanted_to_wire).collect(),
                })
            }
            ToAgent::RemoveSnapshots { keys } => {
                Down::RemoveSnapshots(v1::RemoveSnapshots { keys })
            }
        };
        v1::ToAgent {
            message: Some(message),
        }
    }
}
