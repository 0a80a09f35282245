//! Things that are made on request, shared while somebody uses them, and kept for a moment longer. Pure.
//!
//! A page and its event stream are two requests: what the first one made is still there for the second one, and for a
//! browser that connects again.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

/// How long something stays after its last use.
const LINGER: Duration = Duration::from_secs(30);

/// A bounded set of shared things by their keys.
pub struct Shelf<K, T> {
    limit: usize,
    things: HashMap<K, (Arc<T>, Duration)>,
}

impl<K: Hash + Eq + Clone, T> Shelf<K, T> {
    /// Creates an empty shelf for up to `limit` things.
    pub fn new(limit: usize) -> Self {
        Shelf {
            limit,
            things: HashMap::new(),
        }
    }

    /// Returns the thing with this key, and notes that it was used.
    pub fn get(&mut self, key: &K, now: Duration) -> Option<Arc<T>> {
        let (thing, used) = self.things.get_mut(key)?;
        *used = now;
        Some(Arc::clone(thing))
    }

    /// Adds a thing. If there is no room, the unused one that was used least recently goes. Returns `None` if all are in
    /// use.
    pub fn put(&mut self, key: K, thing: T, now: Duration) -> Option<Arc<T>> {
        if self.things.len() >= self.limit {
            let unused = self.things.iter().filter(|(_, (t, _))| is_unused(t));
            let oldest = unused.min_by_key(|(_, (_, used))| *used);
            let oldest = oldest.map(|(key, _)| key.clone())?;
            self.things.remove(&oldest);
        }
        let thing = Arc::new(thing);
        self.things.insert(key, (Arc::clone(&thing), now));
        Some(thing)
    }

    /// Removes a thing that is of no use any more, also if it is held.
    pub fn remove(&mut self, key: &K, thing: &Arc<T>) {
        let known = self.things.get(key);
        if known.is_some_and(|(known, _)| Arc::ptr_eq(known, thing)) {
            self.things.remove(key);
        }
    }

    /// Returns everything.
    pub fn all(&self) -> Vec<Arc<T>> {
        self.things.values().map(|(t, _)| Arc::clone(t)).collect()
    }

    /// Removes what nobody has used for a while, and returns it: dropping it may take long.
    pub fn sweep(&mut self, now: Duration) -> Vec<Arc<T>> {
        let old = self
            .things
            .iter()
            .filter(|(_, (thing, used))| is_unused(thing) && now.saturating_sub(*used) > LINGER);
        let old: Vec<K> = old.map(|(key, _)| key.clone()).collect();
        let gone = old.iter().filter_map(|key| self.things.remove(key));
        gone.map(|(thing, _)| thing).collect()
    }
}

fn is_unused<T>(thing: &Arc<T>) -> bool {
    Arc::strong_count(thing) == 1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_unused_goes_after_a_while_or_for_want_of_room() {
        let mut shelf = Shelf::new(2);
        let held = shelf.put("a", 1, at(0));
        shelf.put("b", 2, at(1));
        shelf.put("c", 3, at(2));
        assert_eq!(shelf.get(&"b", at(3)), None, "it made room");
        assert_eq!(shelf.get(&"a", at(3)).as_deref(), Some(&1));
        assert_eq!(shelf.sweep(at(100)).len(), 1);
        assert_eq!(shelf.get(&"a", at(100)).as_deref(), Some(&1), "in use");
        drop(held);
    }

    #[test]
    fn only_the_thing_itself_is_removed() {
        let mut shelf = Shelf::new(1);
        let old = shelf.put("a", 1, at(0)).unwrap();
        shelf.remove(&"a", &old);
        shelf.put("a", 2, at(0));
        shelf.remove(&"a", &old);
        assert_eq!(shelf.get(&"a", at(0)).as_deref(), Some(&2));
    }

    #[test]
    fn a_shelf_whose_things_are_all_in_use_takes_no_more() {
        let mut shelf = Shelf::new(1);
        let held = shelf.put("a", 1, at(0));
        assert!(shelf.put("b", 2, at(1)).is_none());
        drop(held);
        assert!(shelf.put("b", 2, at(1)).is_some());
    }
}
