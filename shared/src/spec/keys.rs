//! The keys of the language, as data: what a spec ([`top`]), a step ([`step`]) and a service ([`service`]) may
//! hold. What each means is said here once; decoder, JSON Schema and reference read it.

pub mod action;
pub mod compose;
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
pub(crate) const BOOL: Kind = Kind::Varies(&FLAG);
pub(crate) const DURATION: Kind = Kind::Varies(&Kind::Leaf(Leaf::Duration));
pub(crate) const BYTES: Kind = Kind::Varies(&Kind::Leaf(Leaf::Bytes));
pub(crate) const CPUS: Kind = Kind::Varies(&Kind::Leaf(Leaf::Cpus));
/// A list of words of a command.
pub(crate) const WORDS: Kind = Kind::Varies(&Kind::List(&TEXT));
/// A map of texts: headers, variables.
pub(crate) const TEXTS: Kind = Kind::Varies(&Kind::Map(&SCALAR_OR_NULL));
/// A text or nothing (then the entry is left out).
pub(crate) const SCALAR_OR_NULL: Kind = Kind::ByType {
    scalar: Some(&TEXT_OR_NULL),
    list: None,
    map: None,
};
const TEXT_OR_NULL: Kind = Kind::Leaf(Leaf::TextOrNull);
