//! Uploads logs: numbered, capped, and limited by credit. They have their own connection, so that log bytes never block
//! control messages.

pub mod actor;
pub mod attempt;
pub mod room;
mod segments;
pub mod spool;
pub mod tail;
