//! Logs of attempts as files: bytes as the services wrote them, an index that tells their order of arrival, and what is missing.
//!
//! `RUN/CELL/ATTEMPT/SERVICE.stdout`, `….stderr` and `index` below the store's directory. Whoever wants to read goes through [`read`]; a person can use `less`.

pub mod index;
pub mod read;
pub mod receive;
pub mod store;
pub mod writer;
