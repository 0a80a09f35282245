//! The shape of the language as data: which keys a map may have, what each takes, and what it means.
//!
//! The tables themselves are in [`super::keys`]. Three things are made from them, so that they can't drift apart:
//! the structural check of a tree ([`check`]), the JSON Schema ([`super::schema`]) and the reference's list of keys.

pub mod cast;
pub mod check;
pub mod name;

use name::NameRule;

/// A map with known keys.
#[derive(Debug)]
pub struct Table {
    /// How messages and the schema call it: `step`, `http request`.
    pub name: &'static str,
    /// What it is.
    pub doc: &'static str,
    /// Its keys, in groups that tables share.
    pub keys: &'static [&'static [Key]],
    /// What any further key takes; without it a further key is unknown.
    pub rest: Option<(NameRule, Kind)>,
    /// Which keys go together.
    pub rules: &'static [Rule],
    /// Advice for keys that people try.
    pub hints: &'static [(&'static str, &'static str)],
}

impl Table {
    /// All keys.
    pub fn all_keys(&self) -> impl Iterator<Item = &'static Key> + use<> {
        self.keys.iter().copied().flatten()
    }

    /// The key of that name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.all_keys().find(|key| key.name == name)
    }

    /// Whether a rule asks whether the key is written, so that an empty value would be ambiguous.
    pub fn is_ruled(&self, name: &str) -> bool {
        self.rules.iter().any(|rule| match rule {
            Rule::OneOf { keys, or } => keys.contains(&name) || or.contains(&name),
            Rule::AtMostOne(_) => false,
            Rule::Needs { key, any } => *key == name || any.contains(&name),
        })
    }
}

/// A key of a [`Table`].
#[derive(Debug)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What it means, for the schema and the reference.
    pub doc: &'static str,
    /// Whether it has to be there.
    pub required: bool,
}

/// A key that may be there.
pub const fn key(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key {
        name,
        kind,
        doc,
        required: false,
    }
}

/// A key that has to be there.
pub const fn needed(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key {
        name,
        kind,
        doc,
        required: true,
    }
}

/// Which keys of a map go together.
#[derive(Debug)]
pub enum Rule {
    /// Exactly one of `keys`; none only beside one of `or`.
    OneOf {
        keys: &'static [&'static str],
        or: &'static [&'static str],
    },
    /// At most one of them.
    AtMostOne(&'static [&'static str]),
    /// `key` only beside one of `any`.
    Needs {
        key: &'static str,
        any: &'static [&'static str],
    },
}

/// What a value may be.
#[derive(Debug)]
pub enum Kind {
    /// Anything; texts in it may hold `${{ }}`.
    Any,
    /// One scalar.
    Leaf(Leaf),
    /// A list.
    List(&'static Kind),
    /// A map with free keys.
    Map(&'static Kind),
    /// A map whose keys are names.
    Named(NameRule, &'static Kind),
    /// A map with exactly one key, a name.
    Single(NameRule, &'static Kind),
    /// A map with known keys.
    /// (A function, because a constant can't refer to a static.)
    Table(fn() -> &'static Table),
    /// Different kinds by what stands there.
    ByType {
        scalar: Option<&'static Kind>,
        list: Option<&'static Kind>,
        map: Option<&'static Kind>,
    },
    /// It, or anything in it, may be a text with `${{ }}` whose value is known later.
    Varies(&'static Kind),
    /// Reserved: an error that says so.
    Later,
    /// A key of Compose that isn't supported, and why. Nothing (null) takes it out of a Compose file's service.
    Unsupported(&'static str),
}

/// What a scalar may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Leaf {
    /// A text.
    Str,
    /// A text; a number or a bool counts as its spelling.
    Text,
    /// The same, or nothing.
    TextOrNull,
    /// A name.
    Name(NameRule),
    /// A CEL expression.
    Expr,
    /// `true` or `false`.
    Bool,
    /// A whole number not below the bound.
    Int(i64),
    /// A number not below 0.
    Number,
    /// `1m30s`, `500ms`, or seconds.
    Duration,
    /// `512m`, `1GiB`, or bytes.
    Bytes,
    /// `0.5`, `2`, or `500m`.
    Cpus,
    /// One of some words.
    Enum(&'static [&'static str]),
}

impl Leaf {
    /// What it takes, for messages: "`timeout` takes …".
    pub fn takes(self) -> String {
        match self {
            Leaf::Str | Leaf::Text | Leaf::TextOrNull => "a text".into(),
            Leaf::Name(rule) => rule.takes().into(),
            Leaf::Expr => "an expression".into(),
            Leaf::Bool => "`true` or `false`".into(),
            Leaf::Int(min) => format!("a whole number from {min}"),
            Leaf::Number => "a number from 0".into(),
            Leaf::Duration => "a duration such as `30s`, `1m30s` or `500ms`".into(),
            Leaf::Bytes => "a size such as `512MiB` or `1.5g`".into(),
            Leaf::Cpus => "a number of CPUs such as `0.5` or `2`".into(),
            Leaf::Enum(words) => check::list(words, "or"),
        }
    }
}

impl Kind {
    /// What it takes, for messages.
    pub fn takes(&self) -> String {
        match self {
            Kind::Any => "a value".into(),
            Kind::Leaf(leaf) => leaf.takes(),
            Kind::List(_) => "a list".into(),
            Kind::Map(_) | Kind::Named(..) | Kind::Table(_) => "a map".into(),
            Kind::Single(..) => "a map with one key".into(),
            Kind::Varies(kind) => kind.takes(),
            Kind::Later => "nothing yet".into(),
            Kind::Unsupported(_) => "nothing".into(),
            Kind::ByType { scalar, list, map } => [scalar, list, map]
                .into_iter()
                .flatten()
                .map(|kind| kind.takes())
                .collect::<Vec<_>>()
                .join(" or "),
        }
    }
}
