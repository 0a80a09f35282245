//! Programs that are stopped for longer than the lease and then continue, and second processes where only one is
//! allowed.

use crate::rig::{BOUND, Coordinator, Fleet, Process, Run, attempts, eventually, process_exists};
use crate::{Need, Test};
use nix::sys::signal::Signal::{SIGCONT, SIGSTOP};
use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

pub fn tests() -> Vec<Test> {
    vec![
        (
            Need::Nothing,
            "an agent stopped for longer than its lease loses its cells once, and comes back",
            a_stopped_agent,
        ),
        (
            Need::Nothing,
            "a coordinator stopped for longer than the lease goes on",
            a_stopped_coordinator,
        ),
        (
            Need::Nothing,
            "a whole fleet that was stopped goes on",
            a_stopped_fleet,
        ),
        (
            Need::Nothing,
            "a second coordinator and a second agent of one directory say so and leave",
            second_ones,
        ),
    ]
}

const ALL: [u32; 4] = [1, 2, 3, 4];
/// Longer than the lease and its margin.
const LONG: Duration = Duration::from_secs(6);

/// Starts two agents that share the four cells of a run, which wait at the gate. The lease is short.
fn begun() -> (Fleet, Coordinator, [Process; 2], Run) {
    let fleet = Fleet::new();
    let settings = fleet.path(".config/phalanx/config.toml");
    fs::create_dir_all(settings.parent().unwrap()).unwrap();
    let lease = "[lease]\ntime_s = 3\nmargin_s = 1\nheartbeat_ms = 500\nreset_grace_s = 4\n";
    fs::write(settings, lease).unwrap();
    let at = fleet.serve();
    let agents = ["a", "b"].map(|name| {
        let agent = fleet.agent(name, &at.url(), 4);
        fleet.wait_for_state(&at, name, "connected");
        agent
    });
    let run = fleet.submit(&at, "run", &[]);
    run.wait_at_gate(&ALL, 1);
    (fleet, at, agents, run)
}

/// Checks that the run passes, and that each cell ended once and began once for each attempt.
fn passes(fleet: &Fleet, at: &Coordinator, run: &Run, most: usize) {
    run.open_gate();
    let shown = fleet.finished(at, run);
    assert_eq!(shown["outcome"], "passed", "{shown:#}");
    let attempted = attempts(&shown);
    assert!(attempted.iter().all(|(_, n)| *n <= most), "{attempted:?}");
    for n in ALL {
        let ends = run.marks(n).iter().filter(|mark| *mark == "ends").count();
        assert_eq!(ends, 1, "cell {n}: {:?}", run.marks(n));
        // Everything that a lost attempt had started is gone.
        eventually("no waiter is left", || {
            let waiters = run.waiters(n);
            (!waiters.iter().any(|id| process_exists(id))).then_some(())
        });
    }
    for name in ["a", "b"] {
        fleet.wait_for_state(at, name, "connected");
    }
}

fn a_stopped_agent() {
    let (fleet, at, agents, run) = begun();
    let own = |n: &u32| {
        let shown = fleet.show(&at, &run);
        let mut cells = shown["cells"].as_array().unwrap().iter();
        let cell = cells
            .rfind(|cell| cell["name"] == format!("cell {n}"))
            .unwrap();
        cell.to_string().contains("\"a\"")
    };
    let held: Vec<u32> = ALL.into_iter().filter(own).collect();
    agents[0].signal(SIGSTOP);
    fleet.wait_for_state(&at, "a", "lost");
    run.wait_at_gate(&held, 2);
    agents[0].signal(SIGCONT);
    fleet.wait_for_state(&at, "a", "connected");
    for n in &held {
        eventually("the first attempt is ended", || {
            (!process_exists(&run.waiters(*n)[0])).then_some(())
        });
    }
    passes(&fleet, &at, &run, 2);
}

fn a_stopped_coordinator() {
    let (fleet, at, _agents, run) = begun();
    at.process.signal(SIGSTOP);
    sleep(LONG);
    at.process.signal(SIGCONT);
    for name in ["a", "b"] {
        fleet.wait_for_state(&at, name, "connected");
    }
    passes(&fleet, &at, &run, 2);
}

fn a_stopped_fleet() {
    let (fleet, at, agents, run) = begun();
    let all = || agents.iter().chain([&at.process]);
    all().for_each(|process| process.signal(SIGSTOP));
    sleep(LONG);
    all().for_each(|process| process.signal(SIGCONT));
    passes(&fleet, &at, &run, 2);
}

fn second_ones() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let _agent = fleet.agent("a", &at.url(), 4);
    fleet.wait_for_state(&at, "a", "connected");
    let identity = fleet.path("agent-a");
    let url = at.url();
    let agent = [
        "agent",
        "--coordinator",
        &url,
        "--identity-dir",
        identity.to_str().unwrap(),
    ];
    for (arguments, said) in [
        (
            &["serve", "--listen", "127.0.0.1:0", "--http", ""][..],
            "is in use by another coordinator",
        ),
        (&agent[..], "is in use by another agent"),
    ] {
        let own = fleet.phalanx(arguments);
        let mut bounded = Command::new("timeout");
        bounded.arg(BOUND.as_secs().to_string());
        bounded.arg(own.get_program()).args(own.get_args());
        bounded.env_clear();
        bounded.envs(own.get_envs().filter_map(|(k, v)| Some((k, v?))));
        let output = bounded.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{stderr}");
        assert!(stderr.contains(said), "{said}: {stderr}");
    }
    let run = fleet.submit(&at, "run", &[]);
    run.open_gate();
    assert_eq!(fleet.finished(&at, &run)["outcome"], "passed");
}
