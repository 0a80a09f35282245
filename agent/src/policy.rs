//! What this agent allows specs to do outside their own containers and workspace.
//!
//! [`core`] judges; [`load`] reads the files that say what is allowed; [`guard`] judges the addresses of requests, for
//! which it looks at the machine's interfaces and names. The rules themselves are in `phalanx_shared::policy`, because
//! the coordinator places cells by them.

pub mod core;
pub mod guard;
pub mod load;
mod read;

pub use core::Policy;
pub use guard::{Guard, InForce};
