//! What a step sees: parameters, `foreach` variables and the records of earlier steps, by scope.
//!
//! A frame is one scope (the cell, a define's body, an instance of a `foreach`, a branch of a `parallel`) and sees outward.
//! A [`View`] is an unchanging snapshot that a step takes along.

use super::key::Key;
use indexmap::IndexMap;
use phalanx_shared::outcome::Outcome;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A value of a running cell: captures, parameters, `foreach` variables.
pub type Value = serde_json::Value;

/// A scope's place in [`Frames`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameId(usize);

/// How a step with an `id` ended, for `steps.ID`.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// `steps.ID.outcome`.
    pub outcome: Outcome,
    /// `steps.ID.reason`.
    pub reason: Option<String>,
    /// `steps.ID.attempt`: the number of tries.
    pub attempt: u32,
    /// `steps.ID.NAME`; empty unless it passed.
    pub captures: Arc<BTreeMap<String, Value>>,
}

/// What stands behind `steps.ID`.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// One step.
    One(Record),
    /// The instances of a `foreach`, by key.
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

/// The scopes that a step sees, the innermost first.
#[derive(Clone, Debug, Default)]
pub struct View(Arc<[Arc<Frame>]>);

impl View {
    /// The scopes, the innermost first.
    pub fn frames(&self) -> impl Iterator<Item = &Frame> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// The step of an id.
    pub fn step(&self, id: &str) -> Option<&Entry> {
        self.frames().find_map(|frame| frame.steps.get(id))
    }

    /// The value of a `foreach` variable.
    pub fn variable(&self, name: &str) -> Option<&Value> {
        self.frames().find_map(|frame| {
            let (variable, value) = frame.variable.as_ref()?;
            (variable == name).then_some(value)
        })
    }

    /// The parameters of the innermost define.
    pub fn params(&self) -> Option<&BTreeMap<String, Value>> {
        self.frames().find_map(|frame| frame.params.as_ref())
    }

    /// This view with one more scope inside.
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
    /// The cell's own scope and its place.
    pub fn new() -> (Self, FrameId) {
        let frames = Frames {
            frames: vec![(None, Arc::default())],
        };
        (frames, FrameId(0))
    }

    /// A scope inside another.
    pub fn inside(&mut self, outer: FrameId, frame: Frame) -> FrameId {
        self.frames.push((Some(outer), Arc::new(frame)));
        FrameId(self.frames.len() - 1)
    }

    /// What a step in this scope sees now.
    pub fn view(&self, innermost: FrameId) -> View {
        let mut chain = Vec::new();
        let mut next = Some(innermost);
        while let Some((outer, frame)) = next.and_then(|id| self.frames.get(id.0)) {
            chain.push(Arc::clone(frame));
            next = *outer;
        }
        View(chain.into())
    }

    /// Remembers how a step ended; the newest end of an id counts.
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

    /// Moves what a branch recorded into the scope around it.
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
