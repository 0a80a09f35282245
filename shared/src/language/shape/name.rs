//! Rules for names.

/// The rule for a name, depending on what it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// Read after a dot, as in `inputs.NAME` or `steps.NAME`.
    Dotted,
    /// Read without a context in expressions, so it can't be a context, a result or a CEL word.
    Bare,
    /// A capture: read without a context, and after `steps.ID.`.
    Capture,
    /// A define: a group of steps, or a function called by its name.
    Define,
    /// A service. It is also a host name, so it may hold `-`.
    Service,
    /// An axis, or a key that `include` adds. It may hold `-`, as in GitHub.
    Axis,
    /// A phase. It may hold `-`.
    Phase,
    /// A session; `none` is reserved.
    Session,
}

/// Returns whether a key starts with `x-`. Such keys are free for the user, as in Compose: a place for anchors.
pub(crate) fn is_extension(key: &str) -> bool {
    key.starts_with("x-")
}

/// Contexts of expressions.
pub const CONTEXTS: [&str; 11] = [
    "inputs",
    "workspace",
    "matrix",
    "vars",
    "cell",
    "secrets",
    "run",
    "services",
    "steps",
    "params",
    "phalanx",
];

/// Results of actions, read without a context.
pub const RESULTS: [&str; 13] = [
    "status",
    "headers",
    "body",
    "json",
    "cookies",
    "elapsed",
    "event",
    "events",
    "exit_code",
    "stdout",
    "stderr",
    "port",
    "error",
];

/// Types and words of CEL, and functions that a name would hide.
const CEL_WORDS: [&str; 36] = [
    "bool",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "list",
    "map",
    "null_type",
    "type",
    "timestamp",
    "duration",
    "dyn",
    "optional",
    "optional_type",
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Fields of `steps.ID` other than its captures.
const STEP_FIELDS: [&str; 3] = ["outcome", "reason", "attempt"];

impl NameRule {
    /// Describes valid names, for messages such as "… takes a name of …".
    pub fn takes(self) -> &'static str {
        match self {
            NameRule::Service | NameRule::Phase | NameRule::Axis => {
                "a name of letters, digits, `_` and `-`"
            }
            _ => "a name of letters, digits and `_`",
        }
    }

    /// Returns the rule as a regular expression, for the schema.
    pub fn pattern(self) -> &'static str {
        match self {
            NameRule::Service => "^[A-Za-z0-9_][A-Za-z0-9_-]*$",
            NameRule::Phase | NameRule::Axis => "^[A-Za-z_][A-Za-z0-9_-]*$",
            _ => "^[A-Za-z_][A-Za-z0-9_]*$",
        }
    }

    /// Returns names that match the pattern but can't be used.
    pub fn reserved(self) -> Vec<&'static str> {
        match self {
            NameRule::Service | NameRule::Phase => Vec::new(),
            NameRule::Session => vec!["none"],
            NameRule::Dotted | NameRule::Axis => vec!["true", "false", "null", "in"],
            NameRule::Bare | NameRule::Define => {
                [&CONTEXTS[..], &RESULTS[..], &CEL_WORDS[..]].concat()
            }
            NameRule::Capture => [
                &CONTEXTS[..],
                &RESULTS[..],
                &CEL_WORDS[..],
                &STEP_FIELDS[..],
            ]
            .concat(),
        }
    }

    /// Returns the problem with a name and advice, if the name is invalid.
    pub fn problem(self, name: &str) -> Option<(String, String)> {
        if !self.fits(name) {
            let fixed = self.fix(name);
            return Some((
                format!("`{name}` is not {}", self.takes()),
                format!("names start with a letter or `_`, such as `{fixed}`"),
            ));
        }
        if !self.reserved().contains(&name) {
            return None;
        }
        let why = if CONTEXTS.contains(&name) {
            "it is a context of expressions"
        } else if RESULTS.contains(&name) {
            "it is a result of steps"
        } else if STEP_FIELDS.contains(&name) {
            "`steps.ID` has it already"
        } else if self == NameRule::Session {
            "`session: none` means no session"
        } else {
            "it is a word of CEL"
        };
        Some((
            format!("`{name}` can't be a name here: {why}"),
            format!("choose another, such as `{name}_`"),
        ))
    }

    fn fits(self, name: &str) -> bool {
        let dash = matches!(self, NameRule::Service | NameRule::Phase | NameRule::Axis);
        let mut characters = name.chars();
        let first = characters.next();
        let first_fits = first.is_some_and(|c| {
            c.is_ascii_alphabetic() || c == '_' || (self == NameRule::Service && c.is_ascii_digit())
        });
        first_fits
            && characters.all(|c| c.is_ascii_alphanumeric() || c == '_' || (dash && c == '-'))
    }

    fn fix(self, name: &str) -> String {
        let fixed: String = name
            .chars()
            .take(40)
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        if self.fits(&fixed) && !fixed.trim_matches('_').is_empty() {
            fixed
        } else if fixed.starts_with(|c: char| c.is_ascii_digit()) {
            format!("_{fixed}")
        } else {
            "my_name".into()
        }
    }
}
