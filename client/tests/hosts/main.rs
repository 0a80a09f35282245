//! A fleet with real containers: under repeated kills, on an engine that is restarted, on full disks, and on hosts with
//! their own addresses.
//!
//! Tests that need something the machine lacks (a container engine, root) are ignored by name.
//! `PHALANX_FLEET_ROUNDS=50` kills more often (default 5, one of each kind, which is the minimum). `PHALANX_FLEET_SEED`
//! repeats a sequence. Both values are printed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::disallowed_methods
)]

#[path = "../../../agent/tests/docker/daemon.rs"]
mod daemon;
mod disks;
mod engine;
#[path = "../../../agent/tests/docker/image.rs"]
mod image;
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
    let disks = nix::unistd::geteuid().is_root() && works("mount", &["--version"]);
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
        Trial::test(
            "the coordinator's disk is full for a while (needs root)",
            || {
                disks::the_coordinators_disk_is_full_for_a_while();
                Ok(())
            },
        )
        .with_ignored_flag(!disks),
        Trial::test("an agent's disk is full for a while (needs root)", || {
            disks::an_agents_disk_is_full_for_a_while();
            Ok(())
        })
        .with_ignored_flag(!disks),
        Trial::test(
            "a second engine is restarted under a remote run (needs docker and busybox)",
            || {
                engine::it_is_restarted_under_a_remote_run();
                Ok(())
            },
        )
        .with_ignored_flag(!engine),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
