//! The full-screen view of a run in progress (`--tui`): the grid of its cells, its findings, why cells wait, and the
//! chosen cell with its steps and logs.
//!
//! What is shown and what a key does is decided in [`app`], without a terminal; [`mod@draw`] lays it out; [`screen`] owns the
//! terminal and gives it back, even after a panic.

mod app;
mod draw;
mod grid;
mod screen;

pub use app::{App, Asked, Pane};
pub use draw::draw;
pub use screen::{Full, Key};

#[cfg(test)]
mod tests;
