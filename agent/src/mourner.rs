//! The mourner: a child process that reports the agent's death to the coordinator.
//!
//! A broken connection doesn't prove that the agent is dead: a cut network looks the same (I8). Therefore each agent
//! has a child that only holds the reading end of a pipe. The kernel closes the writing end when the agent's process
//! ends for any reason. The child then reports the dead instance to the coordinator, which reruns its cells at once
//! instead of when their leases expire. If the child is killed too or can't reach the coordinator, the cells only start
//! later.

use crate::access::Access;
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

/// Name of the hidden subcommand of both binaries.
pub const COMMAND: &str = "__mourn";
/// Time limit for reporting the death. Every lease has expired by then, so a later report would be useless.
const TELL_WITHIN: Duration = Duration::from_secs(30);
/// Time limit for one call; after it the call is retried.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// The agent instance whose death is reported, and the coordinator to report it to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Of {
    coordinator: String,
    /// For a coordinator with TLS. The files are read when the death is reported.
    access: Option<Access>,
    agent: AgentId,
    instance: String,
}

impl Of {
    /// Describes this process as a new, unique instance of the agent.
    pub fn this_process(coordinator: &str, access: Option<Access>, agent: &AgentId) -> Of {
        Of {
            coordinator: coordinator.to_owned(),
            access,
            agent: agent.clone(),
            instance: uuid::Uuid::now_v7().to_string(),
        }
    }
}

/// Handle to the child process. Dropping it closes the pipe, which the child takes for the agent's death.
#[derive(Debug)]
pub struct Mourner {
    of: Of,
    // Holds the pipe. The agent never waits for the child, which outlives it.
    _child: Child,
}

impl Mourner {
    /// Starts the child: this same program, which must answer [`COMMAND`].
    pub fn start(of: Of) -> io::Result<Mourner> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(COMMAND)
            // Ctrl-C on the terminal is meant for the agent only.
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

    /// Returns the id of the instance whose death the child reports.
    pub fn instance(&self) -> &str {
        &self.of.instance
    }
}

/// Runs the child: the body of the hidden subcommand.
pub fn main() -> ExitCode {
    let mut text = String::new();
    // Returns when the agent's process has ended.
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

/// Reports the death, retrying until the coordinator answers or the time is over. Returns whether the coordinator
/// answered.
async fn tell(of: Of) -> bool {
    let Ok(coordinator) = Coordinator::at(&of.coordinator, of.access) else {
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
        let of = Of::this_process("http://127.0.0.1:1", None, &AgentId::from("a"));
        let line = serde_json::to_string(&of).unwrap() + "\n";
        assert_eq!(serde_json::from_str::<Of>(line.trim()).unwrap(), of);
        assert_ne!(Of::this_process("http://127.0.0.1:1", None, &of.agent), of);
    }
}
