//! Agent sessions: connections, offers, the token gate, acknowledgements and leases; and the logs that agents send.

mod actor;
mod attempt;
pub mod budget;
mod command;
pub mod contract;
pub mod core;
mod forward;
pub mod gate;
pub mod heard;
pub mod holders;
pub mod logs;
mod patience;
pub mod server;
