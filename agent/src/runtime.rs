//! The contract that runtimes implement, and its implementations: host processes, Docker, and a fake for tests
//! (feature `fake`, which no release has).

pub mod blocking;
pub mod contract;
pub mod docker;
pub mod env_file;
#[cfg(feature = "fake")]
pub mod fake;
pub mod gather;
pub mod head_tail;
pub mod process;
pub mod search;
pub mod tree;
