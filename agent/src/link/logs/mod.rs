//! Logs on their way up: numbered, capped, with credit. They have a connection of their own, so that bytes never block control.

pub mod actor;
pub mod attempt;
pub mod spool;
pub mod tail;
