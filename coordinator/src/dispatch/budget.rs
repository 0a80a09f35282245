//! The limit on events over all attempts of an agent. Each attempt has a budget of its own; without this limit, an
//! agent with many attempts could still send too much in total.

use super::attempt::Attempt;
use super::core::{AgentSession, Effects};
use phalanx_shared::event::EventKind;
use phalanx_shared::id::Token;

impl AgentSession {
    /// Revokes attempts until the events of the rest fit the agent's budget. The attempt with the most bytes goes
    /// first: it is the noisy one, even if another one sent the last batch.
    pub(super) fn keep_budget(&mut self, effects: &mut Effects) {
        let budget = self.settings.agent_event_bytes;
        while self.attempts.values().map(|a| a.said).sum::<u64>() > budget {
            let said = |(_, attempt): &(&Token, &Attempt)| attempt.said;
            let Some((token, _)) = self.attempts.iter().max_by_key(said) else {
                return;
            };
            let token = token.clone();
            let reason = format!(
                "its agent sent more than {} MiB of events over all attempts that it holds, most of them of this one",
                budget >> 20
            );
            self.revoke(&token, reason, effects);
        }
    }
}

/// Returns the size of an event in the journal, in bytes.
pub fn size(kind: &EventKind) -> u64 {
    struct Count(u64);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len() as u64;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // An event that can't be serialized isn't stored either.
    let _ = serde_json::to_writer(&mut count, kind);
    count.0
}
