//! Agents in network namespaces, each connected to the coordinator's host by a cable that can be pulled.

use crate::rig::{Fleet, Process, attempts, process_exists};
use std::process::Command;
use std::time::Instant;

/// A network namespace, removed when dropped.
struct Host {
    name: String,
    cable: String,
    gateway: String,
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "ip {arguments:?}: {said}");
}

impl Host {
    fn new(n: u32) -> Host {
        let (us, id) = (std::process::id() % 10_000, std::process::id() % 60);
        let host = Host {
            name: format!("phx-{us}-{n}"),
            cable: format!("phx{us}v{n}"),
            // A network of four addresses in the block for tests of networks (RFC 2544).
            gateway: format!("198.18.{id}.{}", n * 4 + 1),
        };
        let (name, cable) = (host.name.as_str(), host.cable.as_str());
        ip(&["netns", "add", name]);
        ip(&[
            "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name,
        ]);
        ip(&["addr", "add", &format!("{}/30", host.gateway), "dev", cable]);
        ip(&["link", "set", cable, "up"]);
        let own = format!("198.18.{id}.{}/30", n * 4 + 2);
        ip(&["-n", name, "addr", "add", &own, "dev", "eth0"]);
        ip(&["-n", name, "link", "set", "eth0", "up"]);
        ip(&["-n", name, "link", "set", "lo", "up"]);
        host
    }

    fn agent(&self, fleet: &Fleet, name: &str, port: u16) -> Process {
        let url = format!("http://{}:{port}", self.gateway);
        fleet.agent_within(&["ip", "netns", "exec", &self.name], name, &url, 4)
    }

    fn pull(&self) {
        ip(&["link", "set", &self.cable, "down"]);
    }

    fn plug(&self) {
        ip(&["link", "set", &self.cable, "up"]);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The cable is removed with its namespace.
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .output();
        let _ = Command::new("ip")
            .args(["link", "del", &self.cable])
            .output();
    }
}

pub fn one_is_cut_off_and_healed() {
    let fleet = Fleet::new();
    let hosts = [Host::new(0), Host::new(1)];
    let at = fleet.serve_at_with("0.0.0.0:0", &["--insecure"]);
    let port = at.address.port();
    let away = hosts[0].agent(&fleet, "away", port);
    fleet.wait_for_state(&at, "away", "connected");
    let run = fleet.submit(&at, "run", &[]);
    run.wait_at_gate(&[1, 2, 3, 4], 1);
    let _here = hosts[1].agent(&fleet, "here", port);
    fleet.wait_for_state(&at, "here", "connected");

    hosts[0].pull();
    let pulled = Instant::now();
    for n in 1..=4 {
        run.wait_at_gate(&[n], 2);
        let after = pulled.elapsed();
        println!("cable pulled → cell {n} runs elsewhere: {after:.1?}");
        // The agent noticed by itself, without any message.
        assert!(
            !process_exists(&run.waiters(n)[0]),
            "cell {n}: {}",
            away.said()
        );
    }
    hosts[0].plug();
    fleet.wait_for_state(&at, "away", "connected");
    run.open_gate();
    let shown = fleet.finished(&at, &run);
    assert_eq!(shown["outcome"], "passed", "{}", away.said());
    for (cell, attempts) in attempts(&shown) {
        assert_eq!(attempts, 2, "{cell}");
    }
    for n in 1..=4 {
        assert_eq!(run.marks(n), ["begins", "begins", "ends"], "cell {n}");
    }
}
