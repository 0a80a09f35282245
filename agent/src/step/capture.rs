//! Captures: named values of a result, evaluated when first used, at the latest at the end of a passed step.
//!
//! Secret ones come first: they are masked before anything else of the step is shown, and if one can't be had,
//! nothing of the step's output is.

use super::answer::{Answer, eval_line};
use crate::cell::context::CellContext;
use phalanx_shared::expr::{Layer, Program, Scope};
use phalanx_shared::spec::model::Capture;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The captures of a step, in order.
pub struct Captures {
    /// Names and, once evaluated, values are read here; earlier captures are seen by later ones and by checks.
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

/// Sets up captures over a scope of results. Secret ones are evaluated and masked now; the error says which can't be,
/// without a word of its value.
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
                // Any other error may show a part of the value.
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
    /// All values, or what is wrong with the first that has none.
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

/// What is masked of a secret value: its text, or every text in it.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(map) => map.values().flat_map(texts).collect(),
        Value::Null | Value::Bool(_) => Vec::new(),
        other => vec![phalanx_shared::expr::to_text(other)],
    }
}
