//! What is reached from outside: the gRPC API and its server for clients; health, metrics and pages over HTTP.

pub mod api;
pub mod clients;
pub mod enrolment;
pub mod health;
pub mod http;
pub mod server;
pub mod web;
