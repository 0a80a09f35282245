//! Events: facts that happened. They never change; state is a fold of them ([`crate::run_state`]).
//!
//! Agents make the events of an attempt and number them from 1 (`seq`). The coordinator makes the events of runs and
//! placement. The journal numbers all events of a run from 1 ([`Recorded::position`]).
//! An event of a kind that this version doesn't know is kept and written back unchanged ([`EventKind::Unknown`]); the
//! fold ignores it.

mod masker;

pub use masker::{EventMasker, Keys};

pub use crate::expr::Part;
use crate::id::{AgentId, CellId, RunId, Token};
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::time::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use strum::{IntoStaticStr, VariantNames};

/// A fact that happened in a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Run to which the event belongs.
    pub run: RunId,
    /// Cell and number of the attempt; `None` for the coordinator's events.
    pub attempt: Option<AttemptRef>,
    /// Position among the attempt's own events, from 1; 0 for the coordinator's events.
    pub seq: u64,
    /// Wall time of the event.
    pub at: Timestamp,
    /// Microseconds since the attempt began, by the agent's monotonic clock; 0 for the coordinator's events.
    pub mono_us: u64,
    /// What happened, with its data.
    pub kind: EventKind,
}

/// One attempt at a cell.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttemptRef {
    /// Cell of the attempt.
    pub cell: CellId,
    /// Number of the attempt, from 1.
    pub attempt: u32,
}

/// An event with its position in the run's journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// Position in the run, from 1, without gaps.
    pub position: u64,
    /// The recorded event.
    pub event: Event,
}

/// Identifies a step, group or phase within an attempt: `setup`, `setup/0`, `sync/2[book]/1` …
/// Segments are positions, with the `foreach` key in brackets. A path doesn't change when names change.
pub type StepPath = String;

/// What happened, with the data of each kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, IntoStaticStr, VariantNames)]
#[serde(tag = "kind", rename_all = "snake_case", remote = "Self")]
#[strum(serialize_all = "snake_case")]
#[allow(clippy::large_enum_variant)]
pub enum EventKind {
    // ---- events of the coordinator
    /// A run was submitted. First event of every run.
    RunSubmitted {
        /// Plan of the run, after selection of cells.
        plan: Plan,
        /// Where the run came from, for `rerun` and for display: the spec's path, inputs, `--only`.
        origin: Map<String, Value>,
    },
    /// An attempt was offered to an agent.
    CellOffered {
        token: Token,
        agent: AgentId,
        agent_name: String,
    },
    /// The agent accepted the offer.
    CellAccepted { token: Token },
    /// The offer was declined or not answered; the cell waits again. It doesn't count as a try.
    CellReturned { token: Token, reason: String },
    /// The attempt ended without a result from the agent: its lease expired or the agent was lost.
    AttemptLost { token: Token, reason: String },
    /// The cell got its only outcome (I2).
    CellFinished {
        cell: CellId,
        outcome: Outcome,
        reason: Option<String>,
        attempts: u32,
    },
    /// A cancellation of the run was requested, or a harsher one than before.
    CancelRequested {
        reason: String,
        /// Grace period in milliseconds; absent in journals of versions that didn't record it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grace_ms: Option<u64>,
        /// Whether `always` steps are skipped.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        force: bool,
    },
    /// The run ended: every cell has its outcome.
    RunFinished { outcome: Outcome },

    // ---- events of an agent
    /// The attempt started running.
    AttemptStarted { agent: AgentId },
    /// A service reached a new state.
    ServiceChanged {
        service: String,
        state: ServiceState,
        /// Wall time at which the work for this state began, for spans: a pull, a start, a wait for readiness.
        began: Timestamp,
        /// Image, address, exit code or error.
        detail: Option<String>,
    },
    /// Why a service isn't ready yet: a long pull or build, an unhealthy verdict, the last result of its predicate.
    ServiceProgress {
        service: String,
        /// Current activity of the service, in one line.
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
    /// A step or a group ended. Also the only event of a skipped step or group.
    StepFinished(Box<StepResult>),
    /// The attempt is over; only clean-up follows.
    AttemptFinished {
        outcome: Outcome,
        reason: Option<String>,
    },
    /// The stack was removed or kept.
    TornDown {
        removed: u32,
        left: Vec<String>,
        kept: Vec<KeptService>,
        began: Timestamp,
    },
    /// Some bytes of a log could not be kept.
    LogGap {
        service: String,
        stream: LogStream,
        from: u64,
        to: u64,
        reason: String,
    },
    /// A message worth showing that changes no outcome.
    Note { message: String },
    /// An event of a kind from a later version, with its whole payload.
    #[serde(skip)]
    Unknown(Map<String, Value>),
}

/// Which side makes the events of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// The coordinator, for events of runs, placement and outcomes. An agent must not send them.
    Coordinator,
    /// An agent, for events within an attempt.
    Agent,
}

impl Serialize for EventKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            EventKind::Unknown(payload) => payload.serialize(serializer),
            known => EventKind::serialize(known, serializer),
        }
    }
}

impl<'de> Deserialize<'de> for EventKind {
    /// Works for JSON only: it reads the text a second time to tell an unknown kind from a malformed event.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Named {
            kind: String,
        }
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let mut json = serde_json::Deserializer::from_str(text.get());
        EventKind::deserialize(&mut json).or_else(|error| {
            match serde_json::from_str::<Named>(text.get()) {
                Ok(Named { kind }) if EventKind::known().all(|known| known != kind) => {
                    let payload = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
                    Ok(EventKind::Unknown(payload))
                }
                _ => Err(D::Error::custom(error)),
            }
        })
    }
}

impl EventKind {
    /// Returns the side that may send this kind. Kinds of a later version count as an agent's: they change nothing
    /// here.
    pub fn speaker(&self) -> Speaker {
        match self {
            EventKind::RunSubmitted { .. }
            | EventKind::CellOffered { .. }
            | EventKind::CellAccepted { .. }
            | EventKind::CellReturned { .. }
            | EventKind::AttemptLost { .. }
            | EventKind::CellFinished { .. }
            | EventKind::CancelRequested { .. }
            | EventKind::RunFinished { .. } => Speaker::Coordinator,
            EventKind::AttemptStarted { .. }
            | EventKind::ServiceChanged { .. }
            | EventKind::ServiceProgress { .. }
            | EventKind::PhaseStarted { .. }
            | EventKind::PhaseFinished { .. }
            | EventKind::StepStarted { .. }
            | EventKind::StepFinished(_)
            | EventKind::AttemptFinished { .. }
            | EventKind::TornDown { .. }
            | EventKind::LogGap { .. }
            | EventKind::Note { .. }
            | EventKind::Unknown(_) => Speaker::Agent,
        }
    }

    /// Returns the kind's name, as in the JSON field `kind`.
    pub fn name(&self) -> &str {
        match self {
            EventKind::Unknown(payload) => {
                let kind = payload.get("kind").and_then(Value::as_str);
                kind.unwrap_or(UNKNOWN)
            }
            known => known.into(),
        }
    }

    /// Returns the names of the kinds that this version knows.
    fn known() -> impl Iterator<Item = &'static str> {
        let names = EventKind::VARIANTS.iter().copied();
        names.filter(|name| *name != UNKNOWN)
    }
}

/// Name of [`EventKind::Unknown`], which is no kind of its own.
const UNKNOWN: &str = "unknown";

/// How a step, group or phase ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepResult {
    /// Path of the step.
    pub path: StepPath,
    /// Name shown in reports, interpolated.
    pub name: String,
    /// The step's `id` from the spec, if it has one.
    pub id: Option<String>,
    /// `http`, `exec`, `steps`, `use` …
    pub action: String,
    /// Outcome of the step.
    pub outcome: Outcome,
    /// Why the step was skipped, failed or errored, in one line.
    pub reason: Option<String>,
    /// Set for a skipped step that was never reached because a failure, a timeout or a cancellation came before it.
    /// Unset if the step was skipped deliberately.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unreached: bool,
    /// Tries of the step (`retry`), from 1; 0 if it was skipped before the action.
    pub tries: u32,
    /// Repetitions of the action in the last try (`poll`).
    pub polls: u32,
    /// Wall time at which the step began.
    pub began: Timestamp,
    /// Duration in microseconds.
    pub elapsed_us: u64,
    /// Keys of the coverage table's rows that the step and the groups around it name in `verifies`.
    pub verifies: Vec<String>,
    /// Checks, in the order written.
    pub checks: Vec<CheckResult>,
    /// Output of the step's command; set only if the step is ok and the command printed something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
    /// Details that help to find the cause; set only if the step isn't ok.
    pub failure: Option<Failure>,
}

/// Output of a command, bounded and masked. Empty fields are omitted from the JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// Beginning and end of the standard output.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stdout: String,
    /// Beginning and end of the standard error.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stderr: String,
    /// Bytes of both streams that were dropped because earlier steps used up the cell's limit for kept output.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Result of one check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckResult {
    /// The expression as written.
    pub expression: String,
    /// Whether the expression held.
    pub passed: bool,
    /// Parts of a failed expression with their values, from left to right.
    pub parts: Vec<Part>,
    /// Why the expression could not be evaluated.
    pub error: Option<String>,
}

impl CheckResult {
    /// Formats a failed check in one line. The reason of its step begins with it.
    pub fn failure(&self) -> String {
        let expression = &self.expression;
        match (&self.error, self.parts.first()) {
            (Some(error), _) => format!("{CHECK_FAILED}{expression}: {error}"),
            (None, Some(part)) => {
                format!(
                    "{CHECK_FAILED}{expression} ({} = {})",
                    part.text, part.value
                )
            }
            (None, None) => format!("{CHECK_FAILED}{expression}"),
        }
    }

    /// Returns whether a step's reason is this failed check. The reason may go on, and show other values.
    pub fn is_reason(&self, reason: &str) -> bool {
        let rest = reason.strip_prefix(CHECK_FAILED);
        rest.is_some_and(|rest| rest.starts_with(&self.expression))
    }
}

const CHECK_FAILED: &str = "check failed: ";

/// Details that help to find the cause of a failure. All texts are bounded and masked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Position of the step in the spec: `file:line:column`.
    pub place: Option<String>,
    /// The request line, headers and body.
    pub request: Option<String>,
    /// The response: status line, headers and body; or exit code, stdout and stderr.
    pub response: Option<String>,
    /// Last log lines of the services concerned.
    pub logs: Vec<LogTail>,
    /// Further lines to show (an inspect summary, the variables of a template …).
    pub notes: Vec<String>,
}

/// Last lines of a service's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogTail {
    /// Name of the service.
    pub service: String,
    /// Lines, oldest first.
    pub lines: Vec<String>,
}

/// State in a service's life cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
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

impl ServiceState {
    /// Returns the name in lower case.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A service that outlives its attempt, and its address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeptService {
    /// Name of the service.
    pub service: String,
    /// URL or address, for display.
    pub address: String,
}

/// Output stream of a process.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[allow(missing_docs)]
pub enum LogStream {
    Stdout,
    Stderr,
}

impl LogStream {
    /// Returns the name in lower case.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_kind_that_is_named_is_known_and_no_other() {
        assert_eq!(EventKind::known().count(), 19);
        for kind in EventKind::known() {
            let text = format!(r#"{{"kind":"{kind}"}}"#);
            // Each kind has a required field that is missing here, so parsing fails; an unknown kind would be kept.
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

    #[test]
    fn only_the_check_that_failed_is_the_reason() {
        let check = |expression: &str| CheckResult {
            expression: expression.to_owned(),
            passed: false,
            parts: Vec::new(),
            error: Some("no such key".to_owned()),
        };
        let reason = format!("{} (and 1 more)", check("json.a == 1").failure());
        assert!(check("json.a == 1").is_reason(&reason));
        assert!(
            !check("a").is_reason(&reason),
            "although the reason holds it"
        );
        assert!(!check("b").is_reason("the timeout of `b` is over"));
    }
}
