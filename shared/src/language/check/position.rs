//! Defines which names are known at which place.

use crate::language::model::Param;
use crate::node::Node;

/// Kind of place, which determines the contexts that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// `require`: before planning.
    Requirement,
    /// `strategy`: while cells are created.
    Strategy,
    /// `cell.name`.
    CellName,
    /// `cell`, `vars` and `network`: when a cell is planned.
    Planned,
    /// Definition of a service: when the stack is created.
    Definition,
    /// `ready` and sessions: while the stack runs.
    Running,
    /// Phases and steps.
    Step,
    /// Value of a function.
    Function,
}

impl Level {
    /// Returns the contexts that are known.
    pub fn contexts(self) -> &'static [&'static str] {
        match self {
            Level::Requirement => &["inputs"],
            Level::Strategy => &["inputs", "workspace"],
            Level::CellName => &["inputs", "workspace", "matrix", "vars"],
            Level::Planned => &["inputs", "workspace", "matrix", "vars", "cell"],
            Level::Definition => &[
                "inputs",
                "workspace",
                "matrix",
                "vars",
                "cell",
                "secrets",
                "run",
                "services",
                "phalanx",
                "port",
            ],
            Level::Running | Level::Step => &[
                "inputs",
                "workspace",
                "matrix",
                "vars",
                "cell",
                "secrets",
                "run",
                "services",
                "phalanx",
                "steps",
                "params",
            ],
            Level::Function => &[],
        }
    }

    /// Describes the place, for messages such as "is not known …".
    pub fn place(self) -> &'static str {
        match self {
            Level::Requirement => "in `require`: nothing is planned yet",
            Level::Strategy => "in `strategy`: there are no cells yet",
            Level::CellName | Level::Planned => "when a cell is planned",
            Level::Definition => "in a service's definition",
            Level::Running | Level::Step => "here",
            Level::Function => "in a function: it sees its parameters",
        }
    }

    /// Returns whether `file()` can be called: only where the coordinator evaluates, because it reads the workspace.
    pub fn reads_files(self) -> bool {
        matches!(self, Level::Strategy | Level::CellName | Level::Planned)
    }
}

/// Variable of a `foreach`.
#[derive(Clone, Copy, Debug)]
pub struct Variable<'s> {
    pub name: &'s str,
    pub items: &'s Node,
}

/// A place in a spec, with the names that its expressions may use.
#[derive(Clone, Debug)]
pub struct Position<'s> {
    pub level: Level,
    /// Variables of `foreach`, outermost first.
    pub variables: Vec<Variable<'s>>,
    /// Names known without a context: results of the action, captures, or a function's parameters.
    pub bare: Vec<&'s str>,
    /// Parameters of the enclosing define.
    pub params: Option<&'s [Param]>,
    /// Names of a process's own ports.
    pub ports: Option<Vec<String>>,
    /// Name of the action, for messages about results.
    pub action: &'static str,
}

impl<'s> Position<'s> {
    pub fn at(level: Level) -> Self {
        Position {
            level,
            variables: Vec::new(),
            bare: Vec::new(),
            params: None,
            ports: None,
            action: "",
        }
    }

    /// Returns the same place with additional names.
    pub fn with(&self, names: impl IntoIterator<Item = &'s str>) -> Self {
        let mut position = self.clone();
        position.bare.extend(names);
        position
    }

    /// Returns whether a name is known without a context.
    pub fn knows(&self, name: &str) -> bool {
        self.bare.contains(&name) || self.variables.iter().any(|variable| variable.name == name)
    }
}
