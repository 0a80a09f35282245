//! Two coordinators on one PostgreSQL database: the second takes over from one that is killed or stopped, and what the
//! first still does when it goes on changes nothing.

use crate::cluster::Cluster;
use crate::rig::{Fleet, Process, attempts, eventually};
use crate::{Need, Test};
use nix::sys::signal::Signal;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

pub fn tests() -> Vec<Test> {
    vec![
        (
            Need::Postgres,
            "a standby goes on with the runs of a coordinator that was killed",
            a_killed_leader,
        ),
        (
            Need::Postgres,
            "a coordinator that was stopped and goes on after its standby commits nothing and ends",
            a_stopped_leader,
        ),
    ]
}

/// A port that leads to the coordinator of the day, as a service's address in front of several does.
struct Front {
    address: SocketAddr,
    to: Arc<Mutex<SocketAddr>>,
}

impl Front {
    fn new(to: SocketAddr) -> Front {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let to = Arc::new(Mutex::new(to));
        let target = to.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let to = *target.lock().unwrap();
                let Ok(server) = TcpStream::connect(to) else {
                    continue;
                };
                for (mut from, mut to) in [
                    (client.try_clone().unwrap(), server.try_clone().unwrap()),
                    (server, client),
                ] {
                    std::thread::spawn(move || {
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(std::net::Shutdown::Both);
                    });
                }
            }
        });
        Front { address, to }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Starts a standby, and returns it when it waits.
fn standby(fleet: &Fleet, database: &str) -> Process {
    let standby = fleet.standby(
        "standby",
        &[
            "--listen",
            "127.0.0.1:0",
            "--http",
            "127.0.0.1:0",
            "--database",
            database,
        ],
    );
    standby.wait_for("standby: ");
    assert!(standby.said().contains("leads\n"), "{}", standby.said());
    standby
}

/// Returns where a coordinator listens, once it leads.
fn address(of: &Process) -> SocketAddr {
    eventually("the standby leads", || {
        let said = of.said();
        let (_, rest) = said.split_once("coordinator at http://")?;
        rest.split(": ").next()?.parse().ok()
    })
}

fn finished(fleet: &Fleet, at: SocketAddr, run: &str) -> serde_json::Value {
    let url = format!("http://{at}");
    let call = |arguments: &[&str]| {
        let mut command = fleet.phalanx(arguments);
        command.env("PHALANX_COORDINATOR", &url).output().unwrap()
    };
    call(&["watch", run, "-q"]);
    let shown = call(&["show", run, "--format", "json"]);
    serde_json::from_slice(&shown.stdout).unwrap()
}

fn a_killed_leader() {
    let cluster = Cluster::start().unwrap();
    let database = cluster.database();
    let fleet = Fleet::new();
    let leader = fleet.serve_at_with("127.0.0.1:0", &["--database", &database]);
    let front = Front::new(leader.address);
    let standby = standby(&fleet, &database);
    let _agent = fleet.agent("a", &front.url(), 4);
    fleet.wait_for_state(&leader, "a", "connected");
    let run = fleet.submit(&leader, "run", &[]);
    run.wait_at_gate(&[1, 2], 1);
    let mut leader = leader.process;
    leader.kill();
    let now = address(&standby);
    *front.to.lock().unwrap() = now;
    run.open_gate();
    let shown = finished(&fleet, now, &run.id);
    assert_eq!(shown["outcome"], "passed", "{shown:#}");
    // No step ran twice, and no cell.
    for (cell, attempts) in attempts(&shown) {
        assert_eq!(attempts, 1, "{cell}");
    }
    for n in [1, 2] {
        assert_eq!(run.marks(n), ["begins", "ends"]);
    }
}

fn a_stopped_leader() {
    let cluster = Cluster::start().unwrap();
    let database = cluster.database();
    let fleet = Fleet::new();
    let leader = fleet.serve_at_with("127.0.0.1:0", &["--database", &database]);
    let front = Front::new(leader.address);
    let standby = standby(&fleet, &database);
    let _agent = fleet.agent("a", &front.url(), 4);
    fleet.wait_for_state(&leader, "a", "connected");
    let run = fleet.submit(&leader, "run", &[]);
    run.wait_at_gate(&[1, 2], 1);
    let mut leader = leader.process;
    leader.signal(Signal::SIGSTOP);
    let now = address(&standby);
    *front.to.lock().unwrap() = now;
    // It goes on with what it believed: that it leads, and that its agents and runs are its own.
    leader.signal(Signal::SIGCONT);
    let ended = leader.end();
    assert_eq!(ended.code(), Some(3), "{}", leader.said());
    assert!(
        leader.said().contains("another coordinator leads: "),
        "{}",
        leader.said()
    );
    run.open_gate();
    let shown = finished(&fleet, now, &run.id);
    assert_eq!(shown["outcome"], "passed", "{shown:#}");
    // Every event is there once, and each cell has one verdict.
    let sql = "SELECT count(*) - count(DISTINCT (run, position)), count(*) FILTER (WHERE kind LIKE '%\"cell_finished\"%') FROM events";
    let name = database.rsplit('/').next().unwrap();
    let cells = shown["cells"].as_array().unwrap().len();
    assert_eq!(cluster.sql(name, sql).trim(), format!("0|{cells}"));
}
