//! Who is at the other end of a connection: the coordinator's CA and certificates, enrolment of agents, and which
//! identities may call.
//!
//! [`core`] decides, [`store`] keeps tokens and identities in the journal's database, [`ca`] makes certificates, [`tls`]
//! prepares TLS, and [`office`] puts them together. A coordinator without TLS has no identities: whoever reaches its port
//! is an agent.

mod ca;
pub mod core;
pub mod office;
mod store;
mod tls;

pub use ca::CaError;
pub use office::{External, Identities, OpenError, PeerAgent, Settings, create_token_beside};
pub use store::IdentityError;

#[cfg(test)]
mod tests;
