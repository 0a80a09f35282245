//! Decodes a tree into a [`Spec`](super::model::Spec), and reports every error at once.
//!
//! The shape check ([`super::shape`]) runs first and reports structural errors. The decoders then take the values that
//! are present and report what shapes can't express, such as repeated ids or a default that is not an option. A decoder
//! never repeats an error of the shape check: it treats a value that doesn't fit as absent.
//!
//! stage: a `Spec`: every error at once, each with its place; the tables in `keys.rs` serve the decoder and the JSON Schema

mod artifact;
mod define;
mod extends;
mod fields;
mod http;
mod matrix;
mod service;
mod step;
mod top;

pub(crate) use extends::merge_service;
pub(crate) use fields::within;
pub(crate) use service::services;
pub(crate) use top::{Parts, included, main};
