//! The link to the coordinator: receives offers and sends events and logs. A lost connection loses no data.

pub mod actor;
pub mod attempt;
pub mod backoff;
mod budget;
mod cells;
mod connect;
mod connection;
pub mod core;
mod input;
pub mod lease;
pub mod logs;
mod offer;
pub mod overflow;
mod patience;
pub mod spool;
pub mod stay;

pub use cells::CellSpawner;
pub use connect::{Coordinator, InvalidAddress, Unreachable};
