//! Tree → [`Spec`](super::model::Spec), with every error at once.
//!
//! The shape ([`super::shape`]) says first what is structurally wrong; the decoders here then take what is there
//! and report what shapes can't say (ids that repeat, a default that is no option). A decoder never reports what
//! the shape check has reported already: where a value doesn't fit it takes nothing.

mod define;
mod extends;
mod fields;
mod http;
mod matrix;
mod service;
mod step;
mod top;

pub(crate) use extends::merge_service;
pub(crate) use fields::{is_extension, within};
pub(crate) use service::services;
pub(crate) use top::{Parts, included, main};
