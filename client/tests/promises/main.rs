//! Checks the promises of Phalanx as users and strangers would: with the inputs of `tests/field/` (each has the right
//! result in its `expect.txt`), and with attacks on a coordinator, its agents and their machine. Each kind has its own
//! module.
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
mod standby;
mod steps;
mod waits;

#[path = "../../../coordinator/tests/store/cluster.rs"]
#[allow(dead_code)] // Each test program uses a part.
mod cluster;
#[path = "../engine_lab/mod.rs"]
mod engine_lab;
#[path = "../fleet/rig.rs"]
#[allow(dead_code)] // Each test program uses a part.
mod rig;

use libtest_mimic::{Arguments, Failed, Trial};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

/// What a test needs that not every machine has. A test whose name contains `(needs python3)` runs a Python script.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Nothing,
    Engine,
    Root,
    Postgres,
}

/// The attack scripts of the audit. They aren't in this repository; each has a row in the README.
const SCRIPTS: &str = "basic bomb cells clone_reason config_redirect conns corrupt corrupt2 cp_escape crash_loop crash_loop2 disasters disk flap \
     history lib load2 lying_agent lying_logs masks memory noisy orphans own_secret policy proc_leak refusal show200k signals text_bomb uploads \
     word_secret";

/// Checks that every input and every script has a row, and that every test in a row exists.
fn the_table_is_whole() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let table = fs::read_to_string(here.join("promises/README.md")).unwrap();
    let rows: BTreeMap<&str, &str> = table
        .lines()
        .filter_map(|line| {
            line.strip_prefix("| ")?
                .strip_suffix(" |")?
                .split_once(" | ")
        })
        .collect();
    let names = |directory: &str| {
        let entries = fs::read_dir(here.join(directory)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap())
    };
    let inputs = names("field").filter(|name| name != "ux");
    let inputs = inputs.chain(names("field/ux").map(|name| format!("ux/{name}")));
    let scripts = SCRIPTS.split_whitespace().map(|name| format!("{name}.py"));
    for input in inputs.chain(scripts) {
        assert!(rows.contains_key(input.as_str()), "{input} has no row");
    }
    for (input, tests) in rows {
        let named = tests
            .split([',', ';', ' '])
            .filter_map(|word| word.split_once("::"));
        for (file, function) in named {
            let text = fs::read_to_string(here.join("promises").join(file));
            let text = text.unwrap_or_else(|_| panic!("{input}: there is no {file}"));
            // The test is in the list of tests, and is a function.
            for part in [
                format!("            {function},\n"),
                format!("fn {function}() {{"),
            ] {
                assert!(
                    text.contains(&part),
                    "{input}: {file} has no test {function}"
                );
            }
        }
    }
}

/// A test: its needs, its name as a sentence, and its function, which panics on failure.
pub type Test = (Need, &'static str, fn());

fn main() -> ExitCode {
    let engine = engine_lab::usable_engine();
    let python = engine_lab::works("python3", &["--version"]);
    let postgres = cluster::is_installed();
    let root = nix::unistd::geteuid().is_root();
    let table: Test = (
        Need::Nothing,
        "every input and every attack script has a test that exists",
        the_table_is_whole,
    );
    let tests = [
        vec![table],
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
        standby::tests(),
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
            Need::Postgres => postgres,
        };
        let here = needed && (python || !name.contains(engine_lab::NEEDS_PYTHON));
        let name = match need {
            Need::Root => format!("{name} (needs root)"),
            Need::Nothing | Need::Engine | Need::Postgres => name.to_owned(),
        };
        Trial::test(name, run).with_ignored_flag(!here)
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}
