//! Stores the logs of attempts as files: the bytes as the services wrote them, and an index with their order of arrival
//! and the gaps.
//!
//! The files are `RUN/CELL/ATTEMPT/SERVICE.stdout`, `….stderr` and `index` below the store's directory. Programs read
//! them through [`read`]; people can use `less`.

pub mod index;
pub mod read;
pub mod receive;
pub mod store;
pub mod writer;
