//! The wire protocol: generated messages and services of `phalanx.v1`, and the only conversions between them and the
//! domain.
//!
//! Read `phalanx/v1/agent_link.proto` first: its header describes lifecycle, resume, fencing and cancellation.
//! [`link`], [`log`] and [`workspace`] contain the same messages as checked domain types, which the cores of both sides
//! use. [`limit`] bounds everything. Only [`channel`] and [`tls`] do I/O.

#[allow(clippy::all, clippy::unwrap_used, missing_docs)]
pub mod v1 {
    //! Generated from `phalanx/v1/*.proto`.
    tonic::include_proto!("phalanx.v1");
}
mod broken;
pub mod certificate;
pub mod channel;
pub mod convert;
mod fitting;
pub mod limit;
pub mod link;
pub mod log;
mod secret_debug;
pub mod specs;
pub mod tls;
pub mod workspace;

pub use broken::broken;
pub use fitting::fitting;

/// The descriptor set of `phalanx.v1`, for reflection.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/phalanx.v1.binpb"));

/// Protocol versions that this build supports.
pub const PROTOCOLS: std::ops::RangeInclusive<u32> = 1..=2;

/// First protocol version in which a spec is sent once per session and offers refer to it by digest.
pub const SPECS_BY_DIGEST: u32 = 2;
