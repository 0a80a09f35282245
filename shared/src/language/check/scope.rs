//! The steps that a step can see: the steps before it, by id, with their captures.

use crate::diagnostic::Span;
use crate::expr::Segment;
use crate::language::shape::check::{closest, list};
use indexmap::IndexMap;

/// Fields that every finished step has, other than its captures.
const ALWAYS: [&str; 3] = ["outcome", "reason", "attempt"];

/// A step with an id.
#[derive(Clone, Debug)]
pub struct Known {
    pub span: Span,
    pub captures: Vec<String>,
    /// Whether the step has instances: `steps.ID[key].NAME`.
    pub keyed: bool,
    /// Whether the step has finished at this place. A step in the same `parallel` has not.
    visible: bool,
}

/// Steps of a scope, in order.
#[derive(Debug, Default)]
pub struct Scope {
    steps: IndexMap<String, Known>,
}

/// Problem with a reference to a step.
#[derive(Debug)]
pub enum Unseen {
    /// No such step runs before this one.
    Unknown,
    /// The step has no such capture. Holds the place, the problem and the advice.
    Part(Span, String, String),
}

impl Scope {
    /// Adds a step. Returns the place of an earlier step with the same id.
    pub fn add(
        &mut self,
        id: &str,
        span: Span,
        captures: Vec<String>,
        keyed: bool,
    ) -> Option<Span> {
        if let Some(earlier) = self.steps.get(id) {
            return Some(earlier.span);
        }
        let known = Known {
            span,
            captures,
            keyed,
            visible: true,
        };
        self.steps.insert(id.to_owned(), known);
        None
    }

    /// Returns a mark for [`Self::forget_since`] and [`Self::show_since`].
    pub fn mark(&self) -> usize {
        self.steps.len()
    }

    /// Removes the steps since a mark, because they are visible only from inside.
    pub fn forget_since(&mut self, mark: usize) {
        self.steps.truncate(mark);
    }

    /// Hides or shows the steps since a mark.
    pub fn show_since(&mut self, mark: usize, visible: bool) {
        for (_, known) in self.steps.iter_mut().skip(mark) {
            known.visible = visible;
        }
    }

    /// Returns the ids of visible steps.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.steps
            .iter()
            .filter(|(_, known)| known.visible)
            .map(|(id, _)| id.as_str())
    }

    /// Checks a reference `steps.ID…`.
    pub fn check(&self, path: &[Segment]) -> Result<(), Unseen> {
        let Some((first, rest)) = path.split_first() else {
            return Ok(());
        };
        let id = first.key.to_string();
        let Some(known) = self.steps.get(&id).filter(|known| known.visible) else {
            return Err(Unseen::Unknown);
        };
        let part = if known.keyed {
            rest.get(1)
        } else {
            rest.first()
        };
        let Some(part) = part.filter(|part| !part.optional) else {
            return Ok(());
        };
        let name = part.key.to_string();
        if known.captures.contains(&name) || ALWAYS.contains(&name.as_str()) {
            return Ok(());
        }
        let names: Vec<&str> = known.captures.iter().map(String::as_str).collect();
        let help = match closest(&name, names.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None if names.is_empty() => {
                format!("`{id}` captures nothing: add `capture: {{ {name}: … }}` to it")
            }
            None => format!("it captures {}", list(&names, "and")),
        };
        Err(Unseen::Part(
            part.span,
            format!("the step `{id}` has no capture `{name}`"),
            help,
        ))
    }
}
