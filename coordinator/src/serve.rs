//! What is reached from outside: the gRPC API and its server for clients, health and metrics over HTTP.

pub mod api;
pub mod health;
pub mod http;
pub mod server;
