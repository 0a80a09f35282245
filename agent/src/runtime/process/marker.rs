//! The mark in the environment of every process that belongs to an attempt (I3). The reaper uses it to tell whose a
//! process is.
//!
//! Environment variables are inherited, even across `setsid`, double forks and the death of all ancestors.

use phalanx_shared::id::{AgentId, CellId, RunId, Token};
use serde::{Deserialize, Serialize};

/// Names the variable that holds `AGENT/RUN/CELL/ATTEMPT/EPOCH`.
pub const ATTEMPT_VARIABLE: &str = "PHALANX_ATTEMPT";
/// Names the variable that holds the service's name.
pub const SERVICE_VARIABLE: &str = "PHALANX_SERVICE";
/// Set only in the environment of the warden itself.
const WARDEN_VARIABLE: &str = "PHALANX_WARDEN";

/// Identifies what a process belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Identity of the agent.
    pub agent: AgentId,
    /// Token of the attempt.
    pub token: Token,
    /// Name of the service, or another purpose (`run`).
    pub service: String,
}

impl Marker {
    /// Returns the environment variables that carry the mark.
    pub fn variables(&self) -> [(&'static str, String); 2] {
        let Token {
            run,
            cell,
            attempt,
            epoch,
        } = &self.token;
        let attempt = format!("{}/{run}/{cell}/{attempt}/{epoch}", self.agent);
        [
            (ATTEMPT_VARIABLE, attempt),
            (SERVICE_VARIABLE, self.service.clone()),
        ]
    }

    /// Returns the mark as an environment block, with an extra variable that tells a warden from its service.
    pub fn block_of_warden(&self) -> Vec<u8> {
        let [attempt, service] = self.variables();
        let variables = [attempt, service, (WARDEN_VARIABLE, "1".to_owned())];
        let entries = variables.map(|(name, value)| format!("{name}={value}\0"));
        entries.concat().into_bytes()
    }

    /// Parses the mark from a process's environment block (`NAME=value` entries, each terminated by a zero byte).
    /// Returns `None` if there is no mark or it can't be parsed.
    pub fn find(environment: &[u8]) -> Option<Marker> {
        let agent_and_token = variable(environment, ATTEMPT_VARIABLE)?;
        let mut parts = agent_and_token.rsplitn(5, '/');
        let epoch = parts.next()?.parse().ok()?;
        let attempt = parts.next()?.parse().ok()?;
        let cell = CellId::from(parts.next()?);
        let run = RunId::from(parts.next()?);
        let agent = AgentId::from(parts.next()?);
        Some(Marker {
            agent,
            token: Token {
                run,
                cell,
                attempt,
                epoch,
            },
            service: variable(environment, SERVICE_VARIABLE)?,
        })
    }
}

/// Returns whether an environment block is that of a warden.
pub fn is_warden(environment: &[u8]) -> bool {
    variable(environment, WARDEN_VARIABLE).is_some()
}

fn variable(environment: &[u8], name: &str) -> Option<String> {
    environment.split(|byte| *byte == 0).find_map(|entry| {
        let value = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        String::from_utf8(value.to_vec()).ok()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn marker() -> Marker {
        Marker {
            agent: "box/7".into(),
            token: Token {
                run: "0198-run".into(),
                cell: "00ff".into(),
                attempt: 2,
                epoch: 3,
            },
            service: "shop".to_owned(),
        }
    }

    fn environment(marker: &Marker) -> Vec<u8> {
        let mut block = b"PATH=/bin\0".to_vec();
        for (name, value) in marker.variables() {
            block.extend_from_slice(format!("{name}={value}\0").as_bytes());
        }
        block
    }

    #[test]
    fn a_marker_is_read_back_from_an_environment() {
        assert_eq!(Marker::find(&environment(&marker())), Some(marker()));
    }

    #[test]
    fn an_environment_without_or_with_a_broken_mark_is_nobody_s() {
        assert_eq!(Marker::find(b"PATH=/bin\0"), None);
        assert_eq!(
            Marker::find(b"PHALANX_ATTEMPT=a/b/c\0PHALANX_SERVICE=x\0"),
            None
        );
        assert_eq!(
            Marker::find(b"XPHALANX_ATTEMPT=a/r/c/1/1\0PHALANX_SERVICE=x\0"),
            None
        );
        assert_eq!(
            Marker::find(b"PHALANX_ATTEMPT=a/r/c/1/one\0PHALANX_SERVICE=x\0"),
            None
        );
        assert_eq!(Marker::find(&[0xff, 0, 0xfe]), None);
    }
}
