//! Events: facts that happened. They never change; state is a fold of them ([`crate::run_state`]).
//!
//! Agents make the events of an attempt and number them from 1 (`seq`). The coordinator makes the events of runs and
//! placement. The journal numbers all events of a run from 1 ([`Recorded::position`]).
//! An event of a kind that this version doesn't know is kept and written back unchanged ([`EventKind::Unknown`]); the
//! fold ignores it.

mod artifact;
mod masker;

pub use artifact::{Artifact, Lack as ArtifactLack, Problem as ArtifactProblem};
pub use masker::{EventMasker, Keys};

pub use crate::expr::Part;
use crate::id::{AgentId, CellId, RunId, Token};
use crate::outcome::Outcome;
use crate::plan::{Plan, Resources};
use crate::time::Timestamp;
use crate::wait::Wait;
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

/// Action of a test case that the program of a step ran. Its path is that of the step, `/`, and the case's name with
/// `/ [ ] %` encoded as in URLs.
pub const CASE: &str = "case";

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
        /// What it waited for until then; empty in journals of versions that didn't record it.
        #[serde(default, skip_serializing_if = "Placement::is_empty")]
        placement: Placement,
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
    /// What the attempt's services share exists, such as their network. Steps and services begin after it.
    StackOpened {
        began: Timestamp,
        /// Part of the time in which the engine was busy with other requests, in microseconds.
        #[serde(default, skip_serializing_if = "is_zero")]
        queued_us: u64,
    },
    /// A service reached a new state.
    ServiceChanged {
        service: String,
        state: ServiceState,
        /// Wall time at which the work for this state began, for spans: a pull, a start, a wait for readiness.
        began: Timestamp,
        /// Image, address, exit code or error.
        detail: Option<String>,
        /// What a created container runs, whatever its tag names later: `postgres@sha256:…` if the image came from a
        /// registry, else the engine's id `sha256:…`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        image: Option<String>,
        /// Name of the image that was pulled, as the service's definition has it; absent in journals of versions that
        /// didn't record it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reference: Option<String>,
        /// Part of the time since `began` in which the engine was busy with other requests, in microseconds.
        #[serde(default, skip_serializing_if = "is_zero")]
        queued_us: u64,
    },
    /// Why a service isn't ready yet: a long pull or build, an unhealthy verdict, the last result of its predicate.
    ServiceProgress {
        service: String,
        /// Current activity of the service, in one line.
        doing: String,
    },
    /// A service exited and its `restart` policy starts it again. Follows the `ServiceChanged` of the exit.
    ServiceRestarted {
        service: String,
        /// Exit code; 128 + signal number if a signal killed it.
        code: i64,
        /// Whether the kernel killed it because it ran out of memory.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        oom: bool,
        /// Pause before the next start, in milliseconds.
        pause_ms: u64,
    },
    /// What became of the snapshot of a group of steps.
    SnapshotChanged {
        /// Path of the group.
        path: StepPath,
        /// The snapshot's key; empty if it could not be computed.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        key: String,
        state: SnapshotState,
        /// Wall time at which the work for this state began: looking for it, copying its files, saving.
        began: Timestamp,
        /// Run that made the snapshot, if another one did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<RunId>,
        /// Size of the saved files.
        #[serde(default, skip_serializing_if = "is_zero")]
        bytes: u64,
        /// Why there is none, or why it is not used.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A phase began.
    PhaseStarted { path: StepPath, name: String },
    /// A phase ended.
    PhaseFinished {
        path: StepPath,
        name: String,
        outcome: Outcome,
        reason: Option<String>,
        /// Whether a time limit ended it: its own, or the cell's.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        timed_out: bool,
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
        /// Whether the cell's time limit ended it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        timed_out: bool,
        /// What its failure follows from; absent in journals of versions that didn't record it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        culprit: Option<Culprit>,
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
    /// A file was kept with the run, or an entry of `artifacts` has none.
    ArtifactCollected(Box<Artifact>),
    /// The content of an artifact didn't reach the coordinator.
    ArtifactLost { id: u32, reason: String },
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
            | EventKind::StackOpened { .. }
            | EventKind::ServiceChanged { .. }
            | EventKind::ServiceProgress { .. }
            | EventKind::ServiceRestarted { .. }
            | EventKind::SnapshotChanged { .. }
            | EventKind::PhaseStarted { .. }
            | EventKind::PhaseFinished { .. }
            | EventKind::StepStarted { .. }
            | EventKind::StepFinished(_)
            | EventKind::AttemptFinished { .. }
            | EventKind::TornDown { .. }
            | EventKind::LogGap { .. }
            | EventKind::ArtifactCollected(_)
            | EventKind::ArtifactLost { .. }
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

/// How a cell got its agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    /// What the attempt waited for in the queue, one entry per cause.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<Wait>,
    /// Time in milliseconds that the cell was expected to take, which decided its turn; 0 if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_ms: Option<u64>,
    /// What the agent has; recorded with the run's first offer to it, and when it changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
}

impl Placement {
    /// Returns whether nothing is recorded.
    pub fn is_empty(&self) -> bool {
        *self == Placement::default()
    }
}

/// What an agent has for cells of all runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Maximum number of concurrent attempts.
    pub slots: u32,
    /// Resources that cells can reserve.
    pub resources: Resources,
    /// Labels that it offers.
    pub labels: Vec<String>,
}

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
    /// Whether a time limit ended it: its own, or that of a group or phase around it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub timed_out: bool,
    /// What it follows from, if not from the step itself; absent in journals of versions that didn't record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub culprit: Option<Culprit>,
    /// Tries of the step (`retry`), from 1; 0 if it was skipped before the action.
    pub tries: u32,
    /// Repetitions of the action in the last try (`poll`).
    pub polls: u32,
    /// Wall time at which the step began.
    pub began: Timestamp,
    /// Duration in microseconds.
    pub elapsed_us: u64,
    /// Parts of the duration in which it waited, of at least a millisecond each: for services to become ready, in the
    /// last pause of its `poll`, and between its tries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<Wait>,
    /// Keys of the coverage table's rows that the step and the groups around it name in `verifies`.
    pub verifies: Vec<String>,
    /// Checks, in the order written.
    pub checks: Vec<CheckResult>,
    /// Output of the step's command; set only if the step is ok and the command printed something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
    /// Values that it captured, by name; set only if the step is ok. Of very many, the last entry counts the rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub captured: Vec<Captured>,
    /// Details that help to find the cause; set only if the step isn't ok.
    pub failure: Option<Failure>,
    /// Set if the step didn't run, because a snapshot of what it had done was restored. All else is what the step was
    /// when the snapshot was made, except for the time that it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
}

/// The snapshot from which a step was restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The snapshot's key.
    pub key: String,
    /// Run that made the snapshot.
    pub run: RunId,
    /// Duration of the step in that run, in microseconds.
    pub elapsed_us: u64,
}

/// What a failure or a skip follows from, if not from the step itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Culprit {
    /// A service that isn't ready, or ended. If others could not start because of it, this is the one that was first.
    Service {
        /// Name of the service.
        service: String,
    },
    /// An earlier step whose captures are needed. If that one needed another one, this is the one that was first.
    Step {
        /// The step's `id`.
        id: String,
        /// How it ended; never passed.
        outcome: Outcome,
    },
}

/// A value that a step captured, bounded and masked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Captured {
    /// Name of the capture; [`Captured::REST`] for the entry that counts all others.
    pub name: String,
    /// The value as JSON, or the beginning of it; `***` if it is a secret or made of one.
    pub value: String,
    /// Bytes of the JSON that are left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

impl Captured {
    /// Name of the entry that stands for all captures that aren't listed.
    pub const REST: &'static str = "…";
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
    /// Formats a failed check in one line, with the value that decided; of a check `a || b` with those of both sides. The
    /// reason of its step begins with it.
    pub fn failure(&self) -> String {
        format!("{CHECK_FAILED}{}{}", self.expression, self.why())
    }

    /// Returns why it failed, to follow its expression: `: error`, ` (part = value)`, or nothing if neither is known.
    pub fn why(&self) -> String {
        if let Some(error) = &self.error {
            return format!(": {error}");
        }
        let parts: Vec<String> = self
            .deciding()
            .map(|part| format!("{} = {}", part.text, part.value))
            .collect();
        match parts.is_empty() {
            true => String::new(),
            false => format!(" ({})", parts.join(", ")),
        }
    }

    /// Returns the parts that decided: the first one, or with `||` the first of each side. A side that is an expression
    /// of its own (`a == 1 = false`) is left out, because its parts follow.
    fn deciding(&self) -> impl Iterator<Item = &Part> {
        let sides = match has_sides(&self.expression) {
            true => SIDES,
            false => 1,
        };
        let is_side = move |index: usize, part: &Part| {
            let next = self.parts.get(index + 1);
            let contains = next.is_some_and(|next| {
                part.text != next.text && part.text.contains(next.text.as_str())
            });
            sides > 1 && part.value == "false" && contains
        };
        let parts = self.parts.iter().enumerate();
        let parts = parts.filter(move |(index, part)| !is_side(*index, part));
        parts.map(|(_, part)| part).take(sides)
    }

    /// Returns whether a step's reason is this failed check. The reason may go on, and show other values.
    pub fn is_reason(&self, reason: &str) -> bool {
        let rest = reason.strip_prefix(CHECK_FAILED);
        rest.is_some_and(|rest| rest.starts_with(&self.expression))
    }
}

/// Returns whether an expression has a `||` outside of its texts.
fn has_sides(expression: &str) -> bool {
    let mut quote = None;
    let mut raw = false;
    let mut before = ' ';
    let mut chars = expression.chars();
    while let Some(c) = chars.next() {
        match quote {
            // What follows a backslash doesn't end a text; in `r'…'` a backslash is one like any other.
            Some(_) if c == '\\' && !raw => {
                chars.next();
            }
            Some(end) if c == end => quote = None,
            Some(_) => {}
            None if matches!(c, '\'' | '"') => {
                quote = Some(c);
                raw = matches!(before, 'r' | 'R');
            }
            None if c == '|' && before == '|' => return true,
            None => {}
        }
        before = c;
    }
    false
}

/// Values to name of a check with `||`.
const SIDES: usize = 3;
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

/// What became of a snapshot in a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum SnapshotState {
    /// There is none that can be used; the group's steps run.
    Missed,
    /// Another cell is making it, and this one waits for that.
    Waiting,
    /// The services' files are in place; the services start with them.
    Restored,
    /// The group's steps ran, and the services were stopped, saved and started again.
    Saved,
    /// The group's steps ran, and nothing was saved.
    Unsaved,
    /// A service didn't start or wasn't ready with the restored files. The snapshot was removed; the group's steps run.
    Discarded,
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
        assert_eq!(EventKind::known().count(), 24);
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
    fn the_reason_of_a_check_with_two_sides_shows_the_value_of_both() {
        let check = |expression: &str, parts: &[(&str, &str)]| CheckResult {
            expression: expression.to_owned(),
            passed: false,
            parts: parts
                .iter()
                .map(|(text, value)| Part {
                    text: (*text).to_owned(),
                    value: (*value).to_owned(),
                })
                .collect(),
            error: None,
        };
        let parts = [
            ("status == 200", "false"),
            ("status", "500"),
            ("json.kind == 'x'", "false"),
            ("json.kind", "\"y\""),
        ];
        assert_eq!(
            check("status == 200 || json.kind == 'x'", &parts).failure(),
            "check failed: status == 200 || json.kind == 'x' (status = 500, json.kind = \"y\")"
        );
        let flags = [("a", "false"), ("ab", "false")];
        assert_eq!(
            check("a || ab", &flags).failure(),
            "check failed: a || ab (a = false, ab = false)"
        );
        let both = [("a", "1"), ("b", "2")];
        assert_eq!(
            check("a == b", &both).failure(),
            "check failed: a == b (a = 1)"
        );
        for text in [
            "'a||b'",
            r#""it's||""#,
            r"'\'||'",
            r"r'\' + '||'",
            "'''x||y'''",
        ] {
            let expression = format!("a == {text}");
            let reason = check(&expression, &both).failure();
            assert_eq!(reason, format!("check failed: {expression} (a = 1)"));
        }
        let sides = check("a == 'x' || b", &both).failure();
        assert_eq!(sides, "check failed: a == 'x' || b (a = 1, b = 2)");
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
