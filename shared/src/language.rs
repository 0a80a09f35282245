//! The spec: what a user writes.
//!
//! [`parse`] turns YAML into a tree with positions ([`node`](crate::node)). [`decode`] turns the tree into a [`model`] and reports
//! every error at once. [`check`] finds errors beyond the structure. [`load()`] does all three for a file and the files
//! it includes. The keys of the language are data ([`keys`], with the kinds in [`shape`]).

pub mod check;
mod decode;
pub mod env_file;
pub mod interpolation;
pub mod keys;
mod load;
pub mod model;
pub mod parse;
pub mod quantity;
pub mod reads;
pub mod schema;
pub mod service;
pub mod shape;
pub mod snapshot;

pub use load::{Loaded, Read, load};
