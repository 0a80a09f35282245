//! The context in which an attempt's steps, probes and service definitions are evaluated, and the objects that they
//! use.
//!
//! It is below everything that uses it. [`services`] says what it needs of the stack.

pub mod acts;
pub mod artifacts;
pub mod client;
pub mod evaluate;
pub mod frame;
pub mod gate;
pub mod group;
pub mod masks;
pub mod secrecy;
pub mod services;

use crate::clock::Clock;
use crate::policy::Guard;
use crate::runtime::contract::Stack;
use artifacts::Artifacts;
use client::{Clients, IsOurs};
use evaluate::Evaluate;
use frame::{Entry, Key, Record, View};
use gate::Gate;
use masks::Masks;
use phalanx_shared::diagnostic::Span;
use phalanx_shared::expr::{Cache, Functions, Layer, MatrixKeys, Scope, int_key, weight};
use phalanx_shared::id::Token;
use phalanx_shared::language::model::{DefineBody, Spec};
use phalanx_shared::plan::CellJob;
use phalanx_shared::trace::AttemptTrace;
use serde_json::{Map, Value, json};
use services::Services;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Context of one attempt, as its steps see it.
pub struct CellContext {
    /// Token of the attempt.
    pub token: Token,
    /// The job that the attempt runs.
    pub job: Arc<CellJob>,
    /// The job's spec.
    pub spec: Arc<Spec>,
    /// Cache of compiled expressions.
    pub cache: Cache,
    /// The secret values to mask.
    pub masks: Arc<Masks>,
    /// The services and their output.
    pub services: Arc<dyn Services>,
    /// HTTP clients and cookie jars.
    pub clients: Clients,
    /// What the attempt may do on this host, and which addresses its requests may go to.
    pub guard: Arc<Guard>,
    /// Directory of the attempt's copy of the workspace.
    pub workspace: Option<PathBuf>,
    /// The stack for `run` steps and host processes, or the reason why there is none.
    pub host: Result<Arc<dyn Stack>, String>,
    /// The attempt's trace context, if the run is traced.
    pub trace: Option<AttemptTrace>,
    /// The agent's clock.
    pub clock: Arc<dyn Clock>,
    /// The files that are kept with the run.
    pub artifacts: Artifacts,
    base: Scope,
    secrets: BTreeMap<String, String>,
    /// Total size in bytes of the values that steps have handed on.
    held: AtomicU64,
    /// Total size in bytes of the output of passed steps.
    kept: AtomicU64,
    /// Total size in bytes of the captured values in events.
    told: AtomicU64,
}

/// Maximum total size in bytes of a cell's captures, parameters and `foreach` values.
const MAX_HELD: u64 = 64 << 20;

/// Maximum size in bytes of the output of passed steps that is kept per cell.
const MAX_KEPT: u64 = 256 << 10;

/// Maximum size in bytes of the captured values that are kept in events per cell.
const MAX_TOLD: u64 = 256 << 10;

/// The parts of which a context is built.
pub struct Parts {
    pub token: Token,
    pub job: Arc<CellJob>,
    pub secrets: BTreeMap<String, String>,
    pub masks: Arc<Masks>,
    pub services: Arc<dyn Services>,
    pub workspace: Option<PathBuf>,
    pub host: Result<Arc<dyn Stack>, String>,
    pub trace: Option<AttemptTrace>,
    pub clock: Arc<dyn Clock>,
    pub artifacts: Artifacts,
    pub demo_server: Vec<String>,
    pub guard: Arc<Guard>,
}

impl CellContext {
    /// Builds the context of an attempt that starts.
    pub fn new(parts: Parts) -> Self {
        let keys = parts.job.matrix.keys().map(String::as_str);
        let cache = Cache::knowing(MatrixKeys::of(keys));
        let spec = Arc::clone(&parts.job.source.spec);
        let base = base(&parts, &spec);
        let gate = Gate::new(Arc::clone(&parts.guard), endpoints(&parts.services));
        let ours = ours(&parts.services);
        CellContext {
            token: parts.token,
            job: parts.job,
            spec,
            cache,
            masks: parts.masks,
            services: parts.services,
            clients: Clients::new(parts.workspace.clone(), ours, gate),
            guard: parts.guard,
            workspace: parts.workspace,
            host: parts.host,
            trace: parts.trace,
            clock: parts.clock,
            artifacts: parts.artifacts,
            base,
            secrets: parts.secrets,
            held: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            told: AtomicU64::new(0),
        }
    }

    /// Counts values that later steps see until the cell ends. Returns an error if their total size exceeds 64 MiB.
    pub fn hold<'v>(&self, values: impl IntoIterator<Item = &'v Value>) -> Result<(), String> {
        let bytes: u64 = values.into_iter().map(weight).sum();
        let held = self.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        match held > MAX_HELD {
            true => Err(format!(
                "the captures and parameters of this cell hold more than {} MiB",
                MAX_HELD >> 20
            )),
            false => Ok(()),
        }
    }

    /// Counts `bytes` more of passed steps' output, and returns whether they are kept (256 KiB per cell). After the
    /// first output that isn't kept, no later one is, so that the kept output of a cell ends at one point.
    pub fn keeps(&self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        self.kept.fetch_add(bytes, Ordering::Relaxed) + bytes <= MAX_KEPT
    }

    /// Counts `bytes` more of captured values in events, and returns whether they are kept (256 KiB per cell).
    pub fn tells(&self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        self.told.fetch_add(bytes, Ordering::Relaxed) + bytes <= MAX_TOLD
    }

    /// Returns the names visible to a service's definition: planned contexts, secrets, and `.host` of services.
    pub fn definition_scope(&self, ports: Option<Value>) -> Scope {
        let services = Arc::clone(&self.services);
        let mut layer = Layer::new().lazy("services", move || Ok(hosts(services.values())));
        if let Some(ports) = ports {
            layer = layer.value("port", ports);
        }
        self.base.with(layer)
    }

    /// Returns the names visible to a step.
    pub fn scope(&self, view: &View) -> Scope {
        let (services, seen) = (Arc::clone(&self.services), view.clone());
        let mut layer = Layer::new()
            .lazy("services", move || Ok(services.values()))
            .lazy("steps", move || Ok(steps(&seen)));
        if let Some(params) = view.params() {
            let params: Map<String, Value> = params.values.clone().into_iter().collect();
            layer = layer.value("params", Value::Object(params));
        }
        // Add the outermost first: among equal names the last one wins.
        let variables: Vec<_> = view
            .frames()
            .filter_map(|frame| frame.variable.as_ref())
            .collect();
        for (name, value) in variables.into_iter().rev() {
            layer = layer.value(name, value.clone());
        }
        self.base.with(layer)
    }

    /// Returns the secrets of the caller by name.
    pub fn secrets(&self) -> &BTreeMap<String, String> {
        &self.secrets
    }

    /// Returns an evaluator for a scope.
    pub fn evaluate<'a>(&'a self, scope: &'a Scope) -> Evaluate<'a> {
        Evaluate::new(scope, &self.cache)
    }

    /// Formats a span as `file:line:column`. Returns `None` if it has no position.
    pub fn place(&self, span: Span) -> Option<String> {
        let file = usize::try_from(span.file).ok()?;
        let source = self.job.source.sources.files.get(file)?;
        (span.line > 0).then(|| format!("{}:{}:{}", source.name, span.line, span.column))
    }
}

/// Returns a predicate: whether an address belongs to one of the stack's services.
fn ours(services: &Arc<dyn Services>) -> IsOurs {
    let services = Arc::clone(services);
    Arc::new(move |address| services.has_address(address))
}

/// Returns a predicate: whether an address is one at which a service of the stack listens.
fn endpoints(services: &Arc<dyn Services>) -> gate::IsEndpoint {
    let services = Arc::clone(services);
    Arc::new(move |address| services.has_endpoint(address))
}

/// Returns the names that don't change while the cell runs.
fn base(parts: &Parts, spec: &Spec) -> Scope {
    let job = &parts.job;
    let cell = json!({
        "name": job.cell.name,
        "id": job.cell.id.as_str(),
    });
    let run = json!({
        "id": parts.token.run.as_str(),
        "attempt": parts.token.attempt,
    });
    let demo_server: Value = match parts.demo_server.as_slice() {
        [program] => json!(program),
        words => json!(words),
    };
    let secrets: Map<String, Value> = parts
        .secrets
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    Scope::new(
        Layer::new()
            .value("inputs", Value::Object(job.inputs.clone()))
            .value("workspace", Value::Object(job.workspace.clone()))
            .value("matrix", Value::Object(job.matrix.clone()))
            .value("vars", Value::Object(job.vars.clone()))
            .value("cell", cell)
            .value("run", run)
            .value("secrets", Value::Object(secrets))
            .value("phalanx", json!({ "demo_server": demo_server }))
            .masker(parts.masks.masker())
            .functions(functions(spec)),
    )
}

/// Returns the functions that `define` declares.
fn functions(spec: &Spec) -> Functions {
    spec.define
        .iter()
        .fold(Functions::default(), |functions, define| {
            let DefineBody::Value(expr) = &define.body else {
                return functions;
            };
            let params = define.params.iter().map(|param| param.name.text.clone());
            match phalanx_shared::expr::Program::parse(expr) {
                Ok(body) => functions.define(&define.name.text, params.collect(), body),
                // `validate` has reported the error; a call of the function reports that it is unknown.
                Err(_) => functions,
            }
        })
}

/// Reduces each service to its `.host`.
fn hosts(mut services: Value) -> Value {
    if let Value::Object(services) = &mut services {
        for context in services.values_mut() {
            if let Value::Object(context) = context {
                context.retain(|field, _| field == "host");
            }
        }
    }
    services
}

/// Returns the value of `steps` in expressions.
fn steps(view: &View) -> Value {
    let mut steps = Map::new();
    for frame in view.frames() {
        for (id, entry) in &frame.steps {
            if !steps.contains_key(id) {
                steps.insert(id.clone(), entry_value(entry));
            }
        }
    }
    Value::Object(steps)
}

fn entry_value(entry: &Entry) -> Value {
    match entry {
        Entry::One(record) => record_value(record),
        Entry::Keyed(records) => Value::Object(
            records
                .iter()
                .map(|(key, record)| {
                    let key = match key {
                        Key::Int(number) => int_key(*number),
                        Key::Text(text) => text.clone(),
                    };
                    (key, record_value(record))
                })
                .collect(),
        ),
    }
}

fn record_value(record: &Record) -> Value {
    let mut value: Map<String, Value> = record
        .handed
        .values
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    value.insert("outcome".to_owned(), json!(record.outcome.as_str()));
    value.insert("reason".to_owned(), json!(record.reason));
    value.insert("attempt".to_owned(), json!(record.attempt));
    Value::Object(value)
}
