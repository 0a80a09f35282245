//! The spec: what a user writes.
//!
//! [`parse`] makes a tree with positions ([`node`]) of YAML, [`decode`] makes a [`model`] of the tree and reports
//! every error at once, [`check`] finds what is wrong beyond the structure; [`load()`] does all three for a file and
//! those it includes. What keys there are is data ([`keys`], of the kinds in [`shape`]).

pub mod check;
mod decode;
pub mod env_file;
pub mod interpolation;
pub mod keys;
mod load;
pub mod model;
pub mod node;
pub mod parse;
pub mod quantity;
pub mod schema;
pub mod service;
pub mod shape;

pub use load::{Loaded, Read, load};
