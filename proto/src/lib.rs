//! The wire: generated messages and services of `phalanx.v1`, and the only conversions between them and the domain.
//!
//! Read `phalanx/v1/agent_link.proto` first: its header tells lifecycle, resume, fencing and cancellation. [`link`], [`log`] and
//! [`workspace`] are the same messages as checked domain types; the cores of both sides speak these. [`limit`] bounds everything. Nothing here does I/O.

#[allow(clippy::all, clippy::unwrap_used, missing_docs)]
pub mod v1 {
    //! Generated from `phalanx/v1/*.proto`.
    tonic::include_proto!("phalanx.v1");
}
mod broken;
pub mod convert;
mod fitting;
pub mod limit;
pub mod link;
pub mod log;
mod secret_debug;
pub mod specs;
pub mod workspace;

pub use broken::broken;
pub use fitting::fitting;

/// The descriptor set of `phalanx.v1`, for reflection.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/phalanx.v1.binpb"));

/// The protocol versions that this build speaks.
pub const PROTOCOLS: std::ops::RangeInclusive<u32> = 1..=2;

/// From this version on a spec travels once in a session, and offers name it.
pub const SPECS_BY_DIGEST: u32 = 2;
