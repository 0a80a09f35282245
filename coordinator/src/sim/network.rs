//! Connections and what happens to messages on them.

use super::random::Random;
use super::tally::Tally;
use crate::dispatch::core::ConnectionId;
use phalanx_proto::link::{FromAgent, ToAgent};
use std::collections::BTreeMap;
use std::time::Duration;

/// How unreliable the network is, in thousandths per message.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub lose: u64,
    pub double: u64,
    pub delay: u64,
    pub reorder: u64,
}

impl Weather {
    /// Nothing goes wrong.
    pub const CALM: Weather = Weather {
        lose: 0,
        double: 0,
        delay: 0,
        reorder: 0,
    };
}

/// A message and its direction.
#[derive(Clone, Debug)]
pub enum Message {
    Up(FromAgent),
    Down(ToAgent),
}

#[derive(Debug)]
struct Wire {
    agent: usize,
    /// Latest arrival time per direction. A later message doesn't arrive before it, unless it is reordered.
    last: [Duration; 2],
}

/// All open connections.
#[derive(Debug, Default)]
pub struct Network {
    wires: BTreeMap<ConnectionId, Wire>,
    opened: ConnectionId,
    /// Until when each partitioned agent is cut off.
    partitions: BTreeMap<usize, Duration>,
}

impl Network {
    pub fn open(&mut self, agent: usize) -> ConnectionId {
        self.opened += 1;
        let wire = Wire {
            agent,
            last: [Duration::ZERO; 2],
        };
        self.wires.insert(self.opened, wire);
        self.opened
    }

    pub fn agent(&self, connection: ConnectionId) -> Option<usize> {
        self.wires.get(&connection).map(|wire| wire.agent)
    }

    pub fn of_agent(&self, agent: usize) -> Vec<ConnectionId> {
        let of_agent = |(id, wire): (&ConnectionId, &Wire)| (wire.agent == agent).then_some(*id);
        self.wires.iter().filter_map(of_agent).collect()
    }

    pub fn all(&self) -> Vec<(ConnectionId, usize)> {
        self.wires
            .iter()
            .map(|(id, wire)| (*id, wire.agent))
            .collect()
    }

    pub fn close(&mut self, connection: ConnectionId) {
        self.wires.remove(&connection);
    }

    pub fn part(&mut self, agent: usize, until: Duration) {
        self.partitions.insert(agent, until);
    }

    pub fn heal(&mut self) {
        self.partitions.clear();
    }

    pub fn parted(&self, agent: usize, now: Duration) -> bool {
        self.partitions
            .get(&agent)
            .is_some_and(|until| now < *until)
    }

    /// Returns when a message arrives: never, once or twice.
    pub fn send(
        &mut self,
        connection: ConnectionId,
        up: bool,
        now: Duration,
        weather: Weather,
        random: &mut Random,
        tally: &mut Tally,
    ) -> Vec<Duration> {
        let Some(agent) = self.agent(connection) else {
            return Vec::new();
        };
        if self.parted(agent, now) {
            return Vec::new();
        }
        if random.chance(weather.lose) {
            tally.count("message lost");
            return Vec::new();
        }
        let mut times = vec![self.arrival(connection, up, now, weather, random, tally)];
        if random.chance(weather.double) {
            tally.count("message doubled");
            times.push(self.arrival(connection, up, now, weather, random, tally));
        }
        times
    }

    fn arrival(
        &mut self,
        connection: ConnectionId,
        up: bool,
        now: Duration,
        weather: Weather,
        random: &mut Random,
        tally: &mut Tally,
    ) -> Duration {
        let mut at = now + random.millis(1, 15);
        if random.chance(weather.delay) {
            tally.count("message delayed");
            at += random.millis(50, 3000);
        }
        if random.chance(weather.reorder) {
            tally.count("message out of order");
            return at;
        }
        if let Some(wire) = self.wires.get_mut(&connection) {
            let last = &mut wire.last[usize::from(up)];
            at = at.max(*last);
            *last = at;
        }
        at
    }
}
