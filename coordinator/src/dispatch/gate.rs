//! The token gate: decides whether a token still entitles an agent to report on an attempt.
//!
//! A token passes from its offer (or resumption) until it is retired or declined or its agent is lost, and only from
//! the agent that holds it. Control messages and logs both ask here. The gate stops late attempts that a cut-off agent
//! still runs, agents of an earlier term, and forged messages. So the code behind the gate never has to check whether a
//! message still counts (I2). The holder of an attempt may report on that attempt only, and only facts that agents
//! observe: outcomes of cells and runs come from the coordinator alone.
//!
//! stage: at the gate: messages with a stale token end here; nothing behind the gate checks tokens again

use phalanx_shared::event::{AttemptRef, Event, EventKind, Speaker};
use phalanx_shared::id::{AgentId, Token};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Why a token is rejected. The agent receives the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// The token was never issued, or was taken back.
    #[error("the attempt is over for the coordinator, or never was")]
    Over,
    /// Another agent holds the attempt.
    #[error("the attempt is held by agent {0}")]
    Foreign(AgentId),
}

/// An event that the holder of an attempt may not send. The text becomes the reason why the attempt ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lie {
    /// The event's kind is reserved for the coordinator.
    #[error("its agent sent `{kind}`, which only a coordinator may say")]
    Kind { kind: String },
    /// The event belongs to another run, cell or attempt than the token.
    #[error("its agent sent `{kind}` of another attempt under its token")]
    Attempt { kind: String },
    /// The event names another agent.
    #[error("its agent sent `{kind}` in the name of agent {name}")]
    Name { kind: String, name: AgentId },
}

/// The live tokens and the agents that hold them.
#[derive(Debug, Default)]
pub struct Gate {
    held: BTreeMap<Token, AgentId>,
    /// Lets everything in: tests show with it that the simulator detects what the gate prevents.
    #[cfg(test)]
    pub(crate) off: bool,
}

impl Gate {
    /// Lets an agent's messages with this token in.
    pub fn open(&mut self, token: Token, agent: AgentId) {
        self.held.insert(token, agent);
    }

    /// Rejects this token from now on.
    pub fn close(&mut self, token: &Token) {
        self.held.remove(token);
    }

    /// Checks whether an agent may report on an attempt. Returns an error if it doesn't hold the token.
    pub fn check(&self, agent: &AgentId, token: &Token) -> Result<(), Stale> {
        #[cfg(test)]
        if self.off {
            return Ok(());
        }
        match self.held.get(token) {
            Some(holder) if holder == agent => Ok(()),
            Some(holder) => Err(Stale::Foreign(holder.clone())),
            None => Err(Stale::Over),
        }
    }

    /// Checks whether the holder of an attempt may send all of these events. Returns an error for the first that it may
    /// not.
    pub fn check_events(
        &self,
        agent: &AgentId,
        token: &Token,
        events: &[Event],
    ) -> Result<(), Lie> {
        #[cfg(test)]
        if self.off {
            return Ok(());
        }
        let attempt = AttemptRef {
            cell: token.cell.clone(),
            attempt: token.attempt,
        };
        for event in events {
            let kind = || event.kind.name().to_owned();
            if event.kind.speaker() != Speaker::Agent {
                return Err(Lie::Kind { kind: kind() });
            }
            if event.run != token.run || event.attempt.as_ref() != Some(&attempt) {
                return Err(Lie::Attempt { kind: kind() });
            }
            if let EventKind::AttemptStarted { agent: name } = &event.kind
                && name != agent
            {
                let (kind, name) = (kind(), name.clone());
                return Err(Lie::Name { kind, name });
            }
        }
        Ok(())
    }

    /// Closes all tokens of an agent and returns them.
    pub fn close_all(&mut self, agent: &AgentId) -> Vec<Token> {
        let of_agent =
            |(token, holder): (&Token, &AgentId)| (holder == agent).then(|| token.clone());
        let tokens: Vec<Token> = self.held.iter().filter_map(of_agent).collect();
        tokens.iter().for_each(|token| self.close(token));
        tokens
    }

    /// Returns the agent that holds an attempt.
    pub fn holder(&self, token: &Token) -> Option<AgentId> {
        self.held.get(token).cloned()
    }

    /// Returns whether an agent holds the attempt.
    pub fn is_open(&self, token: &Token) -> bool {
        self.held.contains_key(token)
    }
}

/// The gate as shared by sessions and log streams. Each use is one look-up; the lock is never held across an await.
#[derive(Clone, Debug, Default)]
pub struct SharedGate {
    gate: Arc<Mutex<Gate>>,
    /// Agents whose Hello was answered in this term.
    welcome: Arc<watch::Sender<BTreeSet<AgentId>>>,
}

impl SharedGate {
    /// Locks the gate. A poisoned lock is used as it is: a panic can't leave the map half changed.
    pub fn lock(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks an agent as welcome: the tokens of all attempts that it continues are open.
    pub fn welcome(&self, agent: &AgentId) {
        self.welcome
            .send_if_modified(|agents| agents.insert(agent.clone()));
    }

    /// Marks an agent as not welcome until its next Hello is answered.
    pub fn forget(&self, agent: &AgentId) {
        self.welcome.send_if_modified(|agents| agents.remove(agent));
    }

    /// Waits until an agent is welcome. Before that, an unknown token may still be let in later: after a restart, logs
    /// can arrive sooner than the Hello that says which attempts continue.
    pub async fn until_welcome(&self, agent: &AgentId) {
        // Never fails: `self` owns the sender.
        let _ = self
            .welcome
            .subscribe()
            .wait_for(|agents| agents.contains(agent))
            .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_let_in_only_from_its_holder_and_only_while_it_is_open() {
        let token = Token {
            run: "run".into(),
            cell: "cell".into(),
            attempt: 1,
            epoch: 1,
        };
        let earlier = Token {
            epoch: 0,
            ..token.clone()
        };
        let (one, two) = (AgentId::from("one"), AgentId::from("two"));
        let mut gate = Gate::default();
        assert_eq!(gate.check(&one, &token), Err(Stale::Over));
        gate.open(token.clone(), one.clone());
        assert_eq!(gate.check(&one, &token), Ok(()));
        assert_eq!(gate.check(&one, &earlier), Err(Stale::Over));
        assert_eq!(gate.check(&two, &token), Err(Stale::Foreign(one.clone())));
        gate.close(&token);
        assert_eq!(gate.check(&one, &token), Err(Stale::Over));
    }

    #[test]
    fn a_holder_says_only_what_agents_may_of_its_own_attempt_in_its_own_name() {
        let token = Token {
            run: "run".into(),
            cell: "cell".into(),
            attempt: 1,
            epoch: 1,
        };
        let (one, two) = (AgentId::from("one"), AgentId::from("two"));
        let mut gate = Gate::default();
        gate.open(token.clone(), one.clone());
        let event = |kind| Event {
            run: token.run.clone(),
            attempt: Some(AttemptRef {
                cell: token.cell.clone(),
                attempt: 1,
            }),
            seq: 1,
            at: Default::default(),
            mono_us: 0,
            kind,
        };
        let said = |event| gate.check_events(&one, &token, &[event]);
        let started = |agent: &AgentId| EventKind::AttemptStarted {
            agent: agent.clone(),
        };
        assert_eq!(said(event(started(&one))), Ok(()));
        assert!(matches!(said(event(started(&two))), Err(Lie::Name { .. })));
        let outcome = phalanx_shared::outcome::Outcome::Passed;
        for kind in [
            EventKind::RunFinished { outcome },
            EventKind::CancelRequested {
                reason: "forged".to_owned(),
                grace_ms: None,
                force: false,
            },
            EventKind::AttemptLost {
                token: token.clone(),
                reason: "forged".to_owned(),
            },
        ] {
            assert!(matches!(said(event(kind)), Err(Lie::Kind { .. })));
        }
        let later = serde_json::Map::from_iter([("kind".to_owned(), "teleported".into())]);
        assert_eq!(said(event(EventKind::Unknown(later))), Ok(()));
        let of_another = Event {
            run: "another".into(),
            ..event(started(&one))
        };
        assert!(matches!(said(of_another), Err(Lie::Attempt { .. })));
        let of_nothing = Event {
            attempt: None,
            ..event(started(&one))
        };
        assert!(matches!(said(of_nothing), Err(Lie::Attempt { .. })));
    }
}
