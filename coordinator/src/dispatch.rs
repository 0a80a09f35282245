//! Agent sessions: connections, offers, the token gate, acknowledgements and leases; and the logs and artifacts that agents send.

mod actor;
pub mod artifacts;
mod attempt;
pub mod contract;
pub mod core;
pub mod gate;
pub mod heard;
pub mod holders;
pub mod logs;
pub mod reason;
pub mod sequence;
pub mod server;
pub mod size;

#[cfg(test)]
mod tests;
