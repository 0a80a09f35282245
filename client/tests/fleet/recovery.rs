//! A kill or a cut costs no finished step and gives no cell two outcomes.

use crate::proxy::Proxy;
use crate::rig::{Fleet, attempts, eventually, process_exists};
use nix::sys::signal::Signal;
use std::time::Duration;

const ALL: [u32; 4] = [1, 2, 3, 4];

fn once(attempted: &[(String, usize)]) -> bool {
    attempted.iter().all(|(_, attempts)| *attempts == 1)
}

#[test]
fn a_coordinator_killed_in_the_middle_of_a_run_goes_on_and_no_finished_step_runs_again() {
    let fleet = Fleet::new();
    let mut at = fleet.serve();
    let _agents = [
        fleet.agent("a", &at.url(), 2),
        fleet.agent("b", &at.url(), 2),
    ];
    fleet.wait_for_state(&at, "a", "connected");
    fleet.wait_for_state(&at, "b", "connected");
    let run = fleet.submit(&at, "run", &[]);
    let mut watching = fleet.phalanx(&["watch", &run.id]);
    let watching = watching.env("PHALANX_COORDINATOR", at.url());
    let mut watching = watching
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    run.wait_at_gate(&ALL, 1);
    for _ in 0..2 {
        let address = at.killed();
        at = fleet.serve_at(&address);
        fleet.wait_for_state(&at, "a", "connected");
        fleet.wait_for_state(&at, "b", "connected");
    }
    run.open_gate();
    let shown = fleet.finished(&at, &run);
    assert_eq!(shown["outcome"], "passed", "{shown:#}");
    assert!(once(&attempts(&shown)), "{:?}", attempts(&shown));
    for n in ALL {
        assert_eq!(run.marks(n), ["begins", "ends"], "cell {n}");
    }
    // The watching client saw the whole run.
    assert_eq!(watching.wait().unwrap().code(), Some(0));
}

#[test]
fn what_ends_while_the_coordinator_is_down_is_told_afterwards() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let _agent = fleet.agent("a", &at.url(), 4);
    fleet.wait_for_state(&at, "a", "connected");
    let run = fleet.submit(&at, "run", &[]);
    run.wait_at_gate(&ALL, 1);
    let address = at.killed();
    run.open_gate();
    eventually("the cells end by themselves", || {
        ALL.iter().all(|n| run.marks(*n).len() == 2).then_some(())
    });
    let at = fleet.serve_at(&address);
    let shown = fleet.finished(&at, &run);
    assert_eq!(shown["outcome"], "passed", "{shown:#}");
    assert!(once(&attempts(&shown)), "{:?}", attempts(&shown));
}

#[test]
fn a_killed_agents_cells_run_again_at_once_and_its_successor_clears_up() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let mut dying = fleet.agent("a", &at.url(), 4);
    fleet.wait_for_state(&at, "a", "connected");
    let run = fleet.submit(&at, "run", &[]);
    run.wait_at_gate(&ALL, 1);
    let _other = fleet.agent("b", &at.url(), 4);
    fleet.wait_for_state(&at, "b", "connected");
    dying.kill();
    run.wait_at_gate(&ALL, 2);
    // Its death was reported: the coordinator didn't wait for the end of the lease.
    at.process.wait_for("its process died");
    let successor = fleet.agent("a", &at.url(), 4);
    fleet.wait_for_state(&at, "a", "connected");
    for n in ALL {
        let first = run.waiters(n)[0].clone();
        eventually("nothing of the dead agent runs", || {
            (!process_exists(&first)).then_some(())
        });
        assert!(
            process_exists(&run.waiters(n)[1]),
            "cell {n} runs at the other agent"
        );
    }
    run.open_gate();
    let shown = fleet.finished(&at, &run);
    assert_eq!(shown["outcome"], "passed", "{}", successor.said());
    for (cell, attempts) in attempts(&shown) {
        assert_eq!(attempts, 2, "{cell}");
    }
    for n in ALL {
        assert_eq!(run.marks(n), ["begins", "begins", "ends"], "cell {n}");
    }
    assert!((at.metric("phalanx_agents_lost_total") - 1.0).abs() < 0.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_for_less_than_the_lease_costs_nothing() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let proxy = Proxy::start(at.address).await;
    let agent = fleet.agent("a", &proxy.address, 4);
    fleet.wait_for_state(&at, "a", "connected");
    let run = fleet.submit(&at, "run", &[]);
    run.wait_at_gate(&ALL, 1);
    for cut in 1..=5 {
        proxy.cut();
        eventually("it is back", || {
            let came = at.process.said().matches("agent connected").count();
            (came > cut).then_some(())
        });
    }
    // Also drop everything for a while.
    proxy.swallow();
    tokio::time::sleep(Duration::from_secs(2)).await;
    proxy.heal();
    run.open_gate();
    let shown = fleet.finished(&at, &run);
    assert_eq!(shown["outcome"], "passed", "{}", agent.said());
    assert!(once(&attempts(&shown)), "{:?}", attempts(&shown));
    for n in ALL {
        assert_eq!(run.marks(n), ["begins", "ends"], "cell {n}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_cut_off_for_longer_stops_first_and_its_late_words_are_fenced() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let proxy = Proxy::start(at.address).await;
    let away = fleet.agent("away", &proxy.address, 4);
    fleet.wait_for_state(&at, "away", "connected");
    let run = fleet.submit(&at, "run", &[]);
    run.wait_at_gate(&ALL, 1);
    let _here = fleet.agent("here", &at.url(), 4);
    fleet.wait_for_state(&at, "here", "connected");
    proxy.swallow();
    for n in ALL {
        run.wait_at_gate(&[n], 2);
        // The second attempt runs, and nothing of the first one is left.
        assert!(
            !process_exists(&run.waiters(n)[0]),
            "cell {n}: {}",
            away.said()
        );
    }
    proxy.heal();
    fleet.wait_for_state(&at, "away", "connected");
    run.open_gate();
    let shown = fleet.finished(&at, &run);
    assert_eq!(shown["outcome"], "passed", "{}", away.said());
    for (cell, attempts) in attempts(&shown) {
        assert_eq!(attempts, 2, "{cell}");
    }
    for n in ALL {
        assert_eq!(run.marks(n), ["begins", "begins", "ends"], "cell {n}");
    }
}

#[test]
fn an_agent_is_drained_and_replaced_while_a_run_goes_on() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let mut old = fleet.agent("a", &at.url(), 2);
    fleet.wait_for_state(&at, "a", "connected");
    let run = fleet.submit(&at, "run", &[]);
    // Two of the cells run, two wait.
    let begun = || {
        ALL.into_iter()
            .filter(|n| run.waiters(*n).len() == 1)
            .collect::<Vec<_>>()
    };
    let first = eventually("two cells run", || {
        Some(begun()).filter(|cells| cells.len() == 2)
    });
    let (code, _, said) = fleet.call(&at, &["drain", "a"]);
    assert_eq!(code, Some(0), "{said}");
    fleet.wait_for_state(&at, "a", "draining");
    run.open_gate();
    assert_eq!(old.end().code(), Some(0), "{}", old.said());
    for n in ALL {
        let marks: &[&str] = if first.contains(&n) {
            &["begins", "ends"]
        } else {
            &[]
        };
        assert_eq!(run.marks(n), marks, "cell {n}");
    }
    // The same identity, as after an upgrade; SIGTERM also drains.
    let mut new = fleet.agent("a", &at.url(), 2);
    let shown = fleet.finished(&at, &run);
    assert_eq!(shown["outcome"], "passed", "{}", new.said());
    assert!(once(&attempts(&shown)), "{:?}", attempts(&shown));
    new.signal(Signal::SIGTERM);
    assert_eq!(new.end().code(), Some(0), "{}", new.said());
}
