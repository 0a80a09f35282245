//! What Phalanx promises, tried as users and strangers would: the inputs of `tests/field/` (each with the right value in its
//! `expect.txt`) and attacks on a coordinator, its agents and their machine. A module for each kind.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)]

mod bombs;
mod command_line;
mod compose;
mod damage;
mod freezes;
mod language;
mod large;
mod paths;
mod peers;
mod place;
mod policy;
mod secrets;
mod steps;
mod waits;

#[path = "../engine_lab/mod.rs"]
mod engine_lab;
#[path = "../fleet/rig.rs"]
#[allow(dead_code)] // Each test program uses a part.
mod rig;

use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;

/// What a test needs beyond the programs that every machine has. A test whose name says `(needs python3)` runs a script of Python's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Nothing,
    Engine,
    Root,
}

/// A test: what it needs, its name as a sentence, and itself. It fails by a panic.
pub type Test = (Need, &'static str, fn());

fn main() -> ExitCode {
    let engine = engine_lab::usable_engine();
    let python = engine_lab::works("python3", &["--version"]);
    let root = nix::unistd::geteuid().is_root();
    let tests = [
        bombs::tests(),
        command_line::tests(),
        compose::tests(),
        damage::tests(),
        freezes::tests(),
        language::tests(),
        large::tests(),
        paths::tests(),
        peers::tests(),
        policy::tests(),
        secrets::tests(),
        steps::tests(),
        waits::tests(),
    ];
    let trials = tests.into_iter().flatten().map(|(need, name, test)| {
        let run = move || match std::panic::catch_unwind(test) {
            Ok(()) => Ok(()),
            Err(_) => Err(Failed::from("panicked, see above")),
        };
        let needed = match need {
            Need::Nothing => true,
            Need::Engine => engine,
            Need::Root => root,
        };
        let here = needed && (python || !name.contains(engine_lab::NEEDS_PYTHON));
        let name = match need {
            Need::Root => format!("{name} (needs root)"),
            Need::Nothing | Need::Engine => name.to_owned(),
        };
        Trial::test(name, run).with_ignored_flag(!here)
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}
