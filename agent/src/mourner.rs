//! Whoever an agent leaves behind to tell of its death.
//!
//! A broken connection doesn't say whether the agent lives: a cut network looks the same, and is no death (I8). So each agent has a child
//! that does nothing but hold the reading end of a pipe. The kernel closes the writing end when the agent's process is gone, however it
//! went; the child then tells the coordinator which instance died, and its cells run again at once instead of at the end of the lease.
//! A child that can't tell, or is killed as well, costs time and nothing else.

use crate::clock::Deadline;
use crate::link::{Coordinator, backoff};
use phalanx_proto::link::Obituary;
use phalanx_proto::v1;
use phalanx_shared::id::AgentId;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

/// The hidden subcommand of both binaries.
pub const COMMAND: &str = "__mourn";
/// After so long every lease is over: telling is of no use any more.
const TELL_WITHIN: Duration = Duration::from_secs(30);
/// A call that isn't answered by then is tried again.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Whose death is to be told, to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Of {
    coordinator: String,
    agent: AgentId,
    instance: String,
}

impl Of {
    /// Of this process, as an instance that no other has.
    pub fn this_process(coordinator: &str, agent: &AgentId) -> Of {
        Of {
            coordinator: coordinator.to_owned(),
            agent: agent.clone(),
            instance: uuid::Uuid::now_v7().to_string(),
        }
    }
}

/// The child. Dropping it is the death of which it tells.
#[derive(Debug)]
pub struct Mourner {
    of: Of,
    // Holds the pipe; never waited for, it outlives us.
    _child: Child,
}

impl Mourner {
    /// Starts the child: this program once more, which must answer [`COMMAND`].
    pub fn start(of: Of) -> io::Result<Mourner> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(COMMAND)
            // Ctrl-C on the terminal is for the agent.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let line = serde_json::to_string(&of)? + "\n";
        match &mut child.stdin {
            Some(pipe) => pipe.write_all(line.as_bytes())?,
            None => return Err(io::Error::other("it has no standard input")),
        }
        Ok(Mourner { of, _child: child })
    }

    /// The instance whose death it tells.
    pub fn instance(&self) -> &str {
        &self.of.instance
    }
}

/// The child's whole life.
pub fn main() -> ExitCode {
    let mut text = String::new();
    // Returns when the agent is gone.
    if io::stdin().read_to_string(&mut text).is_err() {
        return ExitCode::FAILURE;
    }
    let Ok(of) = serde_json::from_str::<Of>(text.trim()) else {
        return ExitCode::FAILURE;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) if runtime.block_on(tell(of)) => ExitCode::SUCCESS,
        Ok(_) | Err(_) => ExitCode::FAILURE,
    }
}

/// Tells it until somebody has heard; whether somebody did.
async fn tell(of: Of) -> bool {
    let Ok(coordinator) = Coordinator::at(&of.coordinator) else {
        return false;
    };
    let obituary: v1::Obituary = Obituary {
        agent: of.agent,
        instance: of.instance,
    }
    .into();
    let over = Deadline::within(TELL_WITHIN);
    let mut failed = 0;
    while !over.is_over() {
        let told = async {
            let mut client = coordinator.control().await.ok()?;
            client.died(obituary.clone()).await.ok()
        };
        if let Ok(Some(_)) = tokio::time::timeout(ANSWER_WITHIN, told).await {
            return true;
        }
        failed += 1;
        tokio::time::sleep(backoff::pause(failed, backoff::chance())).await;
    }
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_handed_to_the_child_is_what_it_reads() {
        let of = Of::this_process("http://127.0.0.1:1", &AgentId::from("a"));
        let line = serde_json::to_string(&of).unwrap() + "\n";
        assert_eq!(serde_json::from_str::<Of>(line.trim()).unwrap(), of);
        assert_ne!(Of::this_process("http://127.0.0.1:1", &of.agent), of);
    }
}
