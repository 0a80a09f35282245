//! The keys of the language as data: the keys of a spec ([`top`]), a step ([`step`]) and a service ([`service`]). The
//! meaning of each key is written here once; the decoder, the JSON Schema and the reference use it.

pub mod action;
pub(crate) mod artifact;
pub mod compose;
pub mod engine;
pub mod part;
pub mod service;
pub mod step;
pub mod top;

use super::shape::{Kind, Leaf};

/// Text that may hold `${{ }}`.
pub(crate) const TEMPLATE: Kind = Kind::Varies(&TEXT);
pub(crate) const TEXT: Kind = Kind::Leaf(Leaf::Text);
pub(crate) const STR: Kind = Kind::Leaf(Leaf::Str);
pub(crate) const EXPR: Kind = Kind::Leaf(Leaf::Expr);
pub(crate) const FLAG: Kind = Kind::Leaf(Leaf::Bool);
pub(crate) const DATE: Kind = Kind::Leaf(Leaf::Date);
pub(crate) const BOOL: Kind = Kind::Varies(&FLAG);
pub(crate) const DURATION: Kind = Kind::Varies(&Kind::Leaf(Leaf::Duration));
pub(crate) const BYTES: Kind = Kind::Varies(&Kind::Leaf(Leaf::Bytes));
pub(crate) const CPUS: Kind = Kind::Varies(&Kind::Leaf(Leaf::Cpus));
/// List of a command's words.
pub(crate) const WORDS: Kind = Kind::Varies(&Kind::List(&TEXT));
/// Map of texts, such as headers or variables.
pub(crate) const TEXTS: Kind = Kind::Varies(&Kind::Map(&SCALAR_OR_NULL));
/// Text or null; null leaves the entry out.
pub(crate) const SCALAR_OR_NULL: Kind = Kind::ByType {
    scalar: Some(&TEXT_OR_NULL),
    list: None,
    map: None,
};
const TEXT_OR_NULL: Kind = Kind::Leaf(Leaf::TextOrNull);

/// List of texts.
pub(crate) const TEXT_LIST: Kind = Kind::Varies(&Kind::List(&TEXT));
/// One text or a list of them.
pub(crate) const TEXT_OR_LIST: Kind = Kind::Varies(&Kind::ByType {
    scalar: Some(&TEXT),
    list: Some(&Kind::List(&TEXT)),
    map: None,
});
/// Map of texts, or a list of `NAME=value`.
pub(crate) const MAP_OR_LIST: Kind = Kind::Varies(&Kind::ByType {
    scalar: None,
    list: Some(&Kind::List(&TEXT)),
    map: Some(&Kind::Map(&SCALAR_OR_NULL)),
});

/// One expression or a list of them.
pub(crate) const EXPECTATIONS: Kind = Kind::ByType {
    scalar: Some(&EXPR),
    list: Some(&Kind::List(&EXPR)),
    map: Some(&EXPR),
};
