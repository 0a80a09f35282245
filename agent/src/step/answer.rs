//! What an action came to: the results that expressions read, and what a failure shows of it.

use super::exhibit::Exhibit;
use crate::cell::context::CellContext;
use crate::runtime::contract::RuntimeError;
use crate::sequence::effect::Down;
use crate::stack::board::Unavailable;
use phalanx_shared::expr::{EvalError, Layer};
use phalanx_shared::outcome::Outcome;
use serde_json::Value;
use std::sync::Arc;

/// Computes a result when an expression first refers to it.
pub type Compute = Arc<dyn Fn() -> Result<Value, String> + Send + Sync>;

/// What an action came to.
#[derive(Clone, Default)]
pub struct Answer {
    /// Results by bare name.
    pub results: Vec<(&'static str, Compute)>,
    /// What is checked if no check mentions it.
    pub implied: Option<Implied>,
    /// The request.
    pub request: Option<Exhibit>,
    /// The answer.
    pub response: Option<Exhibit>,
    /// What a command printed, if it did.
    pub printed: Option<Printed>,
    /// Bytes of output, for when it is withheld.
    pub size: usize,
    /// Of a command that failed: the last line of its errors, whole, and not masked yet.
    pub last_words: Option<String>,
    /// More lines for people.
    pub notes: Vec<Exhibit>,
    /// Why results that were cut have no value.
    pub cuts: Vec<String>,
}

/// What a command printed: what is kept of it if its step passes.
#[derive(Clone, Default)]
pub struct Printed {
    /// Of its output.
    pub stdout: Exhibit,
    /// Of its errors.
    pub stderr: Exhibit,
    /// Bytes of both in all, as far as they are known.
    pub bytes: u64,
}

/// The check that is made first, unless a check of the step's own mentions the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Implied {
    /// `status is 2xx`.
    Status(u16),
    /// `exit_code == 0`.
    ExitCode(i64),
}

/// Why an action came to nothing.
#[derive(Debug)]
pub enum Fault {
    /// The system under test is wrong: refused, dropped, timed out.
    Failed { reason: String, answer: Box<Answer> },
    /// It could not be judged.
    Errored(String),
    /// There was too much of it to be judged.
    Cut { reason: String, answer: Box<Answer> },
    /// A setting can't be evaluated.
    Unevaluable(EvalError),
    /// A service that it needs is down.
    Down(Arc<Down>),
}

impl Answer {
    /// Adds a result that is there already.
    #[must_use]
    pub fn value(self, name: &'static str, value: impl Into<Value>) -> Self {
        let value = value.into();
        self.lazy(name, move || Ok(value.clone()))
    }

    /// Adds a result that is computed when it is used.
    #[must_use]
    pub fn lazy(
        mut self,
        name: &'static str,
        compute: impl Fn() -> Result<Value, String> + Send + Sync + 'static,
    ) -> Self {
        self.results.push((name, Arc::new(compute)));
        self
    }

    /// Adds a result that isn't whole, and why: what refers to it can't be evaluated, so that nothing is said of a
    /// part as if it were all.
    #[must_use]
    pub fn cut(mut self, name: &'static str, why: String) -> Self {
        self.cuts.push(why.clone());
        self.lazy(name, move || Err(why.clone()))
    }

    /// Whether something could not be evaluated because a result isn't whole.
    pub fn cut_off(&self, why: &str) -> bool {
        self.cuts.iter().any(|cut| why.contains(cut))
    }

    /// The results as names.
    pub fn layer(&self) -> Layer {
        self.results
            .iter()
            .fold(Layer::new(), |layer, (name, compute)| {
                let compute = Arc::clone(compute);
                layer.lazy(*name, move || compute())
            })
    }
}

impl std::fmt::Debug for Answer {
    /// Names only: values may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.results.iter().map(|(name, _)| name))
            .finish()
    }
}

impl Fault {
    /// Failed, with nothing to show.
    pub fn failed(reason: impl Into<String>) -> Self {
        Fault::Failed {
            reason: reason.into(),
            answer: Box::default(),
        }
    }

    /// In one line.
    pub fn reason(&self, context: &CellContext) -> String {
        match self {
            Fault::Failed { reason, .. } | Fault::Errored(reason) | Fault::Cut { reason, .. } => {
                reason.clone()
            }
            Fault::Unevaluable(error) => eval_line(context, error),
            Fault::Down(down) => down.reason.clone(),
        }
    }

    /// How bad it is.
    pub fn outcome(&self) -> Outcome {
        match self {
            Fault::Failed { .. } | Fault::Unevaluable(_) => Outcome::Failed,
            Fault::Errored(_) | Fault::Cut { .. } => Outcome::Errored,
            Fault::Down(down) => down.outcome,
        }
    }
}

/// How much there was of something that is kept up to a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extent {
    /// What was kept.
    #[default]
    Whole,
    /// So many bytes, more than was kept.
    Of(u64),
    /// More than was kept; nobody knows how much.
    More,
}

impl Extent {
    /// Completes the name of a result that was cut at a limit.
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

    /// `17825805 bytes in all`.
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

/// `message (help)` and where.
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
        match error {
            RuntimeError::Failed(reason) => Fault::failed(reason),
            RuntimeError::Errored(reason) => Fault::Errored(reason),
        }
    }
}

impl From<Unavailable> for Fault {
    fn from(unavailable: Unavailable) -> Self {
        match unavailable {
            Unavailable::Down(down) => Fault::Down(down),
            Unavailable::NotRunning(reason) => Fault::failed(reason),
            Unavailable::Unknown(reason) => Fault::Errored(reason),
        }
    }
}
