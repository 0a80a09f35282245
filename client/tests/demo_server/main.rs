//! The demo server: as a program, as a service of cells, and in the quickstart.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)]

mod program;
mod quickstart;
mod rig;
mod services;
