//! The journal: the durable, ordered record of all runs. It contains every event that was acknowledged (I1).
//!
//! [`Journal`] is the handle that all components share. Appends go to the single writer ([`writer`]), which commits
//! many at once; reads go to the [`Store`] directly. A store knows rows, not what they mean: state is a fold of the
//! events, computed elsewhere.

mod check;
mod copy;
mod database;
mod lock;
mod mark;
mod postgres;
mod rows;
mod sqlite;
mod store;
mod writer;

pub use copy::{Copied, copy};
pub use database::Database;
pub(crate) use database::written as write_error;
pub use postgres::{Lead, PostgresStore};
pub(crate) use rows::read as read_error;
pub use sqlite::SqliteStore;
pub use store::{
    NewRun, Past, PastSnapshot, RunEnd, RunHead, RunRow, Store, StoreError, Submission, Write,
};
pub use writer::{Durable, Health, Journal, Line, Receipt};

#[cfg(test)]
mod tests;
