//! `--web` of `run` and `rerun`: pages of the run while it goes on, on an address of this machine.

use super::connect::Connection;
use super::error::CliError;
use super::explain::PAGES;
use super::{Context, say};
use crate::config::server::COORDINATOR;
use phalanx_coordinator::serve::web::{Actions, Options};
use phalanx_shared::id::RunId;
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// Where pages are served if the flag names no address: a free port.
pub const DEFAULT: &str = "127.0.0.1:0";

/// Returns the address that the flag names, or why there can't be pages.
pub fn address(flag: Option<&str>, context: &Context) -> Result<Option<SocketAddr>, CliError> {
    let Some(text) = flag else { return Ok(None) };
    let coordinator = context.settings.get(&COORDINATOR);
    if !coordinator.is_empty() {
        let message = format!("--web shows local runs, and this one runs at {coordinator}");
        let help = "a coordinator has its own pages: `phalanx serve` prints their address";
        return Err(CliError::usage(message).with_help(help));
    }
    let address: SocketAddr = text.parse().map_err(|_| {
        CliError::usage(format!("--web {text}: not an address and port"))
            .with_help("write --web=127.0.0.1:7181, or --web for a free port")
    })?;
    if !address.ip().to_canonical().is_loopback() {
        let message = format!(
            "--web {address} can be reached by other machines, and pages have buttons and no passwords"
        );
        let help = "use 127.0.0.1 or [::1], and ssh -L from another machine";
        return Err(CliError::usage(message).with_help(help));
    }
    Ok(Some(address))
}

/// Serves the pages of a run until its coordinator ends, and prints the address.
pub async fn serve(
    connection: &Connection,
    run: &RunId,
    address: SocketAddr,
) -> Result<(), CliError> {
    let listening = TcpListener::bind(address).await;
    let listener = listening.map_err(|error| {
        CliError::errored(format!("can't listen on {address}: {error}"))
            .with_help("--web without an address takes a free port")
    })?;
    let bound = listener.local_addr().unwrap_or(address);
    let options = Options {
        actions: Actions::OF_ONE_RUN,
        explained: PAGES,
    };
    if connection.observe(listener, options) {
        say::to_stderr(&format!("pages at http://{bound}/runs/{run}\n"));
    }
    Ok(())
}
