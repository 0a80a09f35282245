//! Activities that wait for each other, the longest path through them, and what each piece of that path could save.
//!
//! An activity begins when the last of its predecessors ends: what lies between is an activity of its own. So the graph
//! can be measured again with other durations.

use std::collections::BinaryHeap;

/// Index of an activity. Predecessors have smaller ones.
pub(crate) type ActivityId = usize;

/// Something that took time.
#[derive(Clone, Debug)]
pub(crate) struct Activity<T> {
    /// What it was.
    pub data: T,
    /// Start, in microseconds.
    pub begin: u64,
    /// End, in microseconds.
    pub end: u64,
    /// What it waited for.
    after: Vec<ActivityId>,
}

impl<T> Activity<T> {
    /// Returns the duration in microseconds.
    pub fn elapsed(&self) -> u64 {
        self.end.saturating_sub(self.begin)
    }
}

/// Activities in an order in which each comes after those that it waits for.
#[derive(Clone, Debug)]
pub(crate) struct Graph<T> {
    activities: Vec<Activity<T>>,
}

impl<T> Default for Graph<T> {
    fn default() -> Self {
        let activities = Vec::new();
        Graph { activities }
    }
}

impl<T> Graph<T> {
    /// Adds an activity that begins when the last of its predecessors ends (at 0 without any) and ends at `end`, or at
    /// once if that is earlier.
    pub fn add(&mut self, data: T, end: u64, after: &[ActivityId]) -> ActivityId {
        let begin = self.ready(after);
        self.activities.push(Activity {
            data,
            begin,
            end: end.max(begin),
            after: after.to_vec(),
        });
        self.activities.len() - 1
    }

    /// Returns when the last of these activities ends; 0 for none.
    pub fn ready(&self, after: &[ActivityId]) -> u64 {
        after.iter().map(|id| self.end(*id)).max().unwrap_or(0)
    }

    /// Returns an activity.
    pub fn get(&self, id: ActivityId) -> Option<&Activity<T>> {
        self.activities.get(id)
    }

    /// Returns when an activity ends; 0 for an unknown one.
    pub fn end(&self, id: ActivityId) -> u64 {
        self.get(id).map_or(0, |activity| activity.end)
    }

    /// Returns all activities in order.
    pub fn activities(&self) -> &[Activity<T>] {
        &self.activities
    }

    /// Returns the activities that decided when one ended, first to last, itself included. They leave no gaps.
    pub fn path(&self, to: ActivityId) -> Vec<ActivityId> {
        let mut path = Vec::new();
        let mut next = Some(to);
        while let Some(id) = next {
            path.push(id);
            let after = self.get(id).map_or(&[][..], |activity| &activity.after);
            next = after.iter().copied().max_by_key(|id| self.end(*id));
        }
        path.reverse();
        path
    }

    /// Returns when each activity would end if they took as long as `duration` says.
    pub fn ends_with(&self, duration: impl Fn(&Activity<T>) -> u64) -> Vec<u64> {
        let mut ends: Vec<u64> = Vec::with_capacity(self.activities.len());
        for activity in &self.activities {
            let begin = activity.after.iter().filter_map(|id| ends.get(*id)).max();
            let begin = begin.copied().unwrap_or(0);
            ends.push(begin.saturating_add(duration(activity)));
        }
        ends
    }

    /// Returns how much earlier the path's last activity would end if one activity of the path took no time, for each of
    /// them: its duration, or less if another path takes over before. `path` comes from [`Graph::path`].
    ///
    /// A path that avoids an activity has one edge that leads past it in the order of the graph. So the longest of
    /// these paths is that of the longest edge past it: O(n log n) for all activities together.
    pub fn potentials(&self, path: &[ActivityId]) -> Vec<u64> {
        let Some(to) = path.last().copied() else {
            return Vec::new();
        };
        let whole = self.end(to);
        let mut edges = self.edges_to(to).into_iter().peekable();
        let mut past: BinaryHeap<(u64, ActivityId)> = BinaryHeap::new();
        let mut potentials = Vec::with_capacity(path.len());
        for id in path {
            // An edge's origin is one more than the activity, so that 0 is the beginning of everything.
            while let Some((_, target, length)) = edges.next_if(|(origin, ..)| origin <= id) {
                past.push((length, target));
            }
            while past.peek().is_some_and(|(_, target)| target <= id) {
                past.pop();
            }
            let without = past.peek().map_or(0, |(length, _)| *length);
            let elapsed = self.get(*id).map_or(0, Activity::elapsed);
            potentials.push(elapsed.min(whole.saturating_sub(without)));
        }
        potentials
    }

    /// Returns the edges from which a path leads to an activity, ordered by origin: one more than the activity that it
    /// leaves (0 for the beginning), the activity that it enters, and the length of the longest path over it.
    fn edges_to(&self, to: ActivityId) -> Vec<(usize, ActivityId, u64)> {
        // Longest time from an activity's beginning to the end of `to`; `None` if nothing leads there.
        let mut rest: Vec<Option<u64>> = vec![None; to + 1];
        let mut edges = Vec::new();
        for (id, activity) in self.activities.iter().enumerate().take(to + 1).rev() {
            let after = rest.get(id).copied().flatten();
            let after = if id == to { Some(0) } else { after };
            let Some(tail) = after.map(|after| after.saturating_add(activity.elapsed())) else {
                continue;
            };
            if activity.after.is_empty() {
                edges.push((0, id, tail));
            }
            for before in &activity.after {
                edges.push((before + 1, id, self.end(*before).saturating_add(tail)));
                if let Some(known) = rest.get_mut(*before) {
                    *known = (*known).max(Some(tail));
                }
            }
        }
        edges.sort_unstable();
        edges
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A start of 2, then 10 beside 7 (of 4 and 3), then an end of 5.
    fn diamond() -> (Graph<&'static str>, ActivityId) {
        let mut graph = Graph::default();
        let start = graph.add("start", 2, &[]);
        let long = graph.add("long", 12, &[start]);
        let first = graph.add("first", 6, &[start]);
        let second = graph.add("second", 9, &[first]);
        let end = graph.add("end", 17, &[long, second]);
        (graph, end)
    }

    #[test]
    fn a_piece_can_save_only_what_the_next_longest_path_leaves() {
        let (graph, end) = diamond();
        let path = graph.path(end);
        let names: Vec<_> = path.iter().map(|id| graph.get(*id).unwrap().data).collect();
        assert_eq!(names, ["start", "long", "end"]);
        assert_eq!(graph.potentials(&path), [2, 3, 5]);
    }

    #[test]
    fn an_end_is_measured_again_with_other_durations() {
        let (graph, end) = diamond();
        let same = graph.ends_with(Activity::elapsed);
        assert_eq!(same[end], 17);
        let without_long = graph.ends_with(|activity| match activity.data {
            "long" => 0,
            _ => activity.elapsed(),
        });
        assert_eq!(without_long[end], 14);
    }

    #[test]
    fn potentials_equal_what_a_measurement_without_the_piece_saves() {
        let mut random = 88_172_645_463_325_252_u64;
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        for _ in 0..500 {
            let mut graph = Graph::default();
            let count = 2 + next(12) as usize;
            for id in 0..count {
                let after: Vec<usize> = (0..id).filter(|_| next(3) == 0).collect();
                let end = graph.ready(&after) + next(10);
                graph.add(id, end, &after);
            }
            let to = count - 1;
            let path = graph.path(to);
            let potentials = graph.potentials(&path);
            for (piece, potential) in path.iter().zip(potentials) {
                let without = graph.ends_with(|activity| match activity.data == *piece {
                    true => 0,
                    false => activity.elapsed(),
                });
                assert_eq!(potential, graph.end(to) - without[to]);
            }
        }
    }
}
