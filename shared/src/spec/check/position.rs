//! Which names are known where.

use crate::spec::model::Param;
use crate::spec::node::Node;

/// The contexts that are known at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// `require`: before anything is planned.
    Requirement,
    /// `strategy`: while cells are made.
    Strategy,
    /// `cell.name`.
    CellName,
    /// `cell`, `vars`, `network`: when a cell is planned.
    Planned,
    /// A service's definition: when the stack is made.
    Definition,
    /// `ready` and sessions: while the stack runs.
    Running,
    /// Steps.
    Step,
    /// The value of a function.
    Function,
}

impl Level {
    /// The contexts.
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

    /// Where that is, for messages: "is not known …".
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

    /// Whether `file()` can be called: the workspace is read on the coordinator.
    pub fn reads_files(self) -> bool {
        matches!(self, Level::Strategy | Level::CellName | Level::Planned)
    }
}

/// A `foreach` variable.
#[derive(Clone, Copy, Debug)]
pub struct Variable<'s> {
    pub name: &'s str,
    pub items: &'s Node,
}

/// A place in a spec, as seen by its expressions.
#[derive(Clone, Debug)]
pub struct Position<'s> {
    pub level: Level,
    /// `foreach` variables, outermost first.
    pub variables: Vec<Variable<'s>>,
    /// Results of the action, captures, or a function's parameters: known by bare name.
    pub bare: Vec<&'s str>,
    /// Of the define around it.
    pub params: Option<&'s [Param]>,
    /// Names of a process's own ports.
    pub ports: Option<Vec<String>>,
    /// What the action is, for messages on results.
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

    /// The same place with further names.
    pub fn with(&self, names: impl IntoIterator<Item = &'s str>) -> Self {
        let mut position = self.clone();
        position.bare.extend(names);
        position
    }

    /// Whether a name is known without a context.
    pub fn knows(&self, name: &str) -> bool {
        self.bare.contains(&name) || self.variables.iter().any(|variable| variable.name == name)
    }
}
