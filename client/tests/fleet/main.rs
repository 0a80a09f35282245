//! A fleet of real processes on the loopback network: `phalanx serve`, agents and clients. They are killed, cut off,
//! upgraded and lied to.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::disallowed_methods
)]

mod access;
mod artifacts;
mod commands;
mod ephemeral;
mod identities;
mod peers;
mod proxy;
mod recovery;
mod remote;
#[allow(dead_code)] // Each test program uses a part.
mod rig;
mod standards;
mod upload;
mod watching;
