//! Expressions and interpolation: CEL over JSON values, and text with `${{ }}` in it.
//!
//! [`Program`] is a parsed expression, [`TemplateProgram`] a parsed text, and [`Scope`] holds the names that they see;
//! [`eval_node`] evaluates a whole YAML tree. The `cel` crate parses and evaluates. This module adds exact places of
//! errors, the values of the parts of a failed check, the functions of the language, and limits. The crate's types stay
//! inside this folder: its interface uses [`serde_json::Value`].
//!
//! Nothing here reads files, the environment or a clock; `file()` is a closure that the planner supplies.
//! Evaluation is bounded: an expression has at most [`MAX_LENGTH`] bytes and [`MAX_DEPTH`] levels, takes at most
//! [`MAX_STEPS`] steps and makes at most [`MAX_BYTES`] bytes. Calls of defined functions are nested at most
//! [`MAX_CALLS`] deep.

mod blame;
mod cache;
mod convert;
mod eval;
mod explain;
pub mod foreign;
mod functions;
mod keys;
mod meter;
mod node;
mod place;
mod program;
mod scan;
mod scope;
mod stack;
mod syntax;
mod template;
mod text;
mod tree;
mod weight;

pub use cache::Cache;
pub use convert::int_key;
pub use explain::Part;
pub use functions::{arities as builtin_arities, builtin_functions, is_type_name};
pub use keys::MatrixKeys;
pub use meter::{Allowance, MAX_BYTES, MAX_CALLS, MAX_STEPS, charge};
pub use node::{eval_node, eval_to_node, value_to_node};
pub use place::{EvalError, place};
pub use program::{Call, Comparison, Key, Other, Program, Reference, Segment};
pub use scan::{MAX_DEPTH, MAX_LENGTH};
pub use scope::{Function, Functions, Lack, Layer, ReadFile, Scope};
pub(crate) use template::interpolation_end;
pub use template::{TemplateProgram, TextPart, parts_of_text};
pub use text::{
    abbreviate, abbreviate_masked, canonical_entries, canonical_json, closest, suggestion, to_text,
};
pub use weight::{MAX_LEVELS, deeper_than, weight};
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
