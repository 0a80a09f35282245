//! Where services live: the contract, and its implementations (host processes, Docker, a fake for tests).

pub mod contract;
pub mod docker;
pub mod env_file;
pub mod fake;
pub mod head_tail;
pub mod process;
pub mod tree;
