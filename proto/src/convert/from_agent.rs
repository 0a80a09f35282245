//! Converts messages from an agent.

use super::event::{InvalidEvent, from_agent};
use super::identity::{InvalidId, id, printable, short};
use super::policy;
use super::resources::MissingResources;
use super::token::{InvalidToken, required};
use crate::limit::{
    AHEAD, BATCH_EVENTS, DOING_BYTES, HELD, IMAGE_BYTES, IMAGES, LABEL_BYTES, LABELS, NAME_BYTES,
    SLOTS,
};
use crate::link::{Ahead, AheadState, FromAgent, Held, Hello, Obituary};
use crate::v1;
use phalanx_shared::event::{AttemptRef, Event};
use phalanx_shared::id::{AgentId, Token};
use v1::from_agent::Message as Up;

/// Why a message from an agent is invalid.
#[derive(Debug, thiserror::Error)]
pub enum InvalidFromAgent {
    /// The message is empty, or of a kind that this version doesn't know.
    #[error("an empty message, or one of a later version")]
    Unknown,
    /// A token is invalid.
    #[error(transparent)]
    Token(#[from] InvalidToken),
    /// An id or a text is invalid.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// A Hello has no resources.
    #[error(transparent)]
    Resources(#[from] MissingResources),
    /// The lowest protocol version is above the highest one.
    #[error("protocol range {0}..={1} is empty")]
    Protocols(u32, u32),
    /// A list is longer than its limit.
    #[error("{what} has {length} entries, the limit is {limit}")]
    TooMany {
        what: &'static str,
        length: usize,
        limit: usize,
    },
    /// The number of slots is above the limit.
    #[error("{0} slots, the limit is {SLOTS}")]
    Slots(u32),
    /// An event is invalid.
    #[error(transparent)]
    Event(#[from] InvalidEvent),
    /// A batch has no events, or starts at sequence 0.
    #[error("a batch of {token} has no events or starts at sequence 0")]
    EmptyBatch { token: Token },
    /// An event in a batch belongs to another attempt or has the wrong sequence.
    #[error(
        "a batch of {token} has at sequence {expected} an event of another attempt or sequence ({found})"
    )]
    ForeignEvent {
        token: Token,
        expected: u64,
        found: String,
    },
}

/// Returns an error if a list is longer than its limit.
fn bounded<T>(what: &'static str, list: Vec<T>, limit: usize) -> Result<Vec<T>, InvalidFromAgent> {
    let length = list.len();
    if length > limit {
        return Err(InvalidFromAgent::TooMany {
            what,
            length,
            limit,
        });
    }
    Ok(list)
}

impl TryFrom<v1::FromAgent> for FromAgent {
    type Error = InvalidFromAgent;

    fn try_from(wire: v1::FromAgent) -> Result<Self, InvalidFromAgent> {
        let v1::FromAgent { message } = wire;
        Ok(match message.ok_or(InvalidFromAgent::Unknown)? {
            Up::Hello(hello) => FromAgent::Hello(Box::new(hello.try_into()?)),
            Up::Accept(v1::Accept { token }) => FromAgent::Accept {
                token: required(token)?,
            },
            Up::Decline(v1::Decline { token, reason }) => FromAgent::Decline {
                token: required(token)?,
                reason: short("the reason", reason)?,
            },
            Up::Events(events) => batch(events)?,
            Up::Heartbeat(v1::Heartbeat { number }) => FromAgent::Heartbeat { number },
            Up::Cancelling(v1::Cancelling { token }) => FromAgent::Cancelling {
                token: required(token)?,
            },
            Up::Draining(v1::Draining {}) => FromAgent::Draining,
            Up::Goodbye(v1::Goodbye { reason }) => FromAgent::Goodbye {
                reason: short("the reason", reason)?,
            },
            Up::Ahead(v1::Ahead { images }) => FromAgent::Ahead {
                images: bounded("the list of images", images, AHEAD)?
                    .into_iter()
                    .map(Ahead::try_from)
                    .collect::<Result<_, _>>()?,
            },
            Up::Snapshots(snapshots) => FromAgent::Snapshots(snapshots.into()),
        })
    }
}

impl TryFrom<v1::AheadImage> for Ahead {
    type Error = InvalidFromAgent;

    fn try_from(wire: v1::AheadImage) -> Result<Self, InvalidFromAgent> {
        let state = wire.state();
        let v1::AheadImage {
            id,
            state: _,
            doing,
        } = wire;
        Ok(Ahead {
            id: printable("the id of an image", id, IMAGE_BYTES)?,
            state: match state {
                v1::AheadState::Unspecified => AheadState::Waiting,
                v1::AheadState::InProgress => {
                    AheadState::Doing(printable("the progress", doing, DOING_BYTES)?)
                }
                v1::AheadState::Ready => AheadState::Ready,
                v1::AheadState::Failed => AheadState::Failed,
            },
        })
    }
}

impl From<Ahead> for v1::AheadImage {
    fn from(ahead: Ahead) -> Self {
        let (state, doing) = match ahead.state {
            AheadState::Waiting => (v1::AheadState::Unspecified, String::new()),
            AheadState::Doing(doing) => (v1::AheadState::InProgress, doing),
            AheadState::Ready => (v1::AheadState::Ready, String::new()),
            AheadState::Failed => (v1::AheadState::Failed, String::new()),
        };
        v1::AheadImage {
            id: ahead.id,
            state: state.into(),
            doing,
        }
    }
}

/// Converts a batch. All events must belong to the token's run, cell and attempt, in sequence without gaps.
fn batch(wire: v1::Events) -> Result<FromAgent, InvalidFromAgent> {
    let v1::Events {
        token,
        first_seq,
        events,
    } = wire;
    let token = required(token)?;
    let events = bounded("a batch of events", events, BATCH_EVENTS)?;
    if events.is_empty() || first_seq == 0 {
        return Err(InvalidFromAgent::EmptyBatch { token });
    }
    let attempt = AttemptRef {
        cell: token.cell.clone(),
        attempt: token.attempt,
    };
    let mut checked = Vec::with_capacity(events.len());
    for (expected, wire) in (first_seq..).zip(events) {
        let event = from_agent(wire)?;
        let belongs = event.run == token.run && event.attempt.as_ref() == Some(&attempt);
        if !belongs || event.seq != expected {
            let found = format!("{}, {:?}, sequence {}", event.run, event.attempt, event.seq);
            return Err(InvalidFromAgent::ForeignEvent {
                token,
                expected,
                found,
            });
        }
        checked.push(event);
    }
    Ok(FromAgent::Events {
        token,
        events: checked,
    })
}

impl TryFrom<v1::Hello> for Hello {
    type Error = InvalidFromAgent;

    fn try_from(wire: v1::Hello) -> Result<Self, InvalidFromAgent> {
        let v1::Hello {
            agent_id,
            name,
            version,
            min_protocol,
            max_protocol,
            labels,
            slots,
            resources,
            images,
            inventory,
            instance,
            number,
            policy_json,
            ahead,
            snapshots,
        } = wire;
        if min_protocol > max_protocol {
            return Err(InvalidFromAgent::Protocols(min_protocol, max_protocol));
        }
        if slots > SLOTS {
            return Err(InvalidFromAgent::Slots(slots));
        }
        let labels = bounded("the list of labels", labels, LABELS)?;
        let label = |label| printable("a label", label, LABEL_BYTES);
        let labels: Vec<String> = labels.into_iter().map(label).collect::<Result<_, _>>()?;
        let images = images
            .into_iter()
            .filter(|image| image.len() <= IMAGE_BYTES);
        Ok(Hello {
            agent: AgentId(id("the agent id", agent_id)?),
            name: printable("the agent's name", name, NAME_BYTES)?,
            version: printable("the agent's version", version, NAME_BYTES)?,
            protocols: (min_protocol, max_protocol),
            labels,
            slots,
            resources: resources.ok_or(MissingResources)?.into(),
            images: images.take(IMAGES).collect(),
            inventory: bounded("the inventory", inventory, HELD)?
                .into_iter()
                .map(Held::try_from)
                .collect::<Result<_, _>>()?,
            instance: printable("the instance", instance, NAME_BYTES)?,
            number,
            // The agent itself decides, so rules that can't be read count as not reported.
            policy: policy::read(&policy_json),
            ahead,
            snapshots: snapshots.map(Into::into),
        })
    }
}

impl TryFrom<v1::Held> for Held {
    type Error = InvalidToken;

    fn try_from(wire: v1::Held) -> Result<Self, InvalidToken> {
        let v1::Held {
            token,
            last_seq,
            finished,
        } = wire;
        Ok(Held {
            token: required(token)?,
            last_seq,
            finished,
        })
    }
}

impl From<Held> for v1::Held {
    fn from(held: Held) -> Self {
        let Held {
            token,
            last_seq,
            finished,
        } = held;
        v1::Held {
            token: Some(token.into()),
            last_seq,
            finished,
        }
    }
}

impl From<Hello> for v1::Hello {
    fn from(hello: Hello) -> Self {
        let Hello {
            agent,
            name,
            version,
            protocols: (min_protocol, max_protocol),
            labels,
            slots,
            resources,
            images,
            inventory,
            instance,
            number,
            policy,
            ahead,
            snapshots,
        } = hello;
        v1::Hello {
            agent_id: agent.0,
            name,
            version,
            min_protocol,
            max_protocol,
            labels,
            slots,
            resources: Some(resources.into()),
            images,
            inventory: inventory.into_iter().map(Into::into).collect(),
            instance,
            number,
            policy_json: policy.map_or_else(Vec::new, |rules| policy::written(&rules)),
            ahead,
            snapshots: snapshots.map(Into::into),
        }
    }
}

impl TryFrom<v1::Obituary> for Obituary {
    type Error = InvalidFromAgent;

    fn try_from(wire: v1::Obituary) -> Result<Self, InvalidFromAgent> {
        let v1::Obituary { agent_id, instance } = wire;
        Ok(Obituary {
            agent: AgentId(id("the agent id", agent_id)?),
            instance: id("the instance", instance)?,
        })
    }
}

impl From<Obituary> for v1::Obituary {
    fn from(obituary: Obituary) -> Self {
        let Obituary { agent, instance } = obituary;
        v1::Obituary {
            agent_id: agent.0,
            instance,
        }
    }
}

impl From<FromAgent> for v1::FromAgent {
    fn from(message: FromAgent) -> Self {
        let message = match message {
            FromAgent::Hello(hello) => Up::Hello((*hello).into()),
            FromAgent::Accept { token } => Up::Accept(v1::Accept {
                token: Some(token.into()),
            }),
            FromAgent::Decline { token, reason } => Up::Decline(v1::Decline {
                token: Some(token.into()),
                reason,
            }),
            FromAgent::Events { token, events } => Up::Events(v1::Events {
                token: Some(token.into()),
                first_seq: events.first().map_or(0, |event: &Event| event.seq),
                events: events.into_iter().map(Into::into).collect(),
            }),
            FromAgent::Heartbeat { number } => Up::Heartbeat(v1::Heartbeat { number }),
            FromAgent::Cancelling { token } => Up::Cancelling(v1::Cancelling {
                token: Some(token.into()),
            }),
            FromAgent::Draining => Up::Draining(v1::Draining {}),
            FromAgent::Goodbye { reason } => Up::Goodbye(v1::Goodbye { reason }),
            FromAgent::Ahead { images } => Up::Ahead(v1::Ahead {
                images: images.into_iter().map(Into::into).collect(),
            }),
            FromAgent::Snapshots(snapshots) => Up::Snapshots(snapshots.into()),
        };
        v1::FromAgent {
            message: Some(message),
        }
    }
}
