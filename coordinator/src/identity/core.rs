//! The decisions about identities, without I/O: who may call, what a token allows, and when a certificate shows that a key
//! was copied.
//!
//! Certificates of an agent are numbered by **generation**: the first is 1, each renewal counts one up, and the number is
//! the beginning of the certificate's serial number. An agent uses a new certificate only after it has stored it. So when
//! a newer generation was used, an older one can come only from a copy of the agent's directory: nobody can tell which of
//! the two is the agent, and the identity is locked.

use crate::incoming::Presented;
use phalanx_proto::certificate::Facts;
use phalanx_shared::id::AgentId;
use phalanx_shared::identity::{Party, PartyName, is_name};
use phalanx_shared::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long connections that were being opened when a newer certificate was first used may still show the older one.
const OVERLAP: Duration = Duration::from_secs(30);
/// Number of a serial number's bytes that hold the generation.
const GENERATION_BYTES: usize = 4;
/// Maximum number of labels of a token and bytes of each, as in a Hello.
const LABELS: (usize, usize) = (256, 256);
/// Label that says an agent's pool; only a token can give it.
const POOL: &str = "pool";
/// Labels that say what a machine is and has, which an agent may always report.
const OF_MACHINES: [&str; 11] = [
    "docker",
    "linux",
    "macos",
    "freebsd",
    "x86_64",
    "aarch64",
    "arm",
    "riscv64",
    "x86",
    "powerpc64",
    "s390x",
];

/// What a token gives to the agents that enrol with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Pool of the agent; it becomes the label `pool=NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Labels that the agent has, beside those of its machine.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Maximum number of slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
}

/// A grant that can't be given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidGrant(String);

impl Grant {
    /// Checks what somebody asks a token for.
    pub fn check(&self) -> Result<(), InvalidGrant> {
        let wrong = |text: String| Err(InvalidGrant(text));
        if let Some(pool) = &self.pool
            && !is_name(pool)
        {
            return wrong(format!(
                "pool {pool:?}: use letters, digits, `.`, `_` and `-`, at most 64"
            ));
        }
        let (most, bytes) = LABELS;
        if self.labels.len() > most {
            return wrong(format!("at most {most} labels"));
        }
        for label in &self.labels {
            let (name, _) = label.split_once('=').unwrap_or((label, ""));
            if name.is_empty() || label.len() > bytes || label.chars().any(char::is_control) {
                return wrong(format!(
                    "label {label:?}: write `NAME` or `NAME=VALUE`, at most {bytes} bytes"
                ));
            }
            if name == POOL {
                return wrong(format!("label {label:?}: a pool is given by `--pool`"));
            }
        }
        match self.slots {
            Some(0) => wrong("an agent needs at least one slot".to_owned()),
            _ => Ok(()),
        }
    }

    fn pool_label(&self) -> Option<String> {
        self.pool.as_ref().map(|pool| format!("{POOL}={pool}"))
    }

    /// Applies the grant to what an agent says of itself. Returns its labels and slots, or why it is refused.
    pub fn apply(&self, said: &[String], slots: u32) -> Result<(Vec<String>, u32), InvalidGrant> {
        let pool = self.pool_label();
        let of_machine = |label: &str| OF_MACHINES.contains(&label);
        let given = |label: &String| self.labels.contains(label) || pool.as_ref() == Some(label);
        let excess = said
            .iter()
            .find(|label| !of_machine(label) && !given(label));
        if let Some(label) = excess {
            let mut may: Vec<&str> = self.labels.iter().map(String::as_str).collect();
            may.extend(pool.as_deref());
            let may = if may.is_empty() {
                "none".to_owned()
            } else {
                may.join(", ")
            };
            return Err(InvalidGrant(format!(
                "this agent may not have the label {label:?}: its token gave it {may}. Start it without `--label {label}`, or enrol it anew with a token that gives it"
            )));
        }
        let mut labels: Vec<String> = said.to_vec();
        labels.extend(self.labels.iter().cloned().chain(pool));
        labels.sort_unstable();
        labels.dedup();
        let slots = self.slots.map_or(slots, |most| slots.min(most));
        Ok((labels, slots))
    }
}

/// Whether an identity may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may.
    Good,
    /// Somebody revoked it.
    Revoked(String),
    /// A copy of its key was used.
    Locked(String),
}

impl Standing {
    /// Returns the word for it in lists and in the store.
    pub fn word(&self) -> &'static str {
        match self {
            Standing::Good => "good",
            Standing::Revoked(_) => "revoked",
            Standing::Locked(_) => "locked",
        }
    }

    /// Returns why it may not be used.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Standing::Good => None,
            Standing::Revoked(reason) | Standing::Locked(reason) => Some(reason),
        }
    }
}

/// An agent's identity, as the coordinator knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Id of the agent.
    pub agent: AgentId,
    /// What its token gave it; `None` if another PKI made its certificates.
    pub grant: Option<Grant>,
    /// Whether it may be used.
    pub standing: Standing,
    /// Newest generation that was issued.
    pub issued: u32,
    /// Newest generation that was used, and since when.
    pub used: (u32, Timestamp),
    /// When the newest certificate expires.
    pub expires: Timestamp,
}

/// Who makes the agents' certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issuer {
    /// This coordinator's CA: it knows every identity.
    Own,
    /// Another PKI.
    External,
}

/// Reason why a call isn't answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The peer showed no certificate.
    #[error(
        "this coordinator wants an identity: enrol the agent (`phalanx token create agent` on the coordinator, then `phalanx agent --enrol TOKEN`)"
    )]
    NoCertificate,
    /// The certificate doesn't name an agent.
    #[error("the certificate names no agent (URI phalanx://CLUSTER/agent/ID)")]
    NoAgent,
    /// The certificate is of another cluster.
    #[error(
        "the certificate is for cluster {theirs}, and this is {ours}: correct the address, or `serve.tls.cluster`"
    )]
    OtherCluster {
        /// The cluster in the certificate.
        theirs: String,
        /// This coordinator's.
        ours: String,
    },
    /// The identity isn't in the store.
    #[error(
        "this coordinator doesn't know agent {0}: enrol it with a token (its record may have been lost with an older backup)"
    )]
    Unknown(AgentId),
    /// The certificate has expired since the connection was opened.
    #[error(
        "the certificate of agent {0} has expired: it renews it when it connects again, else enrol it with a token"
    )]
    Expired(AgentId),
    /// The identity is revoked.
    #[error(
        "agent {agent} is revoked ({reason}): it stays out; enrol a new one from an empty directory"
    )]
    Revoked {
        /// The agent.
        agent: AgentId,
        /// Why.
        reason: String,
    },
    /// The identity is locked.
    #[error(
        "agent {agent} is locked: {reason}. Revoke it, and enrol a new one from an empty directory"
    )]
    Locked {
        /// The agent.
        agent: AgentId,
        /// Why.
        reason: String,
    },
    /// A message names another agent than the certificate.
    #[error(
        "the certificate is of agent {certificate}, and the message of agent {message}: each agent needs its own directory and its own certificate"
    )]
    OtherAgent {
        /// The agent of the certificate.
        certificate: AgentId,
        /// The agent of the message.
        message: AgentId,
    },
}

/// What becomes of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is let in.
    Admit,
    /// It is let in, and the generation that it shows is used from now on.
    First {
        /// The generation.
        generation: u32,
    },
    /// It isn't, and the identity is locked.
    Lock {
        /// Why.
        reason: String,
    },
    /// It isn't.
    Refuse(Refusal),
}

/// Returns the agent of a certificate if it is of this cluster.
pub fn agent_of(cluster: &str, facts: &Facts) -> Result<AgentId, Refusal> {
    let Some(PartyName {
        cluster: theirs,
        party: Party::Agent(agent),
    }) = &facts.party
    else {
        return Err(Refusal::NoAgent);
    };
    if theirs != cluster {
        return Err(Refusal::OtherCluster {
            theirs: theirs.clone(),
            ours: cluster.to_owned(),
        });
    }
    Ok(agent.clone())
}

/// Decides about a call of an agent whose certificate is verified. `identity` is what is known of the agent.
pub fn judge(
    issuer: Issuer,
    agent: &AgentId,
    presented: &Presented,
    identity: Option<&Identity>,
    now: Timestamp,
) -> Verdict {
    if presented.facts.expires <= now {
        return Verdict::Refuse(Refusal::Expired(agent.clone()));
    }
    let Some(identity) = identity else {
        return match issuer {
            Issuer::Own => Verdict::Refuse(Refusal::Unknown(agent.clone())),
            Issuer::External => Verdict::Admit,
        };
    };
    if let Err(refusal) = stands(identity) {
        return Verdict::Refuse(refusal);
    }
    if issuer == Issuer::External {
        return Verdict::Admit;
    }
    let generation = generation_of(&presented.facts.serial);
    let (used, since) = identity.used;
    if generation > used {
        return Verdict::First { generation };
    }
    if generation < used && presented.connected > later(since, OVERLAP) {
        let reason = format!(
            "certificate number {generation} was used after number {used}: there is a copy of its directory"
        );
        return Verdict::Lock { reason };
    }
    Verdict::Admit
}

fn stands(identity: &Identity) -> Result<(), Refusal> {
    let agent = identity.agent.clone();
    match &identity.standing {
        Standing::Good => Ok(()),
        Standing::Revoked(reason) => Err(Refusal::Revoked {
            agent,
            reason: reason.clone(),
        }),
        Standing::Locked(reason) => Err(Refusal::Locked {
            agent,
            reason: reason.clone(),
        }),
    }
}

/// Checks that a message names the agent of the certificate.
pub fn same_agent(certificate: &AgentId, message: &AgentId) -> Result<(), Refusal> {
    if certificate == message {
        return Ok(());
    }
    Err(Refusal::OtherAgent {
        certificate: certificate.clone(),
        message: message.clone(),
    })
}

/// Returns whether an identity's live connections must end: it may not be used, or it has no valid certificate any more.
pub fn must_go(identity: &Identity, now: Timestamp) -> bool {
    identity.standing != Standing::Good || identity.expires <= now
}

/// A token, as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Public id.
    pub id: String,
    /// What it gives.
    pub grant: Grant,
    /// Until when it can be used.
    pub expires: Timestamp,
    /// How many agents may enrol with it, and how many have.
    pub uses: (u32, u32),
}

/// Reason why an agent can't enrol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotEnrolled {
    /// There is no such token, or its secret is another one.
    #[error(
        "this coordinator doesn't know the token: create one with `phalanx token create agent`"
    )]
    NoToken,
    /// The token is too old.
    #[error(
        "the token has expired: create another one with `phalanx token create agent` (`--ttl` says for how long)"
    )]
    Expired,
    /// The token was used as often as it may be.
    #[error(
        "the token has been used ({0} of {0}): create another one with `phalanx token create agent` (`--uses` says how often)"
    )]
    Used(u32),
    /// The agent has an identity already.
    #[error(
        "agent {0} has an identity that is in use: give this agent an empty directory (`--identity-dir`)"
    )]
    Taken(AgentId),
    /// The identity was revoked or locked.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Decides whether an agent may enrol with a token. An identity may be taken over only when none of its certificates is
/// valid any more: then its directory was away for longer than a certificate lasts.
pub fn enrol(
    token: Option<&Token>,
    agent: &AgentId,
    identity: Option<&Identity>,
    now: Timestamp,
) -> Result<(), NotEnrolled> {
    let token = token.ok_or(NotEnrolled::NoToken)?;
    if token.expires <= now {
        return Err(NotEnrolled::Expired);
    }
    let (most, used) = token.uses;
    if used >= most {
        return Err(NotEnrolled::Used(most));
    }
    if let Some(identity) = identity {
        stands(identity)?;
        if identity.expires > now {
            return Err(NotEnrolled::Taken(agent.clone()));
        }
    }
    Ok(())
}

/// Returns the serial number of a certificate: its generation, then random bytes.
pub fn serial(generation: u32, random: [u8; 12]) -> [u8; 16] {
    let mut serial = [0; 16];
    let (head, tail) = serial.split_at_mut(GENERATION_BYTES);
    head.copy_from_slice(&generation.to_be_bytes());
    tail.copy_from_slice(&random);
    serial
}

/// Returns the generation in a serial number, which has no leading zeros; 0 for one that isn't of this CA.
pub fn generation_of(serial: &[u8]) -> u32 {
    let Some(head) = serial.len().checked_sub(12) else {
        return 0;
    };
    let head = serial.get(..head).unwrap_or_default();
    if head.len() > GENERATION_BYTES {
        return 0;
    }
    head.iter()
        .fold(0, |number, byte| (number << 8) | u32::from(*byte))
}

/// Returns a time that much later.
pub fn later(at: Timestamp, by: Duration) -> Timestamp {
    Timestamp(at.0.saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    fn facts(cluster: &str, party: Party, generation: u32, expires: i64) -> Facts {
        let serial = serial(generation, [9; 12]);
        let zeros = serial.iter().take_while(|byte| **byte == 0).count();
        Facts {
            serial: serial[zeros..].to_vec(),
            party: Some(PartyName {
                cluster: cluster.to_owned(),
                party,
            }),
            begins: Timestamp(0),
            expires: Timestamp(expires),
        }
    }

    fn presented(generation: u32, connected: i64) -> Presented {
        let party = Party::Agent(AgentId::from("a"));
        Presented {
            facts: facts("ci", party, generation, 24 * HOUR),
            connected: Timestamp(connected),
        }
    }

    fn identity(used: u32) -> Identity {
        Identity {
            agent: AgentId::from("a"),
            grant: Some(Grant::default()),
            standing: Standing::Good,
            issued: used,
            used: (used, Timestamp(HOUR)),
            expires: Timestamp(24 * HOUR),
        }
    }

    fn judged(presented: &Presented, identity: Option<&Identity>, now: i64) -> Verdict {
        let agent = AgentId::from("a");
        judge(Issuer::Own, &agent, presented, identity, Timestamp(now))
    }

    #[test]
    fn only_an_agent_of_this_cluster_is_one() {
        let agent = Party::Agent(AgentId::from("a"));
        let of = |facts: &Facts| agent_of("ci", facts);
        assert_eq!(of(&facts("ci", agent.clone(), 1, 0)), Ok("a".into()));
        assert!(matches!(
            of(&facts("other", agent.clone(), 1, 0)),
            Err(Refusal::OtherCluster { .. })
        ));
        let coordinator = facts("ci", Party::Coordinator, 1, 0);
        assert_eq!(of(&coordinator), Err(Refusal::NoAgent));
        let nobody = Facts {
            party: None,
            ..coordinator
        };
        assert_eq!(of(&nobody), Err(Refusal::NoAgent));
    }

    #[test]
    fn who_is_unknown_revoked_locked_or_expired_is_refused() {
        let first = presented(1, HOUR);
        assert_eq!(judged(&first, Some(&identity(1)), HOUR), Verdict::Admit);
        assert!(matches!(
            judged(&first, None, HOUR),
            Verdict::Refuse(Refusal::Unknown(_))
        ));
        let expired = judged(&first, Some(&identity(1)), 24 * HOUR);
        assert!(matches!(expired, Verdict::Refuse(Refusal::Expired(_))));
        for standing in [
            Standing::Revoked("left".to_owned()),
            Standing::Locked("copied".to_owned()),
        ] {
            let bad = Identity {
                standing,
                ..identity(1)
            };
            let Verdict::Refuse(refusal) = judged(&first, Some(&bad), HOUR) else {
                panic!("let in");
            };
            let reason = bad.standing.reason().unwrap();
            assert!(refusal.to_string().contains(reason), "{refusal}");
            assert!(must_go(&bad, Timestamp(HOUR)));
        }
        assert!(!must_go(&identity(1), Timestamp(HOUR)));
        assert!(must_go(&identity(1), Timestamp(24 * HOUR)));
    }

    #[test]
    fn an_older_certificate_after_a_newer_one_locks_the_identity() {
        let known = identity(2);
        let newer = judged(&presented(3, 2 * HOUR), Some(&known), 2 * HOUR);
        assert_eq!(newer, Verdict::First { generation: 3 });
        let older = presented(1, 2 * HOUR);
        let Verdict::Lock { reason } = judged(&older, Some(&known), 2 * HOUR) else {
            panic!("let in");
        };
        assert!(reason.contains("number 1"), "{reason}");
        // A connection from before, or one that was being opened at that moment.
        for connected in [HOUR / 2, HOUR + 1_000_000] {
            let open = presented(1, connected);
            assert_eq!(judged(&open, Some(&known), 2 * HOUR), Verdict::Admit);
        }
    }

    #[test]
    fn another_pki_needs_no_record_and_its_agents_can_be_revoked() {
        let agent = AgentId::from("a");
        let judged = |identity: Option<&Identity>| {
            let now = Timestamp(HOUR);
            judge(Issuer::External, &agent, &presented(1, 0), identity, now)
        };
        assert_eq!(judged(None), Verdict::Admit);
        let revoked = Identity {
            standing: Standing::Revoked("left".to_owned()),
            ..identity(0)
        };
        assert!(matches!(judged(Some(&revoked)), Verdict::Refuse(_)));
    }

    #[test]
    fn a_token_is_for_so_many_agents_for_so_long() {
        let agent = AgentId::from("a");
        let token = |uses, expires| Token {
            id: "t".to_owned(),
            grant: Grant::default(),
            expires: Timestamp(expires),
            uses,
        };
        let now = Timestamp(HOUR);
        let enrols =
            |token: &Token, known: Option<&Identity>| enrol(Some(token), &agent, known, now);
        let good = token((2, 1), 2 * HOUR);
        assert_eq!(enrols(&good, None), Ok(()));
        assert_eq!(enrol(None, &agent, None, now), Err(NotEnrolled::NoToken));
        let used = enrols(&token((2, 2), 2 * HOUR), None);
        assert_eq!(used, Err(NotEnrolled::Used(2)));
        let late = enrols(&token((1, 0), HOUR), None);
        assert_eq!(late, Err(NotEnrolled::Expired));
        let taken = enrols(&good, Some(&identity(1)));
        assert_eq!(taken, Err(NotEnrolled::Taken(agent.clone())));
        let expired = Identity {
            expires: now,
            ..identity(1)
        };
        assert_eq!(enrols(&good, Some(&expired)), Ok(()));
        let revoked = Identity {
            standing: Standing::Revoked("left".to_owned()),
            ..expired
        };
        assert!(enrols(&good, Some(&revoked)).is_err());
    }

    #[test]
    fn an_agent_has_the_labels_and_slots_of_its_token_and_no_others() {
        let text = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let grant = Grant {
            pool: Some("ci".to_owned()),
            labels: text(&["gpu", "zone=a"]),
            slots: Some(4),
        };
        let (labels, slots) = grant.apply(&text(&["linux", "docker", "gpu"]), 16).unwrap();
        assert_eq!(labels, ["docker", "gpu", "linux", "pool=ci", "zone=a"]);
        assert_eq!(slots, 4);
        assert_eq!(grant.apply(&text(&["pool=ci"]), 2).unwrap().1, 2);
        for label in ["zone=b", "pool=prod", "license"] {
            let refused = grant.apply(&text(&[label]), 1).unwrap_err().to_string();
            assert!(refused.contains(label) && refused.contains("gpu, zone=a, pool=ci"));
        }
        let none = Grant::default().apply(&text(&["gpu"]), 1).unwrap_err();
        assert!(none.to_string().contains("gave it none"), "{none}");
    }

    #[test]
    fn what_no_agent_could_have_isnt_given() {
        let label = |label: &str| Grant {
            labels: vec![label.to_owned()],
            ..Grant::default()
        };
        assert_eq!(label("zone=a").check(), Ok(()));
        for wrong in ["", "=a", "a\nb", "pool=x", &"x".repeat(257)] {
            assert!(label(wrong).check().is_err(), "{wrong}");
        }
        let pool = Grant {
            pool: Some("a b".to_owned()),
            ..Grant::default()
        };
        assert!(pool.check().is_err());
        let slots = Grant {
            slots: Some(0),
            ..Grant::default()
        };
        assert!(slots.check().is_err());
    }

    #[test]
    fn a_generation_is_read_from_the_serial_number_that_holds_it() {
        for generation in [0, 1, 255, 256, 0x80_00_00_00, u32::MAX] {
            let whole = serial(generation, [7; 12]);
            let zeros = whole.iter().take_while(|byte| **byte == 0).count();
            assert_eq!(generation_of(&whole[zeros..]), generation);
        }
        // The random part of a first certificate begins with a zero now and then.
        let mut random = [7; 12];
        random[0] = 0;
        assert_eq!(generation_of(&serial(1, random)[3..]), 1);
        assert_eq!(generation_of(&[1, 2, 3]), 0);
        assert_eq!(generation_of(&[1; 20]), 0);
    }
}
