//! What the agent and a warden say to each other: one JSON object per line over the warden's standard input, a socket.
//!
//! Service output doesn't travel here, it goes through pipes of its own.

use super::marker::Marker;
use crate::beneath::Place;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// From the agent to the warden.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The first message: what to run.
    Start(Box<Start>),
    /// Sends a signal, by number, to the service's process group.
    Signal(i32),
    /// Ends everything below the warden.
    Kill,
    /// Stops every process below the warden (SIGSTOP).
    Pause,
    /// Lets them go on (SIGCONT).
    Unpause,
    /// The agent will go; everything may live on for so many milliseconds.
    Keep(u64),
}

/// What to run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Start {
    /// Words; the first is looked up in the `PATH` of `env`.
    pub command: Vec<String>,
    /// The whole environment, the marker apart.
    pub env: BTreeMap<String, String>,
    /// The working directory.
    pub workdir: Place,
    /// What is fed to it (base64); nothing without.
    pub stdin: Option<String>,
    /// User and group ids, if it shall not be the agent's.
    pub user: Option<(u32, u32)>,
    /// Ports of 127.0.0.1 that are its own: it is started once they are free.
    pub ports: Vec<u16>,
    /// The soft limit of open files that it begins with, if not the warden's.
    pub open_files: Option<u64>,
    /// Says to whom it belongs.
    pub marker: Marker,
}

/// From the warden to the agent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// It runs.
    Started {
        /// The process.
        pid: i32,
    },
    /// It could not be started. The warden goes.
    Refused {
        /// 127 not found, 126 otherwise, as in a shell.
        exit_code: i64,
        /// Why.
        message: String,
    },
    /// The machine is in the way, not the command. The warden goes.
    Unable {
        /// Why.
        message: String,
    },
    /// It exited, and nothing below the warden lives. The warden goes.
    Ended(Ending),
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// The exit code; 128 + signal of a killed one.
    pub code: i64,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// Peak memory of the largest of its processes, in KiB.
    pub peak_kib: i64,
}
