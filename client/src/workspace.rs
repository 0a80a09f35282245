//! The client's side of workspaces: finding the files (`pack`) and sending them (`send`).

mod pack;
mod send;

pub use pack::{Error, Packed, pack};
