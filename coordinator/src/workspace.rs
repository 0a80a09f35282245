//! The workspace: the files beside a spec that its cells need, named by their digest.
//!
//! The client decides what belongs to it (`pack`) and sends it (`send`) unless the coordinator has it (`store`). The
//! coordinator checks what arrives and writes one archive (`receive`). Agents fetch it by digest and unpack it
//! (`agent/src/workspace.rs`).

mod links;
mod receive;
mod store;

pub use receive::Refused;
pub use store::{Turn, Workspaces};
