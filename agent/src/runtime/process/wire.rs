//! Messages between the agent and a warden: one JSON object per line, over the socket that is the warden's standard
//! input.
//!
//! The output of the service doesn't travel here; it has its own pipes.

use super::marker::Marker;
use crate::beneath::Place;
use crate::limits::SoftLimits;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A message from the agent to the warden.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Starts the service. Always the first message.
    Start(Box<Start>),
    /// Sends a signal, by number, to the service's process group.
    Signal(i32),
    /// Ends everything below the warden.
    Kill,
    /// Stops every process below the warden (SIGSTOP).
    Pause,
    /// Resumes every process below the warden (SIGCONT).
    Unpause,
    /// Lets everything live for this many milliseconds, even after the agent exits.
    Keep(u64),
}

/// Describes the process to start.
#[derive(Debug, Serialize, Deserialize)]
pub struct Start {
    /// Program and arguments. The program is looked up in the `PATH` of `env`.
    pub command: Vec<String>,
    /// The whole environment, without the marker.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub workdir: Place,
    /// Content of its standard input, in base64; empty if `None`.
    pub stdin: Option<String>,
    /// User and group ids, if they differ from the agent's.
    pub user: Option<(u32, u32)>,
    /// The service's ports on 127.0.0.1. The process starts once they are free.
    pub ports: Vec<u16>,
    /// Its soft limits, where they differ from the warden's.
    pub limits: SoftLimits,
    /// Mark that says what the process belongs to.
    pub marker: Marker,
}

/// A message from the warden to the agent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The process runs.
    Started {
        /// Pid of the process.
        pid: i32,
    },
    /// The command could not be started. The warden exits.
    Refused {
        /// 127 if not found, else 126, as in a shell.
        exit_code: i64,
        /// Reason, as shown to the user.
        message: String,
    },
    /// The machine is at fault, not the command. The warden exits.
    Unable {
        /// Reason, as shown to the user.
        message: String,
    },
    /// The process exited and nothing below the warden lives. The warden exits.
    Ended(Ending),
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// Exit code; 128 + signal number if a signal killed it.
    pub code: i64,
    /// Number of the signal that killed it.
    pub signal: Option<i32>,
    /// Peak memory of the largest of its processes, in KiB.
    pub peak_kib: i64,
}
