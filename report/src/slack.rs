//! How much longer each cell could have taken without delaying the end of its run.
//!
//! A cell that ended early has slack, unless another cell waited for its slot: then what it could lose is what that cell
//! could lose. Which cell took over a slot isn't recorded; the next start on the same agent after a cell's end counts.

use super::view::{CellView, RunView};
use phalanx_shared::time::Timestamp;
use std::collections::HashMap;

/// When a cell held a slot of an agent: the times of its newest attempt.
struct Held {
    cell: usize,
    from: Timestamp,
    to: Timestamp,
}

/// Returns the slack of each cell of a finished run in microseconds; `None` for a cell that never ran. Takes O(n log n)
/// for n cells.
pub fn slacks(view: &RunView) -> Vec<Option<u64>> {
    let mut slacks = vec![None; view.cells.len()];
    let Some(end) = view.finished else {
        return slacks;
    };
    for held in by_agent(view).into_values() {
        for (cell, slack) in of_agent(held, end) {
            if let Some(known) = slacks.get_mut(cell) {
                *known = Some(slack);
            }
        }
    }
    slacks
}

fn by_agent(view: &RunView) -> HashMap<&str, Vec<Held>> {
    let mut by_agent: HashMap<&str, Vec<Held>> = HashMap::new();
    for (cell, of) in view.cells.iter().enumerate() {
        let Some((agent, from, to)) = newest(of) else {
            continue;
        };
        by_agent
            .entry(agent)
            .or_default()
            .push(Held { cell, from, to });
    }
    by_agent
}

fn newest(cell: &CellView) -> Option<(&str, Timestamp, Timestamp)> {
    let attempt = cell.newest()?;
    Some((&attempt.agent, attempt.started?, attempt.finished?))
}

/// Returns the slack of each cell that one agent ran.
fn of_agent(mut held: Vec<Held>, end: Timestamp) -> Vec<(usize, u64)> {
    // From the last start to the first: a cell's slack depends on those that start after its end.
    held.sort_by_key(|held| std::cmp::Reverse(held.from));
    // Cells that ended, the latest last: each start takes over the slot that became free last before it.
    let mut ended: Vec<usize> = (0..held.len()).collect();
    ended.sort_by_key(|index| held.get(*index).map(|held| held.to));
    let mut heir: Vec<Option<usize>> = vec![None; held.len()];
    let mut starts: Vec<usize> = (0..held.len()).collect();
    starts.reverse();
    let mut free = Vec::new();
    let mut next = ended.into_iter().peekable();
    for start in starts {
        let Some(from) = held.get(start).map(|held| held.from) else {
            continue;
        };
        while let Some(index) =
            next.next_if(|index| held.get(*index).is_some_and(|held| held.to <= from))
        {
            free.push(index);
        }
        if let Some(before) = free.pop().and_then(|index| heir.get_mut(index)) {
            *before = Some(start);
        }
    }
    let mut slacks: Vec<u64> = vec![0; held.len()];
    for index in 0..held.len() {
        let Some(this) = held.get(index) else {
            continue;
        };
        let own = micros(this.to, end);
        let of_heir = heir.get(index).copied().flatten().and_then(|heir| {
            let gap = micros(this.to, held.get(heir)?.from);
            Some(slacks.get(heir)?.saturating_add(gap))
        });
        if let Some(slack) = slacks.get_mut(index) {
            *slack = of_heir.map_or(own, |of_heir| of_heir.min(own));
        }
    }
    held.iter()
        .zip(slacks)
        .map(|(held, slack)| (held.cell, slack))
        .collect()
}

fn micros(from: Timestamp, to: Timestamp) -> u64 {
    super::view::micros(to.since(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(times: &[(i64, i64)]) -> Vec<Held> {
        let of = |(cell, (from, to)): (usize, &(i64, i64))| Held {
            cell,
            from: Timestamp(*from),
            to: Timestamp(*to),
        };
        times.iter().enumerate().map(of).collect()
    }

    fn slacks(times: &[(i64, i64)], end: i64) -> Vec<u64> {
        let mut slacks = of_agent(held(times), Timestamp(end));
        slacks.sort_unstable();
        slacks.into_iter().map(|(_, slack)| slack).collect()
    }

    #[test]
    fn a_cell_that_ends_early_has_slack_up_to_the_end_of_the_run() {
        assert_eq!(slacks(&[(0, 40), (0, 100)], 100), [60, 0]);
    }

    #[test]
    fn a_cell_whose_slot_another_cell_takes_has_that_cells_slack_and_the_gap() {
        assert_eq!(slacks(&[(0, 40), (42, 100), (0, 90)], 100), [2, 0, 10]);
        // Three in a row, then a shorter one beside them.
        assert_eq!(
            slacks(&[(0, 30), (30, 60), (60, 95), (0, 20)], 100),
            [5, 5, 5, 80]
        );
    }

    #[test]
    fn nothing_ran() {
        assert!(slacks(&[], 100).is_empty());
    }
}
