//! A fleet with real containers under repeated kills, and a fleet on hosts with addresses of their own.
//!
//! What a machine may lack is ignored by name: a container engine, root. `PHALANX_FLEET_ROUNDS=50` kills more often (5 by default; the least
//! is one of each kind), `PHALANX_FLEET_SEED` repeats a sequence; both are printed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::disallowed_methods
)]

mod namespaces;
#[path = "../fleet/proxy.rs"]
#[allow(dead_code)] // the other test uses all of it
mod proxy;
#[path = "../fleet/rig.rs"]
#[allow(dead_code)]
mod rig;
mod rounds;

use libtest_mimic::{Arguments, Trial};
use std::process::{Command, ExitCode, Stdio};

fn works(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    let command = command.args(arguments).stdin(Stdio::null());
    command.output().is_ok_and(|output| output.status.success())
}

fn main() -> ExitCode {
    let engine = works("docker", &["version"]) && works("busybox", &["true"]);
    let namespaces = nix::unistd::geteuid().is_root() && works("ip", &["netns", "list"]);
    let trials = vec![
        Trial::test(
            "kill rounds with real containers (needs docker and busybox)",
            || {
                rounds::all();
                Ok(())
            },
        )
        .with_ignored_flag(!engine),
        Trial::test(
            "agents on hosts of their own, one cut off and healed (needs root and ip)",
            || {
                namespaces::one_is_cut_off_and_healed();
                Ok(())
            },
        )
        .with_ignored_flag(!namespaces),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
