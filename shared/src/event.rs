//! Facts that happened. They are never changed; state is a fold of them ([`crate::run_state`]).
//!
//! Agents make the events of an attempt and number them from 1 (`seq`); the coordinator makes those of runs
//! and placement. The journal numbers all events of a run from 1 ([`Recorded::position`]).
//! A kind that this version doesn't know is kept as it came ([`EventKind::Unknown`]), written back as it came, and ignored by the fold.

mod masker;

pub use masker::{EventMasker, Keys};

use crate::id::{AgentId, CellId, RunId, Token};
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::time::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// A fact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The run.
    pub run: RunId,
    /// The cell and try, for events of an attempt.
    pub attempt: Option<AttemptRef>,
    /// Position among the attempt's own events, from 1; 0 for the coordinator's events.
    pub seq: u64,
    /// Wall time.
    pub at: Timestamp,
    /// Microseconds since the attempt began, by the agent's monotonic clock; 0 for the coordinator's events.
    pub mono_us: u64,
    /// What happened.
    pub kind: EventKind,
}

/// A try at a cell.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttemptRef {
    /// The cell.
    pub cell: CellId,
    /// From 1.
    pub attempt: u32,
}

/// An event with its place in the run's journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// Position in the run, from 1, without holes.
    pub position: u64,
    /// The event.
    pub event: Event,
}

/// Identifies a step, group or phase within an attempt: `setup`, `setup/0`, `sync/2[book]/1` …
/// Segments are positions, with the `foreach` key in brackets; it doesn't change when names do.
pub type StepPath = String;

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", remote = "Self")]
#[allow(clippy::large_enum_variant)]
pub enum EventKind {
    // ---- the coordinator's
    /// A run exists. First event of every run.
    RunSubmitted {
        /// The plan, already narrowed.
        plan: Plan,
        /// What it came from, for `rerun` and people: the spec's path, inputs, `--only`.
        origin: Map<String, Value>,
    },
    /// An attempt was offered to an agent.
    CellOffered {
        token: Token,
        agent: AgentId,
        agent_name: String,
    },
    /// The agent took it.
    CellAccepted { token: Token },
    /// The offer came to nothing (declined, unanswered); the cell waits again. It costs no try.
    CellReturned { token: Token, reason: String },
    /// The attempt ended without the agent's word: lost lease, lost agent.
    AttemptLost { token: Token, reason: String },
    /// The cell's one outcome (I2).
    CellFinished {
        cell: CellId,
        outcome: Outcome,
        reason: Option<String>,
        attempts: u32,
    },
    /// Somebody asked for the end.
    CancelRequested { reason: String },
    /// Every cell has its outcome.
    RunFinished { outcome: Outcome },

    // ---- an agent's
    /// The attempt runs.
    AttemptStarted { agent: AgentId },
    /// A service came to a state.
    ServiceChanged {
        service: String,
        state: ServiceState,
        /// When the state's own work began (wall time), for spans: a pull, a start, a wait for readiness.
        began: Timestamp,
        /// Image, address, exit code, error …
        detail: Option<String>,
    },
    /// What keeps a service that isn't ready: a long pull or build, an unhealthy verdict, the last answer to its predicate.
    ServiceProgress {
        service: String,
        /// In one line, for people.
        doing: String,
    },
    /// A phase began.
    PhaseStarted { path: StepPath, name: String },
    /// A phase ended.
    PhaseFinished {
        path: StepPath,
        name: String,
        outcome: Outcome,
        reason: Option<String>,
        began: Timestamp,
    },
    /// A step or a group began.
    StepStarted {
        path: StepPath,
        name: String,
        action: String,
    },
    /// A step or a group ended. Also the only event of a skipped one.
    StepFinished(Box<StepResult>),
    /// The attempt is over; what follows is clean-up.
    AttemptFinished {
        outcome: Outcome,
        reason: Option<String>,
    },
    /// The stack is gone, or kept.
    TornDown {
        removed: u32,
        left: Vec<String>,
        kept: Vec<KeptService>,
        began: Timestamp,
    },
    /// Bytes of a log that could not be kept.
    LogGap {
        service: String,
        stream: LogStream,
        from: u64,
        to: u64,
        reason: String,
    },
    /// Something worth telling that changes no outcome.
    Note { message: String },
    /// A kind of a later version, whole.
    #[serde(skip)]
    Unknown(Map<String, Value>),
}

/// Who makes events of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// Of runs, placement and outcomes. From an agent it is a lie.
    Coordinator,
    /// Of what happens in an attempt.
    Agent,
}

/// The names that [`EventKind::name`] gives, without that of an unknown one, each with who may say it.
const KINDS: [(&str, Speaker); 19] = [
    ("run_submitted", Speaker::Coordinator),
    ("cell_offered", Speaker::Coordinator),
    ("cell_accepted", Speaker::Coordinator),
    ("cell_returned", Speaker::Coordinator),
    ("attempt_lost", Speaker::Coordinator),
    ("cell_finished", Speaker::Coordinator),
    ("cancel_requested", Speaker::Coordinator),
    ("run_finished", Speaker::Coordinator),
    ("attempt_started", Speaker::Agent),
    ("service_changed", Speaker::Agent),
    ("service_progress", Speaker::Agent),
    ("phase_started", Speaker::Agent),
    ("phase_finished", Speaker::Agent),
    ("step_started", Speaker::Agent),
    ("step_finished", Speaker::Agent),
    ("attempt_finished", Speaker::Agent),
    ("torn_down", Speaker::Agent),
    ("log_gap", Speaker::Agent),
    ("note", Speaker::Agent),
];

impl Serialize for EventKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            EventKind::Unknown(payload) => payload.serialize(serializer),
            known => EventKind::serialize(known, serializer),
        }
    }
}

impl<'de> Deserialize<'de> for EventKind {
    /// From JSON only: an unknown kind is told from a broken one by a second look at the text.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Named {
            kind: String,
        }
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let mut json = serde_json::Deserializer::from_str(text.get());
        EventKind::deserialize(&mut json).or_else(|error| {
            match serde_json::from_str::<Named>(text.get()) {
                Ok(Named { kind }) if KINDS.iter().all(|(known, _)| *known != kind) => {
                    let payload = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
                    Ok(EventKind::Unknown(payload))
                }
                _ => Err(D::Error::custom(error)),
            }
        })
    }
}

impl EventKind {
    /// Who may say it. A kind of a later version is an agent's: it changes nothing here, whatever it means there.
    pub fn speaker(&self) -> Speaker {
        let known = KINDS.iter().find(|(name, _)| *name == self.name());
        known.map_or(Speaker::Agent, |(_, speaker)| *speaker)
    }

    /// The kind's name as JSON writes it under `kind`.
    pub fn name(&self) -> &str {
        match self {
            EventKind::RunSubmitted { .. } => "run_submitted",
            EventKind::CellOffered { .. } => "cell_offered",
            EventKind::CellAccepted { .. } => "cell_accepted",
            EventKind::CellReturned { .. } => "cell_returned",
            EventKind::AttemptLost { .. } => "attempt_lost",
            EventKind::CellFinished { .. } => "cell_finished",
            EventKind::CancelRequested { .. } => "cancel_requested",
            EventKind::RunFinished { .. } => "run_finished",
            EventKind::AttemptStarted { .. } => "attempt_started",
            EventKind::ServiceChanged { .. } => "service_changed",
            EventKind::ServiceProgress { .. } => "service_progress",
            EventKind::PhaseStarted { .. } => "phase_started",
            EventKind::PhaseFinished { .. } => "phase_finished",
            EventKind::StepStarted { .. } => "step_started",
            EventKind::StepFinished(_) => "step_finished",
            EventKind::AttemptFinished { .. } => "attempt_finished",
            EventKind::TornDown { .. } => "torn_down",
            EventKind::LogGap { .. } => "log_gap",
            EventKind::Note { .. } => "note",
            EventKind::Unknown(payload) => payload
                .get("kind")
                .and_then(Value::as_str)
                .unwrap_or("unknown"),
        }
    }
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepResult {
    /// Which step.
    pub path: StepPath,
    /// What reports show, interpolated.
    pub name: String,
    /// The step's own id, if it has one.
    pub id: Option<String>,
    /// `http`, `exec`, `steps`, `use` …
    pub action: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it was skipped, failed or errored, in one line.
    pub reason: Option<String>,
    /// Of a skipped one: that nobody decided so, it only was never reached (a failure, a timeout or a cancel came before it).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unreached: bool,
    /// Tries of the step (`retry`), from 1; 0 if it was skipped before the action.
    pub tries: u32,
    /// Repetitions of the action in the last try (`poll`).
    pub polls: u32,
    /// When it began.
    pub began: Timestamp,
    /// How long it took.
    pub elapsed_us: u64,
    /// The rows of the coverage table that it and the groups around it name.
    pub verifies: Vec<String>,
    /// Each check in the order written.
    pub checks: Vec<CheckResult>,
    /// What its command printed; only of a step that is ok, and that printed something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
    /// What helps to see the cause; only of a step that isn't ok.
    pub failure: Option<Failure>,
}

/// What a command printed. Bounded and masked; without what is empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// The beginning and the end of its output.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stdout: String,
    /// The beginning and the end of its errors.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stderr: String,
    /// Bytes of both that aren't kept, since steps before it printed as much as is kept of a cell.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How one expectation ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckResult {
    /// The expression as written.
    pub expression: String,
    /// Whether it held.
    pub passed: bool,
    /// Of a failed one: each part with its value, from left to right.
    pub parts: Vec<Part>,
    /// Of one that could not be evaluated: why.
    pub error: Option<String>,
}

/// A part of an expression and its value, both bounded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// The text of the part.
    pub text: String,
    /// Its value as JSON, cut when long.
    pub value: String,
}

/// What helps to see the cause of a failure. Everything is bounded and masked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Where the step stands: `file:line:column`.
    pub place: Option<String>,
    /// The request line, headers and body.
    pub request: Option<String>,
    /// The answer: status line, headers and body; or exit code, stdout and stderr.
    pub response: Option<String>,
    /// The last lines of the services concerned.
    pub logs: Vec<LogTail>,
    /// More lines for people (an inspect summary, the variables of a template …).
    pub notes: Vec<String>,
}

/// The last lines of a service's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogTail {
    /// The service.
    pub service: String,
    /// Its lines, oldest first.
    pub lines: Vec<String>,
}

/// Where a service is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum ServiceState {
    Pulled,
    Built,
    Created,
    Started,
    Ready,
    Exited,
    Stopped,
    Removed,
}

/// A service that outlives its attempt, and where it answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeptService {
    /// The service.
    pub service: String,
    /// URL or address, for people.
    pub address: String,
}

/// Which of a process's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum LogStream {
    Stdout,
    Stderr,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_kind_that_is_named_is_known_and_no_other() {
        for (kind, _) in KINDS {
            let text = format!(r#"{{"kind":"{kind}"}}"#);
            // Each has a field that isn't there, so it is refused; an unknown one would be kept.
            let error = serde_json::from_str::<EventKind>(&text).unwrap_err();
            assert!(
                error.to_string().contains("missing field"),
                "{kind}: {error}"
            );
        }
        let sentence = serde_json::from_str::<EventKind>(r#""note""#);
        assert!(sentence.is_err(), "a text is no event");
        assert!(serde_json::from_str::<EventKind>(r#"{"message":"m"}"#).is_err());
    }

    #[test]
    fn a_kind_of_a_later_version_is_written_back_as_it_came() {
        let text = r#"{"kind":"teleported","from":{"planet":"mars"},"seconds":1.5}"#;
        let kind: EventKind = serde_json::from_str(text).unwrap();
        assert_eq!(kind.name(), "teleported");
        let back: Value = serde_json::to_value(&kind).unwrap();
        assert_eq!(back, serde_json::from_str::<Value>(text).unwrap());
    }
}
