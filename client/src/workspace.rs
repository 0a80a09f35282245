//! The client's side of workspaces: finding the files (`pack`), sending them (`send`), and
//! checking that what services need is among them (`travel`).

mod pack;
mod send;
mod travel;

pub use pack::{Error, Packed, pack};
pub use travel::findings;
