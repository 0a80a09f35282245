//! Captures: named values of a result. They are evaluated on first use, at the latest at the end of a passed step.
//!
//! Secret captures come first: they are masked before anything else of the step is shown. If one can't be evaluated,
//! none of the step's output is shown.

use crate::action::answer::{Answer, eval_line};
use crate::context::CellContext;
use phalanx_shared::expr::{Layer, Program, Scope};
use phalanx_shared::language::model::Capture;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The captures of a step, in order.
pub struct Captures {
    /// The results and the captures, evaluated on use. Later captures and the checks see earlier captures.
    pub scope: Scope,
    evaluated: Vec<(String, Arc<Lazy>)>,
}

/// A capture that is evaluated at most once.
struct Lazy {
    value: std::sync::OnceLock<Result<Value, String>>,
    compute: Box<dyn Fn() -> Result<Value, String> + Send + Sync>,
}

impl Lazy {
    fn get(&self) -> Result<Value, String> {
        self.value.get_or_init(|| (self.compute)()).clone()
    }
}

/// Sets up captures over a scope of results. Evaluates and masks secret captures immediately. The error names the one
/// that can't be evaluated, without any part of its value.
pub fn captures(
    context: &Arc<CellContext>,
    captures: &[Capture],
    over: &Scope,
    answer: Option<&Answer>,
) -> Result<Captures, String> {
    let mut scope = over.clone();
    let mut evaluated = Vec::new();
    let (secret, open): (Vec<_>, Vec<_>) = captures.iter().partition(|capture| capture.secret);
    for capture in secret.into_iter().chain(open) {
        let name = capture.name.text.clone();
        let lazy = Arc::new(lazy(context, capture, &scope));
        if capture.secret {
            let value = lazy.get().map_err(|why| {
                // Any other error may contain a part of the value.
                let why = match answer.is_some_and(|answer| answer.cut_off(&why)) {
                    true => format!(": it {why}"),
                    false => String::new(),
                };
                format!(
                    "the secret capture {name} (`{}`) can't be evaluated{why}",
                    capture.value.text.trim()
                )
            })?;
            for text in texts(&value) {
                context
                    .masks
                    .add(&text)
                    .map_err(|why| format!("the secret capture {name}: {why}"))?;
            }
        }
        let shared = Arc::clone(&lazy);
        scope = scope.with(Layer::new().lazy(&name, move || shared.get()));
        evaluated.push((name, lazy));
    }
    Ok(Captures { scope, evaluated })
}

impl Captures {
    /// Returns all values, or an error about the first capture that has none.
    pub fn finish(self) -> Result<BTreeMap<String, Value>, String> {
        let mut values = BTreeMap::new();
        for (name, lazy) in self.evaluated {
            let value = lazy.get().map_err(|why| format!("capture {name} {why}"))?;
            values.insert(name, value);
        }
        Ok(values)
    }
}

fn lazy(context: &Arc<CellContext>, capture: &Capture, scope: &Scope) -> Lazy {
    let (context, scope) = (Arc::clone(context), scope.clone());
    let expr = capture.value.clone();
    Lazy {
        value: std::sync::OnceLock::new(),
        compute: Box::new(move || {
            let program: Arc<Program> = context
                .cache
                .program(&expr)
                .map_err(|diagnostic| format!("can't be read: {}", diagnostic.message))?;
            program
                .eval(&scope)
                .map_err(|error| format!("has no value: {}", eval_line(&context, &error)))
        }),
    }
}

/// Returns the texts of a secret value that must be masked: its own text, or every text inside it.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(map) => map.values().flat_map(texts).collect(),
        Value::Null | Value::Bool(_) => Vec::new(),
        other => vec![phalanx_shared::expr::to_text(other)],
    }
}
