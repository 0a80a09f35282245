//! The values that a step sees: parameters, `foreach` variables and the records of earlier steps, by scope.
//!
//! A frame is one scope (the cell, a define's body, an instance of a `foreach`, a branch of a `parallel`); inner scopes
//! see outer ones. A [`View`] is an immutable snapshot that a step takes along.

use indexmap::IndexMap;
use phalanx_shared::event::Culprit;
use phalanx_shared::outcome::Outcome;
use std::collections::{BTreeMap, BTreeSet};
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
    pub handed: Arc<Handed>,
    /// What its end follows from, if not from the step itself.
    pub culprit: Option<Culprit>,
}

/// Values that are handed on: the captures of a step, or the arguments of a `use`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Handed {
    /// The values by name.
    pub values: BTreeMap<String, Value>,
    /// Names of those that are secrets or made of one ([`super::secrecy`]).
    pub secret: BTreeSet<String>,
}

impl Handed {
    /// Adds a value.
    pub fn insert(&mut self, name: &str, value: Value, secret: bool) {
        self.values.insert(name.to_owned(), value);
        match secret {
            true => self.secret.insert(name.to_owned()),
            false => self.secret.remove(name),
        };
    }

    /// Adds other values; among equal names the added one wins.
    pub fn extend(&mut self, other: Handed) {
        for (name, value) in other.values {
            let secret = other.secret.contains(&name);
            self.insert(&name, value, secret);
        }
    }
}

/// The records of one step id.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// The record of a single step.
    One(Record),
    /// The records of the instances of a `foreach`, by key.
    Keyed(IndexMap<Key, Record>),
}

impl Entry {
    /// Returns all records.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        let (one, keyed) = match self {
            Entry::One(record) => (Some(record), None),
            Entry::Keyed(records) => (None, Some(records.values())),
        };
        one.into_iter().chain(keyed.into_iter().flatten())
    }
}

/// One scope.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// The parameters of a define; `None` elsewhere.
    pub params: Option<Handed>,
    /// The variable of a `foreach`.
    pub variable: Option<(String, Value)>,
    /// Whether the variable's value is a secret or made of one.
    pub secret_variable: bool,
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

    /// Returns whether a name is a `foreach` variable whose value is a secret or made of one.
    pub fn is_secret_variable(&self, name: &str) -> bool {
        let named = |frame: &&Frame| matches!(&frame.variable, Some((known, _)) if known == name);
        let innermost = self.frames().find(named);
        innermost.is_some_and(|frame| frame.secret_variable)
    }

    /// Returns the parameters of the innermost define.
    pub fn params(&self) -> Option<&Handed> {
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

    /// Returns the ids of the steps that ended in this scope.
    pub fn ids(&self, at: FrameId) -> BTreeSet<String> {
        let frame = self.frames.get(at.0);
        frame.map_or_else(BTreeSet::new, |(_, frame)| {
            frame.steps.keys().cloned().collect()
        })
    }

    /// Returns the records of this scope whose ids aren't among `but`.
    pub fn entries(&self, at: FrameId, but: &BTreeSet<String>) -> Vec<(String, Entry)> {
        let frame = self.frames.get(at.0);
        let steps = frame.into_iter().flat_map(|(_, frame)| &frame.steps);
        steps
            .filter(|(id, _)| !but.contains(*id))
            .map(|(id, entry)| (id.clone(), entry.clone()))
            .collect()
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
