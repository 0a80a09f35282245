//! Agents that are started for the cells that wait, and stop by themselves.

use crate::rig::{Coordinator, Fleet, eventually};
use std::process::{Child, Command, Stdio};

/// Starts an agent that isn't meant to stay.
fn agent(fleet: &Fleet, at: &Coordinator, name: &str, stay: &[&str]) -> Agent {
    let identity = fleet.path(name);
    let mut command: Command = fleet.phalanx(&["agent", "--allow", "all", "--name", name]);
    command.args(["--coordinator", &at.url(), "--identity-dir"]);
    command.arg(identity).args(stay).stdout(Stdio::null());
    Agent(command.stderr(Stdio::null()).spawn().unwrap())
}

struct Agent(Child);

impl Agent {
    fn end(mut self) -> Option<i32> {
        let ended = eventually("the agent stops by itself", || self.0.try_wait().unwrap());
        ended.code()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn agents_that_are_started_for_waiting_cells_run_them_and_stop() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let run = fleet.submit(&at, "run", &[]);
    run.open_gate();
    let hint = |more: &[&str]| {
        let mut arguments = vec!["scale-hint"];
        arguments.extend(more);
        let (code, stdout, stderr) = fleet.call(&at, &arguments);
        assert_eq!(code, Some(0), "{stderr}");
        stdout
    };
    let cells: u32 = eventually("all cells wait", || {
        let shown = fleet.show(&at, &run);
        let cells = u32::try_from(shown["cells"].as_array().unwrap().len()).unwrap();
        (hint(&[]) == format!("{cells}\n")).then_some(cells)
    });
    assert!(cells > 1);
    assert_eq!(hint(&["--slots", "1000"]), "1\n");
    assert_eq!(hint(&["--slots", "1000", "--min", "2"]), "2\n");
    assert_eq!(
        at.metric("phalanx_slots_wanted{labels=\"\"}"),
        f64::from(cells)
    );

    // One agent for one cell: the others still wait.
    assert_eq!(agent(&fleet, &at, "once", &["--once"]).end(), Some(0));
    let shown = fleet.show(&at, &run);
    let ended = shown["cells"].as_array().unwrap().iter();
    let ended = ended.filter(|cell| cell["outcome"] == "passed").count();
    assert_eq!(ended, 1, "{shown:#}");
    assert_eq!(hint(&[]), format!("{}\n", cells - 1));

    // An agent that runs the rest, and stops when nothing comes any more.
    let rest = agent(&fleet, &at, "rest", &["--idle-exit", "1s", "--slots", "8"]);
    assert_eq!(fleet.finished(&at, &run)["outcome"], "passed");
    assert_eq!(rest.end(), Some(0));
    assert_eq!(hint(&[]), "0\n");
    // Nobody lost an agent over it.
    assert_eq!(
        at.metric("phalanx_cells_finished_total{outcome=\"passed\"}"),
        f64::from(cells)
    );
}

#[test]
fn an_agent_without_a_coordinator_stops_when_its_time_is_over() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let url = at.url();
    drop(at);
    let mut command = fleet.phalanx(&["agent", "--name", "alone", "--coordinator", &url]);
    command.arg("--identity-dir").arg(fleet.path("alone"));
    command.args(["--idle-exit", "1s"]).stderr(Stdio::null());
    assert_eq!(Agent(command.spawn().unwrap()).end(), Some(0));
}

#[test]
fn once_takes_no_slots_and_a_time_must_be_one() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    for (arguments, said) in [
        (
            &["agent", "--once", "--slots", "2"][..],
            "cannot be used with",
        ),
        (
            &["agent", "--idle-exit", "soon"],
            "not a time; write 90s or 10m",
        ),
        (
            &["scale-hint", "--memory", "much"],
            "not a size; write 16GiB",
        ),
        (
            &["scale-hint", "--min", "3", "--max", "2"],
            "--max is less than --min",
        ),
    ] {
        let (code, _, stderr) = fleet.call(&at, arguments);
        assert!(
            code == Some(2) && stderr.contains(said),
            "{arguments:?}: {stderr}"
        );
    }
}
