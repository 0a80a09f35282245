//! The names that an expression sees, in layers. Each value is converted for CEL when an expression first uses it.
//!
//! A scope is immutable and cheap to clone; a layer on top of it shares everything below, including conversions. The
//! code that evaluates supplies the values: the planner, a sequence, a step.

use super::Program;
use super::convert::from_json;
use super::meter;
use crate::mask::{Masker, Masks};
use cel::common::types::CelNull;
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// Reads a file of the workspace for `file(path)`. Returns the text, or the reason why it can't be read.
pub type ReadFile = Arc<dyn Fn(&str) -> Result<String, String> + Send + Sync>;

/// Names and their values, innermost first.
#[derive(Clone)]
pub struct Scope(Arc<Node>);

struct Node {
    slots: Vec<(String, Slot)>,
    parent: Option<Scope>,
    functions: Arc<Functions>,
    masker: Option<Arc<Masker>>,
}

/// The functions that expressions of a scope may call besides the built-in ones.
#[derive(Clone, Default)]
pub struct Functions {
    defined: BTreeMap<String, Arc<Function>>,
    file: Option<ReadFile>,
}

/// A function defined in the spec: `define: { name: { params, value } }`.
#[derive(Debug)]
pub struct Function {
    /// Names of the parameters, in order.
    pub params: Vec<String>,
    /// Expression that computes the result from the parameters.
    pub body: Program,
}

impl Functions {
    /// Adds a defined function.
    #[must_use]
    pub fn define(mut self, name: impl Into<String>, params: Vec<String>, body: Program) -> Self {
        self.defined
            .insert(name.into(), Arc::new(Function { params, body }));
        self
    }

    /// Lets expressions read files of the workspace.
    #[must_use]
    pub fn read_files(mut self, read: ReadFile) -> Self {
        self.file = Some(read);
        self
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Function>> {
        self.defined.get(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.defined.keys().map(String::as_str)
    }

    pub(super) fn file(&self) -> Option<&ReadFile> {
        self.file.as_ref()
    }
}

impl fmt::Debug for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.defined.keys()).finish()
    }
}

/// Why a name has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// The reason. It completes "`name` …".
    pub reason: String,
    /// Whether there is a value of which only a part is known. An evaluation that reads it and fails says so.
    pub incomplete: bool,
}

impl From<String> for Lack {
    fn from(reason: String) -> Self {
        Lack {
            reason,
            incomplete: false,
        }
    }
}

/// Says with the current masks why a value is null.
type WhyNull = Box<dyn Fn(&Masks) -> String + Send + Sync>;

/// A name's value, converted for CEL at most once.
struct Slot {
    source: Source,
    why_null: Option<WhyNull>,
    value: OnceLock<Result<Box<dyn Val>, Lack>>,
}

enum Source {
    Json(Arc<Value>),
    Lazy(Box<dyn Fn() -> Result<Value, Lack> + Send + Sync>),
    Missing(String),
    Converted,
}

impl Slot {
    fn new(source: Source) -> Self {
        Slot {
            source,
            why_null: None,
            value: OnceLock::new(),
        }
    }

    fn value(&self) -> Result<&dyn Val, &Lack> {
        let value = self.value.get_or_init(|| match &self.source {
            Source::Json(value) => Ok(from_json(value)),
            Source::Lazy(compute) => compute().map(|value| from_json(&value)),
            Source::Missing(reason) => Err(reason.clone().into()),
            Source::Converted => Err("no value".to_owned().into()),
        });
        if let Err(Lack {
            incomplete: true, ..
        }) = value
        {
            meter::note_incomplete();
        }
        value.as_ref().map(AsRef::as_ref)
    }
}

/// Names to put on top of a scope.
#[derive(Default)]
pub struct Layer {
    slots: Vec<(String, Slot)>,
    functions: Option<Arc<Functions>>,
    masker: Option<Arc<Masker>>,
}

impl Layer {
    /// Returns a layer without names.
    pub fn new() -> Self {
        Self::default()
    }

    fn slot(mut self, name: impl Into<String>, slot: Slot) -> Self {
        self.slots.push((name.into(), slot));
        self
    }

    /// Adds a name with its value.
    #[must_use]
    pub fn value(self, name: impl Into<String>, value: impl Into<Arc<Value>>) -> Self {
        self.slot(name, Slot::new(Source::Json(value.into())))
    }

    /// Adds a name whose value is computed when an expression first uses it; the computation may return a reason why
    /// there is no value. It must not evaluate in the scope that the layer becomes part of.
    #[must_use]
    pub fn lazy(
        self,
        name: impl Into<String>,
        compute: impl Fn() -> Result<Value, Lack> + Send + Sync + 'static,
    ) -> Self {
        self.slot(name, Slot::new(Source::Lazy(Box::new(compute))))
    }

    /// Adds the reason why the value of the last name is null, for messages about expressions that need another value.
    #[must_use]
    pub fn why_null(mut self, why: impl Fn(&Masks) -> String + Send + Sync + 'static) -> Self {
        if let Some((_, slot)) = self.slots.last_mut() {
            slot.why_null = Some(Box::new(why));
        }
        self
    }

    /// Adds a name that exists but has no value here. The reason completes "`name` …", as in "is known only in steps".
    #[must_use]
    pub fn missing(self, name: impl Into<String>, reason: impl Into<String>) -> Self {
        self.slot(name, Slot::new(Source::Missing(reason.into())))
    }

    /// Sets functions that replace those of the scope below.
    #[must_use]
    pub fn functions(mut self, functions: impl Into<Arc<Functions>>) -> Self {
        self.functions = Some(functions.into());
        self
    }

    /// Sets the secrets that messages must not show. It also applies to scopes on top of this one.
    #[must_use]
    pub fn masker(mut self, masker: Arc<Masker>) -> Self {
        self.masker = Some(masker);
        self
    }

    pub(super) fn converted(self, name: impl Into<String>, value: Box<dyn Val>) -> Self {
        let slot = Slot::new(Source::Converted);
        let _ = slot.value.set(Ok(value));
        self.slot(name, slot)
    }
}

impl Default for Scope {
    fn default() -> Self {
        Self::new(Layer::new())
    }
}

impl Scope {
    /// Returns a scope of one layer.
    pub fn new(layer: Layer) -> Self {
        Scope(Arc::new(Node {
            slots: layer.slots,
            parent: None,
            functions: layer.functions.unwrap_or_default(),
            masker: layer.masker,
        }))
    }

    /// Returns a scope with a layer on top of this one; its names hide equal names below.
    #[must_use]
    pub fn with(&self, layer: Layer) -> Scope {
        let functions = layer.functions.unwrap_or_else(|| self.0.functions.clone());
        Scope(Arc::new(Node {
            slots: layer.slots,
            parent: Some(self.clone()),
            functions,
            masker: layer.masker.or_else(|| self.0.masker.clone()),
        }))
    }

    /// Returns a scope with one more name.
    #[must_use]
    pub fn with_value(&self, name: impl Into<String>, value: impl Into<Arc<Value>>) -> Scope {
        self.with(Layer::new().value(name, value))
    }

    /// Returns every name, for suggestions.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(Some(self), |scope| scope.0.parent.as_ref())
            .flat_map(|scope| scope.0.slots.iter().map(|(name, _)| name.as_str()))
    }

    /// Returns the current masks for messages.
    pub fn masks(&self) -> Arc<Masks> {
        self.0
            .masker
            .as_ref()
            .map(|masker| masker.masks())
            .unwrap_or_default()
    }

    pub(super) fn functions(&self) -> &Functions {
        &self.0.functions
    }

    /// Returns the value of a name if it was supplied as JSON.
    pub(super) fn json(&self, name: &str) -> Option<&Value> {
        match &self.slot(name)?.source {
            Source::Json(value) => Some(value),
            _ => None,
        }
    }

    /// Returns the reason why a name has no value here, if known.
    pub(super) fn why_missing(&self, name: &str) -> Option<&str> {
        let lack = self.slot(name)?.value().err()?;
        Some(&lack.reason)
    }

    /// Returns the reason why the value of a name is null, if it is null and the reason is known.
    pub(super) fn why_null(&self, name: &str) -> Option<String> {
        let slot = self.slot(name)?;
        let why = slot.why_null.as_ref()?;
        slot.value().ok()?.downcast_ref::<CelNull>()?;
        Some(why(&self.masks()))
    }

    fn slot(&self, name: &str) -> Option<&Slot> {
        let mut scope = Some(self);
        while let Some(current) = scope {
            // The last of equal names wins, as in a map.
            let found = current
                .0
                .slots
                .iter()
                .rev()
                .find(|(known, _)| known == name);
            if let Some((_, slot)) = found {
                return Some(slot);
            }
            scope = current.0.parent.as_ref();
        }
        None
    }
}

impl fmt::Debug for Scope {
    /// Prints names only, because values may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

impl VariableResolver for Scope {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        match self.slot(variable)?.value() {
            Ok(value) => Some(CowVal::Borrowed(value)),
            Err(_) => None,
        }
    }
}
