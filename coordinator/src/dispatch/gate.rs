//! The one gate: whether a token still gives the right to say something.
//!
//! A token is let in from its offer (or its resumption) until it is retired, declined or its agent is lost, and only from the agent that holds it.
//! Control and logs both ask here. A late attempt that a cut agent still runs, an agent of an earlier term, a liar: all end here, so nothing behind the gate
//! has to ask again whether what it hears still counts (I2). Who holds an attempt may speak of that attempt only, and only as an agent: of outcomes of
//! cells and runs the coordinator alone speaks.

use phalanx_shared::event::{AttemptRef, Event, EventKind, Speaker};
use phalanx_shared::id::{AgentId, Token};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Why a token isn't let in. The text is told to the agent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// Never given, or taken back.
    #[error("the attempt is over for the coordinator, or never was")]
    Over,
    /// Another agent's.
    #[error("the attempt is held by agent {0}")]
    Foreign(AgentId),
}

/// What nobody may say of an attempt who holds it. The text is the reason why the attempt ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lie {
    /// A kind of the coordinator's.
    #[error("its agent sent `{kind}`, which only a coordinator may say")]
    Kind { kind: String },
    /// Of another run, cell or attempt than the token's.
    #[error("its agent sent `{kind}` of another attempt under its token")]
    Attempt { kind: String },
    /// In another agent's name.
    #[error("its agent sent `{kind}` in the name of agent {name}")]
    Name { kind: String, name: AgentId },
}

/// The live tokens and who holds them.
#[derive(Debug, Default)]
pub struct Gate {
    held: BTreeMap<Token, AgentId>,
    /// Lets everything in: shows that the simulator sees what the gate is for.
    #[cfg(test)]
    pub(crate) off: bool,
}

impl Gate {
    /// Lets a token in from an agent.
    pub fn open(&mut self, token: Token, agent: AgentId) {
        self.held.insert(token, agent);
    }

    /// Closes behind a token.
    pub fn close(&mut self, token: &Token) {
        self.held.remove(token);
    }

    /// Whether an agent may speak of an attempt.
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

    /// Whether the holder of an attempt may say all of this.
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

    /// Closes behind all tokens of an agent, and names them.
    pub fn close_all(&mut self, agent: &AgentId) -> Vec<Token> {
        let of_agent =
            |(token, holder): (&Token, &AgentId)| (holder == agent).then(|| token.clone());
        let tokens: Vec<Token> = self.held.iter().filter_map(of_agent).collect();
        tokens.iter().for_each(|token| self.close(token));
        tokens
    }

    /// Who holds an attempt.
    pub fn holder(&self, token: &Token) -> Option<AgentId> {
        self.held.get(token).cloned()
    }

    /// Whether anybody holds the attempt.
    pub fn is_open(&self, token: &Token) -> bool {
        self.held.contains_key(token)
    }
}

/// The gate as sessions and log streams share it. Each use is one look-up; it is never held over a wait.
#[derive(Clone, Debug, Default)]
pub struct SharedGate {
    gate: Arc<Mutex<Gate>>,
    /// Agents whose Hello was answered in this term.
    welcome: Arc<watch::Sender<BTreeSet<AgentId>>>,
}

impl SharedGate {
    /// The gate. A holder that panicked left a whole map behind.
    pub fn lock(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that an agent goes on with has been let in.
    pub fn welcome(&self, agent: &AgentId) {
        self.welcome
            .send_if_modified(|agents| agents.insert(agent.clone()));
    }

    /// Nothing of an agent is let in until it is welcome again.
    pub fn forget(&self, agent: &AgentId) {
        self.welcome.send_if_modified(|agents| agents.remove(agent));
    }

    /// Waits until an agent is welcome. Before that a token that isn't known may still be let in: after a restart logs can be here
    /// sooner than the Hello that says which attempts go on.
    pub async fn until_welcome(&self, agent: &AgentId) {
        // Never closed: the sender is ours.
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
