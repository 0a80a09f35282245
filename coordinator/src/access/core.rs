//! Decides whether a call is allowed, and how often a peer may fail. Pure: no I/O, and time is a parameter.

use phalanx_shared::namespace::Namespace;
use phalanx_shared::time::Timestamp;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;
use strum::VariantArray;

/// What a token allows. Each role includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, VariantArray)]
pub enum Role {
    /// See runs, their logs and artifacts, and agents.
    Read,
    /// Start runs.
    Run,
    /// Cancel runs that the same identity started.
    CancelOwn,
    /// Everything in its namespace: cancel every run, make and revoke tokens.
    Admin,
}

impl Role {
    /// Returns the word for the role.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Read => "read",
            Role::Run => "run",
            Role::CancelOwn => "cancel-own",
            Role::Admin => "admin",
        }
    }

    /// Returns the role with this word.
    pub fn parse(text: &str) -> Option<Role> {
        let mut roles = Role::VARIANTS.iter().copied();
        roles.find(|role| role.as_str() == text)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The namespaces that somebody sees.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All of them.
    All,
    /// One.
    One(Namespace),
}

impl Scope {
    /// Word for all namespaces.
    pub const ALL: &str = "*";

    /// Returns the scope with this text: `*`, or the name of a namespace.
    pub fn parse(text: &str) -> Option<Scope> {
        match text {
            Scope::ALL => Some(Scope::All),
            name => name.parse().ok().map(Scope::One),
        }
    }

    /// Returns the only namespace of the scope; `None` for all.
    pub fn only(&self) -> Option<&Namespace> {
        match self {
            Scope::All => None,
            Scope::One(namespace) => Some(namespace),
        }
    }

    /// Returns whether the scope has a namespace.
    pub fn has(&self, namespace: &Namespace) -> bool {
        self.only().is_none_or(|only| only == namespace)
    }

    /// Returns whether the scope has everything of another one.
    pub fn includes(&self, other: &Scope) -> bool {
        match (self, other) {
            (Scope::All, _) => true,
            (Scope::One(_), Scope::All) => false,
            (Scope::One(own), Scope::One(other)) => own == other,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.only().map_or(Scope::ALL, Namespace::as_str))
    }
}

/// What a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: anybody may ask.
    Nothing,
    /// An agent. Its session checks who it is.
    Agent,
    /// A role, in the namespaces of what the call is about.
    Role(Role),
    /// A role in all namespaces: the call is about the whole coordinator.
    Everywhere(Role),
}

/// Who somebody is, and what it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Who it is: equal for all tokens of the same owner, and part of the journal.
    pub subject: String,
    /// Display name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Where it may do so.
    pub scope: Scope,
    /// Id of its token.
    pub token: String,
    /// When it ends.
    pub expires: Option<Timestamp>,
}

/// Why a call isn't allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no token.
    #[error(
        "this coordinator needs a token: store one with `phalanx login`, or give it in PHALANX_TOKEN"
    )]
    NoToken,
    /// The token is unknown, expired or revoked. Which of them isn't told to strangers.
    #[error(
        "the token isn't valid: it was revoked, it has expired, or it is another coordinator's; `phalanx login` stores a new one"
    )]
    BadToken,
    /// The token was valid when the call began.
    #[error("the token was revoked or has expired: `phalanx login` stores a new one")]
    Over,
    /// The peer failed too often.
    #[error("too many wrong tokens came from this address: try again in {0} s")]
    TooMany(u64),
    /// The role isn't enough.
    #[error("this needs the role `{needed}`, and the token {name:?} has `{role}`")]
    Role {
        /// The role that is needed.
        needed: Role,
        /// Name of the token.
        name: String,
        /// Role of the token.
        role: Role,
    },
    /// The token is for one namespace.
    #[error(
        "this needs the role `{needed}` in all namespaces, and the token {name:?} is for {namespace}"
    )]
    Everywhere {
        /// The role that is needed.
        needed: Role,
        /// Name of the token.
        name: String,
        /// Namespace of the token.
        namespace: Namespace,
    },
    /// The token is for another namespace than the one that was asked for.
    #[error("the token {name:?} is for {scope}, not for namespace {asked}")]
    Namespace {
        /// The namespace that was asked for.
        asked: Namespace,
        /// Name of the token.
        name: String,
        /// Where the token is valid.
        scope: Scope,
    },
    /// The namespace that was asked for can't exist.
    #[error("{0}")]
    NoNamespace(#[from] phalanx_shared::namespace::InvalidNamespace),
    /// Nobody wrote down what the call needs.
    #[error("{0} is closed: it has no row in the table of needed roles")]
    Unlisted(String),
    /// The tokens can't be read.
    #[error("tokens can't be checked: {0}")]
    Unreadable(String),
}

/// Decides whether somebody may make a call, if it asks for one namespace or for none. Returns the namespaces that the
/// call is about.
pub fn decide(need: Need, who: &Identity, asked: Option<&Namespace>) -> Result<Scope, Refusal> {
    let scope = match asked {
        Some(asked) if !who.scope.has(asked) => {
            return Err(Refusal::Namespace {
                asked: asked.clone(),
                name: who.name.clone(),
                scope: who.scope.clone(),
            });
        }
        Some(asked) => Scope::One(asked.clone()),
        None => who.scope.clone(),
    };
    let (needed, everywhere) = match need {
        Need::Nothing | Need::Agent => return Ok(scope),
        Need::Role(role) => (role, false),
        Need::Everywhere(role) => (role, true),
    };
    if who.role < needed {
        return Err(Refusal::Role {
            needed,
            name: who.name.clone(),
            role: who.role,
        });
    }
    match who.scope.only() {
        Some(namespace) if everywhere => Err(Refusal::Everywhere {
            needed,
            name: who.name.clone(),
            namespace: namespace.clone(),
        }),
        _ => Ok(scope),
    }
}

/// Wrong tokens that a peer may send at once, and the time after which it may send one more.
const BURST: u32 = 10;
const REFILL: Duration = Duration::from_secs(1);
/// Peers that are remembered. Beyond that, those that failed least recently are forgotten.
const PEERS: usize = 4_096;

/// Counts wrong tokens by peer, so that nobody can let a coordinator look up tokens as fast as it can.
#[derive(Debug, Default)]
pub struct Failures(HashMap<IpAddr, Spent>);

/// The failures of a peer, which time takes back one by one.
#[derive(Clone, Copy, Debug)]
struct Spent {
    failures: u32,
    since: Duration,
}

impl Spent {
    fn at(self, now: Duration) -> Spent {
        let back = now.saturating_sub(self.since).as_secs() / REFILL.as_secs();
        let back = u32::try_from(back).unwrap_or(u32::MAX);
        Spent {
            failures: self.failures.saturating_sub(back),
            since: self.since + REFILL * back.min(self.failures),
        }
    }
}

impl Failures {
    /// Returns an error if a peer failed too often to be heard.
    pub fn check(&self, peer: IpAddr, now: Duration) -> Result<(), Refusal> {
        let spent = self.0.get(&peer).map(|spent| spent.at(now));
        match spent {
            Some(spent) if spent.failures >= BURST => Err(Refusal::TooMany(REFILL.as_secs())),
            _ => Ok(()),
        }
    }

    /// Notes that a peer sent a wrong token.
    pub fn add(&mut self, peer: IpAddr, now: Duration) {
        if !self.0.contains_key(&peer) && self.0.len() >= PEERS {
            self.0.retain(|_, spent| spent.at(now).failures > 0);
            let oldest = self.0.iter().min_by_key(|(_, spent)| spent.since);
            if let Some(oldest) = oldest.map(|(peer, _)| *peer)
                && self.0.len() >= PEERS
            {
                self.0.remove(&oldest);
            }
        }
        let fresh = Spent {
            failures: 0,
            since: now,
        };
        let spent = self.0.entry(peer).or_insert(fresh);
        *spent = spent.at(now);
        if spent.failures == 0 {
            spent.since = now;
        }
        spent.failures = spent.failures.saturating_add(1).min(BURST);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn who(role: Role, scope: &str) -> Identity {
        Identity {
            subject: "token:1".to_owned(),
            name: "ci".to_owned(),
            role,
            scope: Scope::parse(scope).unwrap(),
            token: "1".to_owned(),
            expires: None,
        }
    }

    #[test]
    fn each_role_includes_those_before_it() {
        for (at, needed) in Role::VARIANTS.iter().enumerate() {
            for (has, role) in Role::VARIANTS.iter().enumerate() {
                let allowed = decide(Need::Role(*needed), &who(*role, "a"), None);
                assert_eq!(allowed.is_ok(), has >= at, "{role} for {needed}");
                assert_eq!(Role::parse(role.as_str()), Some(*role));
            }
        }
    }

    #[test]
    fn a_role_is_of_its_namespace() {
        let admin = who(Role::Admin, "a");
        let other: Namespace = "b".parse().unwrap();
        let asked = decide(Need::Role(Role::Read), &admin, Some(&other));
        assert!(matches!(asked, Err(Refusal::Namespace { .. })), "{asked:?}");
        let everywhere = decide(Need::Everywhere(Role::Read), &admin, None);
        assert!(matches!(everywhere, Err(Refusal::Everywhere { .. })));
        let all = who(Role::Admin, "*");
        assert_eq!(
            decide(Need::Role(Role::Read), &all, Some(&other)),
            Ok(Scope::One(other.clone()))
        );
        assert_eq!(
            decide(Need::Everywhere(Role::Admin), &all, None),
            Ok(Scope::All)
        );
        assert!(!admin.scope.has(&other) && !admin.scope.includes(&all.scope));
        assert!(all.scope.includes(&admin.scope));
    }

    #[test]
    fn a_peer_that_fails_is_heard_again_after_a_while_and_others_at_once() {
        let (bad, good): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let mut failures = Failures::default();
        let at = Duration::from_millis;
        for _ in 0..BURST {
            assert!(failures.check(bad, at(0)).is_ok());
            failures.add(bad, at(0));
        }
        assert!(failures.check(bad, at(999)).is_err());
        assert!(failures.check(good, at(0)).is_ok());
        assert!(failures.check(bad, at(1_000)).is_ok(), "one more");
        failures.add(bad, at(1_000));
        assert!(failures.check(bad, at(1_999)).is_err());
        assert!(failures.check(bad, at(60_000)).is_ok());
    }

    #[test]
    fn the_memory_of_failures_is_bounded() {
        let mut failures = Failures::default();
        for n in 0..3 * PEERS as u32 {
            failures.add(IpAddr::V4(n.into()), Duration::from_millis(n.into()));
        }
        assert!(failures.0.len() <= PEERS);
    }
}
