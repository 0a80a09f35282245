//! `phalanx demo-server`: a small shop over HTTP, for the quickstart and for tests of steps. It needs only this binary.
//!
//! | route | answer |
//! |---|---|
//! | `GET /` | name and version |
//! | `GET /health` | 503 while it starts (`--startup-delay`), then 200 |
//! | `POST /orders {sku, quantity}` | 201 with the order; 400 and 422 if it is wrong |
//! | `GET /orders/N`, `GET /orders?state=S` | an order, whose state is `received` and then `billed` (`--billing-delay`) |
//! | `POST /tokens {user, password}` | 201 with a bearer token |
//! | `GET /report`, `DELETE /orders/N` | 401 without `Authorization: Bearer TOKEN` |
//! | `GET /login`, `POST /login`, `GET /account` | a form with CSRF field and cookie; 302 and a session cookie; a page |
//! | `GET /events?count=N` | a stream of `progress` events and one `summary`; 404 before v1.9 |
//! | `GET /slow?ms=N`, `/status/CODE`, `/flaky/KEY?fails=N`, `/echo` | late; that status; 503 N times, then 200; the request itself |
//!
//! `shop` is the pure part; `routes` and `account` are the HTTP around it, and `state` is what they share. The server prints one line per request to standard output.

mod account;
mod routes;
mod shop;
mod state;

use clap::Parser;
use phalanx_shared::clock::SystemClock;
use shop::Version;
use state::State;
use std::ffi::OsString;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// The subcommand.
pub const DEMO_COMMAND: &str = "demo-server";
/// The user who can sign in.
pub const USER: &str = "admin@example.com";
/// The user's password. It is not a secret: the examples contain it.
pub const PASSWORD: &str = "correct horse battery";

/// A small shop over HTTP, for the quickstart and for trying steps.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoServer {
    /// Port to listen on; 0 picks a free port and prints it
    #[arg(long, default_value_t = 0)]
    pub port: u16,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// Release of the shop to simulate; before v1.9 it has no event stream
    #[arg(long, default_value = "v2.0", value_name = "vMAJOR.MINOR")]
    pub version: Version,
    /// Time in milliseconds during which `/health` answers 503 after the start
    #[arg(long, default_value_t = 0, value_name = "MS")]
    pub startup_delay: u64,
    /// Time in milliseconds until an order is billed
    #[arg(long, default_value_t = 300, value_name = "MS")]
    pub billing_delay: u64,
}

#[derive(Parser)]
#[command(name = DEMO_COMMAND, disable_version_flag = true)]
struct Program {
    #[command(flatten)]
    server: DemoServer,
}

/// Runs the server with the arguments after the subcommand, until SIGTERM.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = std::iter::once(OsString::from(DEMO_COMMAND)).chain(arguments);
    let program = match Program::try_parse_from(arguments) {
        Ok(program) => program,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let served = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(serve(program.server)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{DEMO_COMMAND}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the command that starts the server, if `program` is the path of `phalanx`. Specs see it as
/// `phalanx.demo_server` (a list inside a command's list is flattened).
pub fn command(program: &Path) -> Vec<String> {
    vec![
        program.to_string_lossy().into_owned(),
        DEMO_COMMAND.to_owned(),
    ]
}

/// Serves requests until SIGTERM or SIGINT.
pub async fn serve(args: DemoServer) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let address = SocketAddr::new(args.host, args.port);
    let listener = TcpListener::bind(address).await.map_err(|error| {
        io::Error::new(error.kind(), format!("can't listen on {address}: {error}"))
    })?;
    say(&format!(
        "shop {} listening on http://{}",
        args.version,
        listener.local_addr()?
    ));
    let router = routes::router(State {
        clock: Arc::new(SystemClock::default()),
        shop: Arc::default(),
        version: args.version,
        startup_delay: Duration::from_millis(args.startup_delay),
        billing_delay: Duration::from_millis(args.billing_delay),
    });
    tokio::select! {
        served = async { axum::serve(listener, router).await } => served,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }?;
    say("shop closed");
    Ok(())
}

/// Prints a line to standard output. Errors are ignored, because the server must not stop when the reader has gone
/// away.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
