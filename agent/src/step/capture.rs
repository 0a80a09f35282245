//! Captures: named values of a result. They are evaluated on first use, at the latest at the end of a passed step.
//!
//! Secret captures come first: they are masked before anything else of the step is shown. If one can't be evaluated,
//! none of the step's output is shown.

use crate::action::answer::eval_line;
use crate::context::CellContext;
use crate::context::frame::Handed;
use crate::context::secrecy::Secrecy;
use phalanx_shared::event::Captured;
use phalanx_shared::expr::{Lack, Layer, Program, Scope, canonical_json};
use phalanx_shared::language::model::Capture;
use phalanx_shared::mask::{MASK, cut_head};
use serde_json::Value;
use std::sync::Arc;

/// The captures of a step, in order.
pub struct Captures {
    /// The results and the captures, evaluated on use. Later captures and the checks see earlier captures.
    pub scope: Scope,
    evaluated: Vec<Evaluated>,
}

struct Evaluated {
    name: String,
    lazy: Arc<Lazy>,
    /// Whether it is a secret or made of one.
    secret: bool,
}

/// A capture that is evaluated at most once.
struct Lazy {
    value: std::sync::OnceLock<Result<Value, Lack>>,
    compute: Box<dyn Fn() -> Result<Value, Lack> + Send + Sync>,
}

impl Lazy {
    fn get(&self) -> Result<Value, Lack> {
        self.value.get_or_init(|| (self.compute)()).clone()
    }
}

/// Sets up captures over a scope of results. Evaluates and masks secret captures immediately. The error names the one
/// that can't be evaluated, without any part of its value. `secrecy` knows the secrets among the names that they see.
pub fn captures(
    context: &Arc<CellContext>,
    captures: &[Capture],
    over: &Scope,
    mut secrecy: Secrecy<'_>,
) -> Result<Captures, Lack> {
    let mut scope = over.clone();
    let mut evaluated = Vec::new();
    let (secret, open): (Vec<_>, Vec<_>) = captures.iter().partition(|capture| capture.secret);
    for capture in secret.into_iter().chain(open) {
        let name = capture.name.text.clone();
        let lazy = Arc::new(lazy(context, capture, &scope));
        if capture.secret {
            let value = lazy.get().map_err(|why| {
                // Any other error may contain a part of the value.
                let shown = match why.incomplete {
                    true => format!(": it {}", why.reason),
                    false => String::new(),
                };
                let reason = format!(
                    "the secret capture {name} (`{}`) can't be evaluated{shown}",
                    capture.value.text.trim()
                );
                Lack { reason, ..why }
            })?;
            for text in texts(&value) {
                context
                    .masks
                    .add(&text)
                    .map_err(|why| format!("the secret capture {name}: {why}"))?;
            }
        }
        let secret = capture.secret || secrecy.expr(&capture.value);
        match (capture.secret, secret) {
            (true, _) => secrecy.hide_capture(&name, &capture.value),
            (false, true) => secrecy.hide(&name),
            (false, false) => {}
        }
        let shared = Arc::clone(&lazy);
        scope = scope.with(Layer::new().lazy(&name, move || shared.get()));
        evaluated.push(Evaluated { name, lazy, secret });
    }
    Ok(Captures { scope, evaluated })
}

impl Captures {
    /// Returns all values, or an error about the first capture that has none.
    pub fn finish(self) -> Result<Handed, Lack> {
        let mut handed = Handed::default();
        for Evaluated { name, lazy, secret } in self.evaluated {
            let value = lazy.get().map_err(|why| Lack {
                reason: format!("capture {name} {}", why.reason),
                ..why
            })?;
            handed.insert(&name, value, secret);
        }
        Ok(handed)
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
            program.eval(&scope).map_err(|error| Lack {
                reason: format!("has no value: {}", eval_line(&context, &error)),
                incomplete: error.incomplete,
            })
        }),
    }
}

/// Maximum number of characters of a value in an event.
const VALUE: usize = 1_000;
/// Maximum number of characters of a step's values in its event.
const STEP: usize = 8_000;
/// Maximum number of values in an event.
const LISTED: usize = 100;

/// Returns captured values as an event shows them: as JSON, masked and bounded. A value that is a secret or made of one
/// is only a mask.
pub fn shown(context: &CellContext, handed: &Handed) -> Vec<Captured> {
    let masks = context.masks.current();
    let mut left = STEP;
    let mut shown = Vec::new();
    let mut rest = 0;
    for (name, value) in &handed.values {
        let json = match handed.secret.contains(name) {
            true => MASK.to_owned(),
            false => canonical_json(&masks.json(value)),
        };
        if shown.len() == LISTED {
            rest += json.len() as u64;
            continue;
        }
        let most = VALUE.min(left);
        let kept = cut_head(&json, most).unwrap_or(&json);
        let kept = match context.tells(name.len() + kept.len()) {
            true => kept,
            false => "",
        };
        left = left.saturating_sub(kept.chars().count());
        shown.push(Captured {
            name: name.clone(),
            value: kept.to_owned(),
            left_out: (json.len() - kept.len()) as u64,
        });
    }
    if rest > 0 {
        shown.push(Captured {
            name: Captured::REST.to_owned(),
            value: String::new(),
            left_out: rest,
        });
    }
    shown
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
