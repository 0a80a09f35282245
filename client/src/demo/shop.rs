//! The shop itself: orders, tokens and sessions. It is pure: time and random values are parameters.

use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The articles on sale.
pub const SKUS: [&str; 3] = ["book", "lamp", "pen"];

/// A release, such as `v1.8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
}

impl Version {
    /// The first release with an event stream.
    pub const FIRST_WITH_EVENTS: Version = Version { major: 1, minor: 9 };
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no release: write v1.8");
        let (major, minor) = text
            .strip_prefix('v')
            .unwrap_or(text)
            .split_once('.')
            .ok_or_else(wrong)?;
        Ok(Version {
            major: major.parse().map_err(|_| wrong())?,
            minor: minor.parse().map_err(|_| wrong())?,
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}", self.major, self.minor)
    }
}

/// The orders, and the tokens and sessions that are signed in.
#[derive(Debug, Default)]
pub struct Shop {
    orders: BTreeMap<u64, Placed>,
    next: u64,
    tokens: BTreeSet<String>,
    sessions: BTreeSet<String>,
    attempts: BTreeMap<String, u64>,
}

#[derive(Clone, Debug)]
struct Placed {
    sku: String,
    quantity: u64,
    at: Duration,
}

/// An order, as clients see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Order {
    /// Number of the order, counted from 1.
    pub id: u64,
    /// Article; one of [`SKUS`].
    pub sku: String,
    /// Quantity, at least 1.
    pub quantity: u64,
    /// `received`, then `billed`.
    pub state: &'static str,
}

impl Shop {
    /// Places an order, or returns an error if it is invalid.
    pub fn order(&mut self, sku: &str, quantity: u64, now: Duration) -> Result<Order, String> {
        if !SKUS.contains(&sku) {
            return Err(format!(
                "there is no `{sku}`: choose one of {}",
                SKUS.join(", ")
            ));
        }
        if quantity == 0 {
            return Err("quantity must be at least 1".to_owned());
        }
        self.next += 1;
        let placed = Placed {
            sku: sku.to_owned(),
            quantity,
            at: now,
        };
        self.orders.insert(self.next, placed.clone());
        Ok(view(self.next, &placed, now, Duration::MAX))
    }

    /// Returns an order; it is billed once it is older than `billing`.
    pub fn find(&self, id: u64, now: Duration, billing: Duration) -> Option<Order> {
        Some(view(id, self.orders.get(&id)?, now, billing))
    }

    /// Returns all orders, or those in a state, oldest first.
    pub fn list(&self, state: Option<&str>, now: Duration, billing: Duration) -> Vec<Order> {
        self.orders
            .iter()
            .map(|(id, placed)| view(*id, placed, now, billing))
            .filter(|order| state.is_none_or(|state| state == order.state))
            .collect()
    }

    /// Removes an order. Returns `false` if it doesn't exist.
    pub fn remove(&mut self, id: u64) -> bool {
        self.orders.remove(&id).is_some()
    }

    /// Adds a valid bearer token.
    pub fn admit(&mut self, token: String) {
        self.tokens.insert(token);
    }

    /// Returns whether the token is valid.
    pub fn admits(&self, token: &str) -> bool {
        self.tokens.contains(token)
    }

    /// Opens a session for a user who has signed in.
    pub fn open_session(&mut self, session: String) {
        self.sessions.insert(session);
    }

    /// Returns whether the session is open.
    pub fn has_session(&self, session: &str) -> bool {
        self.sessions.contains(session)
    }

    /// Counts the requests for a key; the first `fails` requests fail. Returns whether this one succeeds, and its
    /// number from 1.
    pub fn try_flaky(&mut self, key: &str, fails: u64) -> (bool, u64) {
        let attempt = self.attempts.entry(key.to_owned()).or_default();
        *attempt += 1;
        (*attempt > fails, *attempt)
    }
}

fn view(id: u64, placed: &Placed, now: Duration, billing: Duration) -> Order {
    let billed = now.saturating_sub(placed.at) >= billing;
    Order {
        id,
        sku: placed.sku.clone(),
        quantity: placed.quantity,
        state: if billed { "billed" } else { "received" },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn releases_compare_by_number() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        assert!(version("v1.8") < Version::FIRST_WITH_EVENTS);
        assert!(version("v1.10") > Version::FIRST_WITH_EVENTS);
        assert_eq!(version("2.0").to_string(), "v2.0");
        assert!("two".parse::<Version>().is_err());
        assert!("v1.x".parse::<Version>().is_err());
    }

    #[test]
    fn an_order_is_billed_after_a_while() {
        let mut shop = Shop::default();
        let (billing, at) = (Duration::from_secs(2), Duration::from_secs(10));
        let order = shop.order("lamp", 3, at).unwrap();
        assert_eq!((order.id, order.state), (1, "received"));
        let state = |now| {
            shop.find(1, Duration::from_secs(now), billing)
                .unwrap()
                .state
        };
        assert_eq!((state(11), state(12)), ("received", "billed"));
        assert_eq!(shop.list(Some("billed"), at, billing), []);
        assert!(shop.remove(1) && !shop.remove(1));
        assert!(shop.find(1, at, billing).is_none());
    }

    #[test]
    fn a_wrong_order_is_refused_with_advice() {
        let mut shop = Shop::default();
        assert!(
            shop.order("boat", 1, Duration::ZERO)
                .unwrap_err()
                .contains("book, lamp")
        );
        assert!(shop.order("book", 0, Duration::ZERO).is_err());
    }

    #[test]
    fn a_flaky_key_fails_as_often_as_asked() {
        let mut shop = Shop::default();
        let results: Vec<bool> = (0..3).map(|_| shop.try_flaky("k", 2).0).collect();
        assert_eq!(results, [false, false, true]);
        assert!(shop.try_flaky("other", 0).0);
    }
}
