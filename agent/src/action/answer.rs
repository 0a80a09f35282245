//! The answer of an action: the results that expressions read, and the evidence that a failure shows.

use super::exhibit::Exhibit;
use crate::context::CellContext;
use crate::context::services::{Down, NotDone, Unavailable};
use crate::results::Collected;
use crate::runtime::contract::RuntimeError;
use phalanx_shared::event::Culprit;
use phalanx_shared::expr::{EvalError, Lack, Layer};
use phalanx_shared::outcome::Outcome;
use serde_json::Value;
use std::sync::Arc;

/// Computes a result when an expression first refers to it.
pub type Compute = Arc<dyn Fn() -> Result<Value, Lack> + Send + Sync>;

/// The answer of an action.
#[derive(Clone, Default)]
pub struct Answer {
    /// Results by bare name.
    pub results: Vec<(&'static str, Compute)>,
    /// Why a result is null, for messages about expressions that read it.
    pub nulls: Vec<(&'static str, Exhibit)>,
    /// The check that is implied if no check mentions its result.
    pub implied: Option<Implied>,
    /// The request, for failures.
    pub request: Option<Exhibit>,
    /// The response, for failures.
    pub response: Option<Exhibit>,
    /// The output of a command, if it printed any.
    pub printed: Option<Printed>,
    /// Size of the output in bytes, shown when the output is withheld.
    pub size: usize,
    /// What the system under test says of a failure.
    pub last_words: Option<LastWords>,
    /// Additional lines for failures.
    pub notes: Vec<Exhibit>,
    /// Test results that the command wrote.
    pub tests: Option<Arc<Collected>>,
    /// All of the standard output, for results that are read from it.
    pub stdout: Option<Stdout>,
}

/// What the system under test says of a failure, for the reason of a step: not shortened and not masked yet.
#[derive(Clone)]
pub enum LastWords {
    /// The last line of a failed command's stderr.
    Line(String),
    /// The body of an answer with an error status.
    Body(Arc<str>),
    /// The same as an HTML page.
    Page(Arc<str>),
}

/// The standard output of a command.
#[derive(Clone)]
pub struct Stdout {
    /// The bytes that were kept.
    pub bytes: Arc<[u8]>,
    /// Why they aren't all.
    pub cut: Option<String>,
}

/// The parts of a command's output that are kept if its step passes.
#[derive(Clone, Default)]
pub struct Printed {
    /// Excerpt of the standard output.
    pub stdout: Exhibit,
    /// Excerpt of the standard error.
    pub stderr: Exhibit,
    /// Total size of both streams in bytes, as far as it is known.
    pub bytes: u64,
}

/// The check that is made first, unless one of the step's own checks mentions its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Implied {
    /// `status is 2xx`, with the actual status.
    Status(u16),
    /// `exit_code == 0`, with the actual exit code.
    ExitCode(i64),
}

/// Reasons why an action produced no result to judge.
#[derive(Debug)]
pub enum Fault {
    /// The system under test is wrong: the connection was refused or dropped.
    Failed { reason: String, answer: Box<Answer> },
    /// The action took longer than it may.
    TimedOut { reason: String, answer: Box<Answer> },
    /// The system under test could not be judged.
    Errored(String),
    /// A result was cut at its size limit, so it can't be judged.
    Cut { reason: String, answer: Box<Answer> },
    /// A setting of the action can't be evaluated.
    Unevaluable(EvalError),
    /// A service that the step needs is down.
    Down(Arc<Down>),
    /// A service that the step needs isn't running, or can't run.
    OfService {
        service: String,
        outcome: Outcome,
        reason: String,
    },
}

impl Answer {
    /// Adds a result whose value is known.
    #[must_use]
    pub fn value(self, name: &'static str, value: impl Into<Value>) -> Self {
        let value = value.into();
        self.lazy(name, move || Ok(value.clone()))
    }

    /// Adds a result that is computed on first use.
    #[must_use]
    pub fn lazy(
        mut self,
        name: &'static str,
        compute: impl Fn() -> Result<Value, Lack> + Send + Sync + 'static,
    ) -> Self {
        self.results.push((name, Arc::new(compute)));
        self
    }

    /// Adds a result that isn't complete, with the reason. Expressions that refer to it can't be evaluated, so that no
    /// check judges a part as if it were the whole.
    #[must_use]
    pub fn cut(self, name: &'static str, reason: String) -> Self {
        let lack = Lack {
            reason,
            incomplete: true,
        };
        self.lazy(name, move || Err(lack.clone()))
    }

    /// Adds why a result is null.
    #[must_use]
    pub fn null(mut self, name: &'static str, why: Exhibit) -> Self {
        self.nulls.push((name, why));
        self
    }

    /// Returns the results as names for expressions.
    pub fn layer(&self) -> Layer {
        self.results
            .iter()
            .fold(Layer::new(), |layer, (name, compute)| {
                let compute = Arc::clone(compute);
                let layer = layer.lazy(*name, move || compute());
                match self.nulls.iter().find(|(null, _)| null == name) {
                    Some((_, why)) => {
                        let why = why.clone();
                        layer.why_null(move |masks| why.show(masks))
                    }
                    None => layer,
                }
            })
    }
}

impl std::fmt::Debug for Answer {
    /// Prints the names only, because values may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.results.iter().map(|(name, _)| name))
            .finish()
    }
}

impl Fault {
    /// Creates a failure with nothing to show.
    pub fn failed(reason: impl Into<String>) -> Self {
        Fault::Failed {
            reason: reason.into(),
            answer: Box::default(),
        }
    }

    /// Creates the failure of a step whose service isn't running.
    pub fn not_running(service: impl Into<String>, reason: String) -> Self {
        Fault::OfService {
            service: service.into(),
            outcome: Outcome::Failed,
            reason,
        }
    }

    /// Returns the reason in one line.
    pub fn reason(&self, context: &CellContext) -> String {
        match self {
            Fault::Failed { reason, .. }
            | Fault::TimedOut { reason, .. }
            | Fault::Errored(reason)
            | Fault::OfService { reason, .. }
            | Fault::Cut { reason, .. } => reason.clone(),
            Fault::Unevaluable(error) => eval_line(context, error),
            Fault::Down(down) => down.reason.clone(),
        }
    }

    /// Returns the outcome of a step with this fault.
    pub fn outcome(&self) -> Outcome {
        match self {
            Fault::Failed { .. } | Fault::TimedOut { .. } | Fault::Unevaluable(_) => {
                Outcome::Failed
            }
            Fault::Errored(_) | Fault::Cut { .. } => Outcome::Errored,
            Fault::Down(down) => down.outcome,
            Fault::OfService { outcome, .. } => *outcome,
        }
    }

    /// Returns whether a poll goes on after the fault: the next answer may be another one.
    pub fn may_pass(&self) -> bool {
        match self {
            Fault::Failed { .. } | Fault::TimedOut { .. } => true,
            Fault::OfService { outcome, .. } => *outcome == Outcome::Failed,
            Fault::Errored(_) | Fault::Cut { .. } | Fault::Unevaluable(_) | Fault::Down(_) => false,
        }
    }

    /// Returns what the fault follows from, if not from the step itself.
    pub fn culprit(&self) -> Option<Culprit> {
        let service = match self {
            Fault::Down(down) => &down.root,
            Fault::OfService { service, .. } => service,
            Fault::Failed { .. }
            | Fault::TimedOut { .. }
            | Fault::Errored(_)
            | Fault::Cut { .. }
            | Fault::Unevaluable(_) => return None,
        };
        Some(Culprit::Service {
            service: service.clone(),
        })
    }
}

/// Total size of data that is kept only up to a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extent {
    /// All data was kept.
    #[default]
    Whole,
    /// The data had this many bytes, more than were kept.
    Of(u64),
    /// The data was larger than the kept part, but its size is unknown.
    More,
}

impl Extent {
    /// Returns a text that follows the name of a result that was cut (`was cut at …`), or `None` if it is complete.
    pub fn cut_at(self, limit: usize) -> Option<String> {
        let of = match self {
            Extent::Whole => return None,
            Extent::Of(bytes) => bytes.to_string(),
            Extent::More => "more".to_owned(),
        };
        Some(format!(
            "was cut at {limit} bytes of {of}, so it can't be judged"
        ))
    }

    /// Formats the size, for example `17825805 bytes in all`.
    pub fn text(self, kept: usize) -> String {
        match self {
            Extent::Whole => format!("{kept} bytes in all"),
            Extent::Of(bytes) => format!("{bytes} bytes in all"),
            Extent::More => format!("more than {kept} bytes in all"),
        }
    }
}

impl From<Option<u64>> for Extent {
    fn from(cut: Option<u64>) -> Self {
        cut.map_or(Extent::Whole, Extent::Of)
    }
}

/// Formats an evaluation error as `message (help) at PLACE`.
pub fn eval_line(context: &CellContext, error: &EvalError) -> String {
    let help = error
        .help
        .as_ref()
        .map_or(String::new(), |help| format!(" ({help})"));
    match context.place(error.span) {
        Some(place) => format!("{}{help} at {place}", error.message),
        None => format!("{}{help}", error.message),
    }
}

impl From<EvalError> for Fault {
    fn from(error: EvalError) -> Self {
        Fault::Unevaluable(error)
    }
}

impl From<RuntimeError> for Fault {
    fn from(error: RuntimeError) -> Self {
        if let Some(service) = error.culprit() {
            return Fault::OfService {
                service: service.to_owned(),
                outcome: error.outcome(),
                reason: error.reason.clone(),
            };
        }
        match error.outcome() {
            Outcome::Failed => Fault::failed(error.reason),
            _ => Fault::Errored(error.reason),
        }
    }
}

impl From<Unavailable> for Fault {
    fn from(unavailable: Unavailable) -> Self {
        match unavailable {
            Unavailable::Down(down) => Fault::Down(down),
            Unavailable::NotRunning { service, reason } => Fault::not_running(service, reason),
            Unavailable::Unknown(reason) => Fault::Errored(reason),
        }
    }
}

impl From<NotDone> for Fault {
    fn from(not_done: NotDone) -> Self {
        match not_done {
            NotDone::Down(down) => Fault::Down(down),
            NotDone::Runtime(error) => error.into(),
        }
    }
}
