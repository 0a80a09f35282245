//! The shape of the language as data: which keys a map may have, which values each key takes, and what it means.
//!
//! The tables are in [`super::keys`]. Three things are generated from them, so that they can't diverge: the structural
//! check of a tree ([`check`]), the JSON Schema ([`super::schema`]) and the reference's list of keys.

pub mod cast;
pub mod check;
pub(crate) mod effect;
pub mod name;

use name::NameRule;

/// A map with known keys.
#[derive(Debug)]
pub struct Table {
    /// Name in messages and in the schema, such as `step` or `http request`.
    pub name: &'static str,
    /// Description of the map, for the schema and the reference.
    pub doc: &'static str,
    /// Keys of the map, in groups that tables share.
    pub keys: &'static [&'static [Key]],
    /// Rule and kind of any other key; without them, any other key is unknown.
    pub rest: Option<(NameRule, Kind)>,
    /// Rules on which keys may occur together.
    pub rules: &'static [Rule],
    /// Advice for keys that people try, by key.
    pub hints: &'static [(&'static str, &'static str)],
}

impl Table {
    /// Returns the keys of all groups.
    pub fn all_keys(&self) -> impl Iterator<Item = &'static Key> + use<> {
        self.keys.iter().copied().flatten()
    }

    /// Returns the key with the given name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.all_keys().find(|key| key.name == name)
    }

    /// Returns whether a rule depends on the presence of the key. An empty value would be ambiguous for such a key.
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
    /// Name as written in a spec.
    pub name: &'static str,
    /// Kind of value that the key takes.
    pub kind: Kind,
    /// Meaning of the key, for the schema and the reference.
    pub doc: &'static str,
    /// Whether the key is required.
    pub required: bool,
    /// Whether it is only accepted: it has no effect, and a warning says so.
    pub unused: bool,
}

/// Returns an optional key.
pub const fn key(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key {
        name,
        kind,
        doc,
        required: false,
        unused: false,
    }
}

/// Returns a required key.
pub const fn needed(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key {
        name,
        kind,
        doc,
        required: true,
        unused: false,
    }
}

/// Returns an optional key that is accepted and has no effect. `doc` says why, or what to use instead.
pub const fn unused(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key {
        name,
        kind,
        doc,
        required: false,
        unused: true,
    }
}

/// Rule on which keys of a map may occur together.
#[derive(Debug)]
pub enum Rule {
    /// Exactly one of `keys`, or none of them if one of `or` is present.
    OneOf {
        keys: &'static [&'static str],
        or: &'static [&'static str],
    },
    /// At most one of the keys.
    AtMostOne(&'static [&'static str]),
    /// `key` is allowed only if one of `any` is present.
    Needs {
        key: &'static str,
        any: &'static [&'static str],
    },
}

/// Kind of value.
#[derive(Debug)]
pub enum Kind {
    /// Any value; its texts may hold `${{ }}`.
    Any,
    /// A scalar.
    Leaf(Leaf),
    /// A list of items of one kind.
    List(&'static Kind),
    /// A map with any keys.
    Map(&'static Kind),
    /// A map whose keys are names.
    Named(NameRule, &'static Kind),
    /// A map with exactly one key, which is a name.
    Single(NameRule, &'static Kind),
    /// A map with known keys. This is a function because a constant can't refer to a static.
    Table(fn() -> &'static Table),
    /// A kind for each of scalar, list and map; a kind that is `None` is not allowed.
    ByType {
        scalar: Option<&'static Kind>,
        list: Option<&'static Kind>,
        map: Option<&'static Kind>,
    },
    /// The same kind, where the value or any part of it may be a text with `${{ }}` whose value is known only later.
    Varies(&'static Kind),
    /// Reserved for a later version; using it is an error.
    Later,
    /// A key of Compose that is not supported, with the reason. Null removes the key from a Compose file's service.
    Unsupported(&'static str),
}

/// Kind of scalar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Leaf {
    /// A text.
    Str,
    /// A text; a number or a bool is taken as it is spelled.
    Text,
    /// Like [`Leaf::Text`], or null.
    TextOrNull,
    /// A name.
    Name(NameRule),
    /// A CEL expression.
    Expr,
    /// `true` or `false`.
    Bool,
    /// An integer not below the bound.
    Int(i64),
    /// A number not below 0.
    Number,
    /// A duration: `1m30s`, `500ms`, or a number of seconds.
    Duration,
    /// A size: `512m`, `1GiB`, or a number of bytes.
    Bytes,
    /// A number of CPUs: `0.5`, `2`, or `500m`.
    Cpus,
    /// A day of the calendar: `2026-12-31`.
    Date,
    /// One of the given words.
    Enum(&'static [&'static str]),
}

impl Leaf {
    /// Returns a phrase for messages such as "`timeout` takes …".
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
            Leaf::Date => "a date such as `2026-12-31`".into(),
            Leaf::Enum(words) => check::list(words, "or"),
        }
    }
}

impl Kind {
    /// Returns a phrase for messages such as "`timeout` takes …".
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
