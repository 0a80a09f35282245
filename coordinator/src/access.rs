//! Who may do what: tokens, their roles, and the namespaces that runs belong to.
//!
//! ```text
//! call ─▶ layer (gRPC), pages ─▶ access: whose token is it? ─▶ core: does its role allow this? ─▶ the call, with its Caller
//!                                     └─▶ tokens (SQLite)
//! ```
//!
//! [`core`] decides, and [`needs`] says what each call needs. [`gate`] knows the tokens, and [`layer`] stands in front of
//! every gRPC call. A call that is let in carries a [`Caller`]: who it is and which namespaces it sees. What a handler
//! finds in a journal, it looks for within the caller's namespaces only. Without access control every caller is the
//! machine's own, and may do everything. What changes something, and what is refused, goes into the [`audit`] log.

pub mod audit;
pub mod caller;
pub mod core;
pub mod gate;
pub mod layer;
pub mod needs;
pub mod secret;
pub mod tokens;

pub use caller::Caller;
pub use gate::Access;
