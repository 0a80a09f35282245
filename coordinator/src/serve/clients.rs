//! Which clients are served. TLS tells a client who the coordinator is, and not the coordinator who the client is. So a
//! client without a way to show who it is is served from this machine only, unless the operator says otherwise.

use crate::incoming::Visit;
use std::net::IpAddr;
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// From where clients are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clients {
    /// From everywhere that reaches the port.
    #[default]
    Anywhere,
    /// From this machine.
    ThisMachine,
}

impl Clients {
    fn serves(self, from: Option<IpAddr>) -> bool {
        match (self, from) {
            (Clients::Anywhere, _) | (Clients::ThisMachine, None) => true,
            (Clients::ThisMachine, Some(address)) => address.to_canonical().is_loopback(),
        }
    }
}

impl Interceptor for Clients {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let from = Visit::of(&request).map(|visit| visit.address().ip());
        match self.serves(from) {
            true => Ok(request),
            false => Err(Status::permission_denied(
                "clients are served from the coordinator's own machine only, because nothing tells who they are: use one there (through ssh, too)",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_client_of_another_machine_is_served_only_if_all_are() {
        let of = |text: &str| Some(text.parse().unwrap());
        for here in [None, of("127.0.0.1"), of("::1"), of("::ffff:127.0.0.1")] {
            assert!(Clients::ThisMachine.serves(here), "{here:?}");
        }
        for elsewhere in [of("192.0.2.1"), of("2001:db8::1")] {
            assert!(!Clients::ThisMachine.serves(elsewhere));
            assert!(Clients::Anywhere.serves(elsewhere));
        }
    }
}
