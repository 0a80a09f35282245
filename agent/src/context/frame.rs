//! The values that a step sees: parameters, `foreach` variables and the records of earlier steps, by scope.
//!
//! A frame is one scope (the cell, a define's body, an instance of a `foreach`, a branch of a `parallel`); inner scopes
//! see outer ones. A [`View`] is an immutable snapshot that a step takes along.

use indexmap::IndexMap;
use phalanx_shared::outcome::Outcome;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A value of a running cell: a capture, a parameter or a `foreach` variable.
pub type Value = serde_json::Value;

/// The key of one instance of a `foreach`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// An integer.
    Int(i64),
    /// A string.
    Text(String),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Int(number) => write!(f, "{number}"),
            Key::Text(text) => f.write_str(text),
        }
    }
}

/// Index of a scope in [`Frames`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameId(usize);

/// The end of a step with an `id`, for `steps.ID`.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// `steps.ID.outcome`.
    pub outcome: Outcome,
    /// `steps.ID.reason`.
    pub reason: Option<String>,
    /// `steps.ID.attempt`: the number of tries.
    pub attempt: u32,
    /// `steps.ID.NAME`; empty unless the step passed.
    pub captures: Arc<BTreeMap<String, Value>>,
}

/// The records of one step id.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// The record of a single step.
    One(Record),
    /// The records of the instances of a `foreach`, by key.
    Keyed(IndexMap<Key, Record>),
}

/// One scope.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// The parameters of a define; `None` elsewhere.
    pub params: Option<BTreeMap<String, Value>>,
    /// The variable of a `foreach`.
    pub variable: Option<(String, Value)>,
    /// The steps of this scope that ended, by id.
    pub steps: IndexMap<String, Entry>,
}

/// The scopes that a step sees, innermost first.
#[derive(Clone, Debug, Default)]
pub struct View(Arc<[Arc<Frame>]>);

impl View {
    /// Returns the scopes, innermost first.
    pub fn frames(&self) -> impl Iterator<Item = &Frame> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// Returns the records of a step id.
    pub fn step(&self, id: &str) -> Option<&Entry> {
        self.frames().find_map(|frame| frame.steps.get(id))
    }

    /// Returns the value of a `foreach` variable.
    pub fn variable(&self, name: &str) -> Option<&Value> {
        self.frames().find_map(|frame| {
            let (variable, value) = frame.variable.as_ref()?;
            (variable == name).then_some(value)
        })
    }

    /// Returns the parameters of the innermost define.
    pub fn params(&self) -> Option<&BTreeMap<String, Value>> {
        self.frames().find_map(|frame| frame.params.as_ref())
    }

    /// Returns this view with one more scope inside.
    #[must_use]
    pub fn within(&self, frame: Frame) -> View {
        View(
            std::iter::once(Arc::new(frame))
                .chain(self.0.iter().cloned())
                .collect(),
        )
    }
}

/// All scopes of a cell.
#[derive(Debug)]
pub struct Frames {
    frames: Vec<(Option<FrameId>, Arc<Frame>)>,
}

impl Frames {
    /// Creates the scope of the cell, and returns its id too.
    pub fn new() -> (Self, FrameId) {
        let frames = Frames {
            frames: vec![(None, Arc::default())],
        };
        (frames, FrameId(0))
    }

    /// Adds a scope inside another one.
    pub fn inside(&mut self, outer: FrameId, frame: Frame) -> FrameId {
        self.frames.push((Some(outer), Arc::new(frame)));
        FrameId(self.frames.len() - 1)
    }

    /// Returns a snapshot of the scopes that a step in this scope sees.
    pub fn view(&self, innermost: FrameId) -> View {
        let mut chain = Vec::new();
        let mut next = Some(innermost);
        while let Some((outer, frame)) = next.and_then(|id| self.frames.get(id.0)) {
            chain.push(Arc::clone(frame));
            next = *outer;
        }
        View(chain.into())
    }

    /// Records the end of a step. A newer end of the same id replaces the older one.
    pub fn record(&mut self, at: FrameId, id: &str, key: Option<&Key>, record: Record) {
        let Some((_, frame)) = self.frames.get_mut(at.0) else {
            return;
        };
        let steps = &mut Arc::make_mut(frame).steps;
        match key {
            None => {
                steps.insert(id.to_owned(), Entry::One(record));
            }
            Some(key) => match steps.get_mut(id) {
                Some(Entry::Keyed(records)) => {
                    records.insert(key.clone(), record);
                }
                _ => {
                    let records = IndexMap::from([(key.clone(), record)]);
                    steps.insert(id.to_owned(), Entry::Keyed(records));
                }
            },
        }
    }

    /// Moves the records of a branch into the scope around it.
    pub fn publish(&mut self, branch: FrameId, into: FrameId) {
        let steps = match self.frames.get_mut(branch.0) {
            Some((_, frame)) => std::mem::take(&mut Arc::make_mut(frame).steps),
            None => return,
        };
        if let Some((_, frame)) = self.frames.get_mut(into.0) {
            Arc::make_mut(frame).steps.extend(steps);
        }
    }
}
