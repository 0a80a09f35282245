//! What an agent may say over all of its attempts. Each attempt has a budget of its own; an agent with many must not exceed by number what each of
//! them is allowed.

use super::attempt::Attempt;
use super::core::{AgentSession, Effects};
use phalanx_shared::event::EventKind;
use phalanx_shared::id::Token;

impl AgentSession {
    /// Takes attempts from the agent until what the others have said is within its budget. The one that said most goes first: it is the noisy one,
    /// whoever spoke last.
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

/// Bytes of an event as the journal keeps it.
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
    // What can't be written isn't kept either.
    let _ = serde_json::to_writer(&mut count, kind);
    count.0
}
