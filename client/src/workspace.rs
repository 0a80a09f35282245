//! The client's side of workspaces: what belongs to one (`pack`), and sending it (`send`).

mod pack;
mod send;

pub use pack::{Error, Packed, pack};
